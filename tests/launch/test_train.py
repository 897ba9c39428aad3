import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, TIMEOUT_SECONDS, TINY

from corrflow import load_model
from corrflow.benchmarks.evaluation import evaluate
from corrflow.propagation import PROTOCOLS
from corrflow.training.checkpoint import checkpoint_path
from launch import train as command_of_train
from launch.configs.recipes import RECIPES, find_recipe
from shards.packing.config import PackConfig
from slurm import ClusterError
from slurm.attempts import TRIES, log_attempt


def train_command(packed, run, *flags):
    return [
        sys.executable,
        str(ROOT / "launch/train.py"),
        "--data",
        str(packed),
        "--run",
        str(run),
        *TINY,
        *map(str, flags),
    ]


def train_here(packed, run, *flags):
    """Train to the end in this process, which has already imported torch. Tests that stop a run or
    need several ranks start the command instead."""
    assert command_of_train.main(train_command(packed, run, *flags)[2:]) == 0


def weights(run, step):
    state = torch.load(run / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in state["model"])
    return torch.cat([tensor.double().flatten() for tensor in state["model"].values()])


def read_metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def wait_for(path, process, seconds=TIMEOUT_SECONDS):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def full_run(packed, tmp_path_factory):
    """An uninterrupted run of 40 steps that keeps the checkpoints of steps 12 and 40."""
    run = tmp_path_factory.mktemp("whole")
    flags = (
        "--trainer.steps",
        40,
        "--trainer.save-every",
        12,
        "--trainer.keep",
        9,
        "--stream.workers",
        2,
    )
    subprocess.run(train_command(packed, run, *flags), check=True, capture_output=True)
    return run


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_run_stopped_by_a_signal_resumes_to_the_same_weights(
    packed, full_run, tmp_path, number, code
):
    command = train_command(
        packed, tmp_path, "--trainer.steps", 40, "--trainer.save-every", 2, "--stream.workers", 2
    )
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    wait_for(tmp_path / "checkpoints/step-00000002.pt", process)
    os.killpg(process.pid, number)  # a terminal or SLURM signals the data workers, too
    output = process.communicate(timeout=TIMEOUT_SECONDS)[0]
    assert process.returncode == code, output
    assert not (tmp_path / "checkpoints/step-00000040.pt").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resuming at step" in again.stdout
    assert torch.equal(weights(tmp_path, 40), weights(full_run, 40))
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 41))
    assert [line["loss"] for line in read_metrics(tmp_path)] == [
        line["loss"] for line in read_metrics(full_run)
    ]


def test_two_processes_train_on_the_same_batches_as_one(packed, full_run, tmp_path):
    command = train_command(
        packed, tmp_path, "--trainer.steps", 6, "--procs", 2, "--stream.workers", 1
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 x cpu" in done.stdout
    assert (tmp_path / "checkpoints/step-00000006.pt").exists()
    # Clips and random numbers are the same. BatchNorm sees only the half of the batch that its
    # process has, so the losses are close but not equal.
    assert read_metrics(tmp_path)[0]["loss"] == pytest.approx(
        read_metrics(full_run)[0]["loss"], rel=0.05
    )
    assert load_model(tmp_path / "checkpoints/step-00000006.pt").config.radius == 2
    train_here(packed, tmp_path, "--trainer.steps", 8)  # continues with one process
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 9))


def test_frames_smaller_than_the_crop_are_reported_once_before_training(packed, tmp_path):
    flags = ("--trainer.steps", 1, "--procs", 2, "--stream.workers", 2, "--clip.size", 64)
    done = subprocess.run(
        train_command(packed, tmp_path, *flags), capture_output=True, text=True, check=True
    )
    warning = (
        "8 of 8 packed segments have frames smaller than the crop of 64 pixels (the smallest 48)"
    )
    assert (done.stdout + done.stderr).count("smaller than") == 1
    before, line, after = done.stdout.partition(warning)
    assert line
    assert "starting: " in before
    assert "finished at step 1" in after


def test_an_interval_that_is_too_long_for_all_segments_is_reported(packed, tmp_path, capsys):
    train_here(packed, tmp_path, "--trainer.steps", 1, "--clip.interval", 50)
    assert "clip.interval 50: 3 frames this far apart need" in capsys.readouterr().out


