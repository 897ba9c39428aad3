"""The flags of the commands that train and pack. The flags of those that evaluate and track are in
`evaluate.py`, of those that measure in `bench.py`. `launch/common/run_config.py` says which flags
may change when a run is resumed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from corrflow import InputError
from corrflow.errors import check_range
from corrflow.plotting import check_picture
from corrflow.pretrained import Weights
from corrflow.training.config import TrainingConfig
from corrflow.training.distributed import TimeoutConfig
from launch.configs.needed import check_needed
from shards.packing.config import PackConfig
from shards.reading.clip import ClipConfig
from shards.reading.stream import StreamConfig
from slurm.cluster import ClusterConfig, find_profile


@dataclass(frozen=True)
class TrainJob:
    """Train a correspondence model on packed videos. The same command again resumes the run."""

    first_flags: ClassVar = (
        "data",
        "run",
        "procs",
        "nodes",
        "follow",
        "dry-run",
        "trainer.steps",
        "trainer.batch",
        "clip.size",
        "model.encoder",
        "validation.root",
    )

    data: str
    """Shards from launch/shard.py: a folder, http(s)://HOST/FOLDER, or pipe:COMMAND with {} for a
    file's name."""
    run: Path
    """Folder for the run's configuration, checkpoints and log. If the folder has a run already, it
    is resumed."""
    procs: int = 0
    """Number of processes on this machine, or with --nodes on each node. 0 starts one for each GPU,
    or a single one without a GPU."""
    nodes: int = 0
    """Submit the run to SLURM as a job on this many nodes; 0 runs it here."""
    gpus_per_node: int | None = None
    """With --nodes: number of GPUs on each node. By default, the cluster profile's number."""
    follow: bool = False
    """With --nodes: wait for the job, and print what rank 0 prints."""
    dry_run: bool = False
    """With --nodes: print the sbatch script instead of submitting it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto takes CUDA if there is a GPU."""
    timeouts: TimeoutConfig = field(default_factory=TimeoutConfig)
    cluster: ClusterConfig = field(default_factory=find_profile)
    clip: ClipConfig = field(default_factory=ClipConfig)
    shuffle_buffer: int = 64
    """Size of the shuffle buffer: number of clips that are shuffled together for each slot of the
    batch."""
    quarantine: Path | None = None
    """File that lists samples to leave out, with a line `SHARD KEY` for each, as error messages
    name them."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(
        default_factory=TrainingConfig
    )

    def __post_init__(self) -> None:
        check_range("train", self, "procs nodes gpus_per_node", 0)
        check_needed("train", self, "gpus_per_node follow dry_run cluster", "nodes")


@dataclass(frozen=True)
class StatusJob:
    """Say how runs are doing."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs. With --all, folders in which to look for runs, by default `runs`."""
    all: bool = False
    """Print one line for each run in the folders."""
    page: Path | None = None
    """With --all: HTML page to write as well, with the runs' states and curves."""

    def __post_init__(self) -> None:
        if self.page and not self.all:
            raise InputError(f"status: page {self.page}: expected --all with it")
        if not self.runs and not self.all:
            raise InputError("status: no run: expected the folder of one, or --all")


