"""Pack videos into tar shards: `python launch/shard.py --source DIR --out DIR [--jobs N]`.

`shard.py verify`, `shard.py stats`, `shard.py order` and `shard.py palette` read packed shards,
each with `--data DIR`.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from corrflow.color import rgb_to_lab
from corrflow.memory import keep_freed_memory
from corrflow.palette import fit_palette, write_palette
from corrflow.progress import progress_bar
from launch.common.command import parse, run
from launch.common.job_array import LOGS, check_array_ended, submit_work
from launch.common.run_config import packing_lock
from launch.configs.train import OrderJob, PackJob, PaletteJob, StatsJob, VerifyJob
from shards import DataError
from shards.manifest import Manifest, read_manifest
from shards.packing.pack import (
    FAILURES_CSV,
    PARTS,
    TOO_SHORT_CSV,
    PackPlan,
    finish,
    pack_units,
    prepare,
    read_plan,
    read_source,
)
from shards.reading.clip import ClipConfig
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stream import ClipDataset, StreamConfig, check_data, list_batches, read_batches
from shards.stats import collect
from shards.verify import verify
from shards.video.sources import counted
from slurm.array import Submitted, wait_for
from slurm.client import goes_to_slurm
from slurm.tasks import Task

PALETTE_SIDE = 64  # pixels of the frames whose colours are clustered
PALETTE_SHUFFLE_BUFFER = 64  # clips


def main(argv: list[str]) -> int:
    """Pack, or run the command that the first word names."""
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    return pack_videos(argv)


def pack_videos(argv: list[str]) -> int:
    """Pack here or through SLURM, and print the result."""
    job = parse(PackJob, argv, f"shard.py [{'|'.join(COMMANDS)}]")
    keep_freed_memory()
    away = goes_to_slurm(job.jobs, job.local)
    source = read_source(job.source, job.pack)
    with packing_lock(job.out):
        check_array_ended(job.out)
        return run_packing(job, prepare(source, job.out, job.percent), away)


def run_packing(job: PackJob, plan: PackPlan | None, away: bool) -> int:
    """Pack the videos that are missing, here or through SLURM; returns the exit code."""
    if plan is None:
        print("packed already:", end=" ")
    elif away:
        print_skipped(plan)
        submitted = submit(job, plan)
        if not job.follow:
            return 0
        if failure := follow(plan, submitted):
            raise DataError(f"job {submitted.last.job_id}: {failure}: see {job.out / LOGS}")
    else:
        print_skipped(plan)
        with progress_bar(total=plan.videos, unit="video", desc="packing") as bar:
            processes = max(job.procs or os.cpu_count() or 1, job.jobs)
            pack_units(plan, plan.units, processes, bar.update)
        finish(plan)
    print_packed(read_manifest(job.out), job.out)
    return 0


def print_skipped(plan: PackPlan) -> None:
    """Print which kinds of files are not packed because they are not videos, so that the user can
    notice a kind of video that is not recognised."""
    if plan.skipped:
        print(f"skipped, not videos: {counted(plan.skipped)}", flush=True)


def submit(job: PackJob, plan: PackPlan) -> Submitted:
    """Submit the packing to SLURM: an array whose jobs pack every n-th unit, and a job that
    finishes the packing."""
    out = str(job.out.absolute())
    procs = job.procs or job.cluster.cpus
    tasks = [
        Task(
            "launch.shard:pack_slice", {"out": out, "number": n, "count": job.jobs, "procs": procs}
        )
        for n in range(job.jobs)
    ]
    last = Task("launch.shard:pack_end", {"out": out})
    cluster = replace(job.cluster, gpus_per_node=0)
    to_do = f"{plan.videos} videos to pack"
    return submit_work(job.out, tasks, last, "corrflow-pack", cluster, to_do)


def pack_slice(out: str, number: int, count: int, procs: int) -> None:
    """Pack every `count`-th unit from `number` on, as a job of the array."""
    keep_freed_memory()
    plan = read_plan(Path(out))
    units = plan.units[number::count]
    videos = sum(len(unit.videos) for unit in units)
    with progress_bar(total=videos, unit="video", desc="packing") as bar:
        pack_units(plan, units, procs, bar.update)


def pack_end(out: str) -> None:
    """Finish the packing, as the last job."""
    print_packed(finish(read_plan(Path(out))), Path(out))


def follow(plan: PackPlan, submitted: Submitted) -> str:
    """Wait for the jobs, with a progress bar; returns why the work failed, or an empty string."""
    waiting = {unit.number: unit for unit in plan.units}
    with progress_bar(total=plan.videos, unit="video", desc="packing") as bar:

        def look() -> None:
            ended = (
                [unit for unit in waiting.values() if unit.report()]
                if (plan.out / PARTS).exists()
                else list(waiting.values())
            )
            for unit in ended:
                bar.update(len(waiting.pop(unit.number).videos))

        return wait_for(submitted.last, look)


def print_packed(manifest: Manifest, out: Path) -> None:
    """Print a summary of the packing."""
    shards, counts = manifest.shards, manifest.counts
    print(
        f"packed {counts.videos - counts.too_short - counts.failures} of {counts.videos} videos: "
        f"{manifest.samples} segments, "
        f"{sum(s.frames for s in shards)} frames, {sum(s.bytes for s in shards) / 1e6:.1f} MB in "
        f"{len(shards)} shards under {out}"
    )
    shortest = manifest.settings["shortest"]
    if counts.too_short:
        print(
            f"{counts.too_short} videos left out: shorter than {shortest} frames as sampled: see "
            f"{out / TOO_SHORT_CSV}"
        )
    if counts.short_frames:
        print(
            f"{counts.short_frames} frames left out: at the end of a video or before its size "
            f"changes, where fewer than {shortest} were left for a segment"
        )
    if counts.failures:
        print(f"{counts.failures} videos could not be read to their end: see {out / FAILURES_CSV}")


def verify_shards(argv: list[str]) -> int:
    """Print each damage; returns 1 if there is any."""
    job = parse(VerifyJob, argv, "shard.py verify")
    count = len(read_manifest(job.data).shards)
    damages: list[str] = []
    with progress_bar(total=count, unit="shard", desc="verifying") as bar:
        for _, problems in verify(job.data, job.procs or os.cpu_count() or 1):
            damages += problems
            bar.update(min(1, count - bar.n))
    for damage in sorted(damages):
        print(damage)
    print(
        f"{count} shards under {job.data}: "
        f"{f'{len(damages)} problems' if damages else 'all match the manifest'}"
    )
    return 1 if damages else 0


def print_stats(argv: list[str]) -> int:
    """Print the statistics, one on each line, then the frame sizes, the most common first."""
    job = parse(StatsJob, argv, "shard.py stats")
    statistics = collect(job.data, job.frames, job.procs or os.cpu_count() or 1)
    frame_kb = statistics.bytes / max(statistics.frames, 1) / 1e3
    print(f"videos    {len(statistics.videos)}")
    print(f"segments  {statistics.segments}")
    print(f"frames    {statistics.frames}")
    print(f"clips     {statistics.clips} of {job.frames} frames, without overlap")
    print(f"hours     {statistics.seconds / 3600:.2f}")
    print(f"bytes     {statistics.bytes} ({frame_kb:.1f} kB a frame)")
    most = max(statistics.sizes.values())
    for (width, height), frames in statistics.sizes.most_common():
        print(f"{f'{width}x{height}':>9} {frames:>9} {'#' * -(-40 * frames // most)}")
    return 0


def print_order(argv: list[str]) -> int:
    """Print the clips of each batch, one batch on each line."""
    job = parse(OrderJob, argv, "shard.py order")
    corpus = open_corpus(job.data, job.quarantine)
    order = ClipOrder(
        corpus.samples, job.seed, job.batch, job.shuffle_buffer, job.clip.clips_per_segment
    )
    datasets = [
        ClipDataset(corpus, order, job.clip, rank, job.ranks, job.start)
        for rank in range(job.ranks)
    ]
    check_data(datasets[0])
    for step, names in enumerate(islice(list_batches(datasets, job.workers), job.steps), job.start):
        print(json.dumps(names) if job.json else f"{step}: {' '.join(names)}", flush=True)
    return 0


def make_palette(argv: list[str]) -> int:
    """Cluster the colours of some clips by k-means, and write the palette file for
    `train.py --target.palette`."""
    job = parse(PaletteJob, argv, "shard.py palette")
    keep_freed_memory()
    corpus = open_corpus(job.data)
    order = ClipOrder(corpus.samples, job.seed, 1, PALETTE_SHUFFLE_BUFFER, clips_per_segment=1)
    clips = ClipDataset(corpus, order, ClipConfig(size=PALETTE_SIDE), 0, 1, 0)
    shown = progress_bar(
        islice(read_batches(clips, StreamConfig(workers=0)), job.clips),
        total=job.clips,
        unit="clip",
        desc="reading",
    )
    lab_p3 = torch.cat(
        [rgb_to_lab(batch.clips[0, :1].float() / 255)[0].flatten(1).T for batch in shown]
    ).numpy()
    palette = fit_palette(
        lab_p3 if job.lightness else lab_p3[:, 1:], job.classes, job.seed, job.lightness
    )
    write_palette(palette, job.out)
    print(
        f"{len(lab_p3)} pixels of {job.clips} clips: {len(palette)} classes of "
        f"{'L, a, b' if job.lightness else 'a, b'} in {job.out}"
    )
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "verify": verify_shards,
    "stats": print_stats,
    "order": print_order,
    "palette": make_palette,
}

if __name__ == "__main__":
    sys.exit(run(main))
