"""Records in the table what a tracking was made from (video, model, marks), and matches the objects
of two trackings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from corrflow.annotations import NamedObject
from corrflow.tracking.plan import Given

NO_MARK = ""  # stands for a digest
# the fields of Provenance that decide the result, besides the marks
MAKING = ("video", "weights", "protocol", "size", "to_beginning", "kind", "adapt")


@dataclass(frozen=True)
class Provenance:
    """Everything that the result of a tracking depends on, and digests of what was written."""

    video: str
    """Digest of the video's content."""
    weights: str
    """Digest of the model."""
    protocol: str
    size: int
    """Short side, in pixels, at which the video is tracked."""
    to_beginning: bool
    """Whether objects or points are also shown in the frames before their first mark."""
    kind: str
    """`objects` or `points`."""
    objects: Mapping[int, NamedObject]
    """Names of the objects or points, by number; empty if they have none."""
    given: Given
    """What is marked."""
    returned: Given = field(default_factory=dict)
    """Digests of what came in but was not a mark, as it was an earlier result or was painted
    over."""
    edited: Given = field(default_factory=dict)
    """The marks that were painted into the mask files: the digest of the mark beneath each, or
    `NO_MARK`."""
    adapt: int = 0
    """Steps by which the model was adapted to the video."""
    whole: bool = False
    """Whether the video was tracked to its end."""
    frames: int = 0
    """Number of frames that were tracked."""
    masks: Mapping[str, str] = field(default_factory=dict)
    """Digests of the mask files by name, in the order of the frames; empty for points."""
    shapes: tuple[Mapping[int, str], ...] = ()
    """Digests of the objects in each of these masks, by number."""
    annotations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Digests of the annotation files, by format and by path relative to the output folder."""

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Convert from JSON, in which keys are strings; raises KeyError, TypeError, ValueError or
        AttributeError if it is something else."""
        objects = {int(n): NamedObject(**named) for n, named in stored["objects"].items()}
        marks = {
            name: {
                int(index): {int(number): digest for number, digest in objects.items()}
                for index, objects in stored[name].items()
            }
            for name in ("given", "returned", "edited")
        }
        shapes = tuple({int(n): digest for n, digest in at.items()} for at in stored["shapes"])
        count = stored["frames"] if stored["kind"] == "objects" else 0
        if not len(shapes) == len(stored["masks"]) == count:
            raise ValueError(f"{len(stored['masks'])} masks of {stored['frames']} frames")
        return cls(**{**stored, **marks, "objects": objects, "shapes": shapes})

    def to_dict(self) -> dict[str, Any]:
        """Convert to what JSON can store."""
        return asdict(self)

    def has_same_settings(self, now: "Provenance") -> bool:
        """Whether two trackings differ at most in their marks and in what was found."""
        return all(getattr(self, name) == getattr(now, name) for name in MAKING)


def match_objects(before: Provenance, now: Provenance) -> dict[int, int]:
    """Map the earlier number of each object or point to its current one; leave out those that no
    longer exist.

    Named objects are matched by name, and several of one name by key, then in order. Those left on
    both sides count as renamed, and are matched in order. If one side has no names, all are matched
    by number: annotations use the number as the name of an object without one.
    """
    if not (before.objects and now.objects):
        known, called = numbers_of(before.given), {o.name: n for n, o in now.objects.items()}
        is_written_by_number = called.keys() <= set(map(str, known))
        if called and is_written_by_number and len(called) == len(now.objects):
            return {int(name): number for name, number in called.items()}
        return {number: number for number in known & numbers_of(now.given)}
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
    """The numbers of all objects or points that are marked."""
    return {number for marks in given.values() for number in marks}
