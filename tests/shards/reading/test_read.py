import io
import json
from itertools import islice, product

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image

from shards.manifest import read_manifest
from shards.packing.config import PackConfig
from shards.packing.pack import pack
from shards.reading.augmentation import ClipAugmentation
from shards.reading.clip import (
    ClipConfig,
    ClipSample,
    DamagedFrameError,
    decode_clip,
    decode_frame,
    decode_with_pillow,
)
from shards.reading.corpus import Corpus, open_corpus
from shards.reading.order import ClipOrder
from shards.reading.read import Reader
from shards.reading.stores import Store
from shards.reading.stream import ClipDataset

# names that are plain, have spaces, have a dot and are not ASCII, or are too long for a tar header
NAMES = [
    "run/one",
    "run/zwei drei",
    "jump/vier Äpfel v1.2 日本",
    "jump/" + "x" * 120,
    "walk/" + "ö" * 60,
]


class RemoteStore(Store):
    """A store that is not a `FolderStore`, so that its samples are read through webdataset."""

    def __init__(self, store):
        self.store = store

    def manifest(self):
        return self.store.manifest()

    def open(self, name, start, stop, size):
        with self.store.open(name, start, stop, size) as file:
            return io.BytesIO(file.read(stop - start))

    def location(self, name):
        return self.store.location(name)


def as_remote(corpus):
    return Corpus(RemoteStore(corpus.store), corpus.manifest, corpus.quarantined)


