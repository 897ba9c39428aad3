"""Packs videos into tar shards: decodes, samples and resizes frames, and cuts them into segments of
consecutive frames.

There are three steps, each of which may be killed and repeated. `prepare` divides the videos that
`read_source` lists into units, depending only on their number. `pack_units` packs units, here or in
many jobs at once; each unit is packed by one process into parts under `.parts/`, and is done once
its report exists. `finish` makes shards of the parts and writes the manifest. The same videos and
settings give the same bytes, however the work was divided.
"""

import csv
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from shards.errors import DataError
from shards.files import atomic_file
from shards.manifest import NAME, Counts, Manifest, read_manifest, write_manifest
from shards.packing.config import PackConfig
from shards.packing.parts import PartWriter, TarPart
from shards.packing.reshard import make_shards
from shards.process_pool import run_in_processes, tick
from shards.samples import sample_bytes
from shards.video.decode import Damage, Frame, decode
from shards.video.sources import VideoSource, frame_number, survey

PARTS = ".parts"
PLAN = "plan.json"
FAILURES_CSV, TOO_SHORT_CSV = "failures.csv", "too-short.csv"
UNITS = 64  # smallest number of units, if there are as many videos: work for that many processes
# largest number of videos in a unit: this much is lost if packing is interrupted, and it fills a
# shard of about 100 MB with short videos
UNIT_VIDEOS = 128

# broken videos that are allowed by default; if more are broken, the data set was probably not
# downloaded completely
FAILURE_PERCENT, FAILURES = 10.0, 10


class Failure(NamedTuple):
    """A video that could not be packed."""

    video: str
    reason: str
    good_frames: int
    """How many of the sampled frames could be decoded."""


class ShortVideo(NamedTuple):
    """A video that yielded no segment."""

    video: str
    frames: int
    """Number of sampled frames."""


@dataclass(frozen=True)
class Report:
    """The result of packing a unit."""

    digest: str
    """The unit's digest."""
    parts: list[TarPart]
    failures: list[Failure]
    too_short: list[ShortVideo]
    short_frames: int


@dataclass(frozen=True)
class Unit:
    """Neighbouring videos that are packed by one process."""

    out: Path
    number: int
    videos: list[VideoSource]
    config: PackConfig
    digest: str
    """Identifies settings and videos, so that an old report of others is not used."""

    @property
    def report_path(self) -> Path:
        """The file that exists once the unit is done."""
        return self.out / PARTS / f"{self.number:05d}.json"

    def report(self) -> Report | None:
        """The unit's report; None if it is missing, damaged or of other settings or videos, so that
        the unit must be packed."""
        try:
            stored = json.loads(self.report_path.read_bytes())
            stored["parts"] = [TarPart(**part) for part in stored["parts"]]
            stored["failures"] = [Failure(*failure) for failure in stored["failures"]]
            stored["too_short"] = [ShortVideo(*short) for short in stored["too_short"]]
            report = Report(**stored)
        # TypeError, KeyError: the JSON is no report
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return report if report.digest == self.digest else None


class PackInput(NamedTuple):
    """The videos to pack, and the settings."""

    videos: list[list[Any]]
    """For each video: its key, its path, its number of frames if a list says it, and its size."""
    settings: dict[str, Any]
    """Everything that determines the bytes, in JSON types."""
    skipped: dict[str, int]
    """Number of files in the source that are not videos, by suffix."""


@dataclass(frozen=True)
class PackPlan:
    """The units of a packing, and its settings."""

    out: Path
    settings: dict[str, Any]
    """Everything that determines the bytes, in JSON types."""
    units: list[Unit]
    max_failures: int
    """Number of broken videos that is allowed."""
    skipped: dict[str, int]
    """Number of files in the source that are not videos, by suffix."""

    @property
    def videos(self) -> int:
        """Number of videos in all units."""
        return sum(len(unit.videos) for unit in self.units)


def pack(
    source: Path, out: Path, config: PackConfig, processes: int, max_failures: float | None = None
) -> Manifest:
    """Pack all videos of `source` into shards under `out`; units that are packed already are kept.

    Args:
        source: see `survey`.
        out: a new folder, or one with this same packing, unfinished or finished.
        config: settings of packing.
        processes: number of processes.
        max_failures: percentage of the videos that may be broken; None for 10 percent, or 10 videos
            if that is more.

    Raises:
        DataError: there are no videos, too few of them are readable, or `out` holds another
            packing.
    """
    plan = prepare(read_source(source, config), out, max_failures)
    if plan is None:
        return read_manifest(out)
    pack_units(plan, plan.units, processes)
    return finish(plan)


