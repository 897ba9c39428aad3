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
    window=st.integers(1, 7),
    clips_per_segment=st.integers(1, 3),
)


def read(order, stream, start, count):
    """The first `count` visits of a stream from its `start`-th on: (pass, shard, sample, visit)."""

    def samples():
        for window in order.windows(stream, start):
            held = [(window.pass_, *visit) for visit in order.visits_of(window)]
            assert sorted(window.permutation) == list(range(len(held)))
            yield from (held[i] for i in window.permutation[window.skip :])

    return list(islice(samples(), count))


@settings(max_examples=150, deadline=None)
@given(order=ORDERS, passes=st.integers(1, 4))
def test_each_pass_gives_each_visit_to_each_sample_once(order, passes):
    given_out = []
    for stream in range(order.streams):
        given_out += read(order, stream, 0, order.samples_consumed(stream, passes))
    shards = list(enumerate(order.samples))
    everything = [
        (p, shard, i, v)
        for p in range(passes)
        for shard, n in shards
        for i in range(n)
        for v in range(order.clips_per_segment)
    ]
    assert sorted(given_out) == everything


@settings(max_examples=150, deadline=None)
@given(order=ORDERS, start=st.integers(0, 300), stream=st.integers(0, 11))
def test_resuming_anywhere_goes_on_with_the_next_sample(order, start, stream):
    stream %= order.streams
    assert read(order, stream, start, 10) == read(order, stream, 0, start + 10)[start:]


@settings(max_examples=100, deadline=None)
@given(order=ORDERS, passes=st.integers(0, 50))
def test_no_stream_is_more_than_one_ahead(order, passes):
    counts = [order.samples_consumed(stream, passes) for stream in range(order.streams)]
    assert sum(counts) == passes * order.total
    assert max(counts) - min(counts) <= 1


def test_passes_differ_and_seeds_differ():
    order = ClipOrder((8, 8, 8, 8), seed=0, streams=4, window=8)
    first, second = ([s[1:] for s in read(order, 0, start, 8)] for start in (0, 8))
    other = [s[1:] for s in read(ClipOrder((8, 8, 8, 8), seed=1, streams=4, window=8), 0, 0, 8)]
    assert first != second
    assert first != other


def test_a_place_far_on_is_found_at_once(monkeypatch):
    """Kinetics twice over, 23 passes on: of the permutations of shards before it none is drawn."""
    order = ClipOrder(tuple(np.full(2400, 850)), seed=0, streams=48)
    drawn, draw = [], ClipOrder.shard_permutation
    monkeypatch.setattr(
        ClipOrder,
        "shard_permutation",
        lambda self, pass_: (drawn.append(pass_), draw(self, pass_))[1],
    )
    window = next(order.windows(17, 1_000_000))
    assert window.pass_ == (1_000_001 * 48 - 17 - 1) // order.total == 23
    assert drawn == [23]


@settings(max_examples=50, deadline=None)
@given(order=ORDERS, pass_=st.integers(0, 5))
def test_the_streams_share_out_a_pass_without_overlap(order, pass_):
    starts = [order.first_sample(stream, pass_) for stream in range(order.streams)]
    lengths = [
        order.samples_consumed(s, pass_ + 1) - order.samples_consumed(s, pass_)
        for s in range(order.streams)
    ]
    assert starts == [sum(lengths[:stream]) for stream in range(order.streams)]
    assert sum(lengths) == order.total


def test_nothing_to_order_is_refused():
    for wrong in (
        {"samples": (0, 0)},
        {"streams": 0},
        {"window": 0},
        {"clips_per_segment": 0},
        {"samples": ()},
    ):
        with pytest.raises(DataError, match="expected at least 1 of each"):
            ClipOrder(**{"samples": (1,), "seed": 0, "streams": 1, **wrong})


@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 30))
def test_ranks_divide_the_streams_and_workers_share_them_in_their_order(ranks, per_rank, workers):
    streams = ranks * per_rank
    shares = [
        streams_of(streams, r, ranks, w, workers) for r in range(ranks) for w in range(workers)
    ]
    assert [s for share in shares for s in share] == list(range(streams))
    sizes = [len(share) for share in shares]
    assert [sum(sizes[r * workers :][:workers]) for r in range(ranks)] == [per_rank] * ranks
    assert max(sizes) - min(sizes) <= 1


def test_ranks_that_do_not_divide_are_refused_with_what_would():
    with pytest.raises(
        DataError, match="batch of 6 clips can't be divided by 4 processes: 1, 2, 3 or 6 would do"
    ):
        streams_of(6, 0, 4, 0, 1)
