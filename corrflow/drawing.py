"""Draws tracked points as dots with tails, and boxes of objects, over frames. `pictures.overlay`
tints the pixels of objects."""

from collections import deque

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from corrflow.masks import PALETTE
from corrflow.pictures import Pixels

TAIL = 12  # length of a dot's tail, in frames
DOT = 1 / 75  # radius of a dot, as a fraction of the frame's short side
WHITE = (255, 255, 255)
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are exclusive


def color(number: int) -> tuple[int, int, int]:
    """The palette's colour for an object or point, numbered from 1."""
    index = (number - 1) % 255 + 1
    return PALETTE[3 * index], PALETTE[3 * index + 1], PALETTE[3 * index + 2]


def mask_to_box(mask_hw: NDArray[np.bool_]) -> Box | None:
    """The smallest box around the pixels of a mask; None if it is empty."""
    columns, rows = np.flatnonzero(mask_hw.any(axis=0)), np.flatnonzero(mask_hw.any(axis=1))
    return (
        (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        if len(rows)
        else None
    )


def line_width(frame_hw3: Pixels) -> int:
    """A line width, in pixels, that suits the frame's size."""
    return max(round(int(min(frame_hw3.shape[:2])) * DOT / 2), 1)


def draw_boxes(frame_hw3: Pixels, boxes: dict[int, Box | None]) -> Pixels:
    """Draw the box of each object that has one."""
    image, width = Image.fromarray(frame_hw3), 2 * line_width(frame_hw3)
    for number, box in boxes.items():
        if box:
            ImageDraw.Draw(image).rectangle(
                (box[0], box[1], box[2] - 1, box[3] - 1), outline=color(number), width=width
            )
    return np.array(image)


class Dots:
    """Draws points frame by frame, and remembers their positions for the tails."""

    def __init__(self) -> None:
        self.past: deque[NDArray[np.float32]] = deque(maxlen=TAIL)

    def draw(
        self, frame_hw3: Pixels, xy_k2: NDArray[np.float32], visible_k: NDArray[np.bool_]
    ) -> Pixels:
        """Draw the points of a frame: filled if visible, hollow if hidden, not at all if NaN."""
        self.past.append(xy_k2)
        image = Image.fromarray(frame_hw3)
        pen = ImageDraw.Draw(image)
        width = line_width(frame_hw3)
        radius = max(min(frame_hw3.shape[:2]) * DOT, 2.0)
        for number, (x, y) in enumerate(xy_k2, 1):
            tail = [
                (float(at[number - 1, 0]), float(at[number - 1, 1]))
                for at in self.past
                if not np.isnan(at[number - 1]).any()
            ]
            if np.isnan(x) or np.isnan(y):
                continue
            pen.line(tail, fill=color(number), width=width, joint="curve")
            draw_dot(
                pen, float(x), float(y), radius, color(number), hollow=not visible_k[number - 1]
            )
        return np.array(image)


def draw_dot(
    pen: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius: float,
    paint: tuple[int, int, int],
    *,
    hollow: bool,
) -> None:
    """Draw a disk, or a ring if `hollow`, with a white edge."""
    edge = radius * 1.35
    if hollow:
        pen.ellipse(
            (x - edge, y - edge, x + edge, y + edge), outline=WHITE, width=max(round(radius / 4), 1)
        )
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            outline=paint,
            width=max(round(radius / 3), 1),
        )
    else:
        pen.ellipse((x - edge, y - edge, x + edge, y + edge), fill=WHITE)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint)
