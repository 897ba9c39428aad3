import itertools
import threading
import time

import pytest

from shards.reading.prefetch import read_ahead


def test_items_come_in_order_and_the_iterator_ends():
    assert list(read_ahead(iter(range(100)))) == list(range(100))


def test_the_next_items_are_computed_while_one_is_used():
    computed = []
    items = read_ahead(computed.append(n) or n for n in itertools.count())
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while (
        computed[-1] < 2 and time.monotonic() < deadline
    ):  # one is in the queue, one waits for room
        time.sleep(0.01)
    time.sleep(0.3)
    assert computed == [0, 1, 2], "no further ahead"
    items.close()


def test_an_error_is_raised_at_its_position_with_its_traceback():
    def items():
        yield 1
        raise KeyError("shard")

    reader = read_ahead(items())
    assert next(reader) == 1
    with pytest.raises(KeyError, match="shard") as raised:
        next(reader)
    assert raised.traceback[-1].name == "items"


def test_closing_ends_the_thread():
    before = set(threading.enumerate())
    reader = read_ahead(iter(itertools.count()))
    next(reader)
    reader.close()
    assert not set(threading.enumerate()) - before