def read_source(source: Path, config: PackConfig) -> PackInput:
    """List the videos, without writing anything. Raises DataError like `survey`."""
    videos, skipped = survey(source)
    listed = [
        [video.key, str(video.path.absolute()), video.listed, size_of(video.path)]
        for video in videos
    ]
    digest = hashlib.sha256(
        json.dumps([[key, frames, size] for key, _, frames, size in listed]).encode()
    ).hexdigest()[:16]
    settings = {**asdict(config), "videos": len(videos), "source_digest": digest}
    return PackInput(listed, settings, skipped)


def prepare(packed: PackInput, out: Path, max_failures: float | None = None) -> PackPlan | None:
    """Write the plan to `out` and return it; None if everything is packed already.

    Raises:
        DataError: `out` holds another packing (the message says what differs) or other tar files,
            or can't be written.
    """
    settings = packed.settings
    if (out / NAME).exists():
        if (stored := read_manifest(out).settings) != settings:
            raise DataError(
                f"{out}: holds shards of {differences(stored, settings)}: expected a new folder "
                "(remove it to pack again)"
            )
        shutil.rmtree(out / PARTS, ignore_errors=True)
        return None
    path = out / PARTS / PLAN
    if path.exists():
        stored = read_stored_plan(path)["settings"]
        if any(stored.get(name) != settings[name] for name in asdict(PackConfig())):
            raise DataError(
                f"{out}: half packed with {differences(stored, settings)}: expected the same "
                "settings (remove it to pack again)"
            )
    elif any(out.glob("*.tar")):
        raise DataError(f"{out}: holds tar files of something else: expected a new folder")
    try:
        with atomic_file(path) as file:
            plan = {
                "settings": settings,
                "max_failures": allowed(max_failures, len(packed.videos)),
                "skipped": packed.skipped,
                "videos": packed.videos,
            }
            file.write(json.dumps(plan).encode())
        (out / FAILURES_CSV).unlink(missing_ok=True)  # of an earlier packing that failed
    except OSError as error:
        raise DataError(f"{out}: can't be written to ({error.strerror})") from None
    begun = read_plan(out)
    retry_failed_units(begun)
    return begun


def allowed(percent: float | None, videos: int) -> int:
    """Number of broken videos that is allowed; `percent` None takes the default."""
    return (
        max(FAILURES, int(FAILURE_PERCENT * videos / 100))
        if percent is None
        else int(percent * videos / 100)
    )


