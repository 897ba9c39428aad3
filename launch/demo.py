"""The whole pipeline in minutes: generate videos, pack, train, evaluate against two baselines,
report, and track a clip with the pretrained model. `make demo`.

Exits 1 unless the trained model beats both the untrained one and the identity by a clear margin on
held-out videos.
"""

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from corrflow import CorrFlow, InputError, load_model
from corrflow.benchmarks.davis import read_sequences
from corrflow.benchmarks.evaluation import evaluate
from corrflow.benchmarks.results import Result
from corrflow.errors import check_range
from corrflow.files import atomic_file
from corrflow.model import ModelConfig, seeded_model
from corrflow.pictures import overlay, read_frame, read_mask
from corrflow.propagation import PROTOCOLS
from corrflow.report import text_table, write_report
from corrflow.training.checkpoint import checkpoints
from launch import shard, track, train
from launch.common.command import parse, run
from launch.configs.recipes import demo
from shards.synthetic import SceneConfig, write_tree

MARGIN = 0.10  # J&F that counts as a clear lead; 0.172 to 0.196 were measured
TRAIN_SEED, VAL_SEED = 1000, 9000
MARK = ".corrflow-demo"
EXAMPLE = Path(__file__).parents[1] / "docs" / "example"
TRAINED = 2  # index of the demo's own model among the results


@dataclass(frozen=True)
class DemoJob:
    """Generate videos, pack, train, evaluate and report; then track the example in docs/example."""

    out: Path = Path("demo")
    """Folder for all results; that of an earlier demo is replaced."""
    videos: int = 48
    """Number of videos to generate for training."""
    held_out: int = 6
    """Number of videos to generate for the evaluation."""
    steps: int = 0
    """Number of training steps; 0 takes the recipe's."""
    procs: int = 2
    """Number of processes that generate and pack."""

    def __post_init__(self) -> None:
        check_range("demo", self, "videos held_out procs", 1)
        check_range("demo", self, "steps", 0)


def main(argv: list[str]) -> int:
    """Run the demo; returns its exit code."""
    job = parse(DemoJob, argv, "demo.py")
    begun = time.perf_counter()
    prepare_folder(job.out)
    step(1, f"generating {job.videos} videos to learn from and {job.held_out} to be tested on")
    write_tree(
        job.out / "train",
        "train",
        job.videos,
        SceneConfig(frames=16, height=128, width=160),
        TRAIN_SEED,
        job.procs,
    )
    write_tree(job.out / "val", "val", job.held_out, SceneConfig(frames=20), VAL_SEED, job.procs)
    step(2, "packing them into shards")
    source = job.out / "train" / "JPEGImages" / "480p"
    shard.main(
        [
            "--source",
            str(source),
            "--out",
            str(job.out / "shards"),
            "--fps",
            "25",
            "--size",
            "128",
            "--procs",
            str(job.procs),
        ]
    )
    step(3, "training")
    flags = [
        "--recipe",
        "demo",
        "--data",
        str(job.out / "shards"),
        "--run",
        str(job.out / "run"),
        "--procs",
        "1",
    ]
    flags += ["--trainer.steps", str(job.steps)] if job.steps else []
    if code := train.main(flags):
        return code
    step(4, "evaluating on the held-out videos")
    results = evaluate_all(job.out)
    step(5, "reporting")
    write_report(job.out / "report.html", "corrflow demo: held-out generated videos", results)
    write_picture(job.out / "picture.png", job.out / "val", results[TRAINED:])
    print("\n" + text_table(results) + "\n")
    step(6, "tracking the example from one labelled frame with the pretrained model")
    if code := track_example(job.out / "bunny.mp4"):
        return code
    print(
        f"\nreport {job.out / 'report.html'}, picture {job.out / 'picture.png'}, "
        f"{time.perf_counter() - begun:.0f} s in all"
    )
    return verdict(results)


def track_example(out: Path) -> int:
    """Track a real video from one frame that was labelled in Labelme; returns track.py's exit
    code."""
    video, labels = EXAMPLE / "bunny.mp4", EXAMPLE / "bunny.json"
    flags = ["--video", str(video), "--labels", str(labels), "--out", str(out), "--size", "240"]
    return track.main(flags)


def prepare_folder(out: Path) -> None:
    """Make an empty folder; an earlier demo's is removed, InputError for any other."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file: expected a folder")
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise InputError(
            f"{out}: is not empty and not an earlier demo's: expected a new folder (--out)"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()


def step(number: int, text: str) -> None:
    """Print which step of the demo begins."""
    print(f"\n[{number}/6] {text}", flush=True)


def evaluate_all(out: Path) -> list[Result]:
    """Evaluate identity, the untrained and the trained model, and for comparison the pretrained
    one, which has never seen a generated video."""
    untrained = seeded_model(ModelConfig(encoder=demo().training.model.encoder), seed=0).eval()
    trained = load_model(checkpoints(out / "run")[-1]).accelerate()
    methods: list[tuple[str, CorrFlow | None, str]] = [
        ("identity", None, "identity"),
        ("untrained", untrained, "paper"),
        ("trained", trained, "paper"),
        ("pretrained", load_model().accelerate(), "memory"),
    ]
    return [
        evaluate("davis2017", out / "val", model, PROTOCOLS[protocol], out / "eval" / name, name)
        for name, model, protocol in methods
    ]


def write_picture(path: Path, root: Path, results: list[Result]) -> None:
    """Draw four frames of two sequences: the masks of each result, and the true ones below."""
    rows = []
    for sequence in read_sequences(root, 2017)[:2]:
        moments = np.linspace(0, sequence.length - 1, 4).round().astype(int)
        frames = [read_frame(sequence.paths[i]) for i in moments]
        names = [sequence.paths[i].stem for i in moments]
        tracked = [
            [read_mask(result.out / "masks" / sequence.name / f"{name}.png") for name in names]
            for result in results
        ]
        true = [read_mask(sequence.masks[i]) for i in moments]
        for masks in (*tracked, true):
            row = [overlay(f, m) for f, m in zip(frames, masks, strict=True)]
            rows += [np.concatenate(row, axis=1)]
    with atomic_file(path) as file:
        Image.fromarray(np.concatenate(rows)).save(file, "PNG")


def verdict(results: list[Result]) -> int:
    """0 if the demo's own model beats identity and untrained by the margin, else 1."""
    *baselines, trained = (result.overall["J&F-Mean"] for result in results[: TRAINED + 1])
    lead = trained - max(baselines)
    if lead >= MARGIN:
        print(
            f"trained beats both baselines: J&F {trained:.3f}, {lead:+.3f} over the better of them"
        )
        return 0
    print(
        f"FAILED: trained J&F {trained:.3f} is {lead:+.3f} over the better baseline: expected at "
        f"least +{MARGIN}"
    )
    return 1


if __name__ == "__main__":
    sys.exit(run(main))
