"""What a tool's file holds, as all formats have it in common; which shapes are one object; and the
labels that they make. No files."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations.polygons import Mask, Ring, fill_rings
from corrflow.errors import InputError

MOST_OBJECTS = 254  # what an indexed PNG can hold besides the background and PASCAL VOC's void


@dataclass(frozen=True)
class NamedObject:
    """One object of a video."""

    name: str
    """Its class, as `person`; several objects may have the same."""
    key: str = ""
    """What tells it from others of its name in the file that it is from; empty if it had none."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"label {self.name!r}: expected a name")

    def keypoint(self, name: str, count: int) -> "NamedObject":
        """One of its keypoints, of which there are so many; one that is alone is called as it."""
        if count == 1:
            return self
        return NamedObject(f"{self.name} {name}", self.key and f"{self.key} {name}")

    def __str__(self) -> str:
        return f"{self.name} ({self.key})" if self.key not in ("", self.name) else self.name


@dataclass(frozen=True)
class Shape:
    """One shape of one frame: rings, a bitmap, or a point."""

    frame: int | str
    """The frame's place from 0, or what its image is called, without suffix."""
    object: NamedObject
    rings: tuple[Ring, ...] = ()
    """Inside an odd number of these it is the object."""
    bitmap: Mask | None = None
    """Pixels `[h, w]`, or as many of the frame as there are."""
    corner: tuple[int, int] = (0, 0)
    """Column and row of the bitmap's first pixel."""
    is_filled: bool = False
    """Whether the bitmap was polygons in the file."""
    point: tuple[float, float] | None = None
    """x, y of what is only a point."""
    z_order: int = 0
    """What has a higher one lies on top."""

    def __post_init__(self) -> None:
        for ring in self.rings:
            if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
                raise ValueError(f"corners {ring.tolist()}: expected x and y of each")
        if self.point is not None and not np.isfinite(self.point).all():
            raise ValueError(f"point {self.point}: expected x and y")

    @property
    def box_area(self) -> float | None:
        """Of a box along the picture's sides, in pixels; None if it is none."""
        if len(self.rings) != 1 or self.rings[0].shape != (4, 2):
            return None
        sides = np.diff(self.rings[0], axis=0, append=self.rings[0][:1])
        if np.count_nonzero(sides, axis=1).max() > 1:
            return None
        return float(np.abs(sides[:2]).sum(axis=0).prod())

    def mask(self, height: int, width: int) -> Mask:
        """Its pixels `[H, W]`; what is outside of the frame is cut off."""
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


def number_objects(shapes: Sequence[Shape], where: str) -> tuple[list[Shape], list[NamedObject]]:
    """Shapes whose objects all have keys, and the objects in the order in which they appear: the
    first is number 1.

    What has a key is one object with all else of its name and key. Shapes without are each an
    object of their own if a file has them in one frame only; if in several, those of a name are one
    object, which is then in no frame twice.

    Raises:
        InputError: two shapes of a name in one frame, neither of them with a key, and others of
            their name elsewhere: which is which can't be told. Or more than 254 objects.
    """
    anonymous = [shape for shape in shapes if not shape.object.key]
    frames = {name: set[int | str]() for name in {shape.object.name for shape in anonymous}}
    for shape in anonymous:
        frames[shape.object.name].add(shape.frame)
    in_frame = Counter((shape.frame, shape.object.name) for shape in anonymous)
    seen: Counter[tuple[int | str, str]] = Counter()
    keyed = []
    for shape in shapes:
        name, place = shape.object.name, (shape.frame, shape.object.name)
        if not shape.object.key:
            if in_frame[place] > 1 and len(frames[name]) > 1:
                raise InputError(
                    f"{where}: frame {shape.frame}: {in_frame[place]} shapes {name!r} without an "
                    "id, and more of that name in other frames: expected a track or group id, "
                    "which tells which is which"
                )
            seen[place] += 1
            number = f"-{seen[place]}" if in_frame[place] > 1 else ""
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
    """One frame's shapes as labels `[H, W]` of the objects' numbers.

    What comes later lies on top. Boxes, which hold more than their object, lie under outlines, and
    larger ones under smaller ones. An object that others would hide lies on top of them, as nobody
    labels what can't be seen. A higher `z_order` goes before all of that.

    Raises:
        InputError: a shape has no pixel in the frame, or others hide all of an object.
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
                "objects of which each has a pixel of its own"
            )
    return labels_hw


def box_order(shape: Shape) -> tuple[int, bool, float]:
    """Where a shape comes: boxes first, the largest before all."""
    area = shape.box_area
    return shape.z_order, area is None, -(area or 0.0)


def paint_layers(
    shapes: Iterable[Shape], objects: Sequence[NamedObject], height: int, width: int, where: str
) -> NDArray[np.uint8]:
    """Labels `[H, W]` of shapes from the lowest to the highest."""
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
    """The shapes' objects of which no label is left."""
    return {shape.object for shape in shapes} - {objects[n - 1] for n in np.unique(labels_hw) if n}
