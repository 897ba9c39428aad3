"""Reads back from the masks and the table what a tracking found in each frame. What it was made
from is in `provenance.py`."""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corrflow.errors import InputError
from corrflow.files import content_digest
from corrflow.pictures import is_white, read_mask
from corrflow.propagation import TrackedPoints
from corrflow.tracking.mask_tracker import MOST_LABELS, FrameMasks
from corrflow.tracking.plan import changed_marks, objects_of
from corrflow.tracking.point_tracker import from_rows, nowhere
from corrflow.tracking.provenance import Provenance, numbers_of

Rows = list[dict[str, Any]]  # the rows of one frame in NAME.json


class PreviousMasks(Mapping[int, FrameMasks]):
    """Tracked objects by frame index, from the folder of masks and the table."""

    def __init__(
        self,
        rows: Sequence[Rows],
        numbers: Mapping[int, int],
        paths: Sequence[Path],
    ) -> None:
        """Read the table's rows, and see which masks exist.

        Args:
            rows: of each frame, from the table.
            numbers: the current number of each object; objects that have none are left out.
            paths: of the masks, some of which may be missing.

        Raises:
            KeyError, TypeError, ValueError: the rows are not as they were written.
        """
        self.paths = paths
        self.confidence = [
            {numbers[n]: float(row["confidence"]) for row in r if (n := row["object"]) in numbers}
            for r in rows
        ]
        self.boxes = {
            index: {
                numbers[row["object"]]: (row["x0"], row["y0"], row["x1"], row["y1"])
                for row in frame
                if row["object"] in numbers and row["area"]
            }
            for index, frame in enumerate(rows)
        }
        self.table = np.zeros(MOST_LABELS, np.uint8)
        self.table[list(numbers)] = list(numbers.values())
        self.indices = {index: None for index, path in enumerate(paths) if path.is_file()}

    def painted(self, provenance: Provenance, shape: tuple[int, int]) -> dict[int, frozenset[int]]:
        """The objects in each frame that are not as they were written, with their earlier numbers;
        raises InputError as `read_edited` does."""
        painted, known = {}, numbers_of(provenance.given)
        for index, digest in enumerate(provenance.masks.values()):
            if index in self.indices and content_digest(self.paths[index]) != digest:
                objects = self.read_edited(index, shape, known)
                changes = changed_marks({index: provenance.shapes[index]}, {index: objects})
                painted[index] = changes.get(index, frozenset())
        return painted

    def read_edited(self, index: int, shape: tuple[int, int], known: Set[int]) -> dict[int, str]:
        """Digests of the objects in a mask that was edited, by their number in the mask.

        Raises:
            InputError: the mask can't be read, has another size than the video, has an unknown
                object, or has lost the objects' numbers.
        """
        path = self.paths[index]
        labels_hw = read_mask(path)
        where = f"mask {path}: was edited"
        if labels_hw.shape != shape:
            height, width = labels_hw.shape
            raise InputError(f"{where}, is {width}x{height}: expected {shape[1]}x{shape[0]}")
        objects, numbers = objects_of(labels_hw), ", ".join(map(str, sorted(known)))
        if len(known) > 1 and objects.keys() == {1} and is_white(path, labels_hw):
            raise InputError(
                f"{where}, is white on black, which does not tell objects apart: expected some of "
                f"{numbers}, in an image with a palette as it was written"
            )
        if unknown := objects.keys() - known:
            raise InputError(
                f"{where}, has object {min(unknown)}: expected some of {numbers}, in an image with "
                "a palette as it was written"
            )
        return objects

    def __getitem__(self, index: int) -> FrameMasks:
        confidence = np.zeros(MOST_LABELS, np.float32)
        for number, value in self.confidence[index].items():
            confidence[number] = value
        return FrameMasks(self.table[read_mask(self.paths[index])], confidence)

    def __contains__(self, index: object) -> bool:
        return index in self.indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class PreviousPoints(Mapping[int, TrackedPoints]):
    """Tracked points by frame index, from the table. Points that were added since are NaN."""

    def __init__(self, rows: Sequence[Rows], numbers: Mapping[int, int], count: int) -> None:
        """Read the table's rows.

        Args:
            rows: of each frame, from the table.
            numbers: the current number of each point; points that have none are left out.
            count: the current number of points.

        Raises:
            KeyError, TypeError, ValueError: the rows are not as they were written.
        """
        self.located = [from_rows(nowhere(count)) for _ in rows]
        for located, frame in zip(self.located, rows, strict=True):
            for row in frame:
                if row["point"] not in numbers:
                    continue
                number = numbers[row["point"]] - 1
                if row["x"] is not None:
                    located.xy[number] = torch.tensor([float(row["x"]), float(row["y"])])
                located.visible[number] = bool(row["visible"])
                located.confidence[number] = float(row["confidence"])

    def __getitem__(self, index: int) -> TrackedPoints:
        return self.located[index]

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and 0 <= index < len(self)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self.located)
