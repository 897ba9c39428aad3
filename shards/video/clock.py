"""Makes the time stamps of a stream continuous where they jump back, as in recordings that were
joined into one file. Players do the same."""


class Clock:
    """Puts the stamps of one stream, in the order in which they are shown, on one time line."""

    def __init__(self, least: int) -> None:
        """A new recording begins where a stamp is at least `least` ticks smaller than the last."""
        self.least, self.shift = least, 0
        self.last: int | None = None

    def time_of(self, stamp: int, step: int) -> int:
        """The stamp on the common time line; where a new recording begins, `step` ticks after the
        last one."""
        time = stamp + self.shift
        if self.last is not None and time <= self.last - self.least:
            self.shift += self.last + step - time
            time = self.last + step
        self.last = time
        return time
