"""Which clips make the n-th global batch. Pure: nothing is read, and every answer takes the same
short time at any n.

An epoch permutes the shards and lays their samples in a row. The row is cut into as many *logical
streams* as a global batch has slots, and slot s of every batch comes from stream s. Ranks and
workers only divide the streams among themselves, so the batches are the same on any number of them,
and to resume takes nothing but the number of the batch.

The samples of an epoch need not divide by the streams: stream s has handed out
`(epochs * samples + s) // streams` samples after so many whole epochs. These add up to
`epochs * samples` exactly, and no stream is ever more than one ahead of another.

A stream's part of an epoch is shuffled buffer by buffer, so that a reader holds one buffer and a
place in the middle can be rebuilt.

With several visits, each sample lies in the row so many times, one behind the other: what is said
of samples here holds for visits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError, check_range

# what a random draw is for: the first number of its address
SHARDS, BUFFER = 1, 2


@dataclass(frozen=True)
class Piece:
    """Visits `first` to `stop` of a shard, to be read in this order; visit v is to sample
    `v // visits`."""

    shard: int
    first: int
    stop: int


class Visit(NamedTuple):
    """One clip of one sample."""

    shard: int
    sample: int
    """Within the shard."""
    number: int
    """Of the visits to the sample in this epoch, from 0."""


@dataclass(frozen=True)
class ShuffleBuffer:
    """Samples that are read together and handed out shuffled."""

    epoch: int
    pieces: tuple[Piece, ...]
    permutation: tuple[int, ...]
    """The n-th sample handed out is the `permutation[n]`-th read."""
    skip: int
    """How many were handed out before the place that was asked for."""


@dataclass(frozen=True)
class ClipOrder:
    """The order of all clips of a training run."""

    samples: tuple[int, ...]
    """In each shard."""
    seed: int
    streams: int
    """Slots of a global batch."""
    shuffle_buffer: int = 64
    """Samples that are shuffled together within a stream."""
    clips_per_segment: int = 1
    """Clips that an epoch takes of each sample."""

    def __post_init__(self) -> None:
        check_range("order", self, "streams shuffle_buffer clips_per_segment", 1)
        check_range("order", self, "samples", 0)
        if not sum(self.samples):
            raise DataError("order: 0 samples in all shards: expected 1 or more")

    @cached_property
    def total(self) -> int:
        """Clips of an epoch."""
        return sum(self.samples) * self.clips_per_segment

    def samples_consumed(self, stream: int, epochs: int) -> int:
        """Samples that a stream gives in its first `epochs` epochs."""
        return (epochs * self.total + stream) // self.streams

    def epoch_of(self, stream: int, position: int) -> int:
        """The epoch in which a stream gives its `position`-th sample."""
        return -((stream - (position + 1) * self.streams) // self.total) - 1

    def first_sample(self, stream: int, epoch: int) -> int:
        """Where a stream's part starts in the row of an epoch."""
        return sum(
            self.samples_consumed(s, epoch + 1) - self.samples_consumed(s, epoch)
            for s in range(stream)
        )

    def shard_permutation(self, epoch: int) -> NDArray[np.int64]:
        """The order of the shards in an epoch."""
        return np.random.default_rng([self.seed, SHARDS, epoch]).permutation(len(self.samples))

    def buffers(self, stream: int, position: int) -> Iterator[ShuffleBuffer]:
        """What a stream reads from its `position`-th sample on, for ever."""
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
        """Samples `low` to `high` of an epoch's row, as pieces of shards."""
        shards = self.shard_permutation(epoch)
        ends = np.cumsum(np.asarray(self.samples)[shards]) * self.clips_per_segment
        pieces = []
        for place in range(int(np.searchsorted(ends, low, side="right")), len(shards)):
            shard, end = int(shards[place]), int(ends[place])
            begin = end - self.samples[shard] * self.clips_per_segment
            if begin >= high:
                break
            if begin < end:  # else the shard is empty
                pieces.append(Piece(shard, max(low - begin, 0), min(high, end) - begin))
        return tuple(pieces)

    def visits_of(self, buffer: ShuffleBuffer) -> list[Visit]:
        """What a buffer reads, in that order."""
        return [
            Visit(p.shard, v // self.clips_per_segment, v % self.clips_per_segment)
            for p in buffer.pieces
            for v in range(p.first, p.stop)
        ]


def streams_of(streams: int, rank: int, ranks: int, worker: int, workers: int) -> range:
    """The streams that a worker of a rank reads, neighbours in the batch.

    Every rank has as many. Workers may have one more or less than each other; of more workers than
    a rank has streams, some have none.

    Raises:
        DataError: the ranks don't divide the streams; names numbers that would do.
    """
    per_rank = streams_per_rank(streams, ranks)
    first = rank * per_rank
    begin, end = worker * per_rank // workers, (worker + 1) * per_rank // workers
    return range(first + begin, first + end)


def streams_per_rank(streams: int, ranks: int) -> int:
    """How many of the streams each rank reads; DataError where they can't be divided evenly."""
    if streams % ranks:
        fitting = [n for n in range(1, streams + 1) if streams % n == 0]
        raise DataError(
            f"a global batch of {streams} clips can't be divided by {ranks} processes: "
            f"{listed(fitting)} would do"
        )
    return streams // ranks


def listed(numbers: list[int]) -> str:
    """`1, 2 or 4`."""
    return (
        " or ".join([", ".join(map(str, numbers[:-1])), str(numbers[-1])])
        if len(numbers) > 1
        else str(numbers[0])
    )
