"""Measure speed and memory side by side: `python launch/bench.py attention|step|inference|growth [--device cpu|cuda] [--json FILE]`.

Each row is one way to do a work; `released` is the formulation that the method's authors published. Every way runs in a process of
its own, by turns, so that other load falls on all alike: trust the ratios. docs/performance.md explains the figures.
"""

import json
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm import tqdm

from corrflow import InputError
from corrflow.files import atomic_file
from corrflow.speed import cases
from corrflow.speed.machine import Limits, measure_limits
from corrflow.speed.measure import Row, Variant, measure
from corrflow.speed.plot import draw_growth
from corrflow.speed.released import correlation_name
from corrflow.training.distributed import choose_device
from launch.command import parse, run
from launch.config import BenchJob

GROWTH_SIDES = (128, 256, 384, 512)  # pixels
GROWTH_RADII = (3, 6, 9, 12)
STEP_SIDES = (64, 128, 192, 256)


def main(argv: list[str]) -> int:
    """Measure, print a table, write the rows."""
    job = parse(BenchJob, argv, "bench.py")
    device = choose_device(job.device)
    print(f"{describe(device)}\nreleased: correlation by {correlation_name()}", flush=True)
    limits = measure_limits(device)
    rates = f"product {limits.product / 1e9:.0f} GFLOP/s, convolution {limits.convolution / 1e9:.0f} GFLOP/s"
    print(f"limits: {rates}, copy {limits.bandwidth / 1e9:.1f} GB/s", flush=True)
    rows = growth(job, device) if job.work == "growth" else measured(variants(job, device), device, job.rounds)
    print(table(rows, limits))
    if job.json:
        with atomic_file(job.json) as file:
            file.write((json.dumps([record(row, limits, device) for row in rows], indent=1) + "\n").encode())
    return 0


def variants(job: BenchJob, device: torch.device) -> list[Variant]:
    """What to measure."""
    sizes = job.sizes(device)
    if job.work == "attention":
        return cases.attention_variants(sizes, device)
    if job.work == "step":
        return [*cases.step_variants(sizes, device), *cases.encoder_variants(sizes, device)]
    return cases.inference_variants(sizes, device)


def measured(chosen: list[Variant], device: torch.device, rounds: int) -> list[Row]:
    """The rows, with a bar that moves each round."""
    with tqdm(total=rounds + 1, unit="round", desc=chosen[0].name) as bar:
        rows, failures = measure(chosen, device, rounds, bar.update)
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    if not rows:
        raise InputError(f"bench: nothing could be measured: {'; '.join(failures)}")
    return rows


def growth(job: BenchJob, device: torch.device) -> list[Row]:
    """Attention by image side and by radius, the step by image side; a plot where one was asked for."""
    sizes = job.sizes(device)
    points = {
        "image side, pixels (attention)": [
            (side, cases.growing_attention(replace(sizes, height=side, width=side), device)) for side in GROWTH_SIDES
        ],
        "radius, cells (attention)": [(radius, cases.growing_attention(replace(sizes, radius=radius), device)) for radius in GROWTH_RADII],
        "image side, pixels (training step)": [
            (side, cases.step_variants(replace(sizes, height=side, width=side), device)) for side in STEP_SIDES
        ],
    }
    series = {
        label: [(value, [named(row, label, value) for row in measured(found, device, job.rounds)]) for value, found in line]
        for label, line in points.items()
    }
    if job.plot:
        draw_growth(series, job.plot)
    return [row for line in series.values() for _, rows in line for row in rows]


def named(row: Row, label: str, value: int) -> Row:
    """A row that says at what size it was measured."""
    return replace(row, name=f"{row.name}, {label.split(',')[0]} {value}")


def describe(device: torch.device) -> str:
    """The machine and the versions, in a line."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """The processor's name."""
    told = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in told.read_text().splitlines() if line.startswith("model name")] if told.exists() else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def table(rows: list[Row], limits: Limits) -> str:
    """The rows as text."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'':22}  {'seconds':>10}  {'speedup':>8}  {'extra MiB':>10}  {'held MiB':>9}  {'GFLOP/s':>9}  {'of limit':>8}"]
    for row in rows:
        speedup, extra, held = (f"{x:{form}}" if x is not None else "-" for x, form in cells(row))
        rate = row.flops / row.seconds
        share = f"{rate / limits.product:.0%}"
        line = f"{row.name:{width}}  {row.variant:22}  {row.seconds:10.4f}  {speedup:>8}  {extra:>10}  {held:>9}"
        lines.append(f"{line}  {rate / 1e9:9.1f}  {share:>8}")
    return "\n".join(lines)


def cells(row: Row) -> list[tuple[float | None, str]]:
    """The figures that may be missing, with their formats."""
    return [(row.speedup, ".2f"), (row.peak_mib, ".0f"), (row.held_mib, ".0f")]


def record(row: Row, limits: Limits, device: torch.device) -> dict[str, object]:
    """A row for the JSON file."""
    rate = row.flops / row.seconds
    return {
        **asdict(row),
        "flops_per_second": rate,
        "limit_share": rate / limits.product,
        "limits": limits._asdict(),
        "machine": describe(device),
        "released_correlation": correlation_name(),
    }


if __name__ == "__main__":
    sys.exit(run(main))
