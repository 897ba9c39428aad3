"""Training: `trainer.py` is the loop and `config.py` its settings; each other file is one thing
that the loop does, by its name."""
