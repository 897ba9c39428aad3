"""What an earlier tracking left beside its video, read back: what it was made from, and what it
found in each frame. Which of it is tracked again is in `plan.py`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from corrflow.pictures import read_mask
from corrflow.propagation import TrackedPoints
from corrflow.tracking.plan import Given
from corrflow.tracking.recording import FrameNames, masks_folder
from corrflow.tracking.tracker import MOST_LABELS, FrameMasks

Frames = list[dict[str, Any]]  # of NAME.json


@dataclass(frozen=True)
class MadeFrom:
    """All that decides what a tracking finds."""

    video: str
    """Digest of its content."""
    weights: str
    """Digest of the model."""
    protocol: str
    size: int
    """Short side at which it is tracked."""
    to_beginning: bool
    """Whether what is first marked in a later frame is shown in earlier ones, too."""
    kind: str
    """Objects or points."""
    names: Mapping[int, str]
    """What each object or point is called, by its number."""
    given: Given
    """What is marked."""
    whole: bool = False
    """Whether the video was tracked to its end."""

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """As JSON gives it, whose keys are strings; KeyError or TypeError if it is another kind of
        thing."""
        names = {int(number): name for number, name in stored["names"].items()}
        given = {
            int(place): {int(number): digest for number, digest in marks.items()}
            for place, marks in stored["given"].items()
        }
        return cls(**{**stored, "names": names, "given": given})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def can_be_corrected(self, now: "MadeFrom") -> bool:
        """Whether a tracking of the same video, in the same way, can take over what this one
        found: objects may have come, and be marked otherwise."""
        same = replace(self, names=now.names, given=now.given, whole=now.whole) == now
        return self.whole and same and self.names.items() <= now.names.items()


def read_earlier(
    out: Path, names: FrameNames, now: MadeFrom
) -> tuple[MadeFrom, Mapping[int, Any]] | None:
    """What a tracking to the same files found, if it can be taken over.

    Args:
        out: the video that is written.
        names: of its frames.
        now: what is to be tracked.

    Returns:
        What it was made from, and by place of the frame FrameMasks or TrackedPoints; None if there
        is nothing, or nothing of use.
    """
    try:
        stored = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        made_from, frames = MadeFrom.from_dict(stored["made_from"]), stored["frames"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # none of ours
    if not made_from.can_be_corrected(now):
        return None
    if now.kind == "points":
        return made_from, EarlierPoints(frames, len(now.names))
    masks = EarlierMasks(frames, masks_folder(out), names)
    return (made_from, masks) if masks.are_there() else None


class EarlierMasks(Mapping[int, FrameMasks]):
    """Objects, from the folder of masks and the table."""

    def __init__(self, frames: Frames, folder: Path, names: FrameNames) -> None:
        self.frames, self.folder, self.names = frames, folder, names

    def path_of(self, place: int) -> Path:
        """A frame's mask."""
        return self.folder / f"{self.names.name(place)}.png"

    def are_there(self) -> bool:
        """Whether no mask has been taken away."""
        return all(self.path_of(place).exists() for place in self)

    def __getitem__(self, place: int) -> FrameMasks:
        confidence = np.zeros(MOST_LABELS, np.float32)
        for row in self.frames[place]["objects"]:
            confidence[row["object"]] = row["confidence"]
        return FrameMasks(read_mask(self.path_of(place)), confidence)

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and 0 <= place < len(self)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self.frames)


class EarlierPoints(Mapping[int, TrackedPoints]):
    """Points, from the table; those that have come since are nowhere."""

    def __init__(self, frames: Frames, count: int) -> None:
        self.frames, self.count = frames, count

    def __getitem__(self, place: int) -> TrackedPoints:
        xy_k2 = torch.full((self.count, 2), torch.nan)
        visible, confidence = torch.zeros(self.count, dtype=torch.bool), torch.zeros(self.count)
        for row in self.frames[place]["points"]:
            number = row["point"] - 1
            if row["x"] is not None:
                xy_k2[number] = torch.tensor([row["x"], row["y"]])
            visible[number], confidence[number] = row["visible"], row["confidence"]
        return TrackedPoints(xy_k2, visible, confidence)

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and 0 <= place < len(self)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self.frames)
