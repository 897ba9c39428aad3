"""TAP-Vid DAVIS: tracks points in 30 videos; scores position, occlusion, and both together (average
Jaccard).

Doersch et al., "TAP-Vid: a benchmark for tracking any point in a video", NeurIPS 2022. The
release's `tapvid_davis.pkl` is a dictionary of videos with `video` uint8 `[T, H, W, 3]`, `points`
float `[N, T, 2]` (x and y in [0, 1] of width and height) and `occluded` `[N, T]`. This is the query
mode `first`:

- videos are resized to 256 x 256 before tracking (Lanczos, as in the official reader), and all
  distances are in pixels at that size;
- each point is given in the first frame in which it is visible, and only later frames are scored.
  Points that are never visible are not scored;
- `pts_within_d`: the share of visible points that are predicted nearer than d = 1, 2, 4, 8, 16
  pixels, whether predicted as visible or not; `average_pts_within_thresh` is the mean of the five.
  `occlusion_accuracy`: how often the predicted visibility is right. `jaccard_d`: true positives
  (visible points predicted as visible and nearer than d) over visible points plus false positives
  (points predicted as visible that are hidden or not nearer than d); `average_jaccard` is the mean
  of the five;
- each figure is computed per video; the benchmark's figure is the mean over videos.

The query mode `strided`, which also tracks backward in time, is not implemented. Shapes: n points,
t frames, v visible positions of all points.
"""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.benchmarks.benchmark import InitialLabels, Scores, Sequence
from corrflow.benchmarks.folders import missing_path_error
from corrflow.benchmarks.points import Floats, PointBenchmark, named_scores, positions, visibility
from corrflow.benchmarks.tables import by_sequence
from corrflow.errors import InputError
from corrflow.metrics import mean, track_figures, track_scores
from corrflow.pictures import Pixels

FILE = "tapvid_davis.pkl"
SIDE = 256  # pixels
# the accepted range of visible points, in widths and heights: wider than [0, 1], in which the
# published ones are, but narrow enough to detect pixels
LOWEST, HIGHEST = -0.5, 1.5
ARRAYS = {  # what a pickle of arrays may call
    ("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"), ("_codecs", "encode"),
}  # fmt: skip


@dataclass(frozen=True)
class TapVidSequence(Sequence):
    """A video and its points, without those that are never visible."""

    video: NDArray[np.uint8] = field(compare=False, repr=False)
    """The frames `[T, H, W, 3]`, at their own size."""
    xy_nt2: Floats = field(compare=False, repr=False)
    """Positions in pixels at 256 x 256; the centre of the top left pixel is (0, 0)."""
    visible_nt: NDArray[np.bool_] = field(compare=False, repr=False)

    @property
    def first_n(self) -> NDArray[np.intp]:
        """The frame in which each point is given."""
        return np.asarray(self.visible_nt.argmax(axis=1))


