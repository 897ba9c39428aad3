"""Reads clips in the order of `order.py`, with any number of worker processes."""

import atexit
import itertools
import math
import mmap
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from shards.errors import DataError, StallError, check_choice, check_range
from shards.manifest import Manifest
from shards.reading.clip import ClipConfig, ClipSample, DamagedFrameError, decode_clip, sample_clip
from shards.reading.corpus import Corpus, open_corpus
from shards.reading.order import ClipOrder, streams_of, streams_per_rank
from shards.reading.prefetch import read_ahead
from shards.reading.read import Reader, Undecoded

DecodePlace = Literal["worker", "device"]


class ClipBatch(NamedTuple):
    """A rank's part of a global batch."""

    clips: Tensor
    """uint8 `[B, T, 3, H, W]`, in memory `[B, T, H, W, 3]`."""
    keys: list[str]
    """`sample key:frame,frame,...` of each clip."""


@dataclass(frozen=True)
class StreamConfig:
    """How a rank reads its clips. Nothing here changes which clips are read."""

    workers: int = 2
    """Number of processes that read and decode, at most as many as the rank has clips in a batch; 0
    reads in the training process itself."""
    prefetch: int = 2
    """Number of batches that each worker keeps ready."""
    decode: DecodePlace = "worker"
    """Where JPEGs are decoded: by the workers, or on the device by the training process (with
    nvJPEG on CUDA, whose pixels differ slightly)."""
    stall_seconds: int = 600
    """Longest wait for the clips of a worker, in seconds, after which the run ends with an error; a
    warning is printed after a tenth of it. 0 waits for ever. Without workers there is only the
    warning."""

    def __post_init__(self) -> None:
        check_choice("stream: decode", self.decode, DecodePlace)
        check_range("stream", self, "workers stall_seconds", 0)
        check_range("stream", self, "prefetch", 1)


class Share(NamedTuple):
    """The message of a worker that its part of a batch is ready."""

    slot: int
    """Index of the slot in the worker's shared memory that has the clips."""
    keys: list[str]


class ClipDataset(IterableDataset[list[Undecoded] | Share]):
    """The part that a rank, or one of its loader workers, reads of each global batch, from batch
    `start` on."""

    def __init__(
        self, corpus: Corpus, order: ClipOrder, clip: ClipConfig, rank: int, ranks: int, start: int
    ) -> None:
        super().__init__()
        self.corpus, self.order, self.clip = corpus, order, clip
        self.rank, self.ranks, self.start = rank, ranks, start
        self.slots: list[Tensor] | None = None
        """Shared memory of each worker for decoded clips, uint8 `[slots, B, T, H, W, 3]`, where B
        is the number of clips in the worker's part of a batch. If None, JPEGs are yielded
        instead."""

    def share_of(self, worker: int, workers: int) -> range:
        """The logical streams that one of the rank's workers reads."""
        return streams_of(self.order.streams, self.rank, self.ranks, worker, workers)

    def worker_count(self, config: StreamConfig) -> int:
        """How many workers divide the rank's streams, each with at least one; 1 if the training
        process reads."""
        return min(max(config.workers, 1), streams_per_rank(self.order.streams, self.ranks))

    def __iter__(self) -> Iterator[list[Undecoded] | Share]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        reader = Reader(self.corpus, self.order)
        streams = [self.undecoded(stream, reader) for stream in self.share_of(worker, workers)]
        for number in itertools.count():
            clips = [next(stream) for stream in streams]
            if self.slots is None:
                yield clips
            else:
                slots = self.slots[worker]
                slot = number % len(slots)
                decode_into(clips, self.clip, slots[slot])
                yield Share(slot, [clip.name for clip in clips])

    def undecoded(self, stream: int, reader: Reader) -> Iterator[Undecoded]:
        """Yield the clips of one logical stream as JPEGs, without end."""
        for buffer in self.order.buffers(stream, self.start):
            yield from reader.read(buffer, partial(self.choose, buffer.epoch))

    def choose(self, epoch: int, key: str, frames: int, visit: int) -> ClipSample:
        """Draw the clip that a visit cuts from a segment in an epoch."""
        return sample_clip(self.clip, frames, self.order.seed, epoch, key, visit)


def decode_into(clips: list[Undecoded], config: ClipConfig, clips_bthw3: Tensor) -> None:
    """Decode clips into `clips_bthw3`, on its device; DataError names a damaged frame.

    In memory the colour channels come last, as JPEG decoders yield them: transposing them would add
    a third to the time of decoding.
    """
    for clip, out_thw3 in zip(clips, clips_bthw3, strict=True):
        try:
            decode_clip(clip.jpegs, clip.cut, config, out_thw3.permute(0, 3, 1, 2))
        except DamagedFrameError as error:
            raise clip.damaged(error.index, error.reason) from None


