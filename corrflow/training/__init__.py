"""Training: `trainer.py` has the loop and `config.py` its settings; each other file does one part
of the loop's work, which its name tells."""
