"""Tracks each video of a folder from its own labels: resumable, divided over processes or SLURM
jobs, with a summary table. A single video is tracked in `track_video.py`."""

import csv
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import submitit
import torch

from corrflow import InputError
from corrflow.attention import choose_backend
from corrflow.device import choose_device, share_cores
from corrflow.files import atomic_file, content_digest
from corrflow.memory import keep_freed_memory
from corrflow.model import CorrFlow, weights_digest
from corrflow.pretrained import load_model
from corrflow.stored_config import claim_folder
from corrflow.tracking.previous_result import has_changed_masks
from corrflow.tracking.staging import is_publishing
from launch.common.command import parse
from launch.common.job_array import LOGS, check_array_ended, submit_work
from launch.common.run_config import LOCK, file_lock
from launch.configs.evaluate import TrackJob
from launch.tracking.prompts import Prompts
from launch.tracking.request import Progress, StoppedError, TrackRequest
from launch.tracking.result_files import result_paths
from launch.tracking.terminal import INTERRUPTED, bar, interruptible
from launch.tracking.track_video import track_video
from shards.errors import DataError
from shards.video.decode import frame_files
from shards.video.sources import VIDEO_SUFFIXES, find_videos
from slurm.array import wait_for
from slurm.client import goes_to_slurm
from slurm.local import die_with_parent, is_worker_process, run_processes
from slurm.tasks import Task

CONFIG, RECORDS, SUMMARY = "tracking.json", "records", "summary.csv"
LABEL_SUFFIXES = (".xml", ".json", ".txt", ".png")
# settings that do not affect the tracked labels
MAY_CHANGE = {"device", "attention", "review", "write"}


@dataclass(frozen=True)
class VideoRecord:
    """The stored outcome of one video."""

    labels: str
    """Digest of the labels that it was tracked from."""
    video: int
    """Size of the video in bytes; for a folder, of all its frames."""
    frames: int = 0
    seconds: float = 0.0
    """Time of tracking and writing."""
    review: tuple[tuple[int, float], ...] = ()
    """Numbers and confidences of the frames to look at first."""
    problem: str = ""
    """Why the result is missing or incomplete; such a video is tried again."""
    write: tuple[str, ...] = ()
    """Annotation formats that are written."""