def shared_slots(dataset: ClipDataset, config: StreamConfig) -> list[Tensor]:
    """Allocate memory for decoded clips, which the workers share with this process after the fork.

    Returns:
        For each worker uint8 `[slots, B, T, H, W, 3]`, where B is the number of clips in its part
        of a batch.

    The slots are reused, because fresh pages would cost a worker a third of its time. They need
    neither a file descriptor for each batch nor space in /dev/shm. The loader lets a worker begin
    batch n + prefetch when batch n is taken, so prefetch + 1 slots are enough.
    """
    workers, side = dataset.worker_count(config), dataset.clip.size
    shares = [len(dataset.share_of(worker, workers)) for worker in range(workers)]
    slots = []
    for share in shares:
        shape = (config.prefetch + 1, share, dataset.clip.frames, side, side, 3)
        memory = mmap.mmap(-1, math.prod(shape))
        slots.append(torch.frombuffer(memory, dtype=torch.uint8).view(shape))
    return slots


def list_batches(datasets: list[ClipDataset], workers: int) -> Iterator[list[str]]:
    """Yield the names of the clips of each global batch, without decoding, assembled from ranks and
    workers as in training.

    Args:
        datasets: one for each rank, in order.
        workers: number of workers of each rank; 0 is the same as 1.
    """
    slots = [
        dataset.undecoded(stream, Reader(dataset.corpus, dataset.order))
        for dataset in datasets
        for worker in range(max(workers, 1))
        for stream in dataset.share_of(worker, max(workers, 1))
    ]
    while True:
        yield [next(slot).name for slot in slots]


def read_batches(
    dataset: ClipDataset, config: StreamConfig, device: torch.device | None = None
) -> Generator[ClipBatch, None, None]:
    """Yield a rank's batches, without end: the parts that its workers read, joined in the order of
    the batch.

    Args:
        dataset: what to read.
        config: workers, prefetching and decoding.
        device: decodes the clips if `config.decode` is `device`, and decides whether batches are in
            pinned memory.

    Raises:
        DataError: see `check_data`; or a shard is damaged, which the message names.
        StallError: clips did not arrive within `config.stall_seconds`.
    """
    check_data(dataset)
    count = dataset.worker_count(config)
    dataset.slots = shared_slots(dataset, config) if config.decode == "worker" else None
    forked = {
        "prefetch_factor": config.prefetch,
        "worker_init_fn": leave_signals,
        "multiprocessing_context": "fork",
        "timeout": config.stall_seconds,
    }
    workers: dict[str, Any] = {"num_workers": count, **forked} if config.workers else {}
    parts = iter(DataLoader(dataset, batch_size=None, **workers))

    # the loader ends its workers when it is garbage-collected, but a traceback may keep it alive;
    # then Python's exit would wait for ever, because the workers ignore its SIGTERM
    def end() -> None:
        if config.workers:
            parts._shutdown_workers()  # type: ignore[attr-defined]

    def assemble() -> Generator[ClipBatch, None, None]:
        for number in itertools.count(dataset.start):
            share = next_parts(parts, count, f"batch {number}", dataset.rank, config.stall_seconds)
            yield collect(share, dataset, device)

    # a batch is assembled while the one before is trained on
    ahead = config.workers and config.decode == "worker"
    batches = read_ahead(assemble()) if ahead else assemble()
    atexit.register(end)
    try:
        yield from batches
    finally:
        batches.close()
        end()
        atexit.unregister(end)


def clip_batches(
    data: str | Path,
    batch: int,
    clip: ClipConfig | None = None,
    seed: int = 0,
    workers: int = 0,
) -> Generator[ClipBatch, None, None]:
    """Yield batches of clips from packed videos, without end, as one process would train on them;
    for notebooks.

    Args:
        data: shards: a folder, a URL or a command, see `open_store`.
        batch: number of clips in a batch.
        clip: how clips are cut from the packed segments.
        seed: of the order and of the augmentation.
        workers: number of processes that read; 0 reads in this one.

    Raises:
        DataError: see `open_corpus` and `read_batches`.
    """
    corpus, clip = open_corpus(data), clip or ClipConfig()
    order = ClipOrder(corpus.samples, seed, batch, clips_per_segment=clip.clips_per_segment)
    dataset = ClipDataset(corpus, order, clip, rank=0, ranks=1, start=0)
    return read_batches(dataset, StreamConfig(workers=workers))


def next_parts(parts: Any, count: int, batch: str, rank: int, stall_seconds: int) -> list[Any]:
    """The next `count` parts of a loader's iterator, which make up one batch.

    Raises:
        DataError: a worker found damaged data.
        StallError: they did not arrive within `stall_seconds`; the workers are killed.
    """
    try:
        with slow_warning(f"rank {rank}: {batch}", stall_seconds / 10):
            return [next(parts) for _ in range(count)]
    except DataError as error:
        # a worker's error arrives wrapped in its traceback; its message is the last line
        message = str(error).strip().splitlines()[-1]
        raise DataError(message.removeprefix("shards.errors.DataError: ")) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader timed out"):
            raise
        stuck = list(parts._workers)
        parts._shutdown_workers()
        # they ignore SIGTERM, so Python would wait for them at exit
        for worker in stuck:
            worker.kill()
        message = f"{batch}: no clips came for {stall_seconds} s (stream.stall_seconds)"
        raise StallError(f"{message}: expected the storage to answer sooner") from None


