"""Tests `launch/bench.py`: inference and all-reduce as commands, the rest in this process."""

import json
import multiprocessing.dummy
import threading
from pathlib import Path

import pytest
from conftest import TINY

from corrflow import InputError
from corrflow.speed import attention_cases, measure
from launch import bench
from launch.measuring import gpu

ROW = {
    "name", "variant", "seconds", "speedup", "peak_mib", "items_per_second", "flops", "limit_share",
    "sizes", "machine", "released_correlation",
}  # fmt: skip


class Thread(threading.Thread):
    """Stands in for a process, which would take seconds to import torch."""

    def terminate(self):
        assert not self.is_alive(), "it doesn't end by its own way out"


@pytest.fixture
def in_threads(monkeypatch):
    """Runs each variant in a thread; tests/corrflow/speed/test_measure.py tests the processes."""
    context = multiprocessing.dummy
    monkeypatch.setattr(context, "Process", Thread)
    monkeypatch.setattr(measure.multiprocessing, "get_context", lambda method: context)


def check_rows(path, output, variants):
    """Check that each variant has a row in the file and in the output."""
    rows = json.loads(path.read_text())
    assert {(row["name"], row["variant"]) for row in rows} == variants
    for row in rows:
        assert row.keys() >= ROW
        assert row["seconds"] > 0
        assert (row["speedup"] is None) == (row["name"] in ("encoder", "inference-memory"))
        assert row["variant"] in output
    assert "GFLOP/s" in output


def flags(work, side, path):
    """Flags for the smallest benchmark of its kind."""
    size = ("--batch", 1, "--height", side, "--width", side, "--radius", 2, "--repeats", 1)
    return [str(flag) for flag in (work, *size, "--device", "cpu", "--json", path)]


@pytest.mark.parametrize(("argv", "word"), [([], "no work"), (["loaders"], "loaders")])
def test_an_unknown_benchmark_error_lists_all_benchmarks(argv, word):
    with pytest.raises(InputError, match=f"bench: {word}: expected one of .*growth, pack, loader"):
        bench.main(argv)


def test_the_loader_benchmark_refuses_too_few_steps(packed):
    with pytest.raises(ValueError, match="bench: steps 5: expected 100 or more"):
        bench.main(["loader", "--data", str(packed), "--steps", "5"])


def test_step_writes_a_row_for_each_variant(in_threads, capsys, tmp_path):
    path = tmp_path / "rows.json"
    assert bench.main(flags("step", 32, path)) == 0
    variants = ("released", "corrflow", "corrflow, direct")
    parts = {("encoder", "corrflow"), ("likelihood", "released"), ("likelihood", "corrflow")}
    check_rows(path, capsys.readouterr().out, {("step", variant) for variant in variants} | parts)


def test_inference_writes_a_row_for_each_variant(command, tmp_path):
    path = tmp_path / "rows.json"
    done = command("bench", *flags("inference", 32, path))
    assert done.returncode == 0, done.stderr
    variants = ("released", "released, memory kept", "corrflow")
    memory = {("inference-memory", variant) for variant in ("corrflow", "corrflow, fast")}
    check_rows(path, done.stdout, {("inference", variant) for variant in variants} | memory)


def test_attention_measures_every_available_backend(in_threads, tmp_path, monkeypatch):
    # FlexAttention takes a minute to compile
    monkeypatch.setattr(attention_cases, "can_compile", lambda device: False)
    path = tmp_path / "rows.json"
    assert bench.main(flags("attention", 32, path)) == 0
    rows = json.loads(path.read_text())
    for name in ("attention-forward", "attention-forward-backward"):
        assert {"released", "reference", "tiled"} <= {
            row["variant"] for row in rows if row["name"] == name
        }


def test_train_measures_the_step_the_loader_and_training(packed, capsys, tmp_path):
    path = tmp_path / "figures.json"
    flags = ("--data", packed, *TINY, "--trainer.batch", 8, "--steps", 2, "--json", path)
    assert bench.main(["train", *map(str, flags)]) == 0
    figures = json.loads(path.read_text())
    assert figures["clips"] == 8
    assert min(figures["step"], figures["loader"]) > 0
    assert figures["training"] > figures["loader"]
    assert 0 < figures["waited"] < 1
    printed = capsys.readouterr().out
    assert all(f"{name}  " in printed for name in ("step alone", "loader alone", "training"))


