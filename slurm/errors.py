"""The error that tells users of a mistake in one line. Any other exception is a bug of ours."""


class ClusterError(ValueError):
    """A mistake in the user's input; the message names value, limit and place."""
