"""Packs videos into tar shards: decoded, sampled, sized, cut into segments of consecutive frames.

The videos are divided into units by their number alone. Each unit is packed by one process into parts under `.parts/`, and is done once
its report is there, so that packing cut short goes on where it was. At the end the parts become shards, and the manifest is written.
Same videos and settings, same bytes, whatever the number of processes.
"""

import csv
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from shards.crew import run_crew
from shards.errors import InputError
from shards.files import atomic_file, sha256_of
from shards.manifest import NAME, Manifest, Shard, write_manifest
from shards.samples import read_samples, tar_writer
from shards.sources import BrokenVideoError, Frame, Video, decode, find_videos

PARTS = ".parts"
UNITS = 64  # at least, where there are as many videos: work for that many processes
UNIT_VIDEOS = 128  # at most: what is lost when packing is cut short, and enough to fill a shard of about 100 MB with short videos


@dataclass(frozen=True)
class PackConfig:
    """How videos become samples."""

    fps: float = 6.25
    """Frames a second that are kept, by time stamp; 6.25 is every fourth of Kinetics' 25."""
    size: str = "256"
    """Short side in pixels (smaller videos stay as they are), or WIDTHxHEIGHT to squash every frame."""
    quality: int = 90
    """Of the JPEGs, 1 to 95."""
    segment: int = 32
    """Frames of a sample, at most."""
    shortest: int = 3
    """Frames of a sample, at least: a clip must fit."""
    shard_mb: float = 100.0
    """About how large a shard is cut, in 10^6 bytes."""
    spread: int = 32
    """Shards of a small set, at least, where it has as many samples: they can then be divided among processes."""

    def __post_init__(self) -> None:
        numbers = (self.fps, self.shortest - 1, self.segment - self.shortest + 1, self.shard_mb, self.spread, self.quality)
        if min(numbers) <= 0 or self.quality > 95 or self.segment > 1000:
            raise InputError(f"pack: {self}: expected positive numbers, shortest <= segment <= 1000, quality <= 95")
        self.side_or_squash()

    def side_or_squash(self) -> tuple[int, tuple[int, int] | None]:
        """`size` as (short side, None) or (0, (width, height))."""
        numbers = self.size.split("x")
        if len(numbers) > 2 or not all(n.isdecimal() and int(n) >= 8 for n in numbers):
            raise InputError(f"pack: size {self.size!r}: expected a short side such as 256, or WIDTHxHEIGHT such as 256x256")
        return (int(numbers[0]), None) if len(numbers) == 1 else (0, (int(numbers[0]), int(numbers[1])))


class Failure(NamedTuple):
    """A video that could not be packed."""

    video: str
    reason: str
    good_frames: int


@dataclass(frozen=True)
class Summary:
    """What packing came to."""

    manifest: Manifest
    videos: int
    too_short: int
    """Videos left out because no segment of them was long enough."""
    failures: tuple[Failure, ...]


def pack(source: Path, out: Path, config: PackConfig, processes: int) -> Summary:
    """Pack all videos below `source` into shards under `out`.

    Raises:
        InputError: no videos, none of them readable, or `out` holds another packing.
    """
    videos = find_videos(source)
    settings = {**asdict(config), "videos": len(videos), "source_digest": source_digest(videos)}
    if (out / NAME).exists():
        raise InputError(f"{out}: holds a {NAME} already: expected a new folder (remove it to pack anew)")
    parts = claim(out / PARTS, settings)
    units = divide(videos)
    jobs = [(parts, number, unit, config) for number, unit in enumerate(units) if not report_path(parts, number).exists()]
    run_units(jobs, processes, sum(len(unit) for unit in units))
    reports = [json.loads(report_path(parts, number).read_text()) for number in range(len(units))]
    failures = tuple(Failure(*failure) for report in reports for failure in report["failures"])
    write_failures(out / "failures.csv", failures)
    too_short = sum(report["too_short"] for report in reports)
    if not any(report["parts"] for report in reports):
        first = f"; the first: {failures[0].video}: {failures[0].reason}" if failures else ""
        shutil.rmtree(parts)
        raise InputError(f"{source}: none of {len(videos)} videos gave a sample: {len(failures)} broken, {too_short} too short{first}")
    shards = assemble(out, [parts / name for report in reports for name in report["parts"]], config)
    manifest = Manifest(settings, tuple(shards))
    write_manifest(out, manifest)
    shutil.rmtree(parts)
    return Summary(manifest, len(videos), too_short, failures)


def source_digest(videos: list[Video]) -> str:
    """Names the set of videos, by key and size of file: what is half packed goes on with the same ones only."""
    listed = [[video.key, video.path.stat().st_size if video.path.is_file() else 0] for video in videos]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def claim(parts: Path, settings: dict[str, Any]) -> Path:
    """The folder of the parts, new or of an earlier try with the same settings."""
    note = parts / "settings.json"
    try:
        parts.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            with atomic_file(note) as file:
                file.write(json.dumps(settings).encode())
    except OSError as error:
        raise InputError(f"{parts.parent}: can't be written to ({error.strerror})") from None
    if (found := json.loads(note.read_text())) != settings:
        different = [f"{k}: {found.get(k)} there, {v} now" for k, v in settings.items() if found.get(k) != v]
        raise InputError(f"{parts.parent}: half packed with other settings or videos ({'; '.join(different)}): remove it to pack anew")
    return parts


