"""The configs of the commands: what each flag means. What of them names a training run is in `claim.py`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from corrflow import InputError
from corrflow.attention.choice import Asked
from corrflow.benchmarks.registry import BENCHMARKS, find_benchmark
from corrflow.propagation.protocols import PROTOCOLS, Protocol, changed, find_protocol
from corrflow.speed.cases import Sizes
from corrflow.training.config import TrainingConfig
from corrflow.training.distributed import PatienceConfig
from shards.clip import ClipConfig
from shards.pack import PackConfig
from shards.stream import StreamConfig
from slurm.cluster import ClusterConfig, find_profile


@dataclass(frozen=True)
class TrainJob:
    """Train a correspondence model on packed videos. The same command again resumes the run."""

    data: str
    """Shards from launch/shard.py: a folder, http(s)://HOST/FOLDER, or pipe:COMMAND with {} for a file's name."""
    run: Path
    """Folder of the run: config, checkpoints, log."""
    procs: int = 0
    """Processes on this machine, or on each node; 0: one for each GPU, or one."""
    nodes: int = 0
    """Nodes of a SLURM job to hand the run to; 0: it runs here."""
    gpus_per_node: int | None = None
    """Of that job; unless given, the cluster profile's."""
    follow: bool = False
    """With --nodes: stay, and print what rank 0 prints."""
    dry_run: bool = False
    """With --nodes: print the sbatch script, and submit nothing."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: CUDA where there is one."""
    patience: PatienceConfig = field(default_factory=PatienceConfig)
    cluster: ClusterConfig = field(default_factory=find_profile)
    clip: ClipConfig = field(default_factory=ClipConfig)
    window: int = 64
    """Clips that are shuffled together in each slot of the batch."""
    quarantine: Path | None = None
    """List of samples to leave out, a line `SHARD KEY` each, as errors name them."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_procs(self.procs)
        if min(self.nodes, self.gpus_per_node or 0) < 0 or (self.follow or self.dry_run) > bool(self.nodes):
            told = f"nodes {self.nodes}, gpus-per-node {self.gpus_per_node}, follow {self.follow}, dry-run {self.dry_run}"
            raise InputError(f"train: {told}: expected at least 0, and follow and dry-run with --nodes alone")


@dataclass(frozen=True)
class StatusJob:
    """Say how runs are doing."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs; with --all: folders under which they are, `runs` unless given."""
    all: bool = False
    """A line for each run that is found."""

    def __post_init__(self) -> None:
        if not self.runs and not self.all:
            raise InputError("status: no run: expected the folder of one, or --all")


@dataclass(frozen=True)
class PackJob:
    """Pack videos into tar shards for training."""

    source: Path
    """Folder of video files, of frame folders, or of both at any depth; a list (.csv, .txt: lines `path` or `path,frames`); - for a list
    on standard input; or one video."""
    out: Path
    """New folder for the shards; one in which this packing was begun is gone on with."""
    procs: int = 0
    """Processes of each job; 0: one for each core."""
    jobs: int = 0
    """SLURM jobs, as one array; a further job writes the manifest. 0, or without SLURM: here."""
    follow: bool = False
    """With --jobs: stay, show how far they are, and end with them."""
    strict: bool = False
    """The first broken video ends it."""
    max_failures: float | None = None
    """Percent of the videos that may be broken; unless given, 10, and 10 videos at least."""
    pack: Annotated[PackConfig, tyro.conf.arg(name="")] = field(default_factory=PackConfig)
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        check_procs(self.procs)
        if self.jobs < 0 or not 0 <= (self.max_failures or 0) <= 100:
            raise InputError(f"shard: jobs {self.jobs}, max-failures {self.max_failures}: expected 0 or more, and 0 to 100")
        if self.strict and self.max_failures:
            raise InputError(f"shard: strict, max-failures {self.max_failures}: expected one of them")

    @property
    def percent(self) -> float | None:
        """Of the videos that may be broken."""
        return 0.0 if self.strict else self.max_failures


