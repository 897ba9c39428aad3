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

# on CPUs: batch, height and width in pixels, rounds
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
    """Measure speed and memory, compared with the released formulation and with the machine's
    limits."""

    work: tyro.conf.Positional[Literal["attention", "step", "inference", "growth"]]
    """What to measure: `attention`, one copy from frame to frame; `step`, a training step;
    `inference`, tracking one more frame of a video; `growth`, attention and step over the image's
    side and the radius. `pack`, `loader`, `train`, `gpu`, `reduce` and `scaling` have flags of
    their own: `bench.py loader --help`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    json: Path | None = None
    """JSON file to write the rows to."""
    plot: Path | None = None
    """With growth: PNG file to draw the curves to."""
    repeats: int = 0
    """Number of rounds after the first, which is not counted; 0 takes the device's default."""
    batch: int = 0
    """Batch size in frames or clips; 0 takes the device's default."""
    height: int = 0
    """Height of the frames in pixels; 0 takes the device's default."""
    width: int = 0
    """Width of the frames in pixels; 0 takes the device's default."""
    radius: int = 6
    """Radius of the attention window, in cells of 4 pixels."""

    def __post_init__(self) -> None:
        check_range("bench", self, "repeats batch height width", 0)
        if self.plot and self.work != "growth":
            raise InputError(f"bench: plot {self.plot}: expected with growth alone")
        if self.plot:
            check_picture("bench: plot", self.plot)

    def rounds(self, device: torch.device) -> int:
        """Number of rounds that are counted."""
        return self.repeats or bench_sizes(device)[self.work][3]

    def sizes(self, device: torch.device) -> Sizes:
        """The sizes that were given, with the device's defaults for the others."""
        batch, height, width, _ = bench_sizes(device)[self.work]
        return Sizes(self.batch or batch, self.height or height, self.width or width, self.radius)


@dataclass(frozen=True)
class PackBenchJob:
    """Measure the time that packing takes on one core, compared with decoding and encoding
    alone."""

    source: Path
    """Videos, as launch/shard.py --source takes them; only video files are measured."""
    videos: int = 64
    """Number of videos to pack, from the first on."""
    repeats: int = 3
    """Number of rounds."""
    pack: Annotated[PackConfig, tyro.conf.arg(name="")] = field(default_factory=PackConfig)

    def __post_init__(self) -> None:
        check_range("bench", self, "videos repeats", 1)


@dataclass(frozen=True)
class LoaderBenchJob:
    """Measure how many clips a second a loader worker reads, compared with decoding their JPEGs
    alone."""

    data: str
    """Shards: a folder, a URL or pipe:COMMAND."""
    batch: int = 8
    """Number of clips in a batch."""
    steps: int = 500
    """Number of batches of the long run, whose rate is shown by tenths: at least 100, since a few
    are ready before they are asked for; 100000 shows whether it slows down."""
    repeats: int = 5
    """Number of rounds in which loading is compared with decoding."""
    shuffle_buffer: int = 64
    """Size of the shuffle buffer: number of clips that are shuffled together for each slot of the
    batch."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    stream: StreamConfig = field(default_factory=lambda: StreamConfig(workers=1))

    def __post_init__(self) -> None:
        check_range("bench", self, "batch repeats", 1)
        check_range("bench", self, "steps", 100)
        check_range("bench", self.stream, "workers", 1)


@dataclass(frozen=True)
class TrainBenchJob:
    """Measure training on shards, compared with its step alone and its loader alone, on one
    device."""

    data: str
    """Shards: a folder, a URL or pipe:COMMAND."""
    steps: int = 50
    """Number of steps and batches to measure; a fifth as many warm-up steps come before."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto takes CUDA if there is a GPU."""
    json: Path | None = None
    """JSON file to write the figures to."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    shuffle_buffer: int = 64
    """Size of the shuffle buffer: number of clips that are shuffled together for each slot of the
    batch."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(
        default_factory=TrainingConfig
    )

    def __post_init__(self) -> None:
        check_range("bench", self, "steps", 1)

    @property
    def warm_steps(self) -> int:
        """Number of warm-up steps, which compile, choose algorithms and fill caches."""
        return max(self.steps // 5, 3)

    @property
    def all_steps(self) -> int:
        """Number of warm-up and measured steps together."""
        return self.warm_steps + self.steps


GpuPart = Literal["attention", "model", "speed", "training", "davis", "profile"]
GPU_PARTS: tuple[GpuPart, ...] = get_args(GpuPart)


@dataclass(frozen=True)
class GpuBenchJob:
    """Check and measure everything that runs on a GPU, in a few minutes. A failure is reported, and
    the rest goes on."""

    out: Path
    """Folder for gpu.json and the profiler's trace of a few steps."""
    data: str = ""
    """Shards to train on; without them the part `training` is left out."""
    davis: Path | None = None
    """Folder of a DAVIS-2016 data set to evaluate on; without it the part `davis` is left out."""
    parts: tuple[GpuPart, ...] = GPU_PARTS
    """Which parts to do, in this order."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    tiny: bool = False
    """Use sizes that take a CPU a minute, to check that the command works."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError(f"bench: no part: expected some of {', '.join(GPU_PARTS)}")


@dataclass(frozen=True)
class ReduceBenchJob:
    """Measure how long an all-reduce of the gradients takes among processes."""

    procs: int = 2
    """Number of processes to start on this machine, unless torchrun has started them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the gradients; auto takes CUDA if there is a GPU."""
    repeats: int = 30
    """Number of all-reduces of each size."""

    def __post_init__(self) -> None:
        check_range("bench", self, "procs", 2)
        check_range("bench", self, "repeats", 1)


def bench_sizes(device: torch.device) -> dict[str, tuple[int, int, int, int]]:
    """The default sizes for a device."""
    return BENCH_SIZES_CUDA if device.type == "cuda" else BENCH_SIZES
