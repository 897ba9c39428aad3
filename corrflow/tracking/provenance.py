"""What a tracking was made from, as its table tells: video, model, marks. Which objects of two
trackings are the same."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from corrflow.annotations import NamedObject
from corrflow.tracking.plan import Given

NO_MARK = ""  # in place of a digest
MAKING = ("video", "weights", "protocol", "size", "to_beginning", "kind", "adapt")  # of Provenance


@dataclass(frozen=True)
class Provenance:
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
    edited: Given = field(default_factory=dict)
    """Of the marks, those that somebody painted into the masks of a tracking: digests of what is
    marked beneath them, `NO_MARK` where nothing is."""
    adapt: int = 0
    """Steps by which the model was adapted to the video."""
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
            for name in ("given", "returned", "edited")
        }
        shapes = tuple({int(n): digest for n, digest in at.items()} for at in stored["shapes"])
        count = stored["frames"] if stored["kind"] == "objects" else 0
        if not len(shapes) == len(stored["masks"]) == count:
            raise ValueError(f"{len(stored['masks'])} masks of {stored['frames']} frames")
        return cls(**{**stored, **marks, "objects": objects, "shapes": shapes})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def is_made_as(self, now: "Provenance") -> bool:
        """Whether only the marks differ, and what came of them."""
        return all(getattr(self, name) == getattr(now, name) for name in MAKING)


def match_objects(before: Provenance, now: Provenance) -> dict[int, int]:
    """By number of an object or point what number it has now; it has none if it is gone.

    Those that have names go by their names, and where several have one, by key, then in their
    order; what is then left on both sides was renamed, again in order. If one side has no names,
    all go by their numbers, which are what objects without names are called in annotations.
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
    """Of all that is marked."""
    return {number for marks in given.values() for number in marks}
