"""Which clips make up the n-th global batch. Pure: nothing is read, and every answer takes the same
short time at any n.

An epoch permutes the shards and puts their samples in a row. The row is cut into as many *logical
streams* as a global batch has slots, and slot s of every batch comes from stream s. Ranks and
workers only divide the streams among themselves, so the batches are the same on any number of them,
and resuming needs nothing but the number of the batch.

The number of samples need not be a multiple of the number of streams: after `epochs` whole epochs,
stream s has yielded `(epochs * samples + s) // streams` samples. These add up to exactly
`epochs * samples`, and no stream is ever more than one sample ahead of another.

A stream's part of an epoch is shuffled buffer by buffer, so a reader holds only one buffer, and can
start at any position.

With several clips per segment, each sample is repeated in the row, once for each visit; then
everything above about samples holds for visits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError, check_range

# first number of a random draw's address: what it is for
SHARDS, BUFFER = 1, 2


@dataclass(frozen=True)
class Piece:
    """The visits of a shard from `first` to before `stop`, in order; visit v is to sample
    `v // clips_per_segment`."""

    shard: int
    first: int
    stop: int


class Visit(NamedTuple):
    """One reading of a sample, which yields one clip."""

    shard: int
    sample: int
    """Index within the shard."""
    number: int
    """Which of the visits to the sample in this epoch it is, from 0."""


@dataclass(frozen=True)
class ShuffleBuffer:
    """Samples that are read together and yielded in shuffled order."""

    epoch: int
    pieces: tuple[Piece, ...]
    permutation: tuple[int, ...]
    """The n-th yielded sample is the `permutation[n]`-th of the pieces."""
    skip: int
    """How many of the yielded samples come before the position that was asked for."""


@dataclass(frozen=True)
class ClipOrder:
    """The order of all clips of a training run."""

    samples: tuple[int, ...]
    """Number of samples in each shard."""
    seed: int
    streams: int
    """Number of slots in a global batch."""
    shuffle_buffer: int = 64
    """Number of samples that are shuffled together within a stream."""
    clips_per_segment: int = 1
    """Number of clips that an epoch takes from each sample."""

    def __post_init__(self) -> None:
        check_range("order", self, "streams shuffle_buffer clips_per_segment", 1)
        check_range("order", self, "samples", 0)
        if not sum(self.samples):
            raise DataError("order: 0 samples in all shards: expected 1 or more")

    @cached_property
    def total(self) -> int:
        """Number of clips in an epoch."""
        return sum(self.samples) * self.clips_per_segment

    def samples_consumed(self, stream: int, epochs: int) -> int:
        """Number of samples that a stream yields in its first `epochs` epochs."""
        return (epochs * self.total + stream) // self.streams

    def epoch_of(self, stream: int, position: int) -> int:
        """The epoch in which a stream yields its `position`-th sample."""
        return -((stream - (position + 1) * self.streams) // self.total) - 1

    def first_sample(self, stream: int, epoch: int) -> int:
        """The index in an epoch's row at which a stream's part starts."""
        return sum(
            self.samples_consumed(s, epoch + 1) - self.samples_consumed(s, epoch)
            for s in range(stream)
        )

    def shard_permutation(self, epoch: int) -> NDArray[np.int64]:
        """The order of the shards in an epoch."""
        return np.random.default_rng([self.seed, SHARDS, epoch]).permutation(len(self.samples))

    def buffers(self, stream: int, position: int) -> Iterator[ShuffleBuffer]:
        """Yield the buffers of a stream from its `position`-th sample on, without end."""
        epoch = self.epoch_of(stream, position)
        skip = position - self.samples_consumed(stream, epoch)
        while True:
            length = self.samples_consumed(stream, epoch + 1) - self.samples_consumed(stream, epoch)
            start = self.first_sample(stream, epoch)
            for number in range(skip // self.shuffle_buffer, -(-length // self.shuffle_buffer)):
                low, high = (
                    number * self.shuffle_buffer,
                    min((number + 1) * self.shuffle_buffer, length),
                )
                draw = np.random.default_rng([self.seed, BUFFER, epoch, stream, number])
                permutation = tuple(draw.permutation(high - low).tolist())
                yield ShuffleBuffer(
                    epoch,
                    self.pieces(epoch, start + low, start + high),
                    permutation,
                    max(skip - low, 0),
                )
            epoch, skip = epoch + 1, 0

    def pieces(self, epoch: int, low: int, high: int) -> tuple[Piece, ...]:
        """The samples from `low` to before `high` of an epoch's row, as pieces of shards."""
        shards = self.shard_permutation(epoch)
        ends = np.cumsum(np.asarray(self.samples)[shards]) * self.clips_per_segment
        pieces = []
        for index in range(int(np.searchsorted(ends, low, side="right")), len(shards)):
            shard, end = int(shards[index]), int(ends[index])
            begin = end - self.samples[shard] * self.clips_per_segment
            if begin >= high:
                break
            if begin < end:  # else the shard is empty
                pieces.append(Piece(shard, max(low - begin, 0), min(high, end) - begin))
        return tuple(pieces)

    def visits_of(self, buffer: ShuffleBuffer) -> list[Visit]:
        """The visits of a buffer, in the order of its pieces."""
        return [
            Visit(p.shard, v // self.clips_per_segment, v % self.clips_per_segment)
            for p in buffer.pieces
            for v in range(p.first, p.stop)
        ]


def streams_of(streams: int, rank: int, ranks: int, worker: int, workers: int) -> range:
    """The streams that a worker of a rank reads, which are consecutive slots of the batch.

    Every rank has the same number of streams. Those of its workers differ by at most one; if there
    are more workers than streams, some have none.

    Raises:
        DataError: the number of streams is not a multiple of the number of ranks; names numbers
            that are possible.
    """
    per_rank = streams_per_rank(streams, ranks)
    first = rank * per_rank
    begin, end = worker * per_rank // workers, (worker + 1) * per_rank // workers
    return range(first + begin, first + end)


def streams_per_rank(streams: int, ranks: int) -> int:
    """How many streams each rank reads; DataError if they can't be divided evenly."""
    if streams % ranks:
        fitting = [n for n in range(1, streams + 1) if streams % n == 0]
        raise DataError(
            f"a global batch of {streams} clips can't be divided by {ranks} processes: "
            f"{listed(fitting)} would do"
        )
    return streams // ranks


def listed(numbers: list[int]) -> str:
    """Numbers in words: `1, 2 or 4`."""
    return (
        " or ".join([", ".join(map(str, numbers[:-1])), str(numbers[-1])])
        if len(numbers) > 1
        else str(numbers[0])
    )
