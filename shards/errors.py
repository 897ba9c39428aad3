"""What the caller did wrong, as one line. Our own bugs are any other exception."""


class DataError(ValueError):
    """A mistake in what the user handed over; the message names value, limit and place."""


class StallError(RuntimeError):
    """Clips that did not come in time: the storage may be slow, or a worker stuck."""
