"""Statistics of a shard folder, from the samples' json entries alone: frames are not read."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.manifest import Shard, read_manifest
from shards.process_pool import run_in_processes


@dataclass
class ShardStatistics:
    """Sums over segments."""

    videos: set[str] = field(default_factory=set)
    segments: int = 0
    frames: int = 0
    clips: int = 0
    """Number of clips without common frames, as the paper cuts them."""
    seconds: float = 0.0
    """Length of the video, from each segment's first packed frame to the end of its last."""
    bytes: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) -> number of frames."""

    def add(self, other: "ShardStatistics") -> None:
        """Add the figures of other segments."""
        self.videos |= other.videos
        self.segments += other.segments
        self.frames += other.frames
        self.clips += other.clips
        self.seconds += other.seconds
        self.bytes += other.bytes
        self.sizes.update(other.sizes)


def collect(folder: Path, clip_frames: int, processes: int) -> ShardStatistics:
    """The statistics of all shards in `folder`; DataError names a shard that can't be read."""
    total = ShardStatistics()
    shards = read_manifest(folder).shards
    for part in run_in_processes(
        shard_statistics, [(folder, shard, clip_frames) for shard in shards], processes
    ):
        total.add(part)
    return total


def shard_statistics(job: tuple[Path, Shard, int]) -> ShardStatistics:
    """The statistics of one shard."""
    folder, shard, clip_frames = job
    statistics = ShardStatistics(bytes=shard.bytes)
    for note in read_notes(folder / shard.name):
        times = note["seconds"]
        statistics.videos.add(note["source"])
        statistics.segments += 1
        statistics.frames += note["frames"]
        statistics.clips += note["frames"] // clip_frames
        statistics.seconds += (times[-1] - times[0]) * len(times) / max(len(times) - 1, 1)
        statistics.sizes[note["width"], note["height"]] += note["frames"]
    return statistics


def read_notes(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the `json` of each sample of a tar file."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name.endswith(".json") and (file := tar.extractfile(member)):
                    yield json.loads(file.read())
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DataError(f"shard {path}: not readable ({error})") from None
