import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import ROOT, TIMEOUT_SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.errors import DataError, StallError
from shards.manifest import read_manifest
from shards.packing.config import PackConfig
from shards.packing.pack import pack
from shards.reading.augmentation import ClipAugmentation
from shards.reading.clip import ClipConfig, ClipSample, cut_frame, sample_clip
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stream import (
    ClipDataset,
    StreamConfig,
    enlarged_line,
    interval_line,
    read_batches,
    shared_slots,
)

CLIP = ClipConfig(size=32, fit="crop", flip=True)


def dataset(folder, rank=0, ranks=1, start=0, batch=4, seed=0):
    corpus = open_corpus(folder)
    return ClipDataset(
        corpus, ClipOrder(corpus.samples, seed, batch, shuffle_buffer=2), CLIP, rank, ranks, start
    )


def global_batches(folder, count, ranks=1, workers=0, start=0):
    """The first global batches, joined from the parts of all ranks: keys and pixels."""
    parts = [
        islice(
            read_batches(dataset(folder, rank, ranks, start), StreamConfig(workers=workers)), count
        )
        for rank in range(ranks)
    ]
    return [
        ([k for part in step for k in part.keys], torch.cat([part.clips for part in step]))
        for step in zip(*parts, strict=True)
    ]


def assert_same(ours, theirs):
    assert [keys for keys, _ in ours] == [keys for keys, _ in theirs]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (1, 3), (1, 9), (2, 0), (2, 2), (4, 1)])
def test_batches_are_the_same_on_any_number_of_ranks_and_workers(packed, ranks, workers):
    assert_same(global_batches(packed, 7, ranks, workers), global_batches(packed, 7))


def test_resuming_repeats_and_skips_no_clip(packed):
    assert_same(global_batches(packed, 4, start=3, ranks=2), global_batches(packed, 7)[3:])


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """21 segments in seven shards of unequal sizes."""
    source, out = tmp_path_factory.mktemp("uneven"), tmp_path_factory.mktemp("uneven-packed")
    for number in range(7):
        folder = source / f"video {number}"
        folder.mkdir()
        for t in range(4 * number + 3):
            Image.new("RGB", (16, 12), (30 * number, 8 * t, 0)).save(folder / f"image_{t:05d}.jpg")
    pack(source, out, PackConfig(fps=25, segment=5, spread=5), processes=1)
    assert [shard.samples for shard in read_manifest(out).shards] == [1, 1, 2, 3, 4, 5, 5]
    return out


def keys_of(folder, steps, ranks=1, workers=0, start=0, batch=12):
    """The keys of the global batches from `start` on, read by the workers of all ranks."""

    def read(rank):
        corpus = open_corpus(folder)
        data = ClipDataset(
            corpus,
            ClipOrder(corpus.samples, 5, batch, shuffle_buffer=3),
            ClipConfig(size=8),
            rank,
            ranks,
            start,
        )
        return list(islice(read_batches(data, StreamConfig(workers=workers)), steps))

    return [
        [key for part in step for key in part.keys]
        for step in zip(*map(read, range(ranks)), strict=True)
    ]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_200_batches_are_the_same_on_any_number_of_ranks_and_workers(uneven):
    alone = keys_of(uneven, 200)
    for ranks in (1, 2, 4):
        for workers in (0, 1, 2, 3):
            assert keys_of(uneven, 200, ranks, workers) == alone, (ranks, workers)
    # 96 epochs of 21 segments
    counts = Counter(key.rpartition(":")[0] for batch in alone[: 21 * 8] for key in batch)
    assert set(counts.values()) == {96}


def test_resuming_at_any_step_continues_with_the_next_batch(uneven):
    alone = keys_of(uneven, 130)
    draw = np.random.default_rng(0)
    for start in draw.integers(1, 120, 20).tolist():
        ranks, workers = draw.choice([(1, 0), (2, 0), (4, 0), (3, 0), (6, 0)]).tolist()
        assert keys_of(uneven, 5, ranks, workers, start) == alone[start : start + 5]
    assert keys_of(uneven, 5, 2, 3, 77) == keys_of(uneven, 5, 4, 1, 77) == alone[77:82]


