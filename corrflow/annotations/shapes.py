"""The shapes that all formats are read to, which of them are one object, and how they are painted
as labels. No files are read here."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations.polygons import Mask, Ring, fill_rings
from corrflow.errors import InputError

MOST_OBJECTS = 254  # an indexed PNG has 256 indices: these, the background and PASCAL VOC's void
FARTHEST = 1_000_000  # pixels from the frame's corner; a larger coordinate means a damaged file


@dataclass(frozen=True)
class NamedObject:
    """One object of a video."""

    name: str
    """The class, such as `person`; several objects may have the same name."""
    key: str = ""
    """The id that tells it from others of the same name in its file; empty if it has none."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"label {self.name!r}: expected a name")

    def keypoint(self, name: str, count: int) -> "NamedObject":
        """The object for one of its `count` keypoints; a single keypoint has the object's name."""
        if count == 1:
            return self
        return NamedObject(f"{self.name} {name}", self.key and f"{self.key} {name}")

    def __str__(self) -> str:
        return f"{self.name} ({self.key})" if self.key not in ("", self.name) else self.name


@dataclass(frozen=True)
class Shape:
    """One shape in one frame: rings, a bitmap, or a point."""

    frame: int | str
    """The frame index from 0, or the name of the image without suffix."""
    object: NamedObject
    rings: tuple[Ring, ...] = ()
    """Pixels inside an odd number of these rings belong to the object."""
    bitmap: Mask | None = None
    """Pixels `[h, w]`, of a part of the frame or of all of it."""
    corner: tuple[int, int] = (0, 0)
    """Column and row of the bitmap's first pixel in the frame."""
    is_filled: bool = False
    """Whether the file had polygons, from which the bitmap was filled."""
    point: tuple[float, float] | None = None
    """x, y, if the shape is a point."""
    z_order: int = 0
    """Shapes with a higher value lie on top."""

    def __post_init__(self) -> None:
        for ring in self.rings:
            if ring.ndim != 2 or ring.shape[1] != 2:
                raise ValueError(f"corners {ring.tolist()}: expected x and y of each")
            check_coordinates(ring)
        if self.point is not None:
            check_coordinates(np.array([self.point]))

    @property
    def box_area(self) -> float | None:
        """The area, in pixels, if the shape is an axis-aligned box; else None."""
        if len(self.rings) != 1 or self.rings[0].shape != (4, 2):
            return None
        sides = np.diff(self.rings[0], axis=0, append=self.rings[0][:1])
        if np.count_nonzero(sides, axis=1).max() > 1:
            return None
        return float(np.abs(sides[:2]).sum(axis=0).prod())

    def mask(self, height: int, width: int) -> Mask:
        """The pixels of the shape, `[H, W]`; what is outside of the frame is cut off."""
        if self.bitmap is None:
            return fill_rings(self.rings, height, width)
        mask_hw = np.zeros((height, width), dtype=bool)
        left, top = self.corner
        rows, columns = (
            slice(max(first, 0), max(first + length, 0))
            for first, length in zip((top, left), self.bitmap.shape, strict=True)
        )
        inside = self.bitmap[max(-top, 0) :, max(-left, 0) :]
        target = mask_hw[rows, columns]
        target[:] = inside[: target.shape[0], : target.shape[1]]
        return mask_hw


def check_coordinates(xy_k2: Ring) -> None:
    """ValueError for the first x, y that is not finite or too large."""
    wrong_k2 = xy_k2[~(np.abs(xy_k2) < FARTHEST).all(axis=1)]
    if len(wrong_k2):
        raise ValueError(f"point {wrong_k2[0].tolist()}: expected x and y in pixels")