def divide(videos: list[Video]) -> list[list[Video]]:
    """Units of neighbouring videos; a function of their number."""
    count = min(len(videos), max(UNITS, -(-len(videos) // UNIT_VIDEOS)))
    borders = [len(videos) * i // count for i in range(count + 1)]
    return [videos[low:high] for low, high in pairwise(borders)]


def report_path(parts: Path, number: int) -> Path:
    """Is there once the unit is done."""
    return parts / f"{number:05d}.json"


def run_units(jobs: list[tuple[Path, int, list[Video], PackConfig]], processes: int, videos: int) -> None:
    """Pack the units in `processes` processes, with a progress bar over all `videos`."""
    left = sum(len(unit) for _, _, unit, _ in jobs)
    with tqdm(total=videos, initial=videos - left, unit="video", desc="packing") as bar:
        for done in run_crew(pack_unit, jobs, processes):
            bar.update(done)


def pack_unit(job: tuple[Path, int, list[Video], PackConfig]) -> int:
    """Pack one unit's videos into parts, then leave its report; returns the number of videos."""
    parts, number, videos, config = job
    failures: list[Failure] = []
    too_short = 0

    def samples() -> Iterator[dict[str, Any]]:
        nonlocal too_short
        for video in videos:
            found, failure = pack_video(video, config)
            failures.extend([failure] if failure else [])
            too_short += not found and not failure
            yield from found

    names = write_tars(parts, f"{number:05d}", samples(), config.shard_mb * 1e6)
    with atomic_file(report_path(parts, number)) as file:
        file.write(json.dumps({"parts": names, "failures": failures, "too_short": too_short}).encode())
    return len(videos)


def pack_video(video: Video, config: PackConfig) -> tuple[list[dict[str, Any]], Failure | None]:
    """The samples of a video; none, with the reason, if it can't be decoded to its end."""
    samples: list[dict[str, Any]] = []
    segment: list[tuple[bytes, Frame]] = []
    good = 0
    try:
        for frame in decode(video, config.fps, *config.side_or_squash()):
            segment.append((encode_jpeg(frame, config.quality), frame))
            good += 1
            if len(segment) == config.segment:
                samples.append(make_sample(video, len(samples), segment))
                segment = []
    except BrokenVideoError as error:
        return [], Failure(video.key, str(error), good)
    if len(segment) >= config.shortest:
        samples.append(make_sample(video, len(samples), segment))
    return samples, None


def encode_jpeg(frame: Frame, quality: int) -> bytes:
    """A frame as JPEG."""
    buffer = io.BytesIO()
    frame.image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def make_sample(video: Video, number: int, segment: list[tuple[bytes, Frame]]) -> dict[str, Any]:
    """A segment as webdataset has it: frames and a `json` that says where they are from."""
    image = segment[0][1].image
    about = {
        "source": video.key,
        "frames": len(segment),
        "seconds": [round(frame.seconds, 4) for _, frame in segment],
        "width": image.width,
        "height": image.height,
    }
    jpegs = {f"{i:03d}.jpg": jpeg for i, (jpeg, _) in enumerate(segment)}
    return {"__key__": f"{video.key}/{number:06d}", **jpegs, "json": json.dumps(about).encode()}


def write_tars(folder: Path, stem: str, samples: Iterable[dict[str, Any]], limit: float) -> list[str]:
    """Write samples into tar files of about `limit` bytes each; returns their names."""
    names: list[str] = []
    waiting = iter(samples)
    sample = next(waiting, None)
    while sample is not None:
        names.append(f"{stem}-{len(names):06d}.tar")
        with atomic_file(folder / names[-1]) as file, tar_writer(file) as tar:
            size = 0
            while sample is not None and size < limit:
                size += tar.write(sample)
                sample = next(waiting, None)
    return names


def assemble(out: Path, parts: list[Path], config: PackConfig) -> list[Shard]:
    """Parts to shards: renamed where they have the right size, else cut anew."""
    names = [f"shard-{number:06d}.tar" for number in range(len(parts))]
    # a part that is gone was renamed by an earlier try
    held = [part if part.exists() else out / name for part, name in zip(parts, names, strict=True)]
    samples, size = sum(1 for path in held for _ in read_samples(path)), sum(path.stat().st_size for path in held)
    wanted = max(min(config.spread, samples), round(size / (config.shard_mb * 1e6)), 1)
    if wanted <= len(parts) <= 2 * wanted:
        for part, name in zip(parts, names, strict=True):
            if part.exists():
                part.replace(out / name)
    else:
        names = [f"shard-{number:06d}.tar" for number in range(wanted)]
        everything = itertools.chain.from_iterable(map(read_samples, parts))
        for number, name in enumerate(names):
            with atomic_file(out / name) as file, tar_writer(file) as tar:
                for _ in range(samples * number // wanted, samples * (number + 1) // wanted):
                    tar.write(next(everything))
    return [describe(out / name) for name in tqdm(names, unit="shard", desc="checking")]


def describe(path: Path) -> Shard:
    """A shard's line in the manifest."""
    frames = [sum(name.endswith(".jpg") for name in sample) for sample in read_samples(path)]
    return Shard(path.name, len(frames), sum(frames), path.stat().st_size, sha256_of(path))


def write_failures(path: Path, failures: tuple[Failure, ...]) -> None:
    """One line for each broken video; the file is there even when none is."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Failure._fields)
    writer.writerows(failures)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
