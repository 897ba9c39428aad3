"""Converts masks to polygons and back. A pixel belongs to a polygon if its centre is inside."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations.optional import needed

Ring = NDArray[np.float64]
"""Corners x, y of a closed line, `[n, 2]`; the last is joined to the first."""
Mask = NDArray[np.bool_]
SMALL = 8  # a part is simplified if its area is at least (SMALL * tolerance) squared


@dataclass(frozen=True)
class Polygon:
    """One part of an object, with its holes."""

    outer: Ring
    holes: tuple[Ring, ...] = ()

    @property
    def rings(self) -> tuple[Ring, ...]:
        """The outer ring and those of the holes."""
        return (self.outer, *self.holes)


def fill_rings(rings: list[Ring] | tuple[Ring, ...], height: int, width: int) -> Mask:
    """The pixels `[H, W]` whose centres are inside an odd number of rings; those in a hole are
    inside two. Rings are cut off at the edges of the image."""
    toggles = np.zeros((height, width + 1), dtype=np.int64)
    for ring in rings:
        ends = np.roll(ring, -1, axis=0)
        for (x0, y0), (x1, y1) in zip(ring.tolist(), ends.tolist(), strict=True):
            low, high = sorted((y0, y1))
            # half open, so that a corner counts for one of its two edges only
            rows = np.arange(max(int(np.ceil(low - 0.5)), 0), min(int(np.ceil(high - 0.5)), height))
            crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0)) if len(rows) else rows
            columns = np.ceil(crossings - 0.5).clip(0, width).astype(np.int64)
            toggles[rows, columns] += 1
    return np.asarray(toggles.cumsum(axis=1)[:, :width] % 2 == 1)


def outline(mask_hw: Mask, tolerance: float) -> list[Polygon]:
    """The parts of a mask, each with its holes; an empty mask has none.

    Args:
        mask_hw: `[H, W]`.
        tolerance: how far lines may be moved to simplify them, in pixels; with 0 the polygons hold
            exactly the mask's pixels.
    """
    contourpy = needed("contourpy")
    padded = np.pad(mask_hw, 1).astype(np.float64)
    middle = 0.5 - 1  # the centre of the first pixel, less the padding
    axes = [np.arange(n) + middle for n in padded.shape[::-1]]
    contours = contourpy.contour_generator(*axes, padded, fill_type="OuterOffset")
    parts = []
    for points, offsets in zip(*contours.filled(0.5, 2.0), strict=True):
        # contourpy repeats the first corner at the end
        rings = [points[start : end - 1] for start, end in pairwise(offsets)]
        parts.append(simplify(Polygon(rings[0], tuple(rings[1:])), tolerance))
    return parts


def simplify(part: Polygon, tolerance: float) -> Polygon:
    """Reduce the corners of a part, with lines moved by at most `tolerance` pixels and holes kept.
    A part that is hardly larger than the tolerance is not changed, so that it does not vanish."""
    if not tolerance:
        return part
    shapely = needed("shapely")
    exact = shapely.Polygon(part.outer, part.holes)
    if exact.area < (SMALL * tolerance) ** 2:
        return part
    simple = exact.simplify(tolerance, preserve_topology=True)
    return Polygon(corners(simple.exterior), tuple(map(corners, simple.interiors)))


def corners(line: object) -> Ring:
    """The corners of one of shapely's rings, which repeat the first one at the end."""
    return np.asarray(line.coords, dtype=np.float64)[:-1]  # type: ignore[attr-defined]


def single_ring(parts: list[Polygon]) -> Ring:
    """Join all parts and holes into one ring, for formats that can store only one. The ring goes to
    each of them and back along the same line, so these bridges have no area."""
    first, *others = [ring for part in parts for ring in part.rings]
    joined = first
    for ring in others:
        distances = ((joined[:, None] - ring[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        around = np.concatenate([np.roll(ring, -there, axis=0), ring[there : there + 1]])
        joined = np.concatenate([joined[: here + 1], around, joined[here:]])
    return joined


def box_ring(x0: float, y0: float, x1: float, y1: float) -> Ring:
    """A box, given by two opposite corners."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def ellipse_ring(x: float, y: float, radius_x: float, radius_y: float) -> Ring:
    """An ellipse around (x, y), as a polygon of 64 corners."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)
