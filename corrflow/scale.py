"""Between a video's own size and the one at which it is tracked: frames, masks, places."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.pictures import Pixels

SMALLEST_SIDE = 32  # of a video that is tracked, in pixels
Points = NDArray[np.float32]  # [k, 2]: x, y in pixels


@dataclass(frozen=True)
class Scale:
    """The video's size and the one it is tracked at, `(width, height)` in pixels."""

    video: tuple[int, int]
    tracked: tuple[int, int]

    @classmethod
    def of(cls, width: int, height: int, short_side: int) -> "Scale":
        """By the short side to track at, 0 for the video's own. A smaller video is enlarged: cells
        have a fixed number of pixels, and few of them show little (docs/results.md)."""
        factor = short_side / min(width, height) if short_side else 1.0
        return cls((width, height), (max(round(width * factor), 1), max(round(height * factor), 1)))

    def frame(self, pixels_hw3: Pixels) -> Pixels:
        """A frame to track."""
        enlarges = self.tracked[0] > self.video[0]
        how = Image.Resampling.BICUBIC if enlarges else Image.Resampling.BOX
        return resized(pixels_hw3, self.tracked, how)

    def mask(self, labels_hw: Pixels) -> Pixels:
        """A mask to track."""
        return resized(labels_hw, self.tracked, Image.Resampling.NEAREST)

    def mask_back(self, labels_hw: Pixels) -> Pixels:
        """A tracked mask at the video's size."""
        return resized(labels_hw, self.video, Image.Resampling.NEAREST)

    def points(self, xy: Points) -> Points:
        """Places in the video to places in the tracked frame; 0, 0 is the centre of the first
        pixel."""
        if self.tracked == self.video:
            return xy
        # a video's corner would come to lie beyond that of a smaller frame
        inside = np.subtract(self.tracked, 1)
        return np.clip((xy + 0.5) * self.factors - 0.5, 0, inside).astype(np.float32)

    def points_back(self, xy: Points) -> Points:
        """And back."""
        return (
            xy
            if self.tracked == self.video
            else ((xy + 0.5) / self.factors - 0.5).astype(np.float32)
        )

    @property
    def factors(self) -> NDArray[np.float64]:
        """Tracked size over the video's, of width and height."""
        return np.divide(self.tracked, self.video)


def resized(picture: Pixels, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    """uint8 `[H, W]` or `[H, W, 3]` at another width and height; as it is at its own."""
    if picture.shape[:2] == size[::-1]:
        # torch takes what can be written to
        return picture if picture.flags.writeable else picture.copy()
    return np.array(Image.fromarray(picture).resize(size, how))
