"""What a tracking is asked for, who looks on, and what has come of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from launch.configs.evaluate import TrackJob
from launch.tracking.prompts import Prompts

Item = TypeVar("Item")


@dataclass(frozen=True)
class TrackRequest:
    """What is to be tracked, and how."""

    video: Path
    prompts: Prompts
    out: Path
    backward: bool
    size: int
    """Short side at which to track, in pixels."""
    protocol: str
    write: tuple[str, ...] = ()
    """Formats of annotations to write besides."""
    tolerance: float = 1.0
    """How far the lines of their polygons may be moved to be simpler, in pixels."""
    review: int = 5
    """How many frames to name that a person should look at first."""
    adapt: int = 0
    """Steps by which the model is adapted to the video first."""
    overwrite: bool = False
    """Track all frames, even those that an earlier tracking to the same files can give."""

    @classmethod
    def of(cls, job: TrackJob, video: Path, prompts: Prompts, out: Path) -> "TrackRequest":
        """One video of a job."""
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
    """Who looks on."""

    show: Callable[[Iterable[Any], int, str, str], Iterable[Any]]
    """Passes things through, of which there will be so many, and shows how far they are: what is
    done, and what is counted."""
    stopped: Callable[[], bool]
    """Asked after each frame; True ends the tracking there."""

    def look(
        self, things: Iterable[Item], total: int, what: str, unit: str = "frames"
    ) -> Iterator[Item]:
        """Things, shown as they pass; StoppedError between two of them."""
        for thing in self.show(things, total, what, unit):
            yield thing
            if self.stopped():
                raise StoppedError


class StoppedError(Exception):
    """Somebody asked for the end."""


@dataclass(frozen=True)
class Outcome:
    """What has been written."""

    frames: int
    whole: bool
    """Whether that is all of the video."""
    files: tuple[Path, ...]
    """Files and folders."""
    kept: int = 0
    """Frames that are as an earlier tracking had them."""
    review: tuple[tuple[int, float], ...] = ()
    """Frames by number that a person should look at first, and how sure they are."""
    damage: str = ""
    """Why it can't be read any further, if that is why it ended."""
    note: str = ""
    """What a user may not have meant."""

    def review_line(self) -> str:
        """The frames to look at, in words; empty if there are none."""
        frames = ", ".join(f"{number} ({confidence:.2f})" for number, confidence in self.review)
        return f"look first at the frames of least confidence: {frames}" if frames else ""
