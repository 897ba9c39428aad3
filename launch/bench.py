"""Measure speed and memory of the alternatives side by side.

- the model: `python launch/bench.py attention|step|inference|growth [--device cpu|cuda]
  [--json FILE]`
- the data: `bench.py pack --source VIDEOS`, `bench.py loader --data SHARDS`
- training on packed data: `bench.py train --data SHARDS`
- all-reduce: `bench.py reduce --procs 2`
- check and measure everything on a GPU: `bench.py gpu --out DIR`
- predict training on many GPUs from given rates: `bench.py scaling --network-gbit 100`

Each row of a table is one variant of the same work; `released` is the formulation that the method's
authors published. Each variant runs in its own process, and the variants take turns, so that other
load slows all of them equally: trust the ratios. docs/performance.md and docs/clusters.md explain
the figures.
"""

import json
import platform
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
import tyro

from corrflow import InputError
from corrflow.device import choose_device
from corrflow.encoders.resnet import ResNetConfig
from corrflow.files import atomic_file
from corrflow.memory import keep_freed_memory
from corrflow.plotting import check_matplotlib
from corrflow.progress import progress_bar
from corrflow.speed import cases, cost
from corrflow.speed.attention_cases import attention_scaling_variants
from corrflow.speed.machine import Limits, measure_limits
from corrflow.speed.measure import BASELINE, Row, Variant, measure
from corrflow.speed.plot import draw_growth
from corrflow.speed.reduction import measure_reduction, reduction_table
from corrflow.speed.released import correlation_name
from corrflow.speed.scaling import ScalingConfig, predict, scaling_table
from corrflow.speed.step_cases import step_variants
from corrflow.training.distributed import init_distributed
from launch.common.command import parse, run
from launch.configs.bench import (
    BENCH_SIZES,
    BenchJob,
    GpuBenchJob,
    LoaderBenchJob,
    PackBenchJob,
    ReduceBenchJob,
    TrainBenchJob,
)
from launch.configs.recipes import RECIPES, take_recipe
from launch.measuring.gpu import run_parts
from launch.measuring.training import measure_training
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from slurm.local import die_with_parent, is_worker_process, run_processes

GROWTH_SIDES = (128, 256, 384, 512)  # pixels
GROWTH_RADII = (3, 6, 9, 12)
STEP_SIDES = (64, 128, 192, 256)

Series = dict[str, list[tuple[int, list[Row]]]]


def main(argv: list[str]) -> int:
    """Measure, print a table, and write the rows to a file if asked to."""
    if argv and argv[0] in OTHERS:
        return OTHERS[argv[0]](argv[1:])
    work = argv[0] if argv else "no work"
    if not work.startswith("-") and work not in BENCH_SIZES:
        raise InputError(f"bench: {work}: expected one of {', '.join((*BENCH_SIZES, *OTHERS))}")
    job = parse(BenchJob, argv, "bench.py")
    device = choose_device(job.device)
    if job.plot:
        check_matplotlib()
    print(f"{describe(device)}\n{BASELINE}: correlation by {correlation_name()}", flush=True)
    limits = measure_limits(device)
    if job.work == "growth":
        series = growth(job, device)
    else:
        variants = cases.variants_of(job.work, job.sizes(device), device)
        series = {"": [(0, measured(variants, device, job.rounds(device)))]}
    limits = limits.raised(measure_limits(device))
    rows = [row for line in series.values() for _, rows_at in line for row in rows_at]
    if not rows:
        raise InputError("bench: nothing could be measured: see above")
    print(table(rows, limits, device))
    if job.json:
        write_figures(job.json, [record(row, limits, job, device) for row in rows])
    if job.plot:
        draw_growth(series, job.plot)
    return 0


def measured(chosen: list[Variant], device: torch.device, rounds: int) -> list[Row]:
    """Measure the variants, with a progress bar that counts rounds; return the rows of those that
    could run."""
    with progress_bar(total=rounds + 1, unit="round", desc=chosen[0].name) as bar:
        rows, failures = measure(chosen, device, rounds, bar.update)
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return rows


def growth(job: BenchJob, device: torch.device) -> Series:
    """Measure attention at several image sides and radii, and the training step at several image
    sides."""
    sizes = job.sizes(device)
    points = {
        "image side, pixels (attention)": [
            (
                side,
                attention_scaling_variants(replace(sizes, height=side, width=side), device),
            )
            for side in GROWTH_SIDES
        ],
        "radius, cells (attention)": [
            (radius, attention_scaling_variants(replace(sizes, radius=radius), device))
            for radius in GROWTH_RADII
        ],
        "image side, pixels (training step)": [
            (side, step_variants(replace(sizes, height=side, width=side), device))
            for side in STEP_SIDES
        ],
    }
    return {
        label: [
            (
                value,
                [
                    named(row, label, value)
                    for row in measured(variants_at, device, job.rounds(device))
                ],
            )
            for value, variants_at in line
        ]
        for label, line in points.items()
    }


