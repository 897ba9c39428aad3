"""The request, the progress and the outcome of tracking one video."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from launch.configs.evaluate import TrackJob
from launch.tracking.prompts import Prompts

Item = TypeVar("Item")


@dataclass(frozen=True)
class TrackRequest:
    """What to track, and how."""

    video: Path
    prompts: Prompts
    out: Path
    backward: bool
    size: int
    """Short side at which to track, in pixels."""
    protocol: str
    write: tuple[str, ...] = ()
    """Annotation formats to write beside the results."""
    tolerance: float = 1.0
    """How far, in pixels, the outlines of written polygons may deviate to have fewer corners."""
    review: int = 5
    """Number of least confident frames to report, which a person should look at first."""
    adapt: int = 0
    """Number of steps by which the model is adapted to the video before tracking."""
    overwrite: bool = False
    """Track all frames, even those that could be kept from an earlier result."""

    @classmethod
    def of(cls, job: TrackJob, video: Path, prompts: Prompts, out: Path) -> "TrackRequest":
        """The request for one video of a job."""
        return cls(
            video=video,
            prompts=prompts,
            out=out,
            backward=job.backward,
            size=job.size,
            protocol=job.protocol,
            write=job.write,
            tolerance=job.tolerance,
            review=job.review,
            adapt=job.adapt,
            overwrite=job.overwrite,
        )


@dataclass(frozen=True)
class Progress:
    """Shows progress, and says whether to stop."""

    show: Callable[[Iterable[Any], int, str, str], Iterable[Any]]
    """Passes items through and shows their progress. Its arguments are the items, their total
    number, a description, and the unit."""
    stopped: Callable[[], bool]
    """Called after each frame; True ends the tracking there."""

    def look(
        self, things: Iterable[Item], total: int, what: str, unit: str = "frames"
    ) -> Iterator[Item]:
        """Pass items through and show their progress; StoppedError if asked to stop."""
        for thing in self.show(things, total, what, unit):
            yield thing
            if self.stopped():
                raise StoppedError


class StoppedError(Exception):
    """The user asked to stop."""


@dataclass(frozen=True)
class Outcome:
    """The result of tracking a video."""

    frames: int
    """Number of frames that are written."""
    whole: bool
    """Whether these are all frames of the video."""
    files: tuple[Path, ...]
    """Files and folders that are written."""
    kept: int = 0
    """Number of frames that are kept from an earlier result."""
    review: tuple[tuple[int, float], ...] = ()
    """Numbers and confidences of the frames that a person should look at first."""
    damage: str = ""
    """Why the video can't be read any further, if tracking ended for that."""
    note: str = ""
    """A warning about what the user may not have intended."""

    def review_line(self) -> str:
        """A line with the frames to look at first; empty if there are none."""
        frames = ", ".join(f"{number} ({confidence:.2f})" for number, confidence in self.review)
        return f"look first at the frames of least confidence: {frames}" if frames else ""
