import json
import shutil

import numpy as np
import pytest

from launch import shard


def output_lines(capsys, *flags):
    assert shard.main([str(flag) for flag in flags]) == 0
    return capsys.readouterr().out.splitlines()


def test_order_prints_the_same_batches_for_any_ranks_and_workers(packed, capsys):
    flags = ("order", "--data", packed, "--batch", 4, "--steps", 6, "--seed", 3, "--json")
    alone = output_lines(capsys, *flags)
    assert len(alone) == 6
    assert all(len(json.loads(line)) == 4 for line in alone)
    for workers in (1, 2, 3, 7):
        assert output_lines(capsys, *flags, "--ranks", 2, "--workers", workers) == alone
    assert output_lines(capsys, *flags, "--workers", 3) == alone
    assert output_lines(capsys, *flags, "--ranks", 4) == alone
    assert output_lines(capsys, *flags, "--start", 2)[:4] == alone[2:]
    assert output_lines(capsys, *flags[:-2], 4, "--json") != alone


def test_order_prints_the_clips_that_training_reads(packed, capsys):
    from shards.reading.clip import ClipConfig
    from shards.reading.corpus import open_corpus
    from shards.reading.order import ClipOrder
    from shards.reading.stream import ClipDataset, StreamConfig, read_batches

    corpus = open_corpus(packed)
    batches = read_batches(
        ClipDataset(corpus, ClipOrder(corpus.samples, 0, 2, 64), ClipConfig(size=32), 0, 1, 0),
        StreamConfig(workers=0),
    )
    printed = output_lines(capsys, "order", "--data", packed, "--batch", 2, "--steps", 8, "--json")
    assert [json.loads(line) for line in printed] == [next(batches).keys for _ in range(8)]


def test_stats_prints_counts_and_frame_sizes(packed, capsys):
    text = "\n".join(output_lines(capsys, "stats", "--data", packed))
    assert "videos    4" in text
    assert "clips     8 of 3 frames" in text
    assert "64x48        32 #" in text


def test_verify_names_the_damage_and_exits_with_1(packed, tmp_path, capsys):
    assert "all match the manifest" in output_lines(capsys, "verify", "--data", packed)[-1]
    copy = shutil.copytree(packed, tmp_path / "copy")
    damaged = sorted(copy.glob("*.tar"))[0]
    damaged.unlink()
    assert shard.main(["verify", "--data", str(copy)]) == 1
    assert f"{damaged.name}: missing" in capsys.readouterr().out


@pytest.mark.parametrize("more", [(), ("--lightness", 1), ("--lightness", 0.3)])
def test_a_palette_represents_the_colors_of_the_data(packed, tmp_path, capsys, more):
    from corrflow.color import rgb_to_lab
    from corrflow.palette import read_palette
    from shards.reading.clip import ClipConfig
    from shards.reading.corpus import open_corpus
    from shards.reading.order import ClipOrder
    from shards.reading.stream import ClipDataset, StreamConfig, read_batches

    flags = ("palette", "--data", packed, "--classes", 6, "--clips", 16, *more, "--out")
    assert "6 classes of" in output_lines(capsys, *flags, tmp_path / "p.csv")[-1]
    palette = np.array(read_palette(tmp_path / "p.csv"))
    assert palette.shape == (6, 3 if more else 2)
    output_lines(capsys, *flags, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()
    corpus = open_corpus(packed)
    batches = read_batches(
        ClipDataset(corpus, ClipOrder(corpus.samples, 1, 8, 64), ClipConfig(size=32), 0, 1, 0),
        StreamConfig(workers=0),
    )
    lab = rgb_to_lab(next(batches).clips[:, 0].float() / 255).movedim(1, -1).reshape(-1, 3).numpy()
    colors = lab if more else lab[:, 1:]
    distance = np.linalg.norm(colors[:, None] - palette, axis=-1).min(axis=1)
    from_mean = np.linalg.norm(colors - colors.mean(axis=0), axis=-1)
    assert distance.mean() < 0.6 * from_mean.mean()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("order", "--batch", 0), "order: batch 0: expected 1 or more"),
        (("order", "--batch", 4, "--ranks", 3), "1, 2 or 4 would do"),
        (("stats", "--frames", 0), "stats: frames 0: expected 1 or more"),
        (("verify", "--procs", -1), "procs -1"),
        (("palette", "--out", "p.csv", "--classes", 1), "expected 2 to 256"),
        (("palette", "--out", "p.csv", "--clips", 0), "clips 0: expected 1 or more"),
        (("palette", "--out", "p.csv", "--seed", -1), "palette: seed -1: expected 0 to 4.29"),
        (("palette", "--out", "p.csv", "--seed", 2**32), f"palette: seed {2**32}: expected 0 to"),
    ],
)
def test_invalid_flags_are_refused(refused, packed, flags, words):
    assert words in refused("shard", flags[0], "--data", packed, *flags[1:])
