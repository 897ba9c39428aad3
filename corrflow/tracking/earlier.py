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
from corrflow.tracking.plan import Given, changed_marks, objects_of, renumbered
from corrflow.tracking.recording import digests_by_path, masks_folder
from corrflow.tracking.tracker import MOST_LABELS, FrameMasks, from_rows, nowhere

Result = TypeVar("Result")
ELSEWHERE = "expected another name, or --overwrite, which tracks all frames"
Rows = list[dict[str, Any]]  # of a frame, from NAME.json
MAKING = ("video", "weights", "protocol", "size", "to_beginning", "kind")  # of MadeFrom


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
    returned: Given = field(default_factory=dict)
    """What came as if it were marked and was no mark: it was as an earlier tracking had it, or
    painted over."""
    edited: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Of the marks, those that somebody painted into the masks of a tracking: objects by place of
    the frame."""
    whole: bool = False
    """Whether the video was tracked to its end."""
    frames: int = 0
    """How many were tracked."""
    masks: Mapping[str, str] = field(default_factory=dict)
    """Of objects: digests of all masks' files by their names, in the order of the frames."""
    shapes: tuple[Mapping[int, str], ...] = ()
    """Digests of the objects in these masks, by number."""
    annotations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By format: digests of the annotations' files by their paths beside the video."""

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
            for name in ("given", "returned")
        }
        edited = {int(place): tuple(numbers) for place, numbers in stored["edited"].items()}
        shapes = tuple({int(n): digest for n, digest in at.items()} for at in stored["shapes"])
        count = stored["frames"] if stored["kind"] == "objects" else 0
        if not len(shapes) == len(stored["masks"]) == count:
            raise ValueError(f"{len(stored['masks'])} masks of {stored['frames']} frames")
        return cls(**{**stored, **marks, "objects": objects, "edited": edited, "shapes": shapes})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def is_made_as(self, now: "MadeFrom") -> bool:
        """Whether only the marks differ, and what came of them."""
        return all(getattr(self, name) == getattr(now, name) for name in MAKING)


@dataclass(frozen=True)
class Earlier(Generic[Result]):
    """A tracking of the same video, in the numbers that its objects or points have now."""

    made_from: MadeFrom
    found: Mapping[int, Result]
    """FrameMasks or TrackedPoints by place of the frame; of the frames of which they are there."""
    is_renumbered: bool
    """Whether any object or point had another number, or is gone."""
    edited: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Objects by place of the frame that were painted into the masks of the tracking before it."""
    painted: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Those that somebody has painted since, or erased."""

    def painted_in(self, place: int) -> frozenset[int]:
        """The objects that somebody has painted in a frame."""
        return self.painted.get(place, frozenset())

    def returned_as(self, place: int, number: int) -> str | None:
        """The digest of an object that came before and was no mark."""
        return self.made_from.returned.get(place, {}).get(number)

    def tracked_as(self, place: int, number: int) -> str | None:
        """The digest of an object as it was tracked, which may have been painted over since."""
        shapes = self.made_from.shapes
        return shapes[place].get(number) if place < len(shapes) else None

    def can_be_taken_over(self, now: MadeFrom) -> bool:
        """Whether a tracking in the way of `now` finds the same where nothing else is marked."""
        is_complete = len(self.found) == self.made_from.frames
        return self.made_from.whole and is_complete and self.made_from.is_made_as(now)


def read_earlier(out: Path, now: MadeFrom) -> Earlier[Any] | None:
    """What a tracking of the same video to the same files found.

    Args:
        out: the video that is written.
        now: what is to be tracked.

    Returns:
        None if there is none.

    Raises:
        InputError: it is of another video or of another kind of marks, what is there does not fit
            together, or a painted mask is none of the video.
    """
    path = out.with_suffix(".json")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        made_from = MadeFrom.from_dict(stored["made_from"])
        if made_from.video != now.video:
            raise InputError(f"out {out}: is of another video, {stored['video']}: {ELSEWHERE}")
        if made_from.kind != now.kind:
            raise InputError(f"out {out}: is of {made_from.kind}, not {now.kind}: {ELSEWHERE}")
        shape = int(stored["height"]), int(stored["width"])
        rows = [[dict(row) for row in frame[now.kind]] for frame in stored["frames"]]
        if len(rows) != made_from.frames:
            raise ValueError(f"{len(rows)} of {made_from.frames} frames")
        numbers = match_objects(made_from, now)
        found = (
            EarlierPoints(rows, numbers, len(numbers_of(now.given)))
            if now.kind == "points"
            else EarlierMasks(rows, numbers, [masks_folder(out) / name for name in made_from.masks])
        )
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"table {path}: does not fit together ({error!r}): expected it as it was written, or "
            "--overwrite, which tracks all frames"
        ) from None
    known = numbers_of(made_from.given)
    edited = {
        place: tuple(numbers[n] for n in objects if n in numbers)
        for place, objects in made_from.edited.items()
        if place in found
    }
    painted = {}
    if isinstance(found, EarlierMasks):
        for place, changed in found.painted(made_from, shape).items():
            painted[place] = frozenset(numbers[n] for n in changed if n in numbers)
    made_from = replace(
        made_from,
        given=renumbered(made_from.given, numbers),
        returned=renumbered(made_from.returned, numbers),
        shapes=tuple(renumbered(dict(enumerate(made_from.shapes)), numbers).values()),
    )
    is_renumbered = numbers != {number: number for number in known}
    return Earlier(made_from, found, is_renumbered, edited, painted)


