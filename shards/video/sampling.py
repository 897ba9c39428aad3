"""Which frames of a video are taken, and at what size. Pure; `decode.py` does it."""

import math
from dataclasses import dataclass

FOLDER_FPS = 25.0  # frame folders don't say theirs; Kinetics' and OxUvA's common rate


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken: at a rate by their time stamps, or every n-th."""

    fps: float
    """Frames a second; infinite: all. A slower video gives all of its frames."""
    every: int = 0
    """Every n-th frame instead; 0: by time."""
    folder_fps: float = FOLDER_FPS
    """Rate that folders of frames are taken to have."""

    @property
    def all(self) -> bool:
        """Whether no frame is left out."""
        return self.every == 1 or (not self.every and math.isinf(self.fps))


@dataclass(frozen=True)
class Sizing:
    """How large frames are stored."""

    short_side: int = 0
    """Pixels; larger frames are shrunk to it, smaller ones stay as they are; 0: all stay."""
    squash: tuple[int, int] | None = None
    """Width and height to force instead."""

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to store a frame of `width` x `height` at."""
        if self.squash:
            return self.squash
        factor = self.short_side / min(width, height)
        return (
            (max(round(width * factor), 1), max(round(height * factor), 1))
            if 0 < factor < 1
            else (width, height)
        )