@dataclass(frozen=True)
class LabelledVideo:
    """One of the folder's videos."""

    key: str
    """Its path relative to the folder, without suffix."""
    path: Path
    labels: Path | None
    """None if there are no labels with its name."""
    folder: Path
    """Folder for results."""
    write: tuple[str, ...] = ()
    """Annotation formats to write."""

    @property
    def out(self) -> Path:
        """The video to write."""
        return self.folder / f"{self.key}.mp4"

    @property
    def record_path(self) -> Path:
        """The file that stores its outcome."""
        return self.folder / RECORDS / f"{self.key}.json"

    def record(self) -> VideoRecord | None:
        """The outcome; None if the video was not tried yet, or the video or its labels have changed
        since."""
        if self.labels is None or not self.record_path.exists():
            return None
        stored = json.loads(self.record_path.read_text())
        stored["review"] = tuple((number, confidence) for number, confidence in stored["review"])
        stored["write"] = tuple(stored["write"])
        record = VideoRecord(**stored)
        now = content_digest(self.labels), bytes_of(self.path)
        return record if (record.labels, record.video) == now else None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do: the video was tracked to its end with these labels and
        written in these formats, all files exist, and the masks were not edited since."""
        record = self.record()
        if record is None or record.problem or not set(self.write) <= set(record.write):
            return False
        paths = result_paths(self.out, self.write, masks=False)
        is_there = all(path.exists() for path in paths) and not is_publishing(self.out)
        return is_there and not has_changed_masks(self.out)


def bytes_of(path: Path) -> int:
    """Size of a video file, or of all frames of a folder; a broken link counts as 0 bytes."""
    files = [file for _, file in frame_files(path)] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.exists())


def is_folder_of_videos(path: Path) -> bool:
    """Whether a folder holds videos, possibly with images beside them, and not the frames of a
    single video."""
    inside = list(path.iterdir()) if path.is_dir() else []
    if any(file.suffix.lower() in VIDEO_SUFFIXES for file in inside):
        return True
    return any(folder.is_dir() for folder in inside) and not frame_files(path)


def track_folder(job: TrackJob, argv: list[str], command: str) -> int:
    """Track the videos of a folder that are not done; returns the exit code, 1 if a video has a
    problem.

    Args:
        job: its video, labels and out are folders.
        argv: the flags, for the processes and jobs that do parts of it.
        command: path of the command, which is started with these flags.

    Raises:
        InputError: no videos or no labels, or the results folder belongs to other settings.
        ClusterError: SLURM refuses the jobs.
    """
    if is_worker_process():
        return work_as_worker(job)
    away = goes_to_slurm(job.jobs, job.local)
    videos, out = labelled_videos(job), folder_of(job)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: can't be written to ({error.strerror})") from None
    with file_lock(out / LOCK, str(out), "tracking", seconds=0.0):
        check_array_ended(out)
        claim(job)
        return track_videos(job, argv, command, videos, away)


def track_videos(
    job: TrackJob, argv: list[str], command: str, videos: list[LabelledVideo], away: bool
) -> int:
    """Track the videos that are not done, here or through SLURM; returns the exit code."""
    left = [video for video in videos if video.labels and (job.overwrite or not video.is_done)]
    code = 0
    if away and left:
        submitted = submit(job, argv, len(left))
        if not job.follow:
            return 0
        if failure := wait_for(submitted, lambda: None):
            raise InputError(f"job {submitted.job_id}: {failure}: see {job.out}/{LOGS}")
    elif job.jobs > 1 and left:
        code = run_processes([sys.executable, command, *argv], min(job.jobs, len(left)))
    elif left:
        code = work(job, 0, 1)
    return code or sum_up(videos, folder_of(job))


def labelled_videos(job: TrackJob) -> list[LabelledVideo]:
    """The folder's videos, each with the labels of the same name; InputError if no video has
    labels."""
    if job.gone:
        raise InputError("track: --gone with a folder of videos: expected one video")
    source, labels, out = job.video, job.labels, folder_of(job)
    if source is None or labels is None or not labels.is_dir():
        raise InputError(
            f"track: video {source} is a folder of videos, labels {labels}: expected a folder of "
            "labels, each with the name of its video"
        )
    try:
        found = find_videos(source)
    except DataError as error:
        raise InputError(f"track: {error}") from None
    videos = [
        LabelledVideo(v.key, v.path, find_labels(labels, v.key), out, job.write) for v in found
    ]
    if not any(video.labels for video in videos):
        names = f"{videos[0].key}.xml, {videos[0].key}.json or the folder {videos[0].key}"
        raise InputError(f"labels {labels}: none of {len(videos)} videos: expected {names}")
    return videos


def folder_of(job: TrackJob) -> Path:
    """The folder for results; InputError if `out` is missing or names a file."""
    if job.out is None or job.out.suffix == ".mp4" or job.out.is_file():
        raise InputError(
            f"track: out {job.out}: video {job.video} is a folder of videos: expected a folder"
        )
    return job.out


def find_labels(folder: Path, key: str) -> Path | None:
    """The file or folder of labels with a video's name; None if there is none."""
    suffixes = [form for suffix in LABEL_SUFFIXES for form in (suffix, suffix.upper())]
    files = [folder / f"{key}{suffix}" for suffix in suffixes]
    candidates = [path for path in files if path.is_file()]
    candidates += [path for path in [folder / key] if path.is_dir()]
    if len(candidates) > 1:
        raise InputError(
            f"labels {candidates[0]} and {candidates[1]}: both of {key}: expected one of them"
        )
    return candidates[0] if candidates else None


def claim(job: TrackJob) -> None:
    """Check that the results folder belongs to these settings, and record them in a new one."""
    path = folder_of(job) / CONFIG
    decisive = ("backward", "size", "protocol", "adapt", "write", "tolerance", "start")
    names = (*decisive, *sorted(MAY_CHANGE))
    config = json.loads(json.dumps({name: getattr(job, name) for name in names}))
    config |= {"weights": weights_digest(load_model(job.checkpoint))}
    stored = json.loads(path.read_text()) if path.exists() else None
    claim_folder(path, stored, config, "other settings", MAY_CHANGE.__contains__)


def work(job: TrackJob, number: int, count: int, shown: bool = True) -> int:
    """Track the `number`-th of `count` parts; returns 0, or the exit code of an interruption."""
    share = [video for video in labelled_videos(job) if video.labels][number::count]
    left = [video for video in share if job.overwrite or not video.is_done]
    if not left:
        return 0
    model = prepare_model(job)
    with interruptible() as asked:
        for video in left:
            record = track_one(job, video, model, Progress(bar if shown else unseen, asked))
            if record is None:
                return INTERRUPTED
            with atomic_file(video.record_path) as file:
                file.write(json.dumps(asdict(record)).encode())
            if record.problem:
                print(f"{video.key}: {record.problem}", file=sys.stderr, flush=True)
    return 0