def number_objects(shapes: Sequence[Shape], where: str) -> tuple[list[Shape], list[NamedObject]]:
    """Give every shape's object a key, and list the objects in the order in which they appear; the
    first is number 1.

    Shapes with the same name and key are one object. Shapes of one name without a key are separate
    objects if they are all in one frame. If they are in several frames, they are one object, which
    may then be only once in each frame.

    Args:
        shapes: all shapes of a file or folder.
        where: what errors call it.

    Raises:
        InputError: a frame has two shapes of one name without a key, and other frames have more of
            that name, so it is not clear which is which. Or there are more than 254 objects.
    """
    anonymous = [shape for shape in shapes if not shape.object.key]
    frames = {name: set[int | str]() for name in {shape.object.name for shape in anonymous}}
    for shape in anonymous:
        frames[shape.object.name].add(shape.frame)
    in_frame = Counter((shape.frame, shape.object.name) for shape in anonymous)
    seen: Counter[tuple[int | str, str]] = Counter()
    keyed = []
    for shape in shapes:
        name, key = shape.object.name, (shape.frame, shape.object.name)
        if not shape.object.key:
            if in_frame[key] > 1 and len(frames[name]) > 1:
                raise InputError(
                    f"{where}: frame {shape.frame}: {in_frame[key]} shapes {name!r} without an "
                    "id, and more of that name in other frames: expected a track or group id, "
                    "which tells which is which"
                )
            seen[key] += 1
            number = f"-{seen[key]}" if in_frame[key] > 1 else ""
            shape = replace(shape, object=NamedObject(name, f"{name}{number}"))
        keyed.append(shape)
    objects = list(dict.fromkeys(shape.object for shape in keyed))
    if len(objects) > MOST_OBJECTS:
        raise InputError(f"{where}: {len(objects)} objects: expected at most {MOST_OBJECTS}")
    return keyed, objects


def paint(
    shapes: Iterable[Shape],
    objects: Sequence[NamedObject],
    height: int,
    width: int,
    where: str = "labels",
) -> NDArray[np.uint8]:
    """Paint the shapes of one frame as labels `[H, W]`, the numbers of the objects.

    Later shapes lie on top of earlier ones. Boxes, which hold more than their object, lie under
    outlines, and larger boxes under smaller ones. An object that others would hide lies on top of
    them, since nobody labels what can't be seen. A higher `z_order` takes precedence over all this.

    Raises:
        InputError: a shape has no pixel in the frame, or an object is hidden entirely by others.
    """
    layers = sorted(shapes, key=box_order)
    labels_hw = paint_layers(layers, objects, height, width, where)
    hidden = hidden_objects(layers, objects, labels_hw)
    if hidden:
        layers.sort(key=lambda shape: (shape.z_order, shape.object in hidden))
        labels_hw = paint_layers(layers, objects, height, width, where)
        hidden = hidden_objects(layers, objects, labels_hw)
    for shape in layers:
        if shape.object in hidden:
            above = objects[labels_hw[shape.mask(height, width)][0] - 1]
            raise InputError(
                f"{where}: frame {shape.frame}: {shape.object}: is hidden by {above}: expected "
                "objects that each have a visible pixel"
            )
    return labels_hw


def box_order(shape: Shape) -> tuple[int, bool, float]:
    """Sort key for painting: by `z_order`, then boxes from the largest to the smallest, then the
    other shapes."""
    area = shape.box_area
    return shape.z_order, area is None, -(area or 0.0)


def paint_layers(
    shapes: Iterable[Shape], objects: Sequence[NamedObject], height: int, width: int, where: str
) -> NDArray[np.uint8]:
    """Paint labels `[H, W]` of shapes, which are given from the lowest to the highest."""
    labels_hw = np.zeros((height, width), dtype=np.uint8)
    for shape in shapes:
        mask_hw = shape.mask(height, width)
        if not mask_hw.any():
            raise InputError(
                f"{where}: frame {shape.frame}: {shape.object}: has no pixel inside the video of "
                f"{width}x{height}"
            )
        labels_hw[mask_hw] = objects.index(shape.object) + 1
    return labels_hw


def hidden_objects(
    shapes: Iterable[Shape], objects: Sequence[NamedObject], labels_hw: NDArray[np.uint8]
) -> set[NamedObject]:
    """The objects of the shapes that have no pixel in the labels."""
    return {shape.object for shape in shapes} - {objects[n - 1] for n in np.unique(labels_hw) if n}
