"""Pack videos into tar shards: `python launch/shard.py --source DIR --out DIR`."""

import os
import sys

from launch.command import parse, run
from launch.config import PackJob
from shards.pack import pack


def main(argv: list[str]) -> int:
    """Pack, and say what came of it."""
    job = parse(PackJob, argv, "shard.py")
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


if __name__ == "__main__":
    sys.exit(run(main))
