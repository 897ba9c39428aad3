"""The configs of the commands that evaluate, report and track: what each flag means."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from corrflow import InputError
from corrflow.attention.choice import Asked
from corrflow.benchmarks.registry import BENCHMARKS, find_benchmark
from corrflow.propagation.protocols import PROTOCOLS, Protocol, find_protocol, override
from corrflow.scale import SMALLEST_SIDE
from slurm.cluster import ClusterConfig, find_profile


@dataclass(frozen=True)
class EvalJob:
    """Track what is given in each sequence of a benchmark, score the result, and write a report.
    The same command again does what is left."""

    benchmark: Annotated[str, tyro.conf.arg(metavar="|".join(BENCHMARKS))]
    """Name of the benchmark; docs/evaluation.md says what each measures."""
    root: Path
    """Folder of its data, as downloaded."""
    out: Path
    """New folder for predictions, overlays, tables, metrics.json, report.html; one in which this
    evaluation was begun is gone on with."""
    checkpoint: str = ""
    """A checkpoint of ours or a released one; unless given, the pretrained model; none: random
    weights, the baseline."""
    encoder: str = ""
    """An encoder to evaluate instead of a checkpoint, as train.py --model.encoder takes it:
    torchvision:NAME or timm:NAME with its published weights, or package.module:function or
    FILE.py:function, which returns a corrflow.Encoder. With --checkpoint none, random weights."""
    protocol: Annotated[str, tyro.conf.arg(metavar="|".join(PROTOCOLS))] = "paper"
    """paper: from frame to frame; memory: from the first and seven earlier; mast, crw, dino: as
    those papers do; identity: no tracking."""
    radius: int | None = None
    """Half the window's side in pixels, unless the protocol's."""
    top_k: int | None = None
    """Cells that count, unless the protocol's; 0: all."""
    temperature: float | None = None
    """Of normalised features, unless the protocol's; 0: features as they are."""
    whitening: float | None = None
    """Features are whitened, with so many times their mean variance added, unless the protocol's;
    0: not at all."""
    frames: int | None = None
    """Previous frames to copy from, unless the protocol's."""
    argmax_each_frame: bool | None = None
    """Whether labels are decided in each frame, unless the protocol says."""
    size: int = 0
    """Short side at which to track, in pixels; scored at the data's own size. 0: that."""
    reset_gap: int = 0
    """Of DAVIS: track each frame from the true mask so many frames before alone: what features are
    worth, without drift. 0: from the first frame on, as the benchmark has it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: CUDA where there is one."""
    attention: Asked = "auto"
    """Backend of the attention; auto: triton on CUDA, tiled on the CPU."""
    seed: int = 0
    """Of the random weights."""
    jobs: int = 0
    """SLURM jobs, as one array, among which the sequences are divided; a further job writes the
    report. Where SLURM is not installed, or with --local: processes here."""
    local: bool = False
    """With --jobs: processes here, whatever is installed."""
    follow: bool = False
    """With --jobs on SLURM: stay, show how far they are, and end with them."""
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        if min(self.jobs, self.reset_gap, self.frames or 0) < 0 or 0 < self.size < SMALLEST_SIDE:
            jobs = f"jobs {self.jobs}, reset-gap {self.reset_gap}"
            told = f"{jobs}, frames {self.frames}, size {self.size}"
            raise InputError(
                f"eval: {told}: expected 0 or more, and of size 0 or at least {SMALLEST_SIDE}"
            )
        if self.local and not self.jobs:
            raise InputError("eval: local: expected --jobs N with it")
        if self.encoder and self.checkpoint not in ("", "none"):
            raise InputError(
                f"eval: checkpoint {self.checkpoint}, encoder {self.encoder}: expected one of them"
            )
        find_benchmark(self.benchmark)

    @property
    def chosen_protocol(self) -> Protocol:
        """With what was asked for instead."""
        recent = None if self.frames is None else tuple(range(1, self.frames + 1))
        settings = {
            "radius": self.radius,
            "top_k": self.top_k,
            "temperature": self.temperature,
            "whitening": self.whitening,
            "recent": recent,
            "argmax_each_frame": self.argmax_each_frame,
        }
        return override(find_protocol(self.protocol), **settings)


@dataclass(frozen=True)
class ReportJob:
    """Put finished evaluations beside each other, and beside published results, on one page."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of evaluations, as launch/eval.py --out; the first of each benchmark is the one that
    the others are compared with."""
    out: Path = Path("report.html")
    """The page to write."""
    title: str = "Evaluations compared"
    """Of the page."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError(
                "report: no run: expected the folder of a finished evaluation, or several"
            )
        folders = [run.resolve() for run in self.runs]
        if repeated := [str(run) for i, run in enumerate(self.runs) if folders[i] in folders[:i]]:
            raise InputError(f"report: {', '.join(repeated)}: given before: expected each run once")


@dataclass(frozen=True)
class TrackJob:
    """Track what is marked through a video: give one of --mask, --points, --box. All frames are
    written; nothing is drawn before the first that has marks. Ctrl-C keeps what is done."""

    checkpoint: Path | None = None
    """A checkpoint of ours or a released one; unless given, the pretrained model."""
    video: Path | None = None
    """A video file or a folder of numbered frames."""
    out: Path | None = None
    """The video to write, NAME.mp4. Beside it: NAME.csv and NAME.json, and of masks and boxes the
    folder NAME-masks."""
    mask: tuple[str, ...] = ()
    """PNGs of the video's size: 0 background; 1, 2, ... (or 255) the objects. FILE, or FRAME=FILE
    for that frame; several mark objects that come later, or mark objects anew. Or a folder of PNGs
    named by frame number. A mask that is called as a frame of a folder is that frame's."""
    points: tuple[str, ...] = ()
    """x,y in pixels, from 0,0, the middle of the top left one; or FRAME=x,y."""
    box: tuple[str, ...] = ()
    """x0,y0,x1,y1 in pixels, of which x1,y1 are the first outside; or FRAME=x0,y0,x1,y1. Each is an
    object."""
    start: int | None = None
    """The frame of marks without a FRAME= of their own; unless given, the first. Frames of a video
    are counted from 0; those of a folder have their files' numbers."""
    backward: bool = False
    """Track backwards as well, down to frame 0, what is first marked in a later frame. Frames up to
    there are put on the disk of --out meanwhile: 0.1 to 0.2 MB for each at size 480."""
    protocol: Annotated[str, tyro.conf.arg(metavar="|".join(PROTOCOLS))] = "memory"
    """memory: from the first frame and seven earlier; paper: from the previous alone, which is
    faster; others as in eval.py."""
    size: int = 480
    """Short side at which to track, in pixels; results come at the video's own size."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: CUDA where there is one."""
    attention: Asked = "auto"
    """Backend of the attention; auto: triton on CUDA, tiled on the CPU."""
    browser: bool = False
    """Open a page, for this machine alone, on which to choose a video and mark what is to be
    tracked."""
    port: int = 7860
    """Of the page."""

    def __post_init__(self) -> None:
        if self.size < SMALLEST_SIDE:
            raise InputError(f"track: size {self.size}: expected at least 32 pixels")
        if not 0 < self.port < 1 << 16:
            raise InputError(f"track: port {self.port}: expected 1 to 65535")
        if self.browser and (self.video or self.out or self.mask or self.points or self.box):
            raise InputError(
                "track: browser: expected no video, out or marks beside it: the page asks for them"
            )