@dataclass(frozen=True)
class VerifyJob:
    """Read all shards again, and name each one and each sample that is not what the manifest says."""

    data: Path
    """Folder of shards."""
    procs: int = 0
    """Processes; 0: one for each core."""

    def __post_init__(self) -> None:
        check_procs(self.procs)


@dataclass(frozen=True)
class StatsJob:
    """Count what a folder of shards holds."""

    data: Path
    """Folder of shards."""
    frames: int = 3
    """Of a clip."""
    procs: int = 0
    """Processes; 0: one for each core."""

    def __post_init__(self) -> None:
        check_procs(self.procs)
        if self.frames < 1:
            raise InputError(f"frames {self.frames}: expected at least 1")


@dataclass(frozen=True)
class OrderJob:
    """Print which clips make each global batch, as training would read them, without training."""

    data: str
    """Shards: folder, URL or pipe:COMMAND."""
    batch: int = 6
    """Clips of a global batch."""
    ranks: int = 1
    """Processes among which it is divided."""
    workers: int = 0
    """Of each process."""
    steps: int = 5
    """Batches to print."""
    start: int = 0
    """The first of them, counted from 0."""
    seed: int = 0
    """Of the order, as trainer.seed."""
    window: int = 64
    """Clips that are shuffled together in each slot of the batch."""
    quarantine: Path | None = None
    """List of samples to leave out."""
    json: bool = False
    """One JSON list of names a line."""
    clip: ClipConfig = field(default_factory=ClipConfig)

    def __post_init__(self) -> None:
        if min(self.batch, self.ranks, self.steps) < 1 or min(self.workers, self.start, self.seed) < 0:
            raise InputError(f"order: {self}: expected batch, ranks and steps from 1 on, the others from 0")


@dataclass(frozen=True)
class EvalJob:
    """Track what is given in each sequence of a benchmark, score the result, and write a report. The same command again does what
    is left."""

    benchmark: Annotated[str, tyro.conf.arg(metavar="|".join(BENCHMARKS))]
    """Its rules and its files; docs/benchmarks.md has them all."""
    root: Path
    """Folder of its data, as downloaded."""
    out: Path
    """New folder for predictions, overlays, tables, metrics.json, report.html; one in which this evaluation was begun is gone on with."""
    checkpoint: str = "none"
    """A checkpoint of ours or a released one; none: random weights, the untrained baseline."""
    encoder: str = ""
    """Another encoder instead: package.module:function or file.py:function, called with the device, returns a corrflow.Backbone."""
    protocol: Annotated[str, tyro.conf.arg(metavar="|".join(PROTOCOLS))] = "paper"
    """paper: from frame to frame; memory: from the first and the last 20; mast, crw, dino: as those papers do; identity: no tracking."""
    radius: int | None = None
    """Half the window's side in pixels, unless the protocol's."""
    top_k: int | None = None
    """Cells that count, unless the protocol's; 0: all."""
    temperature: float | None = None
    """Of normalised features, unless the protocol's; 0: features as they are."""
    frames: int | None = None
    """Previous frames to copy from, unless the protocol's."""
    hard: bool | None = None
    """Whether labels are decided in each frame, unless the protocol says."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: CUDA where there is one."""
    attention: Asked = "auto"
    """Backend of the attention; auto: triton on CUDA, tiled on the CPU."""
    seed: int = 0
    """Of the random weights."""
    jobs: int = 0
    """SLURM jobs, as one array, among which the sequences are divided; a further job writes the report. Without SLURM: processes here."""
    follow: bool = False
    """With --jobs on SLURM: stay, show how far they are, and end with them."""
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise InputError(f"eval: jobs {self.jobs}: expected 0 or more")
        if self.encoder and self.checkpoint != "none":
            raise InputError(f"eval: checkpoint {self.checkpoint}, encoder {self.encoder}: expected one of them")
        find_benchmark(self.benchmark)

    @property
    def chosen_protocol(self) -> Protocol:
        """With what was asked for instead."""
        recent = None if self.frames is None else tuple(range(1, self.frames + 1))
        settings = {"radius": self.radius, "top_k": self.top_k, "temperature": self.temperature, "recent": recent, "hard": self.hard}
        return changed(find_protocol(self.protocol), **settings)


