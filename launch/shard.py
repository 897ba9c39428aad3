"""Pack videos into tar shards: `python launch/shard.py --source DIR --out DIR`.

On packed ones, each with `--data DIR`: `shard.py verify`, `shard.py stats`, `shard.py order`.
"""

import json
import os
import sys
from collections.abc import Callable
from itertools import islice

from tqdm import tqdm

from launch.command import parse, run
from launch.config import OrderJob, PackJob, StatsJob, VerifyJob
from shards.manifest import read_manifest
from shards.order import Order
from shards.pack import pack
from shards.stats import collect
from shards.stream import ClipDataset, StreamConfig, check_data, list_batches
from shards.verify import verify


def main(argv: list[str]) -> int:
    """Pack, or what the first word asks for."""
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    return pack_videos(argv)


def pack_videos(argv: list[str]) -> int:
    """Pack, and say what came of it."""
    job = parse(PackJob, argv, f"shard.py [{'|'.join(COMMANDS)}]")
    summary = pack(job.source, job.out, job.pack, job.procs or os.cpu_count() or 1)
    shards = summary.manifest.shards
    packed = summary.videos - summary.too_short - len(summary.failures)
    print(
        f"packed {packed} of {summary.videos} videos: {summary.manifest.samples} segments, "
        f"{sum(s.frames for s in shards)} frames, {sum(s.bytes for s in shards) / 1e6:.1f} MB in {len(shards)} shards under {job.out}"
    )
    if summary.too_short:
        print(f"{summary.too_short} videos left out: shorter than {job.pack.shortest} frames at {job.pack.fps} a second")
    if summary.failures:
        print(f"{len(summary.failures)} videos could not be read to their end: see {job.out / 'failures.csv'}")
    return 0


def verify_shards(argv: list[str]) -> int:
    """Name all damage; returns 1 if there is any."""
    job = parse(VerifyJob, argv, "shard.py verify")
    count = len(read_manifest(job.data).shards)
    damages: list[str] = []
    with tqdm(total=count, unit="shard", desc="verifying") as bar:
        for _, found in verify(job.data, job.procs or os.cpu_count() or 1):
            damages += found
            bar.update(min(1, count - bar.n))
    for damage in sorted(damages):
        print(damage)
    print(f"{count} shards under {job.data}: {f'{len(damages)} damages' if damages else 'all as the manifest says'}")
    return 1 if damages else 0


def print_stats(argv: list[str]) -> int:
    """A line a figure, then the frame sizes, the commonest first."""
    job = parse(StatsJob, argv, "shard.py stats")
    found = collect(job.data, job.frames, job.procs or os.cpu_count() or 1)
    print(f"videos    {len(found.videos)}\nsegments  {found.segments}\nframes    {found.frames}")
    print(f"clips     {found.clips} of {job.frames} frames that share none\nhours     {found.seconds / 3600:.2f}")
    print(f"bytes     {found.bytes} ({found.bytes / max(found.frames, 1) / 1e3:.1f} kB a frame)")
    most = max(found.sizes.values())
    for (width, height), frames in found.sizes.most_common():
        print(f"{f'{width}x{height}':>9} {frames:>9} {'#' * -(-40 * frames // most)}")
    return 0


def print_order(argv: list[str]) -> int:
    """A line a batch."""
    job = parse(OrderJob, argv, "shard.py order")
    manifest = read_manifest(job.data)
    order = Order(tuple(shard.samples for shard in manifest.shards), job.seed, job.batch, job.window)
    readers = [ClipDataset(job.data, manifest, order, job.clip, rank, job.ranks, job.start) for rank in range(job.ranks)]
    check_data(readers[0], StreamConfig(workers=job.workers))
    for step, names in enumerate(islice(list_batches(readers, job.workers), job.steps), job.start):
        print(json.dumps(names) if job.json else f"{step}: {' '.join(names)}", flush=True)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {"verify": verify_shards, "stats": print_stats, "order": print_order}

if __name__ == "__main__":
    sys.exit(run(main))
