"""Training: schedule, checkpoints, processes, monitor, and the loop over them in `trainer.py`."""
