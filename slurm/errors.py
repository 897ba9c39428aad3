"""What the caller did wrong, as one line. Our own bugs are any other exception."""


class ClusterError(ValueError):
    """A mistake in what the user handed over; the message names value, limit and place."""
