"""What a user marks, followed through a video of any length, and the files that come of it. How
labels hop is in `propagation/`."""