def read_all(folder, batch, ranks, workers, start, steps, **more):
    """Keys and pixels of global batches, joined from the parts of all ranks and their workers."""
    corpus, clip = open_corpus(folder), ClipConfig(size=8)
    order = ClipOrder(corpus.samples, 5, batch, shuffle_buffer=3)
    config = StreamConfig(workers=workers, **more)
    parts = []
    for rank in range(ranks):
        data = ClipDataset(corpus, order, clip, rank, ranks, start)
        parts.append(list(islice(read_batches(data, config), steps)))
    whole = []
    for step in zip(*parts, strict=True):
        keys = [key for part in step for key in part.keys]
        whole.append((keys, torch.cat([part.clips for part in step])))
    return whole


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@settings(max_examples=25, deadline=None)
@given(
    ranks=st.sampled_from([1, 1, 2, 3]),
    per_rank=st.integers(1, 7),
    workers=st.integers(0, 9),
    start=st.integers(0, 40),
    prefetch=st.integers(1, 3),
    decode=st.sampled_from(["worker", "device"]),
)
def test_batches_do_not_depend_on_the_number_of_workers(
    uneven, ranks, per_rank, workers, start, prefetch, decode
):  # fmt: skip
    """Keys and pixels are equal from any batch on. Ten batches are read, so that the slots of the
    shared memory are reused."""
    batch = ranks * per_rank
    alone = read_all(uneven, batch, 1, 0, 0, start + 10)[start:]
    shared = read_all(uneven, batch, ranks, workers, start, 10, prefetch=prefetch, decode=decode)
    assert_same(shared, alone)


def test_shared_memory_has_the_sizes_of_the_workers_shares(packed):
    slots = shared_slots(dataset(packed, batch=16), StreamConfig(workers=5, prefetch=2))
    shapes = [tuple(memory.shape) for memory in slots]
    assert shapes == [(3, share, 3, 32, 32, 3) for share in (3, 3, 3, 3, 4)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_no_more_workers_are_started_than_the_rank_has_clips(packed):
    batches = read_batches(dataset(packed, ranks=2, batch=6), StreamConfig(workers=40))
    before = len(multiprocessing.active_children())
    assert len(next(batches).keys) == 3
    assert len(multiprocessing.active_children()) - before == 3
    batches.close()


def test_an_epoch_yields_each_segment_once(packed):
    keys = [key.rpartition(":")[0] for keys, _ in global_batches(packed, 2) for key in keys]
    assert len(set(keys)) == len(keys) == 8


def test_clips_are_pixels_of_consecutive_frames(packed):
    (keys, clips), *_ = global_batches(packed, 1)
    assert clips.shape == (4, 3, 3, 32, 32)
    assert clips.dtype == torch.uint8
    for key in keys:
        first, second, third = map(int, key.rpartition(":")[2].split(","))
        assert (second, third) == (first + 1, first + 2)


def test_a_clip_depends_only_on_seed_epoch_and_key():
    chosen = {
        sample_clip(CLIP, 32, seed, epoch, key)
        for seed in (0, 1)
        for epoch in (0, 1)
        for key in ("a", "b")
    }
    assert len(chosen) == 8
    assert sample_clip(CLIP, 32, 0, 0, "a") == sample_clip(CLIP, 32, 0, 0, "a")


def test_each_clip_takes_one_of_several_intervals_at_random():
    config = ClipConfig(interval=(1, 2, 5))
    gaps = [np.diff(sample_clip(config, 32, 0, 0, str(n)).frames).tolist() for n in range(300)]
    counts = Counter(map(tuple, gaps))
    assert counts.keys() == {(1, 1), (2, 2), (5, 5)}
    assert min(counts.values()) > 70
    assert {tuple(np.diff(sample_clip(config, 8, 0, 0, str(n)).frames)) for n in range(50)} == {
        (1, 1),
        (2, 2),
    }


def test_each_visit_yields_a_different_clip():
    assert len({sample_clip(CLIP, 32, 0, 0, "a", visit) for visit in range(4)}) == 4


def test_the_interval_is_reduced_in_a_short_segment():
    assert np.diff(sample_clip(ClipConfig(interval=(4,)), 9, 0, 0, "k").frames).tolist() == [4, 4]
    assert np.diff(sample_clip(ClipConfig(interval=(4,)), 6, 0, 0, "k").frames).tolist() == [2, 2]
    with pytest.raises(DataError, match="sample k: 2 frames: too few for a clip of 3"):
        sample_clip(ClipConfig(), 2, 0, 0, "k")


def test_a_crop_is_cut_at_its_position_and_squash_keeps_the_whole_frame():
    frame = torch.arange(3 * 48 * 64).reshape(3, 48, 64).to(torch.uint8)
    corner = cut_frame(frame, ClipSample((0,), ClipAugmentation(1.0, 1.0, False)), CLIP, 0)
    assert torch.equal(corner, frame[..., -32:, -32:])
    mirrored = ClipSample((0,), ClipAugmentation(1.0, 1.0, True))
    assert torch.equal(cut_frame(frame, mirrored, CLIP, 0), corner.flip(-1))
    assert cut_frame(
        frame,
        ClipSample((0,), ClipAugmentation(1.0, 1.0, False)),
        ClipConfig(size=48, fit="squash"),
        0,
    ).shape == (3, 48, 48)


@pytest.fixture(scope="module")
def mixed(packed):
    """A manifest of frames whose shorter side has the requested 40 pixels, or fewer if the video
    was smaller."""
    found = read_manifest(packed)
    return replace(
        found, settings={**found.settings, "size": "40"}, short_sides={30: 1, 36: 2, 40: 5}
    )


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (
            ClipConfig(size=40, fit="crop"),
            "3 of 8 packed segments have frames smaller than the crop of 40 pixels (the smallest "
            "30): they are enlarged (--clip.size 28)",
        ),
        (
            ClipConfig(size=48, fit="squash"),
            "8 of 8 packed segments have frames smaller than the square of 48 pixels (the smallest "
            "30): "
            "they are enlarged (--clip.size 28, or pack with --size 48)",
        ),
        (
            ClipConfig(size=32, fit="squash"),
            "1 of 8 packed segments have frames smaller than the square of 32 pixels (the "
            "smallest 30): they are enlarged (--clip.size 28)",
        ),
        (ClipConfig(size=28, fit="crop"), ""),
    ],
)
def test_frames_smaller_than_the_clip_are_counted_with_advice(mixed, clip, message):
    assert enlarged_line(mixed, clip, 4) == message


