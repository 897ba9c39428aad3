"""Code that several commands share: flags, a run's configuration, submission to SLURM."""
