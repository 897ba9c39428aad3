from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.reading.order import ClipOrder, streams_of

ORDERS = st.builds(
    ClipOrder,
    samples=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any).map(tuple),
    seed=st.integers(0, 99),
    streams=st.integers(1, 12),
    shuffle_buffer=st.integers(1, 7),
    clips_per_segment=st.integers(1, 3),
)


def read(order, stream, start, count):
    """The first `count` visits of a stream from its `start`-th: (epoch, shard, sample, visit)."""

    def samples():
        for buffer in order.buffers(stream, start):
            held = [(buffer.epoch, *visit) for visit in order.visits_of(buffer)]
            assert sorted(buffer.permutation) == list(range(len(held)))
            yield from (held[i] for i in buffer.permutation[buffer.skip :])

    return list(islice(samples(), count))


@settings(max_examples=150, deadline=None)
@given(order=ORDERS, epochs=st.integers(1, 4))
def test_each_epoch_yields_every_visit_of_every_sample_once(order, epochs):
    yielded = []
    for stream in range(order.streams):
        yielded += read(order, stream, 0, order.samples_consumed(stream, epochs))
    shards = list(enumerate(order.samples))
    everything = [
        (p, shard, i, v)
        for p in range(epochs)
        for shard, n in shards
        for i in range(n)
        for v in range(order.clips_per_segment)
    ]
    assert sorted(yielded) == everything


@settings(max_examples=150, deadline=None)
@given(order=ORDERS, start=st.integers(0, 300), stream=st.integers(0, 11))
def test_resuming_anywhere_continues_with_the_next_sample(order, start, stream):
    stream %= order.streams
    assert read(order, stream, start, 10) == read(order, stream, 0, start + 10)[start:]


@settings(max_examples=100, deadline=None)
@given(order=ORDERS, epochs=st.integers(0, 50))
def test_no_stream_is_more_than_one_sample_ahead_of_another(order, epochs):
    counts = [order.samples_consumed(stream, epochs) for stream in range(order.streams)]
    assert sum(counts) == epochs * order.total
    assert max(counts) - min(counts) <= 1


def test_the_order_differs_between_epochs_and_between_seeds():
    order = ClipOrder((8, 8, 8, 8), seed=0, streams=4, shuffle_buffer=8)
    first, second = ([s[1:] for s in read(order, 0, start, 8)] for start in (0, 8))
    other = [
        s[1:] for s in read(ClipOrder((8, 8, 8, 8), seed=1, streams=4, shuffle_buffer=8), 0, 0, 8)
    ]
    assert first != second
    assert first != other


def test_a_distant_position_is_found_without_drawing_earlier_epochs(monkeypatch):
    """In epoch 23 of a data set twice as large as Kinetics, no permutation of the shards of an
    earlier epoch is drawn."""
    order = ClipOrder(tuple(np.full(2400, 850)), seed=0, streams=48)
    drawn, draw = [], ClipOrder.shard_permutation
    monkeypatch.setattr(
        ClipOrder,
        "shard_permutation",
        lambda self, epoch: (drawn.append(epoch), draw(self, epoch))[1],
    )
    buffer = next(order.buffers(17, 1_000_000))
    assert buffer.epoch == (1_000_001 * 48 - 17 - 1) // order.total == 23
    assert drawn == [23]


@settings(max_examples=50, deadline=None)
@given(order=ORDERS, epoch=st.integers(0, 5))
def test_the_streams_divide_an_epoch_without_overlap(order, epoch):
    starts = [order.first_sample(stream, epoch) for stream in range(order.streams)]
    lengths = [
        order.samples_consumed(s, epoch + 1) - order.samples_consumed(s, epoch)
        for s in range(order.streams)
    ]
    assert starts == [sum(lengths[:stream]) for stream in range(order.streams)]
    assert sum(lengths) == order.total


def test_an_invalid_order_is_refused():
    for wrong in (
        {"samples": (0, 0)},
        {"streams": 0},
        {"shuffle_buffer": 0},
        {"clips_per_segment": 0},
        {"samples": ()},
    ):
        with pytest.raises(DataError, match=r"order: .*: expected 1 or more"):
            ClipOrder(**{"samples": (1,), "seed": 0, "streams": 1, **wrong})


@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 30))
def test_ranks_and_workers_divide_the_streams_evenly_and_in_order(ranks, per_rank, workers):
    streams = ranks * per_rank
    shares = [
        streams_of(streams, r, ranks, w, workers) for r in range(ranks) for w in range(workers)
    ]
    assert [s for share in shares for s in share] == list(range(streams))
    sizes = [len(share) for share in shares]
    assert [sum(sizes[r * workers :][:workers]) for r in range(ranks)] == [per_rank] * ranks
    assert max(sizes) - min(sizes) <= 1


def test_ranks_that_do_not_divide_the_batch_are_refused_with_ones_that_do():
    with pytest.raises(
        DataError, match="batch of 6 clips can't be divided by 4 processes: 1, 2, 3 or 6 would do"
    ):
        streams_of(6, 0, 4, 0, 1)