def test_a_run_stopped_before_its_first_step_reports_no_checkpoint(
    packed, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command_of_train.SignalHandler, "__call__", lambda _: True)
    assert command_of_train.main(train_command(packed, tmp_path)[2:]) != 0
    assert "stopped at step 0; nothing is saved yet" in capsys.readouterr().out


def test_two_processes_stop_together_on_ctrl_c(packed, tmp_path):
    command = train_command(
        packed,
        tmp_path,
        "--trainer.steps",
        5000,
        "--trainer.save-every",
        2,
        "--procs",
        2,
        "--stream.workers",
        1,
    )
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    wait_for(tmp_path / "checkpoints/step-00000002.pt", process)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=TIMEOUT_SECONDS)[0]
    assert process.returncode == 130, output
    assert "stopped at step" in output
    assert "Traceback" not in output


def test_two_processes_killed_with_their_launcher_resume_identically(packed, tmp_path):
    flags = ("--trainer.steps", 30, "--trainer.save-every", 2, "--procs", 2, "--stream.workers", 1)
    subprocess.run(
        train_command(packed, tmp_path / "whole", *flags), capture_output=True, check=True
    )
    command = train_command(packed, tmp_path / "cut", *flags)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "cut/checkpoints/step-00000002.pt", process)
    process.kill()
    process.wait()
    # The new run starts at once and waits until the processes of the first have ended.
    subprocess.run(command, capture_output=True, check=True)
    assert torch.equal(weights(tmp_path / "cut", 30), weights(tmp_path / "whole", 30))
    assert [line["step"] for line in read_metrics(tmp_path / "cut")] == list(range(1, 31))


def test_validation_by_two_processes_does_not_change_training(packed, tree, tmp_path):
    flags = (
        "--trainer.steps",
        5,
        "--procs",
        2,
        "--trainer.accumulate",
        2,
        "--trainer.ema-clips",
        8,
        "--trainer.save-every",
        2,
    )
    watch = ("--validation.root", tree, "--validation.every", 2, "--trainer.profile", 1)
    subprocess.run(
        train_command(packed, tmp_path / "plain", *flags), capture_output=True, check=True
    )
    subprocess.run(
        train_command(packed, tmp_path / "watched", *flags, *watch), capture_output=True, check=True
    )
    assert torch.equal(weights(tmp_path / "plain", 5), weights(tmp_path / "watched", 5))
    validated = {
        line["step"]: line["validation_jf"]
        for line in read_metrics(tmp_path / "watched")
        if "validation_jf" in line
    }
    assert list(validated) == [2, 4]
    assert all(line["time_allreduce"] > 0 for line in read_metrics(tmp_path / "watched"))
    for step, score in validated.items():  # two processes get the scores of one
        model = load_model(checkpoint_path(tmp_path / "watched", step))
        found = evaluate(
            "davis2017", tree, model, PROTOCOLS["paper"], tmp_path / str(step), "again"
        )
        assert score == pytest.approx(found.overall["J&F-Mean"], abs=1e-9)
    best = torch.load(tmp_path / "watched/checkpoints/best.pt", weights_only=True)["validation"]
    assert (validated[best["step"]], best["jf"]) == (max(validated.values()),) * 2


