"""Code of the tracking command: prompts, the page, tracking a video or a folder to files."""