def test_nothing_is_reported_if_frame_sizes_were_not_counted(mixed):
    assert not enlarged_line(replace(mixed, short_sides={}), ClipConfig(size=256), 4)


def test_squashed_frames_are_judged_by_their_shorter_side(mixed):
    squashed = replace(mixed, settings={**mixed.settings, "size": "64x40"}, short_sides={40: 8})
    assert not enlarged_line(squashed, ClipConfig(size=40), 4)
    assert "(--clip.size 40, or pack with --size 48)" in enlarged_line(
        squashed, ClipConfig(size=48), 4
    )


@pytest.mark.parametrize(
    ("interval", "taken", "message"),
    [
        (
            (50,),
            {15},
            "clip.interval 50: 3 frames this far apart need segments of 101, packed segments have "
            "at most 32: clips take an interval of 15 (pack with --segment 101)",
        ),
        (
            (1, 16, 4, 50),
            {1, 4},
            "clip.interval 16, 50: 3 frames this far apart need segments of 101, packed segments "
            "have at most 32: clips take an interval of 1 or 4 (pack with --segment 101)",
        ),
        ((1, 15), {1, 15}, ""),
    ],
)
def test_intervals_too_long_for_any_segment_are_reported_with_those_used(
    mixed, interval, taken, message
):
    manifest = replace(mixed, settings={**mixed.settings, "segment": 32})
    clip = ClipConfig(interval=interval)
    assert interval_line(manifest, clip) == message
    cuts = [sample_clip(clip, 32, 0, 0, str(number)).frames for number in range(50)]
    assert {second - first for first, second, _ in cuts} == taken


def test_frames_are_shifted_independently_and_stay_within_the_picture():
    config = replace(CLIP, shift=8)
    plain, cuts = (
        sample_clip(CLIP, 32, 0, 0, "a"),
        [sample_clip(config, 32, 0, 0, str(n)) for n in range(100)],
    )
    shifted = sample_clip(config, 32, 0, 0, "a")
    unshifted = replace(shifted, augmentation=replace(shifted.augmentation, shifts=()))
    assert unshifted == plain, "a shift must not change what else is drawn"
    moves = np.array([cut.augmentation.shifts for cut in cuts])
    assert moves.shape == (100, config.frames, 2)
    assert 7 < np.abs(moves).max() <= 8 and np.abs(moves.mean(axis=(0, 1))).max() < 1
    assert len(np.unique(moves)) == moves.size
    frame = torch.arange(3 * 48 * 64).reshape(3, 48, 64).to(torch.uint8)
    moved = ClipSample((0, 1), ClipAugmentation(0.5, 0.5, False, ((0.0, 0.0), (3.0, -5.0))))
    assert torch.equal(cut_frame(frame, moved, config, 0), frame[..., 8:40, 16:48])
    assert torch.equal(cut_frame(frame, moved, config, 1), frame[..., 11:43, 11:43])
    beyond = ClipSample((0,), ClipAugmentation(1.0, 0.0, False, ((8.0, -8.0),)))
    assert torch.equal(cut_frame(frame, beyond, config, 0), frame[..., -32:, :32])


