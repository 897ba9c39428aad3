"""The interface of a benchmark: sequences with initial labels, and the scores of what was tracked.
Each benchmark is in a file of its own beside this one.

Shapes: h w pixels, k points.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from corrflow.errors import InputError
from corrflow.images import video_depth
from corrflow.pictures import Pixels, read_frame

InitialLabels = NDArray[Any]
"""The labels given in a frame. Masks: uint8 `[H, W]`. Points: x and y in pixels, float32 `[K, 2]`,
NaN where a point is not given in that frame."""
Scores = dict[str, list[float]]
"""The scores of one object: for each measure a value for each scored frame, NaN where it is
undefined."""


NAMED = 3  # how many of several wrong items an error names


@dataclass(frozen=True)
class Sequence:
    """A video of a benchmark; each benchmark adds what it needs to find its files."""

    name: str
    length: int
    """Number of frames."""

    def __post_init__(self) -> None:
        name = self.name
        named = isinstance(name, str) and name not in ("", "..") and "\0" not in name
        if not named or Path(name).name != name or name.encode(errors="ignore").decode() != name:
            raise InputError(
                f"sequence {name!r}: expected a file name in UTF-8, without /, since its "
                "predictions are written under it"
            )


@dataclass(frozen=True)
class PictureSequence(Sequence):
    """A sequence whose frames are files."""

    paths: tuple[Path, ...]


class Benchmark(ABC):
    """A data set, its rules and its file formats."""

    name: str
    """The name that `--benchmark` takes."""
    kind: Literal["masks", "points"]
    headline: tuple[str, ...]
    """The main columns of `figures`, the most important first."""
    curves: tuple[str, ...]
    """Measures that the report draws over time."""
    note: str
    """An explanation of the figures in one line."""

    @abstractmethod
    def read(self, root: Path) -> list[Any]:
        """Find the sequences under `root`, a folder as downloaded; InputError names what is
        missing."""

    @abstractmethod
    def frames(self, sequence: Any) -> Iterator[Pixels]:
        """Yield the RGB frames, uint8 `[H, W, 3]`; InputError names one that can't be read or has
        another size."""

    def frame_names(self, sequence: Any) -> list[str]:
        """The name, without suffix, that output files of each frame get: for a `PictureSequence`
        that of the frame's file."""
        return [path.stem for path in sequence.paths]

    @abstractmethod
    def initial_labels(self, sequence: Any) -> dict[int, InitialLabels]:
        """The given labels by frame index, from 0."""

    def ground_truth(self, sequence: Any) -> list[Pixels]:
        """The true labels `[H, W]` of every frame; InputError if they are not public or are not
        masks of every frame."""
        raise InputError(
            f"benchmark {self.name}: has no true mask of every frame: expected davis2016 or "
            "davis2017"
        )

    @abstractmethod
    def score(self, sequence: Any, predicted: list[Any]) -> dict[str, Scores]:
        """Score a sequence: scores by the benchmark's name of each object; empty if the truth is
        not public.

        Args:
            sequence: a sequence from `read`.
            predicted: the predictions of each frame: labels uint8 `[H, W]`, or `TrackedPoints`.
        """

    @abstractmethod
    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The official figures of these objects: given all objects, the benchmark's figures; given
        one sequence's, its row in a table. Empty without objects."""

    @abstractmethod
    def write_predictions(self, sequence: Any, predicted: list[Any], out: Path) -> None:
        """Write the predictions in the layout that the benchmark's server or tools read."""

    @abstractmethod
    def write_tables(
        self, sequences: Iterable[Any], scores: Mapping[str, Scores], out: Path
    ) -> None:
        """Write the benchmark's own tables and submission files of a finished evaluation;
        InputError names predictions that are missing."""


def read_frames(paths: tuple[Path, ...], shape: tuple[int, ...]) -> Iterator[Pixels]:
    """Yield the pictures of these files, converted from one common bit depth; InputError names one
    that does not have `shape`, `(H, W)`."""
    depth = video_depth(paths)
    for path in paths:
        frame_hw3 = read_frame(path, depth)
        check_size(f"frame {path}", frame_hw3, shape)
        yield frame_hw3


def check_size(name: str, picture: Pixels, shape: tuple[int, ...]) -> None:
    """Raise InputError unless the picture has this height and width."""
    if picture.shape[:2] != shape[:2]:
        actual, wanted = (f"{there[1]}x{there[0]}" for there in (picture.shape, shape))
        raise InputError(
            f"{name} is {actual}: expected {wanted}, the size of the others of its sequence"
        )


def few(names: list[str]) -> str:
    """The first few names, as text for an error."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