def test_accumulated_parts_train_like_as_many_processes(packed, tmp_path):
    """BatchNorm sees one clip at a time in both. Sums of gradients are rounded differently."""
    for name, flags in (
        ("parts", ("--procs", 2, "--trainer.accumulate", 2)),
        ("processes", ("--procs", 4)),
    ):
        subprocess.run(
            train_command(packed, tmp_path / name, "--trainer.steps", 3, *flags),
            capture_output=True,
            check=True,
        )
    for one, other in zip(
        read_metrics(tmp_path / "parts"), read_metrics(tmp_path / "processes"), strict=True
    ):
        for name in ("loss", "hop_loss", "cycle_loss", "gradient_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-3)


def test_a_run_resumed_with_another_batch_reports_the_changed_order(packed, tmp_path, capsys):
    train_here(packed, tmp_path, "--trainer.steps", 3)
    train_here(packed, tmp_path, "--trainer.steps", 5, "--trainer.batch", 8)
    output = capsys.readouterr().out
    assert "resuming at step 3, 12 clips" in output
    assert "batch 4 -> 8: the order of clips changes from clip 16 on" in output
    train_here(packed, tmp_path, "--trainer.steps", 6, "--trainer.batch", 8)
    output = capsys.readouterr().out
    assert "resuming at step 5, 28 clips" in output
    assert "the order of clips changes" not in output
    probabilities = [0.9 - 0.3 * clips / 1e6 for clips in (0, 4, 8, 12, 20, 28)]
    assert [line["teacher_forcing"] for line in read_metrics(tmp_path)] == pytest.approx(
        probabilities, abs=1e-12
    )


def own_lines(stderr):
    """The messages of the command itself, without progress bars and torch's notes."""
    return [
        line[line.index("train.py: ") :] for line in stderr.splitlines() if "train.py: " in line
    ]


def test_a_full_disk_ends_all_processes_and_keeps_earlier_checkpoints(packed, tmp_path):
    """A limit on the size of files stands in for a full disk: the write fails at the same point."""
    train_here(packed, tmp_path, "--trainer.steps", 2)
    before = (tmp_path / "checkpoints/step-00000002.pt").read_bytes()

    def limit():
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (len(before) // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )

    flags = ("--procs", 2, "--trainer.save-every", 2, "--stream.workers", 1)
    command = train_command(packed, tmp_path, "--trainer.steps", 50, *flags)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    path = tmp_path / "checkpoints/step-00000004.pt"
    assert own_lines(done.stderr) == [
        f"train.py: rank 0: stopped at step 4: {path} can't be written: File too large"
    ], done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert [file.name for file in path.parent.iterdir()] == ["step-00000002.pt"]
    assert path.with_name("step-00000002.pt").read_bytes() == before
    train_here(packed, tmp_path, "--trainer.steps", 6)
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 7))


