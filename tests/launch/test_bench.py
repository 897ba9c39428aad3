import json
from pathlib import Path

import pytest

ROW = {
    "name", "variant", "seconds", "speedup", "peak_mib", "items_per_second", "flops", "limit_share",
    "sizes", "machine", "released_correlation",
}  # fmt: skip


@pytest.mark.parametrize(
    ("work", "size", "variants"),
    [
        (
            "step",
            ("--batch", 1, "--height", 32, "--width", 32),
            {("step", way) for way in ("released", "corrflow", "corrflow, direct")} | {("encoder", "corrflow")},
        ),
        (
            "inference",
            ("--height", 48, "--width", 64),
            {("inference", way) for way in ("released", "released, memory kept", "corrflow")} | {("inference-memory", "corrflow")},
        ),
    ],
)
def test_writes_a_row_for_each_variant_beside_the_released_one(command, tmp_path, work, size, variants):
    done = command("bench", work, *size, "--repeats", 1, "--device", "cpu", "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["name"], row["variant"]) for row in rows} == variants
    for row in rows:
        assert row.keys() >= ROW
        assert row["seconds"] > 0
        assert (row["speedup"] is None) == (row["name"] in ("encoder", "inference-memory"))
        assert row["variant"] in done.stdout
    assert "GFLOP/s" in done.stdout


def test_attention_measures_every_backend_that_is_here(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no compiler, so no FlexAttention, which takes a minute to compile
    done = command("bench", "attention", "--height", 32, "--width", 32, "--repeats", 1, "--json", tmp_path / "rows.json", timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    for name in ("attention-forward", "attention-forward-backward"):
        assert {"released", "reference", "tiled"} <= {row["variant"] for row in rows if row["name"] == name}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("magic",), "magic"),
        (("step", "--height", 33), "multiples of 4"),
        (("inference", "--batch", 2), "a frame at a time"),
        (("step", "--repeats", -1), "expected whole numbers"),
        (("step", "--plot", "x.png"), "expected with growth alone"),
    ],
)
def test_refuses_what_makes_no_sense(refused, flags, words):
    assert words in refused("bench", *flags)


def test_scaling_predicts_a_line_for_each_number_of_gpus(command):
    done = command("bench", "scaling", "--gpus", 8, 64, "--network-gbit", 100, "--batch", 32)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a prediction, not a measurement")
    lines = [line.split() for line in done.stdout.splitlines()[-2:]]
    assert [(line[0], line[1], line[2]) for line in lines] == [("8", "1", "256"), ("64", "8", "2048")]


def test_scaling_refuses_a_batch_that_no_number_of_gpus_divides(refused):
    assert "none of (4, 64) GPUs divides it" in refused("bench", "scaling", "--gpus", 4, 64, "--global-batch", 6)


@pytest.mark.skipif(not Path("/proc/net/dev").exists(), reason="the kernel's counters of sent bytes are not here")
def test_a_reduction_sends_the_bytes_of_the_formula(command):
    done = command("bench", "reduce", "--procs", 2, "--repeats", 3, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    gradient = done.stdout.splitlines()[-2].split()
    assert gradient[0] == "21166592"
    assert gradient[5] == str(2 * 21166592)
    assert int(gradient[4]) == pytest.approx(int(gradient[5]), rel=0.05)


def test_reduce_refuses_a_process_alone(refused):
    assert "procs 1" in refused("bench", "reduce", "--procs", 1)