def written_files(out: Path) -> dict[str, str]:
    """Digests of masks and annotations of an earlier tracking of whatever video, by their paths
    beside `out`; none where no table tells of them."""
    try:
        stored = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        return digests_by_path(out, MadeFrom.from_dict(stored["made_from"]).to_dict())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def has_changed_masks(out: Path) -> bool:
    """Whether somebody has painted into masks of a tracking since, or deleted some."""
    folder = masks_folder(out)
    masks = {
        out.parent / n: d for n, d in written_files(out).items() if Path(n).parts[0] == folder.name
    }
    return any(not path.is_file() or content_digest(path) != d for path, d in masks.items())


def match_objects(before: MadeFrom, now: MadeFrom) -> dict[int, int]:
    """By number of an object or point what number it has now; it has none if it is gone.

    Those that have names go by their names, and where several have one, by key, then in their
    order; what is then left on both sides was renamed, again in order. If one side has no names,
    all go by their numbers.
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
    gone = [old for old in before.objects if old not in numbers]
    new = [n for n in now.objects if n not in numbers.values()]
    return {**numbers, **dict(zip(gone, new, strict=False))}


def numbers_of(given: Given) -> set[int]:
    """Of all that is marked."""
    return {number for marks in given.values() for number in marks}


class EarlierMasks(Mapping[int, FrameMasks]):
    """Objects, from the folder of masks and the table."""

    def __init__(
        self,
        rows: Sequence[Rows],
        numbers: Mapping[int, int],
        paths: Sequence[Path],
    ) -> None:
        """Take up what is there.

        Args:
            rows: of each frame, from the table.
            numbers: what number each object has now; objects that have none are left out.
            paths: of the masks, some of which may be lost.

        Raises:
            KeyError, TypeError, ValueError: those are no rows.
        """
        self.paths = paths
        self.confidence = [
            {numbers[n]: float(row["confidence"]) for row in r if (n := row["object"]) in numbers}
            for r in rows
        ]
        self.table = np.zeros(MOST_LABELS, np.uint8)
        self.table[list(numbers)] = list(numbers.values())
        self.places = {place: None for place, path in enumerate(paths) if path.is_file()}

    def painted(self, made_from: MadeFrom, shape: tuple[int, int]) -> dict[int, frozenset[int]]:
        """The objects by place of the frame that are not as they were written, by the numbers that
        they had; InputError as `read_edited`."""
        painted, known = {}, numbers_of(made_from.given)
        for place, digest in enumerate(made_from.masks.values()):
            if place in self.places and content_digest(self.paths[place]) != digest:
                objects = self.read_edited(place, shape, known)
                changes = changed_marks({place: made_from.shapes[place]}, {place: objects})
                painted[place] = changes.get(place, frozenset())
        return painted

    def read_edited(self, place: int, shape: tuple[int, int], known: Set[int]) -> dict[int, str]:
        """Digests of the objects of a mask that was edited, by the numbers that they have in it.

        Raises:
            InputError: it can't be read, is of another size than the video, or has an object that
                is not known.
        """
        path = self.paths[place]
        labels_hw = read_mask(path)
        where = f"mask {path}: was edited"
        if labels_hw.shape != shape:
            height, width = labels_hw.shape
            raise InputError(f"{where}, is {width}x{height}: expected {shape[1]}x{shape[0]}")
        objects = objects_of(labels_hw)
        if unknown := objects.keys() - known:
            numbers = ", ".join(map(str, sorted(known)))
            raise InputError(
                f"{where}, has object {min(unknown)}: expected some of {numbers}, in an image with "
                "a palette as it was written"
            )
        return objects

    def __getitem__(self, place: int) -> FrameMasks:
        confidence = np.zeros(MOST_LABELS, np.float32)
        for number, value in self.confidence[place].items():
            confidence[number] = value
        return FrameMasks(self.table[read_mask(self.paths[place])], confidence)

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