def prepare_model(job: TrackJob) -> CorrFlow:
    """Load the model onto its device."""
    keep_freed_memory()
    device = choose_device(job.device)
    attention = choose_backend(job.attention, device)
    model = load_model(job.checkpoint, device, attention).accelerate()
    print(model.describe_compute(), flush=True)
    return model


def track_one(
    job: TrackJob, video: LabelledVideo, model: CorrFlow, watch: Progress
) -> VideoRecord | None:
    """Track one video; None if it was interrupted."""
    assert video.labels is not None
    begun = time.perf_counter()
    came_of = partial(VideoRecord, content_digest(video.labels), bytes_of(video.path))
    try:
        prompts = Prompts(labels=video.labels, start=job.start)
        request = TrackRequest.of(job, video.path, prompts, video.out)
        outcome = track_video(request, model, watch)
    except StoppedError:
        return None
    except (InputError, DataError) as error:
        return came_of(problem=str(error))
    if not outcome.whole and not outcome.damage:
        return None
    if outcome.note:
        print(f"{video.key}: {outcome.note}", file=sys.stderr, flush=True)
    problem = f"can't be read further: {outcome.damage}" if outcome.damage else ""
    return came_of(
        frames=outcome.frames,
        seconds=round(time.perf_counter() - begun, 3),
        review=outcome.review,
        problem=problem,
        write=job.write,
    )


def unseen(things: Iterable[Any], total: int, what: str, unit: str) -> Iterable[Any]:
    """Pass items through without showing progress, which another process shows."""
    return things


def work_as_worker(job: TrackJob) -> int:
    """Track one part, as one of several processes on this machine, with its share of the cores."""
    die_with_parent()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    share_cores(world)
    return work(job, rank, world, shown=rank == 0)


def submit(job: TrackJob, argv: list[str], left: int) -> "submitit.Job[None]":
    """Submit the work to SLURM: an array whose jobs do a part each, and a last job that writes the
    summary; returns the last job."""
    about = {"argv": argv}  # paths may be relative: SLURM starts jobs in the current folder
    tasks = [
        Task("launch.tracking.track_folder:work_in_array", {**about, "number": n})
        for n in range(job.jobs)
    ]
    last = Task("launch.tracking.track_folder:end_array", about)
    to_do = f"{left} videos to track"
    return submit_work(folder_of(job), tasks, last, "corrflow-track", job.cluster, to_do).last


def work_in_array(argv: list[str], number: int) -> None:
    """Track one part, as a job of the array."""
    job = parse(TrackJob, argv, "track.py")
    torch.set_num_threads(job.cluster.cpus)
    work(job, number, job.jobs)


def end_array(argv: list[str]) -> None:
    """Write the summary, as the last job."""
    job = parse(TrackJob, argv, "track.py")
    sum_up(labelled_videos(job), folder_of(job))


def sum_up(videos: list[LabelledVideo], out: Path) -> int:
    """Write the table of all videos, and print a summary line; returns 1 if any video has a problem
    or was not tracked."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("video", "state", "frames", "seconds", "confidence", "review", "problem"))
    states: Counter[str] = Counter()
    for video in videos:
        record = video.record()
        state = state_of(video, record)
        states[state] += 1
        record = record or VideoRecord("", 0)
        lowest = min((confidence for _, confidence in record.review), default=None)
        review = " ".join(str(number) for number, _ in record.review)
        figures = (record.frames or "", record.seconds or "")
        confidence = "" if lowest is None else round(lowest, 4)
        table.writerow((video.key, state, *figures, confidence, review, record.problem))
    with atomic_file(out / SUMMARY) as file:
        file.write(text.getvalue().encode())
    others = "".join(f", {count} {state}" for state, count in states.items() if state != "tracked")
    print(f"tracked {states['tracked']} of {len(videos)} videos{others}: {out / SUMMARY}")
    return 1 if states["with a problem"] or states["not tracked"] else 0


def state_of(video: LabelledVideo, record: VideoRecord | None) -> str:
    """The state of a video, in words."""
    if video.labels is None:
        return "without labels"
    if record is None:
        return "not tracked"
    return "with a problem" if record.problem else "tracked"
