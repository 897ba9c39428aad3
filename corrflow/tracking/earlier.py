"""What an earlier tracking left beside its video, read back: what it was made from, and what it
found in each frame. Which of it is tracked again is in `plan.py`."""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch

from corrflow.annotations import NamedObject
from corrflow.errors import InputError
from corrflow.files import content_digest
from corrflow.pictures import read_mask
from corrflow.propagation import TrackedPoints
from corrflow.tracking.plan import Given, renumbered
from corrflow.tracking.recording import FrameNames, masks_folder
from corrflow.tracking.tracker import MOST_LABELS, FrameMasks, from_rows, nowhere

Result = TypeVar("Result")
Rows = list[dict[str, Any]]  # of a frame, from NAME.json


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
    objects: Mapping[int, NamedObject]
    """What each object or point is called, by its number; empty if they have no names."""
    given: Given
    """What is marked."""
    as_tracked: Given = field(default_factory=dict)
    """What came as if it were marked, and was as an earlier tracking had it."""
    edited: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Of the marks, those that somebody painted into the masks of a tracking: objects by place of
    the frame."""
    whole: bool = False
    """Whether the video was tracked to its end."""
    frames: int = 0
    """How many were tracked."""
    masks: tuple[str, ...] = ()
    """Digests of the masks' files, if there are such; of all frames."""

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """As JSON gives it, whose keys are strings; KeyError, TypeError, ValueError or
        AttributeError if it is another kind of thing."""
        objects = {int(n): NamedObject(**named) for n, named in stored["objects"].items()}
        marks = {
            name: {
                int(place): {int(number): digest for number, digest in objects.items()}
                for place, objects in stored[name].items()
            }
            for name in ("given", "as_tracked")
        }
        edited = {int(place): tuple(numbers) for place, numbers in stored["edited"].items()}
        masks = tuple(stored["masks"])
        return cls(**{**stored, **marks, "objects": objects, "edited": edited, "masks": masks})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def is_made_as(self, now: "MadeFrom") -> bool:
        """Whether only the marks differ, and what came of them."""
        marks = {
            name: getattr(now, name)
            for name in ("objects", "given", "as_tracked", "edited", "whole", "frames", "masks")
        }
        return replace(self, **marks) == now


