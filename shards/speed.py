"""Measures how fast videos are packed and clips are read, compared with decoding and encoding
alone."""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import torch

from shards.errors import DataError
from shards.packing.config import PackConfig
from shards.packing.pack import encode_jpeg, finish, pack_units, prepare, read_source
from shards.reading.clip import ClipConfig, decode_clip, decode_frame
from shards.reading.corpus import Corpus
from shards.reading.order import ClipOrder
from shards.reading.read import Reader, Undecoded
from shards.reading.stream import ClipBatch, ClipDataset, StreamConfig, read_batches
from shards.video.container import open_video
from shards.video.decode import Damage, decode
from shards.video.sources import VideoSource, find_videos

WAITED_BATCHES = 20
PAUSE_BATCHES = 3  # length of a pause, in batches


class PackSpeed(NamedTuple):
    """Processor seconds of one core, for the same videos."""

    decode: float
    """Decoding all frames with PyAV."""
    encode: float
    """Encoding the kept frames as JPEG."""
    pack: float
    """Packing the videos into shards."""
    waited: float
    """Wall-clock seconds of packing beyond its processor time: reading, writing, other work on the
    machine."""
    videos: int
    video_seconds: float
    frames: int
    """Number of kept frames."""
    bytes: int
    """Size of the shards."""

    @property
    def ratio(self) -> float:
        """Time of packing divided by that of decoding and encoding alone."""
        return self.pack / (self.decode + self.encode)


def measure_packing(
    source: Path, config: PackConfig, most: int, rounds: int, on_round: Callable[[], object]
) -> PackSpeed:
    """Measure decoding, encoding and packing of the first `most` video files of `source`, in turns,
    on one core."""
    videos = [video for video in find_videos(source) if video.path.is_file()][:most]
    if not videos:
        raise DataError(f"source {source}: expected video files")
    kept = [
        f
        for v in videos
        for f in decode(v, config.sampling(), config.sizing(), 1)
        if not isinstance(f, Damage)
    ]
    seconds = sum(length_of(video) for video in videos)
    waited, packed = [], 0

    def pack_all() -> None:
        nonlocal packed
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "videos.csv"
            names.write_text("\n".join(f'"{video.path.absolute()}"' for video in videos))
            clock, processor = time.perf_counter(), time.process_time()
            if plan := prepare(read_source(names, config), Path(folder) / "out"):
                pack_units(plan, plan.units, processes=1)
                packed = sum(shard.bytes for shard in finish(plan).shards)
            waited.append(time.perf_counter() - clock - (time.process_time() - processor))

    works = [
        lambda: decode_all(videos),
        lambda: [encode_jpeg(frame, config.quality) for frame in kept],
        pack_all,
    ]
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for times, work in zip(taken, works, strict=True):
            begun = time.process_time()
            work()
            times.append(time.process_time() - begun)
        on_round()
    decoding, encoding, packing = (statistics.median(times) for times in taken)
    return PackSpeed(
        decoding,
        encoding,
        packing,
        statistics.median(waited),
        len(videos),
        seconds,
        len(kept),
        packed,
    )


def decode_all(videos: list[VideoSource]) -> None:
    """Decode every frame, and discard it."""
    for video in videos:
        with open_video(video.path) as (container, stream):
            stream.thread_count = 1
            for _ in container.decode(stream):
                pass


def length_of(video: VideoSource) -> float:
    """Length of a video in seconds."""
    with open_video(video.path) as (container, stream):
        return (
            float((stream.duration or 0) * (stream.time_base or 0))
            or float(container.duration or 0) / av.time_base
        )


@dataclass(frozen=True)
class LoaderSpeed:
    """Speed of a loader, in clips per second of one worker on one core unless said otherwise."""

    jpeg: float
    """Upper limit: only decoding the JPEGs."""
    pixels: float
    """Upper limit: decoding, cropping and resizing."""
    loader: float
    by_tenth: list[float]
    """The loader's rate in each tenth of all batches."""
    worker_mb: list[float]
    """Private memory of a worker, in 10^6 bytes, at the end of each tenth."""
    wait: float
    """Median seconds of `next()` when batches are asked for without pause."""
    wait_when_ready: float
    """Median seconds of `next()` after a pause in which the next batch can be prepared."""
    planning: float
    """Seconds to find the place of step 1,000,000 in one stream, without reading data."""