def size_of(path: Path) -> int:
    """Bytes of a file, or frames of a folder; 0 if it is missing or can't be accessed."""
    try:
        if path.is_dir():
            return sum(frame_number(file) is not None for file in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0


def differences(stored: dict[str, Any], asked: dict[str, Any]) -> str:
    """The settings that differ, in words."""
    return "; ".join(
        f"{name} {stored.get(name)} (asked: {asked[name]})"
        for name in asked
        if stored.get(name) != asked[name]
    )


def read_plan(out: Path) -> PackPlan:
    """Read the plan that `prepare` wrote to `out`; DataError if there is none."""
    path = out / PARTS / PLAN
    if not path.exists():
        raise DataError(f"{out}: no packing was begun there")
    stored = read_stored_plan(path)
    listed = stored["videos"]
    config = PackConfig(**{name: stored["settings"][name] for name in asdict(PackConfig())})
    units = []
    for number, (low, high) in enumerate(divide(len(listed))):
        videos = [VideoSource(key, Path(path), frames) for key, path, frames, _ in listed[low:high]]
        content = json.dumps(
            [asdict(config), [[key, frames, size] for key, _, frames, size in listed[low:high]]]
        )
        units.append(
            Unit(out, number, videos, config, hashlib.sha256(content.encode()).hexdigest()[:16])
        )
    return PackPlan(out, stored["settings"], units, stored["max_failures"], stored["skipped"])


def read_stored_plan(path: Path) -> dict[str, Any]:
    """Read the plan's file; DataError if it is damaged."""
    try:
        stored = json.loads(path.read_bytes())
    except ValueError as error:
        stored, reason = None, str(error)
    else:
        reason = "not the plan of a packing"
    names = {"settings", "max_failures", "skipped", "videos"}
    if isinstance(stored, dict) and stored.keys() >= names:
        return stored
    raise DataError(f"{path}: damaged ({reason}): remove {path.parent} to pack again")


def divide(videos: int) -> list[tuple[int, int]]:
    """Divide the list of videos into units, as (first, stop); depends only on their number."""
    count = min(videos, max(UNITS, -(-videos // UNIT_VIDEOS)))
    return list(pairwise(videos * i // count for i in range(count + 1)))


def retry_failed_units(plan: PackPlan) -> None:
    """If an earlier packing failed for too many broken videos, try their units again, because the
    videos may have been repaired."""
    reports = [(unit, report) for unit in plan.units if (report := unit.report())]
    if sum(len(report.failures) for _, report in reports) > plan.max_failures:
        for unit, report in reports:
            if report.failures:
                unit.report_path.unlink()


def pack_units(
    plan: PackPlan,
    units: list[Unit],
    processes: int,
    on_video: Callable[[int], object] = lambda _: None,
) -> None:
    """Pack those of `units` that are not done.

    Args:
        plan: the plan that the units belong to.
        units: all units, or those of one job.
        processes: number of processes.
        on_video: called from time to time with the number of videos done since the last time; the
            first call has those that were packed before.

    Raises:
        DataError: more videos are broken than the plan allows.
    """
    reports = [(unit, unit.report()) for unit in units]
    failures = [failure for _, report in reports if report for failure in report.failures]
    on_video(sum(len(unit.videos) for unit, report in reports if report))
    left = [(unit, plan.max_failures) for unit, report in reports if not report]
    for unit_failures in run_in_processes(pack_unit, left, processes, on_video):
        failures += unit_failures
        check_failures(plan, failures)


def check_failures(plan: PackPlan, failures: list[Failure]) -> None:
    """DataError if there are more failures than the plan allows."""
    if len(failures) > plan.max_failures:
        write_table(plan.out / FAILURES_CSV, Failure._fields, failures)
        raise DataError(
            f"{plan.out}: {len(failures)} of {plan.videos} videos are broken, more than the "
            f"{plan.max_failures} that are allowed (--max-failures): {failures[0].video}: "
            f"{failures[0].reason}; see {plan.out / FAILURES_CSV}"
        )


def pack_unit(job: tuple[Unit, int]) -> list[Failure]:
    """Pack one unit's videos into parts, and write its report; returns its failures. More failures
    than allowed end it early, without a report."""
    unit, max_failures = job
    failures: list[Failure] = []
    too_short: list[ShortVideo] = []
    short_frames = 0
    with PartWriter(unit.out / PARTS, f"{unit.number:05d}", unit.config.shard_mb * 1e6) as writer:
        for video in unit.videos:
            before = writer.position()
            good, damage, left = pack_video(video, unit.config, writer)
            if damage:
                writer.truncate_to(before)
                failures.append(Failure(video.key, damage.reason, good))
                if len(failures) > max_failures:
                    return failures
            else:
                if writer.position() == before:
                    too_short.append(ShortVideo(video.key, good))
                short_frames += left
            tick()
        parts = writer.finish()
    with atomic_file(unit.report_path) as file:
        file.write(
            json.dumps(
                asdict(Report(unit.digest, parts, failures, too_short, short_frames))
            ).encode()
        )
    return failures


def pack_video(
    video: VideoSource, config: PackConfig, writer: PartWriter
) -> tuple[int, Damage | None, int]:
    """Write a video's samples.

    Returns:
        The number of frames that could be decoded; the first damage, if any, after which frames are
        still counted but no longer written; and the number of frames that were too few for a
        segment, at the video's end or before its size changes.
    """
    segments = Segments(video, config, writer)
    good = 0
    damage: Damage | None = None
    for frame in decode(video, config.sampling(), config.sizing(), threads=1):
        if isinstance(frame, Damage):
            damage = damage or frame
            continue
        good += 1
        if not damage:
            segments.add(frame)
    if not damage:
        segments.end()
    return good, damage, segments.left_out


class Segments:
    """Builds the samples of one video: runs of consecutive frames of one size."""

    def __init__(self, video: VideoSource, config: PackConfig, writer: PartWriter) -> None:
        self.video, self.config, self.writer = video, config, writer
        self.frames: list[Frame] = []
        self.jpegs: list[bytes] = []
        self.written = 0
        self.left_out = 0
        """Number of frames in runs that were too short for a sample."""

    def add(self, frame: Frame) -> None:
        """Add the next frame; if its size differs from the last one's, it begins a new sample."""
        if self.frames and frame.image.size != self.frames[0].image.size:
            self.end()
        self.frames.append(frame)
        self.jpegs.append(frame.jpeg or encode_jpeg(frame, self.config.quality))
        if len(self.frames) == self.config.segment:
            self.end()

    def end(self) -> None:
        """End the current run, and write it if it is long enough for a sample."""
        if len(self.frames) >= self.config.shortest:
            sample = segment_bytes(self.video, self.written, self.frames, self.jpegs)
            self.writer.write(sample, len(self.frames), min(self.frames[0].image.size))
            self.written += 1
        else:
            self.left_out += len(self.frames)
        self.frames, self.jpegs = [], []


def encode_jpeg(frame: Frame, quality: int) -> bytes:
    """Encode a frame as JPEG."""
    buffer = io.BytesIO()
    frame.image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def segment_bytes(
    video: VideoSource, number: int, segment: list[Frame], jpegs: list[bytes]
) -> bytes:
    """The bytes of a segment's sample: frames, and a `json` that says where they are from."""
    image = segment[0].image
    about = {
        "source": video.key,
        "frames": len(segment),
        "seconds": [round(frame.seconds, 4) for frame in segment],
        "width": image.width,
        "height": image.height,
    }
    return sample_bytes(f"{video.key}/{number:06d}", about, jpegs)


def finish(plan: PackPlan) -> Manifest:
    """Make shards of the parts, and write the manifest.

    Raises:
        DataError: units are missing (the message says which and why), too many videos are broken,
            or no video gave a sample.
    """
    reports = [report for unit in plan.units if (report := unit.report())]
    if len(reports) < len(plan.units):
        missing = [unit for unit in plan.units if not unit.report()]
        videos = sum(len(unit.videos) for unit in missing)
        way = "the same command resumes it"
        if (table := plan.out / FAILURES_CSV).exists():  # a job stopped for it
            way = f"more videos are broken than are allowed (--max-failures): see {table}"
        raise DataError(
            f"{plan.out}: {len(missing)} of {len(plan.units)} units are not packed ({videos} "
            f"videos, from {missing[0].videos[0].key} on): {way}"
        )
    for leftover in plan.out.glob(".*.tmp"):  # from a process that was killed
        leftover.unlink()
    failures = [failure for report in reports for failure in report.failures]
    check_failures(plan, failures)
    write_table(plan.out / FAILURES_CSV, Failure._fields, failures)
    too_short = [short for report in reports for short in report.too_short]
    write_table(plan.out / TOO_SHORT_CSV, ShortVideo._fields, too_short)
    parts = [part for report in reports for part in report.parts]
    if not parts:
        first = f"; the first: {failures[0].video}: {failures[0].reason}" if failures else ""
        shutil.rmtree(plan.out / PARTS)
        raise DataError(
            f"{plan.out}: none of {plan.videos} videos gave a sample: {len(failures)} broken, "
            f"{len(too_short)} too short{first}"
        )
    shards = make_shards(
        plan.out,
        plan.out / PARTS,
        parts,
        plan.units[0].config.shard_mb * 1e6,
        plan.units[0].config.spread,
    )
    short_frames = sum(report.short_frames for report in reports)
    counts = Counts(plan.videos, len(failures), len(too_short), short_frames)
    short_sides = Counter(side for part in parts for side in part.short_sides)
    manifest = Manifest(plan.settings, counts, tuple(shards), dict(sorted(short_sides.items())))
    write_manifest(plan.out, manifest)
    shutil.rmtree(plan.out / PARTS)
    return manifest


def write_table(path: Path, head: Sequence[str], rows: Sequence[tuple[str | int, ...]]) -> None:
    """Write a CSV file with a head and a line for each row, even if there are none. Bytes of file
    names that are not UTF-8 are escaped."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode(errors="backslashreplace"))