@pytest.mark.parametrize("flags", [{"shift": -1, "fit": "crop"}, {"shift": 4, "fit": "squash"}])
def test_a_negative_shift_or_one_without_crop_is_refused(flags):
    with pytest.raises(DataError, match=f"clip: shift {flags['shift']}: expected"):
        ClipConfig(**flags)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_shard_is_named(packed, tmp_path, workers):
    for path in packed.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(
            b"x" * len(content) if path.suffix == ".tar" else content
        )
    with pytest.raises(DataError, match=r"^shard .*shard-0000\d\d\.tar: not readable"):
        global_batches(tmp_path, 3, workers=workers)


def test_a_missing_or_truncated_shard_is_refused_before_the_first_step(packed, tmp_path):
    for path in packed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "shard-000007.tar").write_bytes(b"short")
    with pytest.raises(DataError, match=r"shard-000007\.tar: 5 bytes: the manifest says \d+ bytes"):
        global_batches(tmp_path, 1)
    (tmp_path / "shard-000007.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000007\.tar: missing"):
        global_batches(tmp_path, 1)


def test_clips_longer_than_the_shortest_segment_are_refused(packed):
    data = dataset(packed)
    data.clip = ClipConfig(frames=4, size=32)
    with pytest.raises(DataError, match=r"4 frames: .* segments as short as 3"):
        next(read_batches(data, StreamConfig(workers=0)))


def test_fewer_shards_than_processes_is_refused(packed):
    with pytest.raises(DataError, match="8 shards for 16 processes"):
        next(read_batches(dataset(packed, ranks=16, batch=16), StreamConfig(workers=0)))


def test_a_missing_or_unsupported_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json there"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 99: expected 2"):
        read_manifest(tmp_path)


FORGETFUL = """
import sys
from pathlib import Path
from shards.reading.clip import ClipConfig
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stream import ClipDataset, StreamConfig, read_batches

corpus = open_corpus(Path(sys.argv[1]))
dataset = ClipDataset(corpus, ClipOrder(corpus.samples, 0, 2), ClipConfig(size=32), 0, 1, 0)
batches = read_batches(dataset, StreamConfig(workers=2))
next(batches)
raise SystemError("of the program, which never comes to an end of its batches")
"""


def test_a_program_that_fails_does_not_wait_for_its_workers(packed):
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL, str(packed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "SystemError: of the program" in done.stderr


def stuck(slow_stream):
    """A version of `ClipDataset.undecoded` in which one stream sleeps before batch 1."""

    def read(self, stream, reader):
        clips = undecoded(self, stream, reader)
        yield next(clips)
        if stream == slow_stream:
            time.sleep(2 * TIMEOUT_SECONDS)
        yield from clips

    undecoded = ClipDataset.undecoded
    return read


def test_waiting_for_clips_ends_with_an_error_after_a_warning(packed, monkeypatch, capfd):
    monkeypatch.setattr(ClipDataset, "undecoded", stuck(1))
    batches = read_batches(dataset(packed, batch=2), StreamConfig(workers=2, stall_seconds=2))
    next(batches)
    begun = time.monotonic()
    with pytest.raises(
        StallError, match=r"batch 1: no clips came for 2 s \(stream\.stall_seconds\)"
    ):
        next(batches)
    # the sleeping worker is not waited for
    assert time.monotonic() - begun < TIMEOUT_SECONDS
    assert "rank 0: batch 1: warning: no clips for 0.2 s; still waiting" in capfd.readouterr().err


def test_clips_that_arrive_in_time_cause_no_warning(packed, capfd):
    list(
        islice(
            read_batches(dataset(packed, batch=2), StreamConfig(workers=0, stall_seconds=100)), 3
        )
    )
    assert "warning" not in capfd.readouterr().err


@pytest.mark.parametrize("change", [{"workers": -1}, {"prefetch": 0}, {"stall_seconds": -1}])
def test_invalid_stream_settings_are_refused(change):
    with pytest.raises(DataError, match="stream: "):
        StreamConfig(**change)