def measure_loading(
    corpus: Corpus,
    order: ClipOrder,
    clip: ClipConfig,
    config: StreamConfig,
    batches: int,
    rounds: int,
    on_batch: Callable[[], object],
) -> LoaderSpeed:
    """Measure decoding and loading in turns, then the loader over a long run.

    Args:
        corpus: to read from.
        order: the order of its clips.
        clip: how clips are cut.
        config: workers and prefetching; rates are the mean per started worker.
        batches: number of batches of the long run.
        rounds: number of turns before it.
        on_batch: called after each batch of the long run.
    """
    planning = taken(lambda: next(order.buffers(0, 1_000_000)))
    dataset = ClipDataset(corpus, order, clip, 0, 1, 0)
    sample = list(itertools.islice(dataset.undecoded(0, Reader(corpus, order)), 200))
    workers = dataset.worker_count(config)
    # always closed, because otherwise Python would wait for its workers at exit
    with closing(read_batches(dataset, config)) as stream:
        some = max(800 // order.streams, 1) * workers
        for _ in range(some):
            next(stream)
        limits, sized, rates = [], [], []
        for _ in range(rounds):
            # while this process decodes, the workers wait, because their queues are full
            limits.append(len(sample) / taken(lambda: decode_only(sample)))
            sized.append(len(sample) / taken(lambda: decode_sized(sample, clip)))
            for _ in range(config.prefetch * workers):  # discard prefetched batches
                next(stream)
            rates.append(
                some * order.streams / workers / taken(lambda: [next(stream) for _ in range(some)])
            )
        tenths = measure_tenths(stream, max(batches // 10, 1), on_batch)
        wait = measure_wait(stream, pause=0.0)
        wait_when_ready = measure_wait(stream, pause=PAUSE_BATCHES * wait)
    by_tenth = [order.streams / workers / seconds for seconds, _ in tenths]
    memory = [megabytes for _, megabytes in tenths]
    return LoaderSpeed(
        statistics.median(limits),
        statistics.median(sized),
        statistics.median(rates),
        by_tenth,
        memory,
        wait,
        wait_when_ready,
        planning,
    )


def measure_wait(stream: Iterator[ClipBatch], pause: float) -> float:
    """The median time of `next()` in seconds, with a pause before each call.

    Args:
        stream: of batches.
        pause: in seconds.
    """
    waits = []
    for _ in range(WAITED_BATCHES):
        time.sleep(pause)
        waits.append(taken(lambda: next(stream)))
    return statistics.median(waits)


def measure_tenths(
    stream: Iterator[ClipBatch], count: int, on_batch: Callable[[], object]
) -> list[tuple[float, float]]:
    """Read ten times `count` batches; for each tenth, return the seconds per batch, and the largest
    private memory of a worker in MB."""
    tenths = []
    for _ in range(10):
        begun = time.perf_counter()
        for _ in range(count):
            next(stream)
            on_batch()
        seconds = (time.perf_counter() - begun) / count
        tenths.append((seconds, max(own_memory_mb(), default=0.0)))
    return tenths


def decode_only(sample: list[Undecoded]) -> None:
    """Decode JPEGs to pixels, without resizing."""
    for clip_jpegs in sample:
        for jpeg in clip_jpegs.jpegs:
            decode_frame(jpeg, 0)


def decode_sized(sample: list[Undecoded], clip: ClipConfig) -> None:
    """Decode JPEGs to clips: cropped, resized and flipped."""
    out = torch.empty(clip.frames, 3, clip.size, clip.size, dtype=torch.uint8)
    for clip_jpegs in sample:
        decode_clip(clip_jpegs.jpegs, clip_jpegs.cut, clip, out)


def taken(work: Callable[[], object]) -> float:
    """Wall-clock seconds of `work`."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def own_memory_mb() -> list[float]:
    """Private memory of each child process, in 10^6 bytes (on Linux)."""
    sizes = []
    for task in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in task.read_text().split():
            try:
                lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):  # the process has ended
                continue
            sizes.append(
                sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
                * 1024
                / 1e6
            )
    return sizes