def test_missing_clips_on_one_rank_end_all_processes_with_one_error(packed, tmp_path):
    stuck = (
        f'exec 2>/dev/null; case {{}} in *.tar) [ "$RANK" = 1 ] && sleep 20;; esac; cat '
        f"{packed}/{{}}"
    )
    flags = ("--procs", 2, "--stream.workers", 1, "--stream.stall-seconds", 2, "--trainer.steps", 4)
    done = subprocess.run(
        train_command(f"pipe:{stuck}", tmp_path, *flags),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    expected = (
        "train.py: rank 1: stopped at step 0: batch 0: no clips came for 2 s (stream.stall_seconds)"
    )
    messages = own_lines(done.stderr)
    assert len(messages) == 1, done.stderr
    assert messages[0].startswith(expected)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr


@pytest.mark.parametrize("procs", [1, 2])
def test_a_killed_data_worker_ends_all_processes_with_an_error(packed, tmp_path, procs):
    fatal = f"pipe:case {{}} in *.tar) kill -9 $PPID;; esac; cat {packed}/{{}}"
    flags = ("--procs", procs, "--stream.workers", 1, "--trainer.steps", 4)
    done = subprocess.run(
        train_command(fatal, tmp_path, *flags),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    messages = own_lines(done.stderr)
    assert "stopped at step 0: DataLoader worker" in messages[0], done.stderr
    assert "too little memory, perhaps: try fewer (stream.workers)" in messages[0]
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr


def test_a_loss_of_nan_has_its_own_exit_code(packed, tmp_path):
    command = train_command(
        packed, tmp_path, "--procs", 2, "--trainer.steps", 9, "--schedule.learning-rate", 1e30
    )
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 3, done.stderr
    messages = sorted(line[:17] for line in own_lines(done.stderr))
    assert messages == ["train.py: rank 0:", "train.py: rank 1:"]
    assert "Traceback" not in done.stderr


def test_only_a_job_that_requeues_itself_stops_after_failed_attempts(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.delenv("SUBMITIT_FOLDER", raising=False)
    for _ in range(TRIES + 1):  # started by hand in a shell of a job
        log_attempt(tmp_path, command_of_train.plan_attempt(tmp_path))
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    for _ in range(TRIES):
        log_attempt(tmp_path, command_of_train.plan_attempt(tmp_path))
    with pytest.raises(ClusterError, match="3 attempts were cut at step 0 before they saved"):
        command_of_train.plan_attempt(tmp_path)


def test_torchrun_can_start_a_run(packed, tmp_path):
    flags = train_command(packed, tmp_path, "--trainer.steps", 2)[1:]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "--",
            *flags,
        ],
        check=True,
        capture_output=True,
    )
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_a_finished_run_continues_when_given_more_steps(packed, full_run, tmp_path):
    train_here(packed, tmp_path, "--trainer.steps", 5)
    train_here(packed, tmp_path, "--trainer.steps", 12)
    assert torch.equal(weights(tmp_path, 12), weights(full_run, 12))


def test_a_run_folder_of_another_configuration_is_refused(packed, full_run, refused):
    line = refused(
        "train", "--data", packed, "--run", full_run, *TINY, "--schedule.learning-rate", "0.1"
    )
    different = "training.schedule.learning_rate is 0.0002 there and 0.1 here"
    assert f"belongs to another configuration: {different}" in line


def test_a_run_folder_of_other_data_is_refused(tree, full_run, refused, command, tmp_path):
    command(
        "shard",
        "--source",
        tree / "JPEGImages/480p/val-000",
        "--out",
        tmp_path,
        "--fps",
        25,
        "--procs",
        1,
    )
    assert "data_digest is" in refused("train", "--data", tmp_path, "--run", full_run, *TINY)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trainer.stepz", "3"], "--trainer.steps"),
        (["--trainer.steps", "many"], "many"),
        (["--trainer.batch", "0"], "batch"),
        (
            ["--recipe", "magic"],
            "recipe 'magic': expected one of gpu, released, gpus64, cpu, resnet34, base, fast, "
            "ablation, demo, smoke",
        ),
        (["--procs", "-1"], "procs -1"),
        (["--trainer.seed", "-1"], "trainer: seed -1: expected 0 to 9.22337e+18"),
        (["--trainer.seed", str(2**64)], f"trainer: seed {2**64}: expected 0 to"),
        (["--augmentation.keep-channels", "2"], "keep_channels 2.0"),
        (["--recipe"], "recipe ''"),
        (
            ["--procs", "3"],
            "a global batch of 4 clips can't be divided by 3 processes: 1, 2 or 4 would do",
        ),
        (["--stream.workers", "-1"], "workers -1"),
        (["--procs", "16", "--trainer.batch", "16"], "8 shards for 16 processes"),
        (["--clip.size", "30"], "size 30"),
        (["--device", "cuda", "--procs", "99"], "device cuda"),
        (
            ["--trainer.accumulate", "3"],
            "accumulate 3: 4 clips on 1 processes: expected one of 1, 2, 4",
        ),
        (["--trainer.sync-batch-norm"], "sync_batch_norm on cpu: expected cuda"),
        (["--trainer.spike-factor", "0.5"], "spike_factor 0.5"),
        (["--validation.every", "5"], "validation.every 5: expected --validation.root"),
        (["--validation.protocol", "memory"], "validation.protocol memory: expected --valid"),
        (["--validation.root", "/nowhere"], "/nowhere/JPEGImages/480p: no such folder"),
        (["--stream.stall-seconds", "-1"], "stall_seconds -1"),
    ],
)
def test_an_invalid_flag_is_refused_with_one_line(packed, tmp_path, refused, flags, words):
    assert words in refused("train", "--data", packed, "--run", tmp_path / "run", *TINY, *flags)
    assert not (tmp_path / "run").exists()


def test_missing_data_is_refused_with_one_line(tmp_path, refused):
    assert "no manifest.json there" in refused(
        "train", "--data", tmp_path / "none", "--run", tmp_path / "run"
    )
    assert "--data" in refused("train", "--run", tmp_path / "run")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_job(name):
    job = find_recipe(name)
    trainer, world = job.training.trainer, 64 if name == "gpus64" else 1
    trainer.check(world, torch.device("cpu"))
    assert trainer.batch // world % max(job.stream.workers, 1) == 0
    assert all(
        word in RECIPES[name].__doc__
        for word in (
            "Cost: ",
            "Expected: " if name not in ("cpu", "demo", "base", "fast") else "Result: ",
        )
    )


@pytest.mark.parametrize(
    ("name", "short_side"),
    [
        ("gpu", PackConfig().size),
        ("gpus64", PackConfig().size),
        ("cpu", "168"),
        ("ablation", "168"),
    ],
)
def test_packed_frames_leave_room_to_shift_crops_in_both_directions(name, short_side):
    clip = find_recipe(name).clip
    assert clip.fit == "crop"
    assert 0 < 2 * clip.shift <= int(short_side) - clip.size


