"""What a benchmark is: sequences in which something is given, and how what was tracked of it is
scored. The files beside hold one each.

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
"""Masks: labels uint8 `[H, W]`. Points: x and y in pixels, float32 `[K, 2]`, NaN where a point is
not given in that frame."""
Scores = dict[str, list[float]]
"""A value of each measure for each frame that counts, of one object; NaN where it is not
defined."""


NAMED = 3  # of several things that are wrong, how many an error names


@dataclass(frozen=True)
class Sequence:
    """A video of a benchmark; each benchmark adds what it needs to find its files."""

    name: str
    length: int
    """Frames."""

    def __post_init__(self) -> None:
        name = self.name
        named = isinstance(name, str) and name not in ("", "..") and "\0" not in name
        if not named or Path(name).name != name or name.encode(errors="ignore").decode() != name:
            raise InputError(
                f"sequence {name!r}: expected the name of a file in UTF-8, without /: what is "
                "predicted is written under it"
            )


@dataclass(frozen=True)
class PictureSequence(Sequence):
    """One whose frames are files."""

    paths: tuple[Path, ...]


class Benchmark(ABC):
    """A data set, its rules and its files."""

    name: str
    """What `--benchmark` takes."""
    kind: Literal["masks", "points"]
    headline: tuple[str, ...]
    """Columns of `figures` that sum it up, the most important first."""
    curves: tuple[str, ...]
    """Measures that are drawn over time."""
    note: str
    """What the figures are, in a line."""

    @abstractmethod
    def read(self, root: Path) -> list[Any]:
        """Its sequences under `root`, as downloaded; InputError names what is missing."""

    @abstractmethod
    def frames(self, sequence: Any) -> Iterator[Pixels]:
        """RGB, uint8 `[H, W, 3]`, one at a time; InputError names one that can't be read or is of
        another size."""

    def frame_names(self, sequence: Any) -> list[str]:
        """What a file about each frame is called, without its suffix: as the frame's own, of a
        `PictureSequence`."""
        return [path.stem for path in sequence.paths]

    @abstractmethod
    def initial_labels(self, sequence: Any) -> dict[int, InitialLabels]:
        """What is given, by frame number from 0."""

    def ground_truth(self, sequence: Any) -> list[Pixels]:
        """The true labels `[H, W]` of every frame; InputError where they are not public, or are no
        masks of whole frames."""
        raise InputError(
            f"benchmark {self.name}: has no true mask of every frame: expected davis2016 or "
            "davis2017"
        )

    @abstractmethod
    def score(self, sequence: Any, predicted: list[Any]) -> dict[str, Scores]:
        """Scores by the benchmark's name for each object; none where the truth is not public.

        Args:
            sequence: one of `read`'s.
            predicted: for each frame labels uint8 `[H, W]`, or `TrackedPoints` points.
        """

    @abstractmethod
    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The official figures of these objects: of all, the benchmark's; of one sequence's, its
        row in a table; none of none."""

    @abstractmethod
    def write_predictions(self, sequence: Any, predicted: list[Any], out: Path) -> None:
        """Write what was predicted, in the layout that the benchmark's own server or tools read."""

    @abstractmethod
    def write_tables(
        self, sequences: Iterable[Any], scores: Mapping[str, Scores], out: Path
    ) -> None:
        """Write the benchmark's own tables, and what is handed in, of a finished evaluation;
        InputError names what was predicted of these sequences and is gone."""


def read_frames(paths: tuple[Path, ...], shape: tuple[int, ...]) -> Iterator[Pixels]:
    """Picture files one at a time, all of one depth; InputError names one that is not of `shape`,
    `(H, W)`."""
    depth = video_depth(paths)
    for path in paths:
        frame_hw3 = read_frame(path, depth)
        check_size(f"frame {path}", frame_hw3, shape)
        yield frame_hw3


def check_size(name: str, picture: Pixels, shape: tuple[int, ...]) -> None:
    """InputError unless the picture has this height and width."""
    if picture.shape[:2] != shape[:2]:
        actual, wanted = (f"{there[1]}x{there[0]}" for there in (picture.shape, shape))
        raise InputError(
            f"{name} is {actual}: expected {wanted}, the size of the others of its sequence"
        )


def few(names: list[str]) -> str:
    """The first of some names, as an error tells them."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