class TapVid(PointBenchmark):
    """The TAP-Vid DAVIS benchmark: points anywhere."""

    name = "tapvid"
    headline = ("average_jaccard", "average_pts_within_thresh", "occlusion_accuracy")
    curves = ("within", "occlusion")
    note = (
        "At 256x256, queried in a point's first visible frame. within: share of the thresholds 1, "
        "2, 4, 8, 16; means over videos."
    )

    def read(self, root: Path) -> list[TapVidSequence]:
        """All videos of `tapvid_davis.pkl`, which is `root` itself or in it; the whole file is kept
        in memory."""
        path = root if root.is_file() else root / FILE
        if not path.exists():
            raise missing_path_error(
                path, f"{FILE} of TAP-Vid, or a folder with it", root, self.name
            )
        return [read_video(path, name, video) for name, video in read_pickle(path).items()]

    def frames(self, sequence: TapVidSequence) -> Iterator[Pixels]:
        """RGB frames, resized to 256 x 256."""
        return (
            np.array(Image.fromarray(frame_hw3).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
            for frame_hw3 in sequence.video
        )

    def frame_names(self, sequence: TapVidSequence) -> list[str]:
        """The frame numbers 00000, 00001, ..."""
        return [f"{number:05d}" for number in range(sequence.length)]

    def initial_labels(self, sequence: TapVidSequence) -> dict[int, InitialLabels]:
        """Each point, given in the first frame in which it is visible."""
        first_n, xy_nt2 = sequence.first_n, sequence.xy_nt2.clip(-0.5, SIDE - 0.5)
        return {
            int(frame): np.where((first_n == frame)[:, None], xy_nt2[:, frame], np.nan).astype(
                np.float32
            )
            for frame in np.unique(first_n)
        }

    def score(self, sequence: TapVidSequence, predicted: list[Any]) -> dict[str, Scores]:
        """Score each point in all frames; NaN in those that are not scored."""
        counted_nt = np.arange(sequence.length) > sequence.first_n[:, None]
        pred_nt2, pred_visible_nt = positions(predicted).swapaxes(0, 1), visibility(predicted).T
        within_nt, occlusion_nt = track_scores(
            pred_nt2, pred_visible_nt, sequence.xy_nt2, sequence.visible_nt, counted_nt
        )
        names = [str(n) for n in range(len(sequence.xy_nt2))]
        return named_scores(
            sequence.name, names, {"within": within_nt.T, "occlusion": occlusion_nt.T}
        )

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The official figures, means over videos."""
        videos = [video_figures(list(of.values())) for of in by_sequence(scores).values()]
        return (
            {name: mean([video[name] for video in videos]) for name in videos[0]} if videos else {}
        )


def video_figures(points: list[Scores]) -> dict[str, float]:
    """The figures of one video's points."""
    return track_figures(
        *(np.array([point[measure] for point in points]) for measure in ("within", "occlusion"))
    )


def read_video(path: Path, name: str, video: Any) -> TapVidSequence:
    """Check and convert one video of the pickle; InputError says what is wrong with it."""
    try:
        frames, points, occluded = (
            np.asarray(video[key]) for key in ("video", "points", "occluded")
        )
    except (KeyError, TypeError, IndexError, ValueError):
        raise InputError(
            f"{path}: video {name}: expected a dictionary of video, points and occluded"
        ) from None
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise InputError(
            f"{path}: video {name}: video {frames.dtype} {list(frames.shape)}: expected uint8 [T, "
            "H, W, 3]"
        )
    if (
        occluded.ndim != 2
        or occluded.shape[1] != len(frames)
        or points.shape != (*occluded.shape, 2)
    ):
        shapes = f"points {list(points.shape)}, occluded {list(occluded.shape)}"
        raise InputError(
            f"{path}: video {name}: {shapes}: expected [N, {len(frames)}, 2] and [N, {len(frames)}]"
        )
    if not all(np.issubdtype(of.dtype, np.number) or of.dtype == bool for of in (points, occluded)):
        raise InputError(
            f"{path}: video {name}: points {points.dtype}, occluded {occluded.dtype}: expected "
            "numbers"
        )
    visible_v2 = points[~occluded.astype(bool)]
    if not np.isfinite(visible_v2).all():
        raise InputError(
            f"{path}: video {name}: a visible point is at NaN or infinity: expected x and y in [0, "
            "1]"
        )
    far_v = ((visible_v2 < LOWEST) | (visible_v2 > HIGHEST)).any(axis=1)
    if far_v.any():
        x, y = visible_v2[far_v][0]
        raise InputError(
            f"{path}: video {name}: a visible point is at {x:g}, {y:g}: expected x and y in [0, "
            "1], of width and height and not in pixels"
        )
    seen_n = ~occluded.astype(bool).all(axis=1)
    if not seen_n.any():
        raise InputError(f"{path}: video {name}: no point is ever visible: nothing to track")
    # TAP-Vid's coordinates begin at the corner of the first pixel, ours at its centre
    xy_nt2 = points[seen_n].astype(np.float64) * SIDE - 0.5
    return TapVidSequence(name, len(frames), frames, xy_nt2, ~occluded[seen_n].astype(bool))


class ArraysOnly(pickle.Unpickler):
    """An unpickler that reads arrays in plain containers, and refuses a pickle that would run
    anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a function that NumPy's arrays need, or raise an error for any other."""
        # old and new NumPy name the module differently
        if (
            module.replace("numpy._core", "numpy.core"),
            name,
        ) not in ARRAYS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: Path) -> dict[str, Any]:
    """Read the dictionary of videos; InputError if the file is not a pickle of arrays in a
    dictionary."""
    try:
        with path.open("rb") as file:
            videos = unpickle(file)
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        AttributeError,
        ImportError,
        IndexError,
        TypeError,
        UnicodeError,
    ) as error:
        raise InputError(f"{path}: not TAP-Vid's pickle of arrays ({error})") from None
    if not isinstance(videos, dict) or not videos:
        raise InputError(f"{path}: {type(videos).__name__}: expected a dictionary of videos")
    return videos


def unpickle(file: IO[bytes]) -> Any:
    """Load a pickle of arrays."""
    return ArraysOnly(file).load()