def test_the_recipe_resnet34_is_the_default_with_another_encoder():
    large, default = find_recipe("resnet34"), find_recipe("gpu")
    small = replace(large.training.model, encoder=default.training.model.encoder)
    assert replace(large, training=replace(large.training, model=small)) == default
    assert sum(p.numel() for p in large.training.model.encoder.build().parameters()) == 11_859_840


@pytest.mark.parametrize("place", ["palette", "second_palette"])
def test_a_run_with_a_lab_palette_and_lab_input_resumes_exactly(
    packed, full_run, tmp_path, refused, place
):
    palette = tmp_path / "palette.csv"
    palette.write_text("20,0,0\n50,5,-5\n80,-10,20\n50,40,30\n")
    flags = (
        f"--target.{place}",
        palette,
        "--model.input",
        "lab",
        "--trainer.pictures-every",
        3,
        "--trainer.save-every",
        6,
    )
    for run, steps in (("whole", 12), ("cut", 6), ("cut", 12)):
        train_here(packed, tmp_path / run, *flags, "--trainer.steps", steps)
    assert torch.equal(weights(tmp_path / "cut", 12), weights(tmp_path / "whole", 12))
    assert load_model(tmp_path / "whole/checkpoints/step-00000012.pt").config.input == "lab"
    # unlike a run with the recipe's own target and input
    assert not torch.equal(weights(full_run, 12), weights(tmp_path / "whole", 12))
    moved = palette.rename(tmp_path / "moved.csv")
    again = (f"--target.{place}", moved, *flags[2:], "--trainer.steps", 13)
    train_here(packed, tmp_path / "cut", *again)
    moved.write_text("20,0,0\n50,5,-5\n")
    assert f"{place}_digest is" in refused(
        "train", *train_command(packed, tmp_path / "cut", *again)[2:]
    )


@pytest.mark.parametrize("setting", ["trainer.start", "loss.teacher"])
def test_a_run_is_bound_to_the_content_of_its_start_or_teacher_weights(
    packed, full_run, tmp_path, refused, setting
):
    given = tmp_path / "given.pt"
    shutil.copy(checkpoint_path(full_run, 12), given)
    flags = ("--trainer.steps", 2, f"--{setting}")
    train_here(packed, tmp_path / "run", *flags, given)
    moved = given.rename(tmp_path / "moved.pt")
    train_here(packed, tmp_path / "run", *flags, moved)
    shutil.copy(checkpoint_path(full_run, 40), moved)
    assert f"{setting.split('.')[1]}_digest is" in refused(
        "train", *train_command(packed, tmp_path / "run", *flags, moved)[2:]
    )


def test_the_released_recipe_has_the_released_schedule():
    released = find_recipe("released")
    schedule, trainer = released.training.schedule, released.training.trainer
    assert (
        released.clip.size,
        released.clip.fit,
        trainer.batch,
        trainer.accumulate,
        trainer.clip_norm,
    ) == (256, "squash", 6, 1, 0)
    rates = {
        0: 2e-4,
        399_999: 2e-4,
        400_000: 1e-4,
        600_000: 5e-5,
        800_000: 2.5e-5,
        1_000_000: 1.25e-5,
    }
    assert {clips: schedule.learning_rate_at(clips, trainer.batch) for clips in rates} == rates


@pytest.mark.parametrize(
    ("name", "rate"),
    [("cpu", 8e-4), ("demo", 1e-3), ("gpu", 2e-4 * 8**0.5), ("gpus64", 1.6e-3), ("fast", 2e-3)],
)
def test_a_recipe_reaches_its_documented_learning_rate(name, rate):
    training = find_recipe(name).training
    assert training.schedule.learning_rate_at(
        training.schedule.warmup_clips, training.trainer.batch
    ) == pytest.approx(rate, rel=1e-12)


def test_diverged_weights_are_reported_although_pictures_are_drawn(packed, tmp_path):
    flags = (
        "--schedule.learning-rate",
        "1e30",
        "--trainer.pictures-every",
        1,
        "--trainer.steps",
        4,
    )
    done = subprocess.run(
        train_command(packed, tmp_path, *flags), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "stopped at step 2: step 2: loss nan" in done.stderr
    assert not (tmp_path / "checkpoints").exists()
    assert (
        json.loads((tmp_path / "attempts.jsonl").read_text().splitlines()[-1])["outcome"]
        == "stopped itself"
    )