@pytest.fixture
def quick(monkeypatch, in_threads):
    """Leaves out compiled kernels, the speed of attention and inference, and interpreted kernels,
    which tests/corrflow/test_attention.py tests."""
    monkeypatch.setattr(gpu, "BACKENDS", ("reference", "tiled"))
    monkeypatch.setattr(attention_cases, "can_compile", lambda device: False)
    monkeypatch.setattr(gpu, "WORKS", ("step",))


def gpu_lines(out, *flags):
    """Run the gpu benchmark; returns the exit code and the lines of each part."""
    code = bench.main(["gpu", "--tiny", "--device", "cpu", "--out", str(out), *map(str, flags)])
    lines = json.loads((out / "gpu.json").read_text())["lines"]
    return code, {part: [x for x in lines if x["part"] == part] for part in gpu.PARTS}


def test_gpu_checks_and_measures_everything(quick, packed, tree, tmp_path):
    code, lines = gpu_lines(tmp_path, "--data", packed, "--davis", tree)
    assert not [line["failure"] for part in lines.values() for line in part if line["failure"]]
    assert code == 0
    assert len(lines["attention"]) == 3 * 3 + 1
    assert lines["model"][0]["figures"] == {"classes": 0.0}
    assert {"step, released", "step, corrflow"} <= {line["name"] for line in lines["speed"]}
    assert lines["training"][0]["figures"]["training_clips_per_s"] > 0
    assert [line["name"] for line in lines["davis"]] == ["paper", "memory", "in all"]
    assert 0 < lines["davis"][0]["figures"]["J&F"] <= 1
    assert (tmp_path / "step.trace.json.gz").exists()
    assert lines["profile"][0]["figures"]["count"] > 100


def test_gpu_reports_failures_and_continues(quick, packed, tmp_path, monkeypatch, capsys):
    def broken(job, device):
        raise RuntimeError("out of memory\nat length")

    monkeypatch.setattr(gpu, "measure_training", broken)
    monkeypatch.setattr(gpu, "relative", lambda ours, exact: 0.5)
    code, lines = gpu_lines(tmp_path, "--data", packed, "--parts", "training", "model", "davis")
    assert code == 1
    assert lines["training"][0]["failure"] == "RuntimeError: out of memory"
    assert [line["failure"] for line in lines["model"][1:4]] == ["expected at most 0.01"] * 3
    assert lines["davis"][0]["note"] == "left out: no --davis"
    assert "4 failed" in capsys.readouterr().out


def test_gpu_needs_a_gpu_unless_it_runs_the_tiny_variant(refused, tmp_path):
    words = refused("bench", "gpu", "--device", "cpu", "--out", tmp_path)
    assert "no GPU is here: expected one, or --tiny" in words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("magic",), "magic"),
        (("step", "--height", 33), "multiples of 4"),
        (("inference", "--batch", 2), "a frame at a time"),
        (("step", "--repeats", -1), "repeats -1: expected 0 or more"),
        (("step", "--plot", "x.png"), "expected with growth alone"),
    ],
)
def test_invalid_flags_are_refused(refused, flags, words):
    assert words in refused("bench", *flags)


def test_scaling_predicts_a_line_for_each_number_of_gpus(capsys):
    assert (
        bench.main(["scaling", "--gpus", "8", "64", "--network-gbit", "100", "--batch", "32"]) == 0
    )
    output = capsys.readouterr().out
    assert output.startswith("a prediction, not a measurement")
    lines = [line.split() for line in output.splitlines()[-2:]]
    assert [(line[0], line[1], line[2]) for line in lines] == [
        ("8", "1", "256"),
        ("64", "8", "2048"),
    ]


def test_scaling_refuses_a_batch_that_no_number_of_gpus_divides(refused):
    assert "none of (4, 64) GPUs divides it" in refused(
        "bench", "scaling", "--gpus", 4, 64, "--global-batch", 6
    )


@pytest.mark.skipif(
    not Path("/proc/net/dev").exists(), reason="the kernel's counters of sent bytes are not here"
)
def test_reduce_sends_as_many_bytes_as_the_formula_predicts(command):
    done = command("bench", "reduce", "--procs", 2, "--repeats", 3, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    gradient = done.stdout.splitlines()[-2].split()
    assert gradient[0] == "21166592"
    assert gradient[5] == str(2 * 21166592)
    assert int(gradient[4]) == pytest.approx(int(gradient[5]), rel=0.05)


def test_reduce_refuses_a_single_process(refused):
    assert "procs 1" in refused("bench", "reduce", "--procs", 1)