@dataclass(frozen=True)
class ReportJob:
    """Put finished evaluations beside each other, and beside published results, on one page."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of evaluations, as launch/eval.py --out; the first of each benchmark is the one that the others are compared with."""
    out: Path = Path("report.html")
    """The page to write."""
    title: str = "Evaluations compared"
    """Of the page."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("report: no run: expected the folder of a finished evaluation, or several")
        folders = [run.resolve() for run in self.runs]
        if repeated := [str(run) for i, run in enumerate(self.runs) if folders[i] in folders[:i]]:
            raise InputError(f"report: {', '.join(repeated)}: given before: expected each run once")


@dataclass(frozen=True)
class TrackJob:
    """Track what is marked through a video: give one of --mask, --points, --box. All frames are written; nothing is drawn before the first
    that has marks. Ctrl-C keeps what is done."""

    checkpoint: Path
    """A checkpoint of ours or a released one."""
    video: Path | None = None
    """A video file or a folder of numbered frames."""
    out: Path | None = None
    """The video to write, NAME.mp4. Beside it: NAME.csv and NAME.json, and of masks and boxes the folder NAME-masks."""
    mask: tuple[str, ...] = ()
    """PNGs of the video's size: 0 background; 1, 2, ... (or 255) the objects. FILE, or FRAME=FILE for that frame; several mark objects that
    come later, or mark objects anew. Or a folder of PNGs named by frame number."""
    points: tuple[str, ...] = ()
    """x,y in pixels, from 0,0, the middle of the top left one; or FRAME=x,y."""
    box: tuple[str, ...] = ()
    """x0,y0,x1,y1 in pixels, of which x1,y1 are the first outside; or FRAME=x0,y0,x1,y1. Each is an object."""
    start: int = 0
    """The frame, counted from 0, of marks without a FRAME= of their own."""
    backward: bool = False
    """Track backwards as well, down to frame 0, what is first marked in a later frame. Frames up to there are put on the disk of --out
    meanwhile: 0.1 to 0.2 MB for each at size 480."""
    protocol: str = "paper"
    """How marks travel from frame to frame; another name lists them."""
    size: int = 480
    """Short side at which to track, in pixels; results come at the video's own size."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: CUDA where there is one."""
    attention: Asked = "auto"
    """Backend of the attention; auto: triton on CUDA, tiled on the CPU."""
    browser: bool = False
    """Open a page, for this machine alone, on which to choose a video and mark what is to be tracked."""
    port: int = 7860
    """Of the page."""

    def __post_init__(self) -> None:
        if self.size < 32:
            raise InputError(f"track: size {self.size}: expected at least 32 pixels")
        if not 0 < self.port < 1 << 16:
            raise InputError(f"track: port {self.port}: expected 1 to 65535")
        if self.browser and (self.video or self.out or self.mask or self.points or self.box):
            raise InputError("track: browser: expected no video, out or marks beside it: the page asks for them")


# batch, height and width in pixels, rounds; those of a CUDA device below
BENCH_SIZES = {"attention": (2, 256, 256, 10), "step": (2, 256, 256, 3), "inference": (1, 480, 848, 5), "growth": (2, 256, 256, 1)}
BENCH_SIZES_CUDA = {"attention": (32, 256, 256, 20), "step": (16, 256, 256, 10), "inference": (1, 480, 848, 50), "growth": (8, 256, 256, 5)}


