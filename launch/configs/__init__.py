"""The flags of the commands, and named training runs."""