def lost_worker(error: RuntimeError) -> str:
    """Say what happened if a loader worker was killed; an empty string if the error is another one.
    Torch raises it from a signal handler, wherever the main thread is."""
    if not str(error).startswith("DataLoader worker"):
        return ""
    return (
        f"{str(error).strip().rstrip('.')}: too little memory, perhaps: try fewer (stream.workers)"
    )


@contextmanager
def slow_warning(location: str, seconds: float) -> Iterator[None]:
    """Print a warning on stderr if the block takes longer than `seconds`; never if that is 0."""

    def warn() -> None:
        print(
            f"\n{location}: warning: no clips for {seconds:.3g} s; still waiting",
            file=sys.stderr,
            flush=True,
        )

    timer = threading.Timer(seconds, warn)
    timer.daemon = True
    if seconds:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def collect(share: list[Any], dataset: ClipDataset, device: torch.device | None) -> ClipBatch:
    """Join the workers' parts to one batch in its own memory, decoding parts that are still
    JPEGs."""
    if dataset.slots is not None:
        ready = [slots[part.slot] for slots, part in zip(dataset.slots, share, strict=True)]
        # pinned memory makes the copy to CUDA asynchronous
        pinned = device is not None and device.type == "cuda"
        shape = (sum(map(len, ready)), *ready[0].shape[1:])
        clips_bthw3 = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        # by NumPy, because torch would copy with all threads, which training needs
        np.concatenate([clips.numpy() for clips in ready], out=clips_bthw3.numpy())
        keys = [key for part in share for key in part.keys]
    else:
        clips = [clip for part in share for clip in part]
        side = dataset.clip.size
        clips_bthw3 = torch.empty(
            len(clips), dataset.clip.frames, side, side, 3, dtype=torch.uint8, device=device
        )
        decode_into(clips, dataset.clip, clips_bthw3)
        keys = [clip.name for clip in clips]
    return ClipBatch(clips_bthw3.permute(0, 1, 4, 2, 3), keys)


def check_data(dataset: ClipDataset) -> None:
    """Check, before the first step, for mistakes that would make a later step fail.

    Raises:
        DataError: the batch can't be divided by the ranks, there are fewer shards than ranks, or
            clips are longer than the shortest segments.
    """
    streams_per_rank(dataset.order.streams, dataset.ranks)
    manifest, location = dataset.corpus.manifest, dataset.corpus.store.location("")
    if len(manifest.shards) < dataset.ranks:
        raise DataError(
            f"{location}: {len(manifest.shards)} shards for {dataset.ranks} processes: expected at "
            "least one shard for each"
        )
    shortest = manifest.settings["shortest"]
    if dataset.clip.frames > shortest:
        raise DataError(
            f"clip: {dataset.clip.frames} frames: {location} has segments as short as {shortest} "
            "(pack with --shortest)"
        )


def enlarged_line(manifest: Manifest, clip: ClipConfig, stride: int) -> str:
    """A line on how many segments have frames smaller than the clips, and what to do about it.

    Empty if there are none, or if the manifest does not say it, as in shards of earlier versions.
    A clip's side must be a multiple of `stride`, the encoder's.
    """
    small = {side: count for side, count in manifest.short_sides.items() if side < clip.size}
    if not small:
        return ""
    smallest = min(small)
    advice = f"--clip.size {max(smallest // stride * stride, stride)}"
    if min(map(int, manifest.settings["size"].split("x"))) < clip.size:
        advice += f", or pack with --size {clip.size}"  # otherwise the videos themselves are small
    square = "crop" if clip.fit == "crop" else "square"
    return (
        f"{sum(small.values())} of {manifest.samples} packed segments have frames smaller than "
        f"the {square} of {clip.size} pixels (the smallest {smallest}): they are enlarged "
        f"({advice})"
    )


def interval_line(manifest: Manifest, clip: ClipConfig) -> str:
    """A line on which intervals fit into no segment, and what clips take instead; empty if all
    fit."""
    longest = manifest.settings["segment"]
    widest = (longest - 1) // (clip.frames - 1)
    wide = [interval for interval in clip.interval if interval > widest]
    if not wide:
        return ""
    taken = [interval for interval in clip.interval if interval <= widest] or [widest]
    needed = (clip.frames - 1) * max(wide) + 1
    asked, instead = ", ".join(map(str, wide)), " or ".join(map(str, taken))
    return (
        f"clip.interval {asked}: {clip.frames} frames this far apart need segments of {needed}, "
        f"packed segments have at most {longest}: clips take an interval of {instead} (pack with "
        f"--segment {needed})"
    )


def leave_signals(_: int) -> None:
    """Ignore signals in a worker. They reach the whole process group, but only the trainer acts on
    them, and workers read on until it exits."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