def write_set(root, frames=11):
    """Write folders of frames that are all different; returns their JPEGs by folder."""
    draw, written = np.random.default_rng(0), {}
    for name in NAMES:
        (root / name).mkdir(parents=True)
        for number in range(frames):
            coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            coarse.resize((43, 32), Image.Resampling.BICUBIC).save(
                root / name / f"image_{number:05d}.jpg"
            )
        written[name] = [path.read_bytes() for path in sorted((root / name).iterdir())]
    return written


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Five shards, each with three samples of four or three frames, and the frames as written."""
    root = tmp_path_factory.mktemp("several")
    written = write_set(root / "source")
    pack(
        root / "source",
        root / "out",
        PackConfig(fps=25, size="32", segment=4, spread=4),
        processes=1,
    )
    return root / "out", written


def clips(corpus, order, clip, start, count):
    """The first clips of each stream."""
    dataset = ClipDataset(corpus, order, clip, 0, 1, start)
    return [
        list(islice(dataset.undecoded(stream, Reader(corpus, order)), count))
        for stream in range(order.streams)
    ]


@pytest.mark.parametrize("visits", [1, 3])
@pytest.mark.parametrize("interval", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("buffer", [1, 5, 64])
def test_frames_read_by_offset_equal_those_read_through_webdataset(
    several, visits, interval, buffer
):
    corpus, clip = (
        open_corpus(several[0]),
        ClipConfig(frames=2, interval=interval, clips_per_segment=visits, size=32),
    )
    for seed, start, streams in product((0, 1), (0, 4, 31), (1, 3)):
        order = ClipOrder(
            corpus.samples, seed, streams, shuffle_buffer=buffer, clips_per_segment=visits
        )
        direct = clips(corpus, order, clip, start, 25)
        assert direct == clips(as_remote(corpus), order, clip, start, 25)
        assert direct[0] == clips(corpus, order, clip, 0, start + 25)[0][start:]


def test_the_frames_are_those_that_were_packed(several):
    folder, written = several
    corpus = open_corpus(folder)
    order = ClipOrder(corpus.samples, 0, 1)
    found = clips(corpus, order, ClipConfig(), 0, 15)[0]
    assert len({clip.key for clip in found}) == 15
    for clip in found:
        name, _, number = clip.key.rpartition("/")
        assert clip.jpegs == [written[name][4 * int(number) + frame] for frame in clip.cut.frames]


@pytest.mark.parametrize("visits", [1, 2])
def test_each_sample_is_visited_the_configured_number_of_times(several, visits):
    corpus = open_corpus(several[0])
    found = clips(
        corpus,
        ClipOrder(corpus.samples, 0, 1, clips_per_segment=visits),
        ClipConfig(frames=2, clips_per_segment=visits),
        0,
        15 * visits,
    )[0]
    keys = [clip.key for clip in found]
    assert sorted(keys) == sorted(visits * sorted(set(keys)))
    assert len(set(keys)) == 15


def test_a_json_entry_longer_than_the_first_guess_is_read(tmp_path):
    folder = tmp_path / "source" / "long"
    folder.mkdir(parents=True)
    for number in range(400):
        Image.new("RGB", (8, 8), (number % 256, 0, 0)).save(folder / f"{number:05d}.jpg")
    pack(
        tmp_path / "source",
        tmp_path / "out",
        PackConfig(fps=25, size="8", segment=400),
        processes=1,
    )
    corpus = open_corpus(tmp_path / "out")
    order, clip = ClipOrder(corpus.samples, 0, 2), ClipConfig(interval=(1, 199))
    assert clips(corpus, order, clip, 0, 5) == clips(as_remote(corpus), order, clip, 0, 5)


def test_webdataset_alone_reads_every_sample(several):
    folder, written = several
    paths = sorted(map(str, folder.glob("*.tar")))
    manifest = read_manifest(folder)
    raw = list(wds.WebDataset(paths, shardshuffle=False))
    assert len(raw) == manifest.samples == 15
    frames = 0
    for sample in raw:
        name, _, number = sample["__key__"].rpartition("/")
        jpegs = [value for key, value in sorted(sample.items()) if key.endswith(".jpg")]
        assert jpegs == written[name][4 * int(number) :][:4]
        assert json.loads(sample["json"])["key"] == sample["__key__"]
        frames += len(jpegs)
    assert frames == 55
    decoded = list(wds.WebDataset(paths, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in decoded] == [sample["__key__"] for sample in raw]
    assert {sample["000.jpg"].size for sample in decoded} == {(43, 32)}


def jpeg(mode="RGB", **options):
    """A smooth coloured picture whose sides are not multiples of eight."""
    y, x = np.mgrid[:75, :101] / 20
    pixels = np.stack([np.sin(x + y), np.cos(2 * x), np.sin(y * x)], -1) * 127 + 128
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


KINDS = {
    "usual": jpeg(quality=90),
    "coarse": jpeg(quality=20),
    "full colour": jpeg(subsampling=0),
    "half colour": jpeg(subsampling=1),
    "progressive": jpeg(progressive=True),
    "grey": jpeg("L"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_decoders_give_the_same_pixels(kind):
    frame = decode_frame(KINDS[kind], 0)
    assert frame.shape == (3, 75, 101)
    assert torch.equal(frame, decode_with_pillow(KINDS[kind], 0))


def test_both_decoders_give_the_same_pixels_for_packed_frames(several):
    for written in several[1].values():
        assert all(
            torch.equal(decode_frame(jpeg, 0), decode_with_pillow(jpeg, 0)) for jpeg in written
        )


@pytest.mark.parametrize("decode", [decode_frame, decode_with_pillow])
@pytest.mark.parametrize("part", [0.01, 0.1, 0.5, 0.9])
def test_both_decoders_reject_a_truncated_jpeg(decode, part):
    for content in KINDS.values():
        with pytest.raises(DamagedFrameError) as caught:
            decode(content[: int(part * len(content))], 2)
        assert caught.value.index == 2


def test_a_frame_of_another_size_is_reported_with_both_sizes():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    frames = [jpeg(), jpeg(), buffer.getvalue()]
    out_t3ss = torch.empty(3, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(DamagedFrameError) as caught:
        decode_clip(
            frames,
            ClipSample((0, 1, 2), ClipAugmentation(0.0, 0.0, False)),
            ClipConfig(size=32),
            out_t3ss,
        )
    assert caught.value.index == 2
    assert caught.value.reason == "is 64x48, the clip's first frame 101x75: expected the same size"


@pytest.mark.parametrize("decode", [decode_frame, decode_with_pillow])
@pytest.mark.parametrize("content", [b"no JPEG at all", bytes(1000)])
def test_both_decoders_reject_content_that_is_not_a_jpeg(decode, content):
    with pytest.raises(DamagedFrameError):
        decode(content, 0)
