"""The stamps of a stream where they jump back, as in recordings that were joined into one file: as
a player shows it, they go on."""


class Clock:
    """Puts the stamps of one stream, in the order in which they are shown, on one time line."""

    def __init__(self, least: int) -> None:
        """Args: by how many ticks they must at least go back, to be of another recording."""
        self.least, self.shift = least, 0
        self.last: int | None = None

    def time_of(self, stamp: int, step: int) -> int:
        """A stamp as if there was one recording; `step` ticks behind the last one, where another
        begins."""
        time = stamp + self.shift
        if self.last is not None and time <= self.last - self.least:
            self.shift += self.last + step - time
            time = self.last + step
        self.last = time
        return time
