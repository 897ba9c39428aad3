"""Resizes frames, masks and points between a video's own size and the size at which it is
tracked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.errors import InputError
from corrflow.pictures import Pixels

SMALLEST_SIDE = 32  # smallest side of a video that can be tracked, in pixels
WIDEST = 4  # a frame is enlarged to at most this many times its short side in length
Points = NDArray[np.float32]  # [k, 2]: x, y in pixels


def check_short_side(group: str, short_side: int) -> None:
    """Raise InputError, which names the `group` of settings, for a short side that nothing can be
    tracked at."""
    if short_side and short_side < SMALLEST_SIDE:
        expected = f"expected at least {SMALLEST_SIDE}, or 0 for the video's own size"
        raise InputError(f"{group}: size {short_side}: {expected}")


@dataclass(frozen=True)
class Scale:
    """The video's size and the size at which it is tracked, `(width, height)` in pixels."""

    video: tuple[int, int]
    tracked: tuple[int, int]

    @classmethod
    def of(cls, width: int, height: int, short_side: int) -> "Scale":
        """Scale a video to a short side, or not at all if that is 0.

        A smaller video is enlarged, because cells have a fixed size in pixels, and too few cells
        resolve little (docs/results.md). A long strip is enlarged less, for the sake of memory.
        """
        factor = short_side / min(width, height) if short_side else 1.0
        factor = min(factor, max(1.0, WIDEST * short_side / max(width, height)))
        return cls((width, height), (max(round(width * factor), 1), max(round(height * factor), 1)))

    def frame(self, pixels_hw3: Pixels) -> Pixels:
        """Resize a frame to the tracked size."""
        enlarges = self.tracked[0] > self.video[0]
        how = Image.Resampling.BICUBIC if enlarges else Image.Resampling.BOX
        return resized(pixels_hw3, self.tracked, how)

    def mask(self, labels_hw: Pixels) -> Pixels:
        """Resize a mask to the tracked size."""
        return resized(labels_hw, self.tracked, Image.Resampling.NEAREST)

    def mask_back(self, labels_hw: Pixels) -> Pixels:
        """Resize a tracked mask to the video's size."""
        return resized(labels_hw, self.video, Image.Resampling.NEAREST)

    def points(self, xy: Points) -> Points:
        """Convert points from the video's size to the tracked size; (0, 0) is the centre of the top
        left pixel."""
        if self.tracked == self.video:
            return xy
        # the centre of a corner pixel of the video may lie beyond that of a smaller frame
        inside = np.subtract(self.tracked, 1)
        return np.clip((xy + 0.5) * self.factors - 0.5, 0, inside).astype(np.float32)

    def points_back(self, xy: Points) -> Points:
        """Convert points from the tracked size to the video's size."""
        return (
            xy
            if self.tracked == self.video
            else ((xy + 0.5) / self.factors - 0.5).astype(np.float32)
        )

    @property
    def factors(self) -> NDArray[np.float64]:
        """The ratios of tracked to video size, for width and height."""
        return np.divide(self.tracked, self.video)


def resized(picture: Pixels, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    """Resize uint8 `[H, W]` or `[H, W, 3]` to `(width, height)`, if it has another size."""
    if picture.shape[:2] == size[::-1]:
        # torch warns about arrays that are not writable
        return picture if picture.flags.writeable else picture.copy()
    return np.array(Image.fromarray(picture).resize(size, how))
