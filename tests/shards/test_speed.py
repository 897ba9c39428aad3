"""The speed of reading clips can be measured; the measured speeds are in docs/data.md."""

from shards.reading.clip import ClipConfig
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stream import StreamConfig
from shards.speed import measure_loading


def test_loading_is_measured_with_workers_that_do_not_divide_the_batch(packed):
    corpus, clip = open_corpus(packed), ClipConfig(size=8)
    shown = []
    config = StreamConfig(workers=2)
    speed = measure_loading(
        corpus, ClipOrder(corpus.samples, 0, 3), clip, config, 20, 1, lambda: shown.append(1)
    )
    assert len(shown) == 20
    assert len(speed.by_tenth) == len(speed.worker_mb) == 10
    assert min(speed.loader, *speed.by_tenth) > 0
    assert min(speed.wait, speed.wait_when_ready) > 0