@dataclass(frozen=True)
class CurveJob:
    """Plot the J&F of each validation and the loss of runs over the number of clips seen."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of the runs to draw."""
    out: Path = Path("curve.png")
    """PNG file to write."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("curve: no run: expected the folder of one, or of several")
        if len({run.absolute().name for run in self.runs}) < len(self.runs):
            raise InputError(
                f"curve: {', '.join(map(str, self.runs))}: expected each to have a name of its own"
            )
        check_picture("curve: out", self.out)


@dataclass(frozen=True)
class ExportJob:
    """Write only a checkpoint's weights, in half precision, to a small folder that every command
    accepts as a checkpoint."""

    checkpoint: Path
    """A checkpoint of ours or a released one."""
    out: Path
    """Folder to write: config.json and model.safetensors."""
    weights: Weights = "auto"
    """Which weights: `ema`, the exponential moving average over training; `last`, those of the last
    step; `auto`, the moving average if the run kept one."""
    inverse_temperature: float | None = None
    """Inverse temperature of the exported model. Choose it on videos with masks: a softer copy than
    in training may drift less. By default, the inverse temperature of training."""
    input_scale: float | None = None
    """Factor by which the exported model enlarges frames before encoding them. Choose it in the
    same way. Features are averaged back, so that the number of compared cells is the same: finer
    detail, at an encoder's cost that grows with the factor's square. By default, the checkpoint's
    own factor, which is 1 after training."""


@dataclass(frozen=True)
class PackJob:
    """Pack videos into tar shards for training."""

    first_flags: ClassVar = ("source", "out", "procs", "jobs", "follow")

    source: Path
    """Folder of video files, of frame folders, or of both at any depth; a list (.csv, .txt: lines
    `path` or `path,frames`); - for a list on standard input; or one video."""
    out: Path
    """Folder for the shards: a new one, or one with an unfinished packing with the same settings,
    which is then resumed."""
    procs: int = 0
    """Number of processes of each job; 0 starts one for each core."""
    jobs: int = 0
    """Divide the videos among this many jobs of a SLURM array; one more job writes the manifest.
    With 0, without SLURM or with --local, pack here."""
    local: bool = False
    """With --jobs: pack here in at least that many processes, even if SLURM is installed."""
    follow: bool = False
    """With --jobs: wait for the jobs, and show their progress."""
    strict: bool = False
    """Stop at the first broken video."""
    max_failures: float | None = None
    """Percentage of the videos that may be broken before packing fails; by default 10 percent, or
    10 videos if that is more."""
    pack: Annotated[PackConfig, tyro.conf.arg(name="")] = field(default_factory=PackConfig)
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        check_range("shard", self, "procs jobs", 0)
        check_range("shard", self, "max_failures", 0, 100)
        check_needed("shard", self, "local follow cluster", "jobs")
        if self.strict and self.max_failures:
            raise InputError(
                f"shard: strict, max-failures {self.max_failures}: expected one of them"
            )

    @property
    def percent(self) -> float | None:
        """Percentage of the videos that may be broken; None for the default."""
        return 0.0 if self.strict else self.max_failures


@dataclass(frozen=True)
class VerifyJob:
    """Read all shards, and name each shard and each sample that differs from the manifest."""

    data: Path
    """Folder with the shards."""
    procs: int = 0
    """Number of processes to start; 0 starts one for each core."""

    def __post_init__(self) -> None:
        check_range("verify", self, "procs", 0)


@dataclass(frozen=True)
class StatsJob:
    """Count the contents of a folder of shards."""

    data: Path
    """Folder with the shards."""
    frames: int = 3
    """Number of frames in a clip, for counting the clips in the shards."""
    procs: int = 0
    """Number of processes to start; 0 starts one for each core."""

    def __post_init__(self) -> None:
        check_range("stats", self, "procs", 0)
        check_range("stats", self, "frames", 1)


@dataclass(frozen=True)
class PaletteJob:
    """Find colour classes: k-means over the colours of packed videos."""

    data: str
    """Shards: a folder, a URL or pipe:COMMAND."""
    out: Path
    """CSV file to write, with a line for each class, for train.py --target.palette."""
    classes: int = 16
    """Number of colour classes."""
    lightness: float = 0.0
    """Weight of L relative to a and b, for classes of Lab; give train.py --target.lightness the
    same value. 0 makes classes of only a and b."""
    clips: int = 400
    """Number of clips from whose first frames colours are taken, 4,096 pixels from each."""
    seed: int = 0
    """Seed of the choice of clips and of the initial centres."""

    def __post_init__(self) -> None:
        check_range("palette", self, "clips", 1)
        check_range("palette", self, "lightness", 0)
        check_range("palette", self, "seed", 0, 2**32 - 1)  # k-means accepts no larger seed


@dataclass(frozen=True)
class OrderJob:
    """Print which clips make each global batch, as training would read them, without training."""

    data: str
    """Shards: a folder, a URL or pipe:COMMAND."""
    batch: int = 6
    """Number of clips in a global batch, over all processes."""
    ranks: int = 1
    """Number of processes among which the batch is divided."""
    workers: int = 0
    """Number of loader workers of each process."""
    steps: int = 5
    """Number of batches to print."""
    start: int = 0
    """Index of the first batch to print, counted from 0."""
    seed: int = 0
    """Seed of the order, as train.py --trainer.seed."""
    shuffle_buffer: int = 64
    """Size of the shuffle buffer: number of clips that are shuffled together for each slot of the
    batch."""
    quarantine: Path | None = None
    """File that lists samples to leave out, as in train.py."""
    json: bool = False
    """Print each batch as a JSON list of names on one line."""
    clip: ClipConfig = field(default_factory=ClipConfig)

    def __post_init__(self) -> None:
        check_range("order", self, "batch ranks steps", 1)
        check_range("order", self, "workers start seed", 0)
