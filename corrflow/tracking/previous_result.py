"""An earlier tracking of the same video, as it lies beside it: what it was made from and what it
found, in the numbers of now, and what somebody painted into it since. Which of it is tracked again
is in `plan.py`."""

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
    """A tracking of the same video, in the numbers that its objects or points have now."""

    provenance: Provenance
    found: Mapping[int, Result]
    """FrameMasks or TrackedPoints by place of the frame; of the frames of which they are there."""
    is_renumbered: bool
    """Whether any object or point had another number, or is gone."""
    edited: Given = field(default_factory=dict)
    """As `Provenance.edited`, but for frames whose masks were deleted since."""
    painted: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Objects by place of the frame that somebody has painted since, or erased."""
    boxes: Mapping[int, Mapping[int, Box]] = field(default_factory=dict)
    """Of the objects by place of the frame, as they were tracked."""
    taken_away: frozenset[int] = frozenset()
    """Frames in which objects are marked that came no more."""
    forgotten: frozenset[int] = frozenset()
    """Frames in which such objects are painted."""

    def painted_in(self, place: int) -> frozenset[int]:
        """The objects that somebody has painted in a frame."""
        return self.painted.get(place, frozenset())

    def marked_as(self, place: int, number: int) -> str:
        """The digest of what an object or point is marked as, whatever is painted over it, or
        `NO_MARK`."""
        given = self.provenance.given.get(place, {}).get(number, NO_MARK)
        return self.provenance.edited.get(place, {}).get(number, given)

    def returned_as(self, place: int, number: int) -> str | None:
        """The digest of an object that came before and was no mark."""
        return self.provenance.returned.get(place, {}).get(number)

    def tracked_as(self, place: int, number: int) -> str | None:
        """The digest of an object as it was tracked, which may have been painted over since."""
        shapes = self.provenance.shapes
        return shapes[place].get(number) if place < len(shapes) else None

    def box_of(self, place: int, number: int) -> Box | None:
        """The box of an object as it was tracked; None if it was nowhere."""
        return self.boxes.get(place, {}).get(number)

    def withdrawn(self, now: Given) -> frozenset[int]:
        """The frames in which an object was marked and no longer is as it was. What it covered of
        the others nobody knows. Points cover nothing."""
        if self.provenance.kind == "points":
            return frozenset()
        withdrawn = {
            place
            for place, marks in self.provenance.given.items()
            for number, name in marks.items()
            if name not in (IS_GONE, now.get(place, {}).get(number))
        }
        return self.taken_away | withdrawn

    def can_be_taken_over(self, now: Provenance) -> bool:
        """Whether a tracking in the way of `now` finds the same where nothing else is marked."""
        is_complete = len(self.found) == self.provenance.frames
        return self.provenance.whole and is_complete and self.provenance.is_made_as(now)


def read_previous(out: Path, now: Provenance) -> PreviousResult[Any] | None:
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
        provenance = Provenance.from_dict(stored["provenance"])
        if provenance.video != now.video:
            raise InputError(f"out {out}: is of another video, {stored['video']}: {ELSEWHERE}")
        if provenance.kind != now.kind:
            raise InputError(f"out {out}: is of {provenance.kind}, not {now.kind}: {ELSEWHERE}")
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
    return in_numbers_of_now(provenance, found, numbers, painted)


def in_numbers_of_now(
    provenance: Provenance,
    found: PreviousMasks | PreviousPoints,
    numbers: Mapping[int, int],
    painted: Mapping[int, Set[int]],
) -> PreviousResult[Any]:
    """An earlier tracking, in the numbers that its objects or points have now.

    Args:
        provenance: in the numbers that they had.
        found: in those that they have.
        numbers: what number each has now; those that came no more have none.
        painted: what was painted since, in the numbers that they had.
    """
    left_out = numbers_of(provenance.given) - numbers.keys()
    forgotten = {
        place
        for objects_at in (provenance.edited, painted)
        for place, objects in objects_at.items()
        if place in found and left_out.intersection(objects)
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
        edited={place: marks for place, marks in edited.items() if place in found},
        painted={
            place: frozenset(numbers[n] for n in changed if n in numbers)
            for place, changed in painted.items()
        },
        boxes=found.boxes if isinstance(found, PreviousMasks) else {},
        taken_away=frozenset(p for p, marks in provenance.given.items() if left_out & marks.keys()),
        forgotten=frozenset(forgotten),
    )


def written_files(out: Path) -> dict[str, str]:
    """Digests of masks and annotations of an earlier tracking of whatever video, by their paths
    beside `out`; none where no table tells of them."""
    try:
        stored = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        return digests_by_path(out, Provenance.from_dict(stored["provenance"]).to_dict())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def has_changed_masks(out: Path) -> bool:
    """Whether somebody has painted into masks of a tracking since, or deleted some."""
    folder = masks_folder(out)
    masks = {
        out.parent / n: d for n, d in written_files(out).items() if Path(n).parts[0] == folder.name
    }
    return any(not path.is_file() or content_digest(path) != d for path, d in masks.items())
