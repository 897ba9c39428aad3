"""Training: `trainer.py` is the loop; `config.py` what it is told; the other files each a thing
that it does, by their names."""
