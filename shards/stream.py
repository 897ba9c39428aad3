"""Reads the clips in the order that `order.py` says, through webdataset, with as many worker processes as asked for."""

import atexit
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from shards.clip import ClipConfig, Cut, choose_cut, decode_clip
from shards.errors import InputError
from shards.manifest import Manifest
from shards.order import Order, Piece, streams_of
from shards.samples import read_samples


class Batch(NamedTuple):
    """A rank's part of a global batch."""

    clips: Tensor
    """uint8 `[B, T, 3, H, W]`."""
    keys: list[str]
    """`sample key:frame,frame,...` of each clip."""


class Undecoded(NamedTuple):
    """A clip as it lies in its shard."""

    jpegs: list[bytes]
    cut: Cut
    key: str
    """Of the segment."""

    @property
    def name(self) -> str:
        """`sample key:frame,frame,...`."""
        return f"{self.key}:{','.join(map(str, self.cut.frames))}"


@dataclass(frozen=True)
class StreamConfig:
    """How a rank reads its clips. None of it changes which clips come."""

    workers: int = 2
    """Processes that read and decode; 0 reads in the training process itself."""
    prefetch: int = 2
    """Batches that each worker keeps ready."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.prefetch < 1:
            raise InputError(f"stream: workers {self.workers}, prefetch {self.prefetch}: expected >= 0 and >= 1")


class ClipDataset(IterableDataset[Batch]):
    """The parts of the global batches, from number `start` on, that one worker of one rank reads."""

    def __init__(self, folder: Path, manifest: Manifest, order: Order, clip: ClipConfig, rank: int, ranks: int, start: int) -> None:
        super().__init__()
        self.folder, self.manifest, self.order, self.clip = folder, manifest, order, clip
        self.rank, self.ranks, self.start = rank, ranks, start

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        streams = streams_of(self.order.streams, self.rank, self.ranks, worker, workers)
        readers = [self.read_stream(stream) for stream in streams]
        while True:
            clips, keys = zip(*(next(reader) for reader in readers), strict=True)
            yield Batch(torch.from_numpy(np.stack(clips)), list(keys))

    def read_stream(self, stream: int) -> Iterator[tuple[np.ndarray, str]]:
        """The clips of one logical stream, for ever."""
        for found in self.undecoded(stream):
            yield decode_clip(found.jpegs, found.cut, self.clip, found.key), found.name

    def undecoded(self, stream: int) -> Iterator["Undecoded"]:
        """The clips of one logical stream as JPEGs. Holds those of one window."""
        for window in self.order.windows(stream, self.start):
            segments = [segment for piece in window.pieces for segment in self.read_piece(piece)]
            chosen = [self.choose(segment, window.pass_) for segment in segments]
            for index in window.permutation[window.skip :]:
                yield chosen[index]

    def choose(self, segment: dict[str, Any], pass_: int) -> "Undecoded":
        """The clip that this pass takes from a segment."""
        key = segment["__key__"]
        cut = choose_cut(self.clip, json.loads(segment["json"])["frames"], self.order.seed, pass_, key)
        return Undecoded([segment[f"{number:03d}.jpg"] for number in cut.frames], cut, key)

    def read_piece(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The samples of a part of a shard, as webdataset groups them."""
        shard = self.manifest.shards[piece.shard]
        path = self.folder / shard.name
        try:
            found = list(islice(read_samples(path), piece.first, piece.stop))
        except OSError as error:
            raise InputError(f"shard {path}: {error.strerror or error}") from None
        except Exception as error:  # tarfile raises many kinds for one fact; the shard is named and nothing is skipped
            raise InputError(f"shard {path}: not readable ({error})") from error
        if len(found) != piece.stop - piece.first:
            held = piece.first + len(found)
            raise InputError(f"shard {path}: holds {held} samples, the manifest says {shard.samples}: truncated?")
        yield from found


def list_batches(readers: list[ClipDataset], workers: int) -> Iterator[list[str]]:
    """The names of the clips of each global batch, put together from its ranks and their workers as training would, nothing decoded.

    Args:
        readers: one for each rank, in their order.
        workers: of each rank; 0 reads as one.
    """
    divided = [
        (reader, stream)
        for rank, reader in enumerate(readers)
        for worker in range(max(workers, 1))
        for stream in streams_of(reader.order.streams, rank, len(readers), worker, max(workers, 1))
    ]
    slots = [reader.undecoded(stream) for reader, stream in divided]
    while True:
        yield [next(slot).name for slot in slots]


def read_batches(dataset: ClipDataset, config: StreamConfig) -> Iterator[Batch]:
    """A rank's batches, for ever: the parts that its workers read, put together in the order of the slots.

    Raises:
        InputError: see `check_data`; or a shard that is damaged, by its name.
    """
    check_data(dataset, config)
    workers: dict[str, Any] = {"prefetch_factor": config.prefetch, "worker_init_fn": leave_signals} if config.workers else {}
    parts = iter(DataLoader(dataset, batch_size=None, num_workers=config.workers, **workers))

    # the loader ends its workers once it is forgotten, which a traceback that holds it puts off for ever: they ignore the SIGTERM
    # that Python's exit would send them, and it would wait
    def end() -> None:
        if config.workers:
            parts._shutdown_workers()  # type: ignore[attr-defined]

    atexit.register(end)
    try:
        while True:
            try:
                share = [next(parts) for _ in range(max(config.workers, 1))]
            except InputError as error:  # a worker's arrives wrapped in its traceback; its own line is the last
                raise InputError(str(error).strip().splitlines()[-1].removeprefix("shards.errors.InputError: ")) from None
            yield Batch(torch.cat([part.clips for part in share]), [key for part in share for key in part.keys])
    finally:
        end()
        atexit.unregister(end)


def check_data(dataset: ClipDataset, config: StreamConfig) -> None:
    """Refuse, before the first step, what would fail at some later one.

    Raises:
        InputError: batch, ranks and workers that don't divide; fewer shards than processes; a shard that is missing or cut short;
            clips longer than the shortest segments.
    """
    streams_of(dataset.order.streams, dataset.rank, dataset.ranks, 0, max(config.workers, 1))
    if len(dataset.manifest.shards) < dataset.ranks:
        raise InputError(
            f"{dataset.folder}: {len(dataset.manifest.shards)} shards for {dataset.ranks} processes: expected at least one shard for each"
        )
    for shard in dataset.manifest.shards:
        path = dataset.folder / shard.name
        size = path.stat().st_size if path.exists() else None
        if size != shard.bytes:
            raise InputError(f"shard {path}: {'missing' if size is None else f'{size} bytes'}: the manifest says {shard.bytes} bytes")
    shortest = dataset.manifest.settings["shortest"]
    if dataset.clip.frames > shortest:
        raise InputError(f"clip: {dataset.clip.frames} frames: {dataset.folder} has segments as short as {shortest} (pack with --shortest)")


def leave_signals(_: int) -> None:
    """Signals reach the whole process group; the trainer decides what they mean, the workers read on until it leaves."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
