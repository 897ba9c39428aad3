"""The flags of the commands that train and pack. Those that evaluate and track are in
`evaluate.py`, those that measure in `bench.py`. Which of them name a run is in
`launch/common/run_config.py`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from corrflow import InputError
from corrflow.model import Weights
from corrflow.training.config import TrainingConfig
from corrflow.training.distributed import TimeoutConfig
from shards.packing.pack import PackConfig
from shards.reading.clip import ClipConfig
from shards.reading.stream import StreamConfig
from slurm.cluster import ClusterConfig, find_profile


@dataclass(frozen=True)
class TrainJob:
    """Train a correspondence model on packed videos. The same command again resumes the run."""

    data: str
    """Shards from launch/shard.py: a folder, http(s)://HOST/FOLDER, or pipe:COMMAND with {} for a
    file's name."""
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
    timeouts: TimeoutConfig = field(default_factory=TimeoutConfig)
    cluster: ClusterConfig = field(default_factory=find_profile)
    clip: ClipConfig = field(default_factory=ClipConfig)
    window: int = 64
    """Clips that are shuffled together in each slot of the batch."""
    quarantine: Path | None = None
    """List of samples to leave out, a line `SHARD KEY` each, as errors name them."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(
        default_factory=TrainingConfig
    )

    def __post_init__(self) -> None:
        check_procs(self.procs)
        if min(self.nodes, self.gpus_per_node or 0) < 0 or (self.follow or self.dry_run) > bool(
            self.nodes
        ):
            told = (
                f"nodes {self.nodes}, gpus-per-node {self.gpus_per_node}, follow {self.follow}, "
                f"dry-run {self.dry_run}"
            )
            raise InputError(
                f"train: {told}: expected at least 0, and follow and dry-run with --nodes alone"
            )


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
class CurveJob:
    """Draw how runs went: J&F of each validation, and the loss, against the clips seen."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs."""
    out: Path = Path("curve.png")
    """Picture to write."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("curve: no run: expected the folder of one, or of several")
        if len({run.name for run in self.runs}) < len(self.runs):
            raise InputError(
                f"curve: {', '.join(map(str, self.runs))}: expected each to have a name of its own"
            )


@dataclass(frozen=True)
class ExportJob:
    """Write a checkpoint's weights alone, in half precision: a small file that every command
    takes."""

    checkpoint: Path
    """A checkpoint of ours or a released one."""
    out: Path
    """File to write."""
    weights: Weights = "auto"
    """average: those averaged over training; last: those of the last step; auto: the average where
    one was kept."""
    inverse_temperature: float | None = None
    """Factor of the dot products from now on, to be chosen on videos with masks: a softer copy than
    in training may drift less; None: as trained."""


@dataclass(frozen=True)
class PackJob:
    """Pack videos into tar shards for training."""

    source: Path
    """Folder of video files, of frame folders, or of both at any depth; a list (.csv, .txt: lines
    `path` or `path,frames`); - for a list on standard input; or one video."""
    out: Path
    """New folder for the shards; one in which this packing was begun is gone on with."""
    procs: int = 0
    """Processes of each job; 0: one for each core."""
    jobs: int = 0
    """SLURM jobs, as one array; a further job writes the manifest. 0, where SLURM is not installed,
    or with --local: here."""
    local: bool = False
    """With --jobs: so many processes here at least, whatever is installed."""
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
            raise InputError(
                f"shard: jobs {self.jobs}, max-failures {self.max_failures}: expected 0 or more, "
                "and 0 to 100"
            )
        if self.local and not self.jobs:
            raise InputError("shard: local: expected --jobs N with it")
        if self.strict and self.max_failures:
            raise InputError(
                f"shard: strict, max-failures {self.max_failures}: expected one of them"
            )

    @property
    def percent(self) -> float | None:
        """Of the videos that may be broken."""
        return 0.0 if self.strict else self.max_failures


@dataclass(frozen=True)
class VerifyJob:
    """Read all shards again, and name each one and each sample that is not what the manifest
    says."""

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
class PaletteJob:
    """Find colour classes: k-means over the colours of packed videos."""

    data: str
    """Shards: folder, URL or pipe:COMMAND."""
    out: Path
    """CSV to write, a line for each class; train.py --target.palette takes it."""
    classes: int = 16
    """How many."""
    lightness: float = 0.0
    """Weight of L beside a and b, for classes of Lab (train.py --target.lightness is told the
    same); 0: of a and b alone."""
    clips: int = 400
    """Clips whose first frames are looked at, 4,096 pixels of each."""
    seed: int = 0
    """Of the clips and of the first centres."""

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise InputError(f"palette: clips {self.clips}: expected at least 1")
        if self.lightness < 0:
            raise InputError(f"palette: lightness {self.lightness}: expected at least 0")


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
        if (
            min(self.batch, self.ranks, self.steps) < 1
            or min(self.workers, self.start, self.seed) < 0
        ):
            raise InputError(
                f"order: {self}: expected batch, ranks and steps from 1 on, the others from 0"
            )


def check_procs(procs: int) -> None:
    """InputError for fewer than none."""
    if procs < 0:
        raise InputError(f"procs {procs}: expected 1 or more, or 0 to choose")
