"""Reads the earlier result for the same video from its files: what it was made from, what it found,
and what was painted into its masks since.

Its objects and points are given the numbers that they have now. Which frames are tracked again is
decided in `plan.py`.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from corrflow.drawing import Box
from corrflow.errors import InputError
from corrflow.files import content_digest
from corrflow.tracking.plan import IS_GONE, Given, renumbered
from corrflow.tracking.provenance import NO_MARK, Provenance, match_objects, numbers_of
from corrflow.tracking.recording import digests_by_path, masks_folder
from corrflow.tracking.result_reader import PreviousMasks, PreviousPoints

Result = TypeVar("Result")
ELSEWHERE = "expected another name, or --overwrite, which tracks all frames"


@dataclass(frozen=True)
class PreviousResult(Generic[Result]):
    """The earlier result for the same video, with the current numbers of its objects or points."""

    provenance: Provenance
    found: Mapping[int, Result]
    """FrameMasks or TrackedPoints by frame index, without frames whose mask file is missing."""
    is_renumbered: bool
    """Whether any object or point had another number, or no longer exists."""
    edited: Given = field(default_factory=dict)
    """As `Provenance.edited`, without the frames whose masks were deleted since."""
    painted: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Objects that were painted or erased in the masks since, by frame index."""
    boxes: Mapping[int, Mapping[int, Box]] = field(default_factory=dict)
    """Boxes of the objects as they were tracked, by frame index and number."""
    taken_away: frozenset[int] = frozenset()
    """Frames with marks of objects that no longer exist."""
    forgotten: frozenset[int] = frozenset()
    """Frames in which objects that no longer exist are painted."""

    def painted_in(self, index: int) -> frozenset[int]:
        """The objects that were painted or erased in a frame since."""
        return self.painted.get(index, frozenset())

    def marked_as(self, index: int, number: int) -> str:
        """The digest of the mark of an object or point, beneath what is painted; `NO_MARK` if it
        has none."""
        given = self.provenance.given.get(index, {}).get(number, NO_MARK)
        return self.provenance.edited.get(index, {}).get(number, given)

    def returned_as(self, index: int, number: int) -> str | None:
        """The digest of an object that came in before and was not a mark; None if none did."""
        return self.provenance.returned.get(index, {}).get(number)

    def tracked_as(self, index: int, number: int) -> str | None:
        """The digest of an object as it was tracked, even if it was painted over since; None if it
        was not in the frame."""
        shapes = self.provenance.shapes
        return shapes[index].get(number) if index < len(shapes) else None

    def box_of(self, index: int, number: int) -> Box | None:
        """The box of an object as it was tracked; None if it was not in the frame."""
        return self.boxes.get(index, {}).get(number)

    def withdrawn(self, now: Given) -> frozenset[int]:
        """The frames in which the mark of an object was removed or replaced. The old mark may have
        covered other objects there. Points cover nothing, so for these there are none."""
        if self.provenance.kind == "points":
            return frozenset()
        withdrawn = {
            index
            for index, marks in self.provenance.given.items()
            for number, name in marks.items()
            if name not in (IS_GONE, now.get(index, {}).get(number))
        }
        return self.taken_away | withdrawn

    def is_reusable(self, now: Provenance) -> bool:
        """Whether frames of this result can be reused: it is complete, and a tracking made as `now`
        would find the same from the same marks."""
        is_complete = len(self.found) == self.provenance.frames
        return self.provenance.whole and is_complete and self.provenance.has_same_settings(now)


def read_previous(out: Path, now: Provenance) -> PreviousResult[Any] | None:
    """Read the earlier result for the same video and the same output files.

    Args:
        out: the output video.
        now: what is to be tracked.

    Returns:
        The result; None if there is none.

    Raises:
        InputError: the result is of another video or another kind of marks, its files do not fit
            together, or a painted mask does not belong to the video.
    """
    path = out.with_suffix(".json")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        provenance = Provenance.from_dict(stored["provenance"])
        if provenance.video != now.video:
            raise InputError(f"out {out}: is from another video, {stored['video']}: {ELSEWHERE}")
        if provenance.kind != now.kind:
            raise InputError(f"out {out}: has {provenance.kind}, not {now.kind}: {ELSEWHERE}")
        shape = int(stored["height"]), int(stored["width"])
        rows = [[dict(row) for row in frame[now.kind]] for frame in stored["frames"]]
        if len(rows) != provenance.frames:
            raise ValueError(f"{len(rows)} of {provenance.frames} frames")
        numbers = match_objects(provenance, now)
        found = (
            PreviousPoints(rows, numbers, len(numbers_of(now.given)))
            if now.kind == "points"
            else PreviousMasks(
                rows, numbers, [masks_folder(out) / name for name in provenance.masks]
            )
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
    painted = found.painted(provenance, shape) if isinstance(found, PreviousMasks) else {}
    return renumber_result(provenance, found, numbers, painted)


def renumber_result(
    provenance: Provenance,
    found: PreviousMasks | PreviousPoints,
    numbers: Mapping[int, int],
    painted: Mapping[int, Set[int]],
) -> PreviousResult[Any]:
    """Give the objects or points of an earlier result their current numbers.

    Args:
        provenance: with the earlier numbers.
        found: with the current numbers.
        numbers: maps earlier to current numbers, without those that no longer exist.
        painted: the objects that were painted since, by frame index, with the earlier numbers.
    """
    left_out = numbers_of(provenance.given) - numbers.keys()
    forgotten = {
        index
        for objects_at in (provenance.edited, painted)
        for index, objects in objects_at.items()
        if index in found and left_out.intersection(objects)
    }
    edited = renumbered(provenance.edited, numbers)
    now = replace(
        provenance,
        given=renumbered(provenance.given, numbers),
        returned=renumbered(provenance.returned, numbers),
        edited=edited,
        shapes=tuple(renumbered(dict(enumerate(provenance.shapes)), numbers).values()),
    )
    return PreviousResult(
        now,
        found,
        is_renumbered=bool(left_out) or any(old != new for old, new in numbers.items()),
        edited={index: marks for index, marks in edited.items() if index in found},
        painted={
            index: frozenset(numbers[n] for n in changed if n in numbers)
            for index, changed in painted.items()
        },
        boxes=found.boxes if isinstance(found, PreviousMasks) else {},
        taken_away=frozenset(p for p, marks in provenance.given.items() if left_out & marks.keys()),
        forgotten=frozenset(forgotten),
    )


def written_files(out: Path) -> dict[str, str]:
    """Digests of the masks and annotations that an earlier tracking wrote, by path relative to the
    folder of `out`; empty if no table lists any. The tracking may be of another video."""
    try:
        stored = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        return digests_by_path(out, Provenance.from_dict(stored["provenance"]).to_dict())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def has_changed_masks(out: Path) -> bool:
    """Whether masks of an earlier tracking were changed or deleted since."""
    folder = masks_folder(out)
    masks = {
        out.parent / n: d for n, d in written_files(out).items() if Path(n).parts[0] == folder.name
    }
    return any(not path.is_file() or content_digest(path) != d for path, d in masks.items())