@dataclass(frozen=True)
class Earlier(Generic[Result]):
    """A tracking of the same video, in the numbers that its objects or points have now."""

    made_from: MadeFrom
    found: Mapping[int, Result]
    """FrameMasks or TrackedPoints by place of the frame; of the frames of which they are there."""
    is_renumbered: bool
    """Whether any object or point had another number, or is gone."""
    edited: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Objects by place of the frame that somebody painted into the masks."""

    def can_be_taken_over(self, now: MadeFrom) -> bool:
        """Whether a tracking in the way of `now` finds the same where nothing else is marked."""
        is_complete = len(self.found) == self.made_from.frames
        return self.made_from.whole and is_complete and self.made_from.is_made_as(now)


def read_earlier(out: Path, names: FrameNames, now: MadeFrom) -> Earlier[Any] | None:
    """What a tracking of the same video to the same files found.

    Args:
        out: the video that is written.
        names: of its frames.
        now: what is to be tracked.

    Returns:
        None if there is none, or it is of another video or of another kind of marks.

    Raises:
        InputError: what is there does not fit together, or an edited mask is none of the video.
    """
    path = out.with_suffix(".json")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        made_from = MadeFrom.from_dict(stored["made_from"])
        if (made_from.video, made_from.kind) != (now.video, now.kind):
            return None
        rows = [[dict(row) for row in frame[now.kind]] for frame in stored["frames"]]
        if len(rows) != made_from.frames:
            raise ValueError(f"{len(rows)} of {made_from.frames} frames")
        numbers = match_objects(made_from, now)
        found = (
            EarlierPoints(rows, numbers, len(numbers_of(now.given)))
            if now.kind == "points"
            else EarlierMasks(rows, numbers, made_from.masks, masks_folder(out), names)
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"table {path}: does not fit together ({error!r}): expected it as it was written, or "
            "--overwrite, which tracks all frames"
        ) from None
    known = numbers_of(made_from.given)
    is_renumbered = numbers != {number: number for number in known}
    edited = {
        place: tuple(numbers[n] for n in objects if n in numbers)
        for place, objects in made_from.edited.items()
        if place in found
    }
    if isinstance(found, EarlierMasks):
        shape = int(stored["height"]), int(stored["width"])
        for place in found.edited_places():
            edited[place] = found.check_edited(place, shape, known)
    made_from = replace(
        made_from,
        given=renumbered(made_from.given, numbers),
        as_tracked=renumbered(made_from.as_tracked, numbers),
    )
    return Earlier(made_from, found, is_renumbered, edited)


def match_objects(before: MadeFrom, now: MadeFrom) -> dict[int, int]:
    """By number of an object or point what number it has now; it has none if it is gone.

    Those that have names go by their names, and where several have one, by key, then in their
    order; if one side has no names, all go by their numbers.
    """
    if not (before.objects and now.objects):
        return {number: number for number in numbers_of(before.given) & numbers_of(now.given)}
    numbers = {
        old: new
        for old, one in before.objects.items()
        for new, other in now.objects.items()
        if one == other
    }
    for old, one in before.objects.items():
        left = [n for n, other in now.objects.items() if other.name == one.name]
        left = [n for n in left if n not in numbers.values()]
        if old not in numbers and left:
            numbers[old] = left[0]
    return numbers


def numbers_of(given: Given) -> set[int]:
    """Of all that is marked."""
    return {number for marks in given.values() for number in marks}


class EarlierMasks(Mapping[int, FrameMasks]):
    """Objects, from the folder of masks and the table."""

    def __init__(
        self,
        rows: Sequence[Rows],
        numbers: Mapping[int, int],
        digests: Sequence[str],
        folder: Path,
        names: FrameNames,
    ) -> None:
        """Take up what is there.

        Args:
            rows: of each frame, from the table.
            numbers: what number each object has now; objects that have none are left out.
            digests: of the masks' files as they were written.
            folder: of the masks.
            names: of the frames.

        Raises:
            KeyError, TypeError, ValueError: those are no rows.
        """
        if len(digests) != len(rows):
            raise ValueError(f"{len(digests)} masks of {len(rows)} frames")
        self.digests, self.folder, self.names = digests, folder, names
        self.confidence = [
            {numbers[n]: float(row["confidence"]) for row in r if (n := row["object"]) in numbers}
            for r in rows
        ]
        self.table = np.zeros(MOST_LABELS, np.uint8)
        self.table[list(numbers)] = list(numbers.values())
        places = range(len(rows))
        self.places = {place: None for place in places if self.path_of(place).is_file()}

    def path_of(self, place: int) -> Path:
        """A frame's mask."""
        return self.folder / f"{self.names.name(place)}.png"

    def edited_places(self) -> list[int]:
        """The frames whose masks are not as they were written."""
        return [p for p in self.places if content_digest(self.path_of(p)) != self.digests[p]]

    def check_edited(self, place: int, shape: tuple[int, int], known: Set[int]) -> tuple[int, ...]:
        """The objects of a mask that was edited.

        Raises:
            InputError: it can't be read, is of another size than the video, or has an object that
                is not known.
        """
        path = self.path_of(place)
        labels_hw = read_mask(path)
        where = f"mask {path}: was edited"
        if labels_hw.shape != shape:
            height, width = labels_hw.shape
            raise InputError(f"{where}, is {width}x{height}: expected {shape[1]}x{shape[0]}")
        if unknown := set(np.unique(labels_hw[labels_hw > 0]).tolist()) - known:
            raise InputError(f"{where}, has object {min(unknown)}: expected some of {known}")
        return tuple(np.unique(self.table[labels_hw][self.table[labels_hw] > 0]).tolist())

    def __getitem__(self, place: int) -> FrameMasks:
        confidence = np.zeros(MOST_LABELS, np.float32)
        for number, value in self.confidence[place].items():
            confidence[number] = value
        return FrameMasks(self.table[read_mask(self.path_of(place))], confidence)

    def __contains__(self, place: object) -> bool:
        return place in self.places

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class EarlierPoints(Mapping[int, TrackedPoints]):
    """Points, from the table; those that have come since are nowhere."""

    def __init__(self, rows: Sequence[Rows], numbers: Mapping[int, int], count: int) -> None:
        """Take up what is there.

        Args:
            rows: of each frame, from the table.
            numbers: what number each point has now; points that have none are left out.
            count: of the points.

        Raises:
            KeyError, TypeError, ValueError: those are no rows.
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

    def __getitem__(self, place: int) -> TrackedPoints:
        return self.located[place]

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and 0 <= place < len(self)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self.located)