def named(row: Row, label: str, value: int) -> Row:
    """Add the size at which a row was measured to its name."""
    return replace(row, name=f"{row.name}, {label.split(',')[0]} {value}")


def describe(device: torch.device) -> str:
    """The device and the versions of PyTorch and Python, in one line."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {versions}"
    return f"{processor()}, {torch.get_num_threads()} threads, {versions}"


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(rows: list[Row], limits: Limits, device: torch.device) -> str:
    """The limits and the rows as text."""
    precision = "bfloat16" if device.type == "cuda" else "float32"
    rates = (
        f"product {limits.product / 1e9:.0f}, convolution {limits.convolution / 1e9:.0f} GFLOP/s "
        f"({precision})"
    )
    width = max(len(row.name) for row in rows)
    titles = {
        "seconds": 9,
        "speedup": 7,
        "extra MiB": 9,
        "held MiB": 8,
        "per s": 8,
        "GFLOP/s": 8,
        "of limit": 8,
        "of copy": 7,
    }
    head = "  ".join(f"{title:>{size}}" for title, size in titles.items())
    lines = [
        f"limits: {rates}, copy {limits.bandwidth / 1e9:.1f} GB/s",
        f"{'':{width}}  {'':22}  {head}",
    ]
    for row in rows:
        copied = row.need.bytes / row.seconds / limits.bandwidth if row.need.bytes else None
        figures = (
            f"{row.seconds:9.4f}", figure(row.speedup, "7.2f"), figure(row.peak_mib, "9.0f"),
            figure(row.held_mib, "8.0f"),
            f"{row.need.items / row.seconds:8.3g}", f"{row.need.flops / row.seconds / 1e9:8.1f}",
            f"{row.need.flops / row.seconds / limits.arithmetic:8.0%}",
            figure(copied, "7.0%"),
        )  # fmt: skip
        lines.append(f"{row.name:{width}}  {row.variant:22}  {'  '.join(figures)}")
    return "\n".join(lines)


def figure(value: float | None, form: str) -> str:
    """A number formatted by `form`; a dash of the same width for None."""
    return f"{'-':>{form.partition('.')[0]}}" if value is None else f"{value:{form}}"


def record(row: Row, limits: Limits, job: BenchJob, device: torch.device) -> dict[str, object]:
    """A row as the JSON file has it."""
    fields = asdict(row)
    need = fields.pop("need")
    return {
        **fields,
        **need._asdict(),
        "items_per_second": need.items / row.seconds,
        "limit_share": need.flops / row.seconds / limits.arithmetic,
        "bandwidth_share": need.bytes / row.seconds / limits.bandwidth if need.bytes else None,
        "limits": limits._asdict(),
        "sizes": asdict(job.sizes(device)),
        "machine": describe(device),
        "released_correlation": correlation_name(),
    }


def bench_pack(argv: list[str]) -> int:
    """Measure packing, compared with decoding and encoding alone."""
    # imports PyAV, which only machines that decode videos need to have
    from shards.speed import measure_packing

    job = parse(PackBenchJob, argv, "bench.py pack")
    keep_freed_memory()  # as launch/shard.py does
    with progress_bar(total=job.repeats, unit="round", desc="pack") as bar:
        speed = measure_packing(job.source, job.pack, job.videos, job.repeats, bar.update)
    share = TEN_SECONDS * KINETICS / speed.video_seconds
    print(
        f"{processor()}, PyAV {version('av')}, Pillow {version('pillow')}; one core, processor "
        "seconds\n"
        f"{speed.videos} videos, {speed.video_seconds:.0f} s of video, {speed.frames} frames kept, "
        f"{speed.bytes / 1e6:.1f} MB\n"
        f"decode   {speed.decode:8.2f} s\nencode   {speed.encode:8.2f} s\n"
        f"pack     {speed.pack:8.2f} s  {speed.ratio:.2f} of both together; {speed.waited:.2f} s "
        "more by the clock\n"
        f"240,000 ten-second videos of this kind: {speed.pack * share / 3600:.0f} core-hours, "
        f"{speed.bytes * share / 1e9:.0f} GB"
    )
    return 0


def bench_loader(argv: list[str]) -> int:
    """Measure the clip loader, compared with JPEG decoding alone."""
    from shards.speed import measure_loading

    job = parse(LoaderBenchJob, argv, "bench.py loader")
    torch.set_num_threads(1)
    corpus = open_corpus(job.data)
    order = ClipOrder(corpus.samples, 0, job.batch, job.shuffle_buffer, job.clip.clips_per_segment)
    with progress_bar(total=job.steps, unit="batch", desc="loader") as bar:
        speed = measure_loading(
            corpus, order, job.clip, job.stream, job.steps, job.repeats, bar.update
        )
    print(
        f"{processor()}, torch {torch.__version__}; clips of {job.clip.frames} x "
        f"{job.clip.size}x{job.clip.size}, a second and worker\n"
        f"JPEG decoding alone     {speed.jpeg:7.1f}\nand sizing              {speed.pixels:7.1f}\n"
        f"loader                  {speed.loader:7.1f}  {speed.loader / speed.jpeg:.0%} of "
        "decoding, "
        f"{speed.loader / speed.pixels:.0%} of both\n"
        f"by tenths of {job.steps} batches: {' '.join(f'{rate:.0f}' for rate in speed.by_tenth)}\n"
        f"a worker's own memory, MB:  {' '.join(f'{size:.0f}' for size in speed.worker_mb)}\n"
        f"next() of a batch, {job.stream.workers} workers: {speed.wait * 1e3:.2f} ms asked for at "
        f"once, {speed.wait_when_ready * 1e3:.2f} ms after a pause (medians)\n"
        f"planning up to step 1,000,000: {speed.planning * 1e3:.1f} ms"
    )
    return 0


def bench_train(argv: list[str]) -> int:
    """Measure training on shards, compared with its step alone and its loader alone."""
    recipe, rest = take_recipe(argv)
    default = TrainBenchJob(
        tyro.MISSING, clip=recipe.clip, stream=recipe.stream, training=recipe.training
    )
    prog = f"bench.py train [--recipe {{{','.join(RECIPES)}}}]"
    job = parse(TrainBenchJob, rest, prog, default)
    device = choose_device(job.device)
    with progress_bar(total=3 * job.all_steps, unit="step", desc="train") as bar:
        speed = measure_training(job, device, bar.update)
    times = {"step alone": speed.step, "loader alone": speed.loader, "training": speed.training}
    print(f"{describe(device)}, {job.training.compute.choose(device)}")
    for name, seconds in times.items():
        rate = speed.clips / seconds
        print(f"{name:13} {rate:8.1f} clips/s  {1000 * seconds:8.1f} ms a batch of {speed.clips}")
    print(
        f"training has {speed.reached:.0%} of the slower one's rate, and waits for clips "
        f"{speed.waited:.1%} of its time"
    )
    if job.json:
        write_figures(job.json, {**asdict(speed), "machine": describe(device)})
    return 0


def bench_gpu(argv: list[str]) -> int:
    """Check and measure everything that runs on a GPU; exit code 1 if anything failed."""
    job = parse(GpuBenchJob, argv, "bench.py gpu")
    device = choose_device(job.device)
    if device.type == "cpu" and not job.tiny:
        raise InputError("bench: gpu: no GPU is here: expected one, or --tiny to try the command")
    job.out.mkdir(parents=True, exist_ok=True)
    machine = describe(device)
    print(machine, flush=True)
    lines = run_parts(job, device, lambda line: print(line, flush=True))
    write_figures(job.out / "gpu.json", {"machine": machine, "lines": [asdict(x) for x in lines]})
    print("", machine, *lines, sep="\n")
    failures = [line for line in lines if line.failure]
    print(f"{len(failures)} failed, figures in {job.out / 'gpu.json'}")
    return 1 if failures else 0


def write_figures(path: Path, figures: object) -> None:
    """Write a JSON file."""
    with atomic_file(path) as file:
        file.write((json.dumps(figures, indent=1) + "\n").encode())


def bench_reduce(argv: list[str]) -> int:
    """Measure all-reduce among the processes that torchrun started, or else start `--procs` of them
    here."""
    job = parse(ReduceBenchJob, argv, "bench.py reduce")
    if not is_worker_process():
        return run_processes([sys.executable, __file__, "reduce", *argv], job.procs)
    die_with_parent()
    with init_distributed(job.device) as processes:
        rows = measure_reduction(processes, job.repeats)
    if processes.is_main:
        print(f"{describe(processes.device)}\n{reduction_table(rows, processes.world_size)}")
    return 0


def predict_scaling(argv: list[str]) -> int:
    """Predict the speed of training on many GPUs from given rates."""
    config = parse(ScalingConfig, argv, "bench.py scaling")
    rows = predict(config)
    if not rows:
        raise InputError(
            f"scaling: global-batch {config.global_batch}: none of {config.gpus} GPUs divides it"
        )
    gradient = cost.gradient_bytes(ResNetConfig()) / 1e6
    print(
        f"a prediction, not a measurement: GPUs of {config.peak_tflops:g} TFLOP/s of which "
        f"{config.achieved:.0%} are reached, "
        f"{config.nvlink_gbyte:g} GB/s within a node of {config.gpus_per_node}, "
        f"{config.network_gbit:g} Gbit/s between nodes, "
        f"{config.reached:.0%} of either\ngradient {gradient:.1f} MB; times in "
        f"ms\n{scaling_table(rows)}"
    )
    return 0


KINETICS, TEN_SECONDS = 240_000, 10.0  # number of videos, and seconds of each
OTHERS = {
    "pack": bench_pack,
    "loader": bench_loader,
    "train": bench_train,
    "gpu": bench_gpu,
    "reduce": bench_reduce,
    "scaling": predict_scaling,
}

if __name__ == "__main__":
    sys.exit(run(main))
