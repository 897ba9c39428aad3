"""Settings for which frames of a video are taken, and at what size. `decode.py` applies them."""

import math
from dataclasses import dataclass

FOLDER_FPS = 25.0  # frame rate to assume for folders; the common rate of Kinetics and OxUvA


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken: at a rate by their time stamps, or every n-th frame."""

    fps: float
    """Frames to take per second; infinity takes all. A slower video gives all of its frames."""
    every: int = 0
    """Take every n-th frame instead; 0 takes frames by time."""
    folder_fps: float = FOLDER_FPS
    """Frame rate to assume for folders of frames."""

    @property
    def all(self) -> bool:
        """Whether all frames are taken."""
        return self.every == 1 or (not self.every and math.isinf(self.fps))


@dataclass(frozen=True)
class Sizing:
    """The size at which frames are stored."""

    short_side: int = 0
    """Short side in pixels. Larger frames are reduced to it, smaller ones keep their size; 0 keeps
    all sizes."""
    squash: tuple[int, int] | None = None
    """Width and height to which every frame is squashed instead."""

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at which a frame of `width` x `height` is stored."""
        if self.squash:
            return self.squash
        factor = self.short_side / min(width, height)
        return (
            (max(round(width * factor), 1), max(round(height * factor), 1))
            if 0 < factor < 1
            else (width, height)
        )
