"""The configs of `launch/bench.py`: what each flag means."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import tyro

from corrflow import InputError
from corrflow.errors import check_range
from corrflow.plotting import check_picture
from corrflow.speed.sizes import Sizes
from corrflow.training.config import TrainingConfig
from shards.packing.config import PackConfig
from shards.reading.clip import ClipConfig
from shards.reading.stream import StreamConfig

# batch, height and width in pixels, rounds; those of a CUDA device below
BENCH_SIZES = {
    "attention": (2, 256, 256, 10),
    "step": (2, 256, 256, 3),
    "inference": (1, 480, 848, 5),
    "growth": (2, 256, 256, 1),
}
BENCH_SIZES_CUDA = {
    "attention": (32, 256, 256, 20),
    "step": (16, 256, 256, 10),
    "inference": (1, 480, 848, 50),
    "growth": (8, 256, 256, 5),
}


@dataclass(frozen=True)
class BenchJob:
    """Measure speed and memory, beside the released formulation and beside what the machine can
    do."""

    work: tyro.conf.Positional[Literal["attention", "step", "inference", "growth"]]
    """What to measure: `attention`, one copy from frame to frame; `step`, a training step;
    `inference`, one more frame of a video; `growth`, attention and step against image side and
    radius. `pack`, `loader`, `train`, `gpu`, `reduce` and `scaling` have flags of their own:
    `bench.py loader --help`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    json: Path | None = None
    """JSON file to write the rows to."""
    plot: Path | None = None
    """With growth: PNG file to draw the curves to."""
    repeats: int = 0
    """Number of rounds after the first, which is not counted; 0 chooses."""
    batch: int = 0
    """Frames or clips at a time; 0 chooses."""
    height: int = 0
    """Height of the frames in pixels; 0 chooses."""
    width: int = 0
    """Width of the frames in pixels; 0 chooses."""
    radius: int = 6
    """Radius of the attention window, in cells of 4 pixels."""

    def __post_init__(self) -> None:
        check_range("bench", self, "repeats batch height width", 0)
        if self.plot and self.work != "growth":
            raise InputError(f"bench: plot {self.plot}: expected with growth alone")
        if self.plot:
            check_picture("bench: plot", self.plot)

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
    """Videos, as launch/shard.py --source takes them; files alone are measured."""
    videos: int = 64
    """How many of the videos are packed, from the first on."""
    repeats: int = 3
    """Number of rounds."""
    pack: Annotated[PackConfig, tyro.conf.arg(name="")] = field(default_factory=PackConfig)

    def __post_init__(self) -> None:
        check_range("bench", self, "videos repeats", 1)


@dataclass(frozen=True)
class LoaderBenchJob:
    """Measure how many clips a second a worker reads, beside decoding their JPEGs alone."""

    data: str
    """Shards: a folder, a URL or pipe:COMMAND."""
    batch: int = 8
    """Clips of a batch."""
    steps: int = 500
    """Batches of the long run, whose rate is shown by tenths; 100000 show whether it slows down."""
    repeats: int = 5
    """Number of rounds in which loading is compared with decoding."""
    shuffle_buffer: int = 64
    """Size of the shuffle buffer: clips that are shuffled together in each slot of the batch."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    stream: StreamConfig = field(default_factory=lambda: StreamConfig(workers=1))

    def __post_init__(self) -> None:
        check_range("bench", self, "batch steps repeats", 1)
        check_range("bench", self.stream, "workers", 1)


@dataclass(frozen=True)
class TrainBenchJob:
    """Measure training on shards beside its step alone and its loader alone, on one device."""

    data: str
    """Shards: a folder, a URL or pipe:COMMAND."""
    steps: int = 50
    """Number of steps, and of batches, that are measured; a fifth of it comes before, and is
    not."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto takes CUDA if there is a GPU."""
    json: Path | None = None
    """JSON file to write the figures to."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    shuffle_buffer: int = 64
    """Size of the shuffle buffer: clips that are shuffled together in each slot of the batch."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(
        default_factory=TrainingConfig
    )

    def __post_init__(self) -> None:
        check_range("bench", self, "steps", 1)

    @property
    def warm_steps(self) -> int:
        """Steps before those that count: they compile, choose algorithms and fill caches."""
        return max(self.steps // 5, 3)

    @property
    def all_steps(self) -> int:
        """Both."""
        return self.warm_steps + self.steps


GpuPart = Literal["attention", "model", "speed", "training", "davis", "profile"]
GPU_PARTS: tuple[GpuPart, ...] = get_args(GpuPart)


@dataclass(frozen=True)
class GpuBenchJob:
    """Check and measure all that a GPU computes, in a few minutes: what fails is told, and the rest
    goes on."""

    out: Path
    """Folder for gpu.json, and for the trace of a few steps."""
    data: str = ""
    """Shards to train on; without them that part is left out."""
    davis: Path | None = None
    """Folder of a DAVIS-2016 data set to evaluate on; without it that part is left out."""
    parts: tuple[GpuPart, ...] = GPU_PARTS
    """Which parts to do, in this order."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    tiny: bool = False
    """Take sizes that a CPU manages in a minute, to see that the command works."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError(f"bench: no part: expected some of {', '.join(GPU_PARTS)}")


@dataclass(frozen=True)
class ReduceBenchJob:
    """Measure how long an all-reduce of the gradients takes among processes."""

    procs: int = 2
    """Processes on this machine, unless torchrun has started some."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the gradients; auto takes CUDA if there is a GPU."""
    repeats: int = 30
    """Number of all-reduces of each size."""

    def __post_init__(self) -> None:
        check_range("bench", self, "procs", 2)
        check_range("bench", self, "repeats", 1)


def bench_sizes(device: torch.device) -> dict[str, tuple[int, int, int, int]]:
    """Those that suit a device."""
    return BENCH_SIZES_CUDA if device.type == "cuda" else BENCH_SIZES