@dataclass(frozen=True)
class BenchJob:
    """Measure speed and memory, beside the released formulation and beside what the machine can do."""

    work: tyro.conf.Positional[Literal["attention", "step", "inference", "growth"]]
    """attention: one copy; step: a training step; inference: one more frame of a video; growth: by image side and radius."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: CUDA where there is one."""
    json: Path | None = None
    """File for the rows."""
    plot: Path | None = None
    """PNG for the curves of `growth`."""
    repeats: int = 0
    """Rounds that count; 0: enough for the work."""
    batch: int = 0
    """Frames or clips at a time; 0: that of the work."""
    height: int = 0
    """Of the frames, in pixels; 0: that of the work."""
    width: int = 0
    """Of the frames, in pixels; 0: that of the work."""
    radius: int = 6
    """Half the window's side, in cells of 4 pixels."""

    def __post_init__(self) -> None:
        if min(self.repeats, self.batch, self.height, self.width) < 0:
            raise InputError(f"bench: {self}: expected whole numbers from 1 on, or 0 to choose")
        if self.plot and self.work != "growth":
            raise InputError(f"bench: plot {self.plot}: expected with growth alone")

    def rounds(self, device: torch.device) -> int:
        """Rounds that count."""
        return self.repeats or bench_sizes(device)[self.work][3]

    def sizes(self, device: torch.device) -> Sizes:
        """How large the work is."""
        batch, height, width, _ = bench_sizes(device)[self.work]
        return Sizes(self.batch or batch, self.height or height, self.width or width, self.radius)


@dataclass(frozen=True)
class PackBenchJob:
    """Measure what packing costs one core, beside decoding and encoding alone."""

    source: Path
    """Video files, as launch/shard.py takes them."""
    videos: int = 64
    """The first so many."""
    repeats: int = 3
    """Rounds."""
    pack: Annotated[PackConfig, tyro.conf.arg(name="")] = field(default_factory=PackConfig)

    def __post_init__(self) -> None:
        if min(self.videos, self.repeats) < 1:
            raise InputError(f"bench: videos {self.videos}, repeats {self.repeats}: expected 1 or more")


@dataclass(frozen=True)
class LoaderBenchJob:
    """Measure how many clips a second a worker reads, beside decoding their JPEGs alone."""

    data: str
    """Shards: folder, URL or pipe:COMMAND."""
    batch: int = 8
    """Clips of a batch."""
    steps: int = 500
    """Batches of the long run, given by tenths; 100000 to see whether it slows down."""
    repeats: int = 5
    """Rounds of the comparison."""
    window: int = 64
    """Clips that are shuffled together in each slot of the batch."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    stream: StreamConfig = field(default_factory=lambda: StreamConfig(workers=1))

    def __post_init__(self) -> None:
        if min(self.batch, self.steps, self.repeats) < 1 or self.stream.workers < 1:
            raise InputError(f"bench: {self}: expected batch, steps, repeats and workers from 1 on")


@dataclass(frozen=True)
class ReduceBenchJob:
    """Measure how long an all-reduce of the gradients takes among processes."""

    procs: int = 2
    """Processes on this machine; those of torchrun are taken as they are."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the gradients are; auto: CUDA where there is one."""
    repeats: int = 30
    """All-reduces of each size."""

    def __post_init__(self) -> None:
        if self.procs < 2 or self.repeats < 1:
            raise InputError(f"bench: procs {self.procs}, repeats {self.repeats}: expected 2 or more, and 1 or more")


def bench_sizes(device: torch.device) -> dict[str, tuple[int, int, int, int]]:
    """Those that suit a device."""
    return BENCH_SIZES_CUDA if device.type == "cuda" else BENCH_SIZES


def check_procs(procs: int) -> None:
    """InputError for fewer than none."""
    if procs < 0:
        raise InputError(f"procs {procs}: expected 1 or more, or 0 to choose")
