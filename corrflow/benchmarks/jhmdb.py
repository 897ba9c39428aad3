"""JHMDB: tracks 15 joints of a person; PCK at 0.1 to 0.5.

Jhuang et al., "Towards understanding action recognition", ICCV 2013. This is exactly the protocol
of label propagation (TimeCycle, UVC, CRW: Jabri et al., NeurIPS 2020, and their `eval_pck`):

- the sequences are the test videos of split 1 (those marked 2 in `splits/CLASS_test_split1.txt`);
  the joints of the first frame are given;
- joint positions are the annotated ones minus 1, since MATLAB counts pixels from 1. Joints outside
  of the picture in the first frame can't be given, and are not scored; all others are scored in
  every later frame, whether they are in the picture or not. The first frame is not scored;
- a joint is a hit at alpha if its distance to the truth is at most alpha times 0.6 times the
  diagonal of the axis-aligned box around that frame's true joints (the scored ones), in pixels of
  the video's own size;
- PCK@alpha of a joint is its share of hits over all frames of all videos together; the benchmark's
  figure is the mean over the 15 joints.

The code of these papers leaves out a joint in frames in which their own prediction is lost; here
that is a miss. Videos longer than their annotation are cut to its length. Shapes: t frames, k
joints.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from corrflow.benchmarks.benchmark import InitialLabels, PictureSequence, Scores, read_frames
from corrflow.benchmarks.folders import find, is_hidden, missing_path_error, numbered_files
from corrflow.benchmarks.points import (
    Floats,
    PointBenchmark,
    inside,
    known,
    named_scores,
    pooled,
    positions,
    require_points,
)
from corrflow.benchmarks.texts import read_text
from corrflow.errors import InputError
from corrflow.metrics import box_scale, keypoint_hits, mean
from corrflow.pictures import Pixels, read_frame

JOINTS = (
    "neck", "belly", "face", "right-shoulder", "left-shoulder", "right-hip", "left-hip",
    "right-elbow", "left-elbow",
    "right-knee", "left-knee", "right-wrist", "left-wrist", "right-ankle", "left-ankle",
)  # fmt: skip
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5)
MEASURES = tuple(f"PCK@{alpha}" for alpha in ALPHAS)
TEST = "2"  # marks the test videos in a split's list


@dataclass(frozen=True)
class JhmdbSequence(PictureSequence):
    """A video and its joints."""

    joints_tk2: NDArray[np.float32] = field(compare=False, repr=False)
    """Positions in pixels, from 0."""


class Jhmdb(PointBenchmark):
    """The JHMDB benchmark: joints of people."""

    name = "jhmdb"
    headline = ("PCK@0.1", "PCK@0.2")
    curves = ("PCK@0.1", "PCK@0.2")
    note = (
        "PCK@a: joints within a x 0.6 of the diagonal of the person's box; mean over 15 joints. "
        "The first frame is not scored."
    )

    def read(self, root: Path) -> list[JhmdbSequence]:
        """The test videos of split 1, from `splits`, `Rename_Images` and `joint_positions`."""
        for name in ("splits", "Rename_Images", "joint_positions"):
            if not (root / name).is_dir():
                layout = (
                    "JHMDB with splits/, Rename_Images/CLASS/VIDEO and joint_positions/CLASS/VIDEO"
                )
                raise missing_path_error(root / name, layout, root, self.name)
        videos = [
            video
            for path in find(root / "splits", "*_test_split1.txt")
            for video in listed_test_videos(path)
        ]
        if not videos:
            raise InputError(f"{root / 'splits'}: no CLASS_test_split1.txt with a test video there")
        return [read_sequence(root, video) for video in videos]

    def frames(self, sequence: JhmdbSequence) -> Iterator[Pixels]:
        """RGB frames."""
        return read_frames(sequence.paths, read_frame(sequence.paths[0]).shape)

    def initial_labels(self, sequence: JhmdbSequence) -> dict[int, InitialLabels]:
        """The joints of the first frame that lie within the picture; InputError if there are
        none."""
        height, width = read_frame(sequence.paths[0]).shape[:2]
        return {
            0: require_points(
                inside(sequence.joints_tk2[0], width, height), f"joints of {sequence.paths[0]}"
            )
        }

    def score(self, sequence: JhmdbSequence, predicted: list[Any]) -> dict[str, Scores]:
        """Score each given joint."""
        counted_k = known(self.initial_labels(sequence)[0])
        true_tk2 = np.where(counted_k[:, None], sequence.joints_tk2, np.nan)[1:]
        measures = pck_measures(positions(predicted)[1:], true_tk2)
        return named_scores(sequence.name, JOINTS, measures)

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """PCK@0.1 to PCK@0.5, each the mean over joints."""
        joints = [
            [score for name, score in scores.items() if name.endswith(f"_{joint}")]
            for joint in JOINTS
        ]
        return (
            {measure: mean([pooled(of, measure) for of in joints]) for measure in MEASURES}
            if scores
            else {}
        )


def pck_measures(pred_tk2: Floats, true_tk2: Floats) -> dict[str, Floats]:
    """Compute the hits `[T, K]` at each alpha."""
    scale_t = box_scale(true_tk2)
    return {
        measure: keypoint_hits(pred_tk2, true_tk2, alpha * scale_t)
        for measure, alpha in zip(MEASURES, ALPHAS, strict=True)
    }


def listed_test_videos(path: Path) -> list[str]:
    """The test videos `CLASS/VIDEO` of a split's list, whose lines for them are `VIDEO.avi 2`."""
    category = path.name.removesuffix("_test_split1.txt")
    pairs = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{path}: expected lines of a video's file and 0, 1 or 2")
    return [
        f"{category}/{Path(video).stem}"
        for video, use in pairs
        if use == TEST and not is_hidden(video)
    ]


def read_sequence(root: Path, video: str) -> JhmdbSequence:
    """Read the video `CLASS/VIDEO`; its name is `CLASS-VIDEO`, since two classes may have videos of
    the same name."""
    paths = numbered_files(root / "Rename_Images" / video, (".png",))
    joints_tk2 = read_joints(root / "joint_positions" / video / "joint_positions.mat")
    if len(joints_tk2) > len(paths):
        raise InputError(
            f"sequence {video}: {len(paths)} frames and joints of {len(joints_tk2)}: expected a "
            "frame for each"
        )
    return JhmdbSequence(
        video.replace("/", "-"), len(joints_tk2), tuple(paths[: len(joints_tk2)]), joints_tk2
    )


def read_joints(path: Path) -> NDArray[np.float32]:
    """Read `pos_img` `[2, 15, T]`, counted from 1, as `[T, 15, 2]` counted from 0; InputError if it
    can't be read."""
    try:
        joints = np.asarray(loadmat(str(path))["pos_img"], dtype=np.float32)
    except FileNotFoundError:
        raise InputError(f"joints {path}: no such file") from None
    # SciPy raises any of these for a damaged file
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        NotImplementedError,
        MatReadError,
    ) as error:
        raise InputError(f"joints {path}: not a MATLAB file with pos_img ({error})") from None
    if joints.ndim == 2:  # MATLAB drops a last dimension of 1: a video of one frame
        joints = joints[..., None]
    if joints.ndim != 3 or joints.shape[:2] != (2, len(JOINTS)) or not math.prod(joints.shape):
        raise InputError(
            f"joints {path}: pos_img is {list(joints.shape)}: expected [2, {len(JOINTS)}, frames]"
        )
    return joints.transpose(2, 1, 0) - 1
