"""Tracks a marked video and writes the result files, for both the command and the page. The marks
are parsed in `prompts.py`."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from corrflow import CorrFlow, InputError
from corrflow.adaptation import CLIP_FRAMES, adapt
from corrflow.annotations import (
    AnnotatedVideo,
    AnnotationWriter,
    NamedObject,
    open_writer,
)
from corrflow.files import content_digest
from corrflow.model import weights_digest
from corrflow.scale import Scale
from corrflow.tracking.corrections import SortedMarks, sort_masks, sort_points
from corrflow.tracking.mask_tracker import MaskTracker, check_large_enough
from corrflow.tracking.plan import (
    Given,
    marked_objects,
    marked_points,
    plan_correction,
    plan_tracking,
)
from corrflow.tracking.point_tracker import PointTracker
from corrflow.tracking.previous_result import PreviousResult, read_previous
from corrflow.tracking.provenance import Provenance
from corrflow.tracking.recording import (
    MaskRecording,
    PointRecording,
    Recorded,
    Recording,
    masks_folder,
)
from corrflow.tracking.staging import complete_publishing
from corrflow.tracking.tracker import Tracker, check_reached
from corrflow.tracking.video_writer import VideoFormat
from launch.common.run_config import result_lock
from launch.tracking.prompts import Marks, Prompts, VideoInfo, read_prompts
from launch.tracking.request import Outcome, Progress, StoppedError, TrackRequest
from launch.tracking.result_files import (
    check_formats,
    check_names,
    digests_in_place,
    disposable_files,
    previous_formats,
    result_paths,
)
from shards.video.decode import frame_files
from shards.video.sources import as_text
from shards.video.video_reader import BrokenVideoError, VideoReader, open_video_reader

Item = TypeVar("Item")
FULL = {errno.ENOSPC, errno.EDQUOT}
# cache of the last adapted model and what it was adapted to, for tracking corrections on the page
ADAPTED: list[tuple[dict[str, Any], CorrFlow]] = []
# from this share of marked frames on, labels are probably a tool's export of an earlier result
EXPORT_SHARE = 0.9


class UntilDamage(Generic[Item]):
    """Yields the frames of a video, and stops at a place that can't be decoded; `damage` then says
    why."""

    def __init__(self, frames: Iterable[Item]) -> None:
        self.frames, self.damage = frames, ""

    def __iter__(self) -> Iterator[Item]:
        try:
            yield from self.frames
        except BrokenVideoError as error:
            self.damage = str(error)


def track_video(request: TrackRequest, model: CorrFlow, watch: Progress) -> Outcome:
    """Track, and write the video, tables and masks. Memory does not grow with the video's length.

    If the same video was tracked to the same files with the same settings before, only the frames
    that changed marks affect are tracked. A damaged video is tracked up to the damage. Existing
    files are replaced only when all new ones are complete.

    Raises:
        InputError: an input is wrong, the video is damaged before its first mark, the disk is full,
            another process writes the same files, or the files were edited meanwhile.
        StoppedError: stopped before the first frame was written, or before as many frames as the
            earlier result has; all files are as they were.
    """
    check_names(request)
    try:
        with result_lock(request.out), open_video_reader(request.video) as reader:
            complete_publishing(request.out)
            return track_footage(request, model, reader, watch)
    except BrokenVideoError as error:
        raise InputError(f"video {request.video}: {error}") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"out {request.out}: {error.strerror}: expected room for it") from None


def track_footage(
    request: TrackRequest, model: CorrFlow, reader: VideoReader, watch: Progress
) -> Outcome:
    """Track an opened video. Passes that run before the writing one, such as backward passes, open
    it again."""
    in_place = digests_in_place(request)
    video_info = VideoInfo(reader.width, reader.height, reader.count, reader.names)
    marks = read_prompts(request.prompts, video_info)
    check_formats(request, marks)
    task = prepare(request, model, reader, marks, in_place, watch)
    tracker = task.tracker
    with ExitStack() as opened:
        if tracker.plan.has_backward_passes:
            with open_video_reader(request.video) as again:
                frames = UntilDamage(picture.pixels for picture in again.frames)
                passes = tracker.track_backward(frames, request.out.parent, watch.look)
                opened.enter_context(passes)
        if tracker.previous and tracker.plan.spans:
            with open_video_reader(request.video) as again:
                shown = watch.look(again.frames, tracker.plan.stop or again.count, "tracking")
                frames = UntilDamage(picture.pixels for picture in shown)
                opened.enter_context(tracker.track_ahead(frames, request.out.parent))
        return record(request, reader, task, watch)


@dataclass(frozen=True)
class Task:
    """Everything that is determined before the first frame is written."""

    tracker: Tracker[Any, Any, Any, Any]
    marks: Marks
    provenance: Provenance
    is_kept: Callable[[int], bool]
    """Whether the mask of the frame at this index exists already and stays."""
    annotations: tuple[str, ...]
    """Annotation formats to write: those asked for, and those of an earlier result."""
    in_place: Mapping[str, str]
    """Digests of the files that may be replaced, from before anything was read."""
    earlier_count: int = 0
    """Number of frames of the earlier result, which is kept if this tracking stops before as
    many."""
    note: str = ""
    """A warning about what the user may not have intended."""


def prepare(
    request: TrackRequest,
    model: CorrFlow,
    reader: VideoReader,
    marks: Marks,
    in_place: Mapping[str, str],
    watch: Progress,
) -> Task:
    """Prepare the tracker of all marks, or only of changed ones if there is an earlier result."""
    provenance = describe(request, model, marks)
    notes = [frame_by_name(request.prompts, marks, reader)]
    previous = find_previous(request, provenance)
    if previous:
        marks, provenance, note = find_corrections(request, reader, marks, provenance, previous)
        notes.append(note)
    check_gone(marks, reader)
    if request.prompts.labels and 1 < EXPORT_SHARE * reader.count <= len(provenance.given):
        why = (
            "they differ from the earlier result"
            if previous
            else "there is no earlier result to compare them with"
        )
        notes.append(
            f"labels {request.prompts.labels} mark {len(provenance.given)} of {reader.count} "
            f"frames of {request.out}, and all of them are kept as marks: {why}"
        )
    found: Mapping[int, Any] = {}
    plan = plan_tracking(provenance.given, to_beginning=request.backward)
    if previous and not request.overwrite and previous.is_reusable(provenance):
        found, old = previous.found, previous.provenance.given
        withdrawn = previous.withdrawn(provenance.given)
        plan = plan_correction(
            old, provenance.given, to_beginning=request.backward, withdrawn=withdrawn
        )
    scale = Scale.of(reader.width, reader.height, request.size)
    is_long_enough = reader.count >= CLIP_FRAMES
    if request.adapt and plan.spans and is_long_enough:
        model = adapt_to_video(request, model, provenance, watch, scale)
    tracker: Tracker[Any, Any, Any, Any]
    if marks.masks is None:
        points = marks.points or {}
        tracker = PointTracker(model, scale, points, request.protocol, plan, found)
    else:
        check_large_enough(marks.masks, scale, reader.names.number)
        masks, gone = marks.masks, marks.gone
        tracker = MaskTracker(model, scale, masks, request.protocol, plan, found, gone)
    is_renumbered = previous is not None and previous.is_renumbered

    def is_kept(index: int) -> bool:
        return index in found and not is_renumbered and not plan.is_tracked(index)

    formats = tuple(dict.fromkeys([*request.write, *previous_formats(request, previous)]))
    count = previous.provenance.frames if previous else 0
    note = "; ".join(filter(None, notes))
    return Task(tracker, marks, provenance, is_kept, formats, in_place, count, note)


def adapt_to_video(
    request: TrackRequest, model: CorrFlow, provenance: Provenance, watch: Progress, scale: Scale
) -> CorrFlow:
    """Adapt the model to the video, at the size at which it is tracked."""
    key = replace(provenance, objects={}, given={}, returned={}, edited={}).to_dict()
    if ADAPTED and ADAPTED[0][0] == key:
        return ADAPTED[0][1]
    ADAPTED.clear()
    with open_video_reader(request.video) as again:
        read = watch.look(again.frames, again.count, "choosing clips")
        frames = UntilDamage(picture.pixels for picture in read)
        scaled = (torch.from_numpy(scale.frame(frame)).movedim(-1, 0) for frame in frames)
        shown = partial(watch.look, total=request.adapt, what="adapting", unit="steps")
        adapted = adapt(model, scaled, request.adapt, watch=shown)
    ADAPTED.append((key, adapted))
    return adapted


def describe(request: TrackRequest, model: CorrFlow, marks: Marks) -> Provenance:
    """Everything that determines the result."""
    images = [path for _, path in frame_files(request.video)] if request.video.is_dir() else None
    return Provenance(
        video=content_digest(request.video, images),
        weights=weights_digest(model),
        protocol=request.protocol,
        size=request.size,
        to_beginning=request.backward,
        adapt=request.adapt,
        kind="points" if marks.masks is None else "objects",
        objects=dict(enumerate(marks.objects, 1)),
        given=digests_of(marks),
    )


def digests_of(marks: Marks) -> Given:
    """Digests of the marks."""
    if marks.masks is not None:
        return marked_objects(marks.masks, marks.gone)
    return marked_points(marks.points or {})


def find_previous(request: TrackRequest, provenance: Provenance) -> PreviousResult[Any] | None:
    """Read the earlier result at the same paths. With `overwrite`, edits in its masks are dropped,
    and an inconsistent result counts as none."""
    try:
        previous = read_previous(request.out, provenance)
        return (
            replace(previous, edited={}, painted={}) if previous and request.overwrite else previous
        )
    except InputError:
        if request.overwrite:
            return None
        raise


def find_corrections(
    request: TrackRequest,
    reader: VideoReader,
    marks: Marks,
    provenance: Provenance,
    previous: PreviousResult[Any],
) -> tuple[Marks, Provenance, str]:
    """Find the marks that differ from the earlier result, including edits in its masks.

    Returns:
        The marks; the provenance with them; and a warning about what the user may not have
        intended, or an empty string.
    """
    found: SortedMarks[Any]
    if marks.masks is None:
        found = sort_points(marks.points or {}, previous)
        corrections = replace(marks, points=found.marks)
    else:
        tolerance = request.tolerance if marks.has_polygons else None
        is_export, gone = marks.is_export, marks.gone
        found = sort_masks(marks.masks, gone, previous, tolerance, is_export=is_export)
        corrections = replace(marks, masks=found.marks, gone=found.gone)
    given = digests_of(corrections)
    provenance = replace(provenance, given=given, returned=found.returned, edited=found.edited)
    folder, notes = masks_folder(request.out), list[str]()
    if found.overruled:
        frames = frames_in_words(reader, found.overruled)
        notes.append(f"{frames}: painting in {folder} takes precedence over the new marks")
    if previous.forgotten:
        frames = frames_in_words(reader, sorted(previous.forgotten))
        notes.append(
            f"{frames}: painting in {folder} is discarded for objects that are no longer in the "
            "labels"
        )
    return corrections, provenance, "; ".join(notes)


def frame_by_name(prompts: Prompts, marks: Marks, reader: VideoReader) -> str:
    """A note if the name of a single mask assigns it to a later frame; else an empty string."""
    index = min(marks.masks) if marks.masks else 0
    is_by_name = len(prompts.mask) == 1 and "=" not in prompts.mask[0] and prompts.start is None
    if not index or not is_by_name or Path(prompts.mask[0]).is_dir():
        return ""
    number = reader.names.number(index)
    return (
        f"mask {prompts.mask[0]}: marks frame {number}, by its name (--start N for another frame)"
    )


def frames_in_words(reader: VideoReader, indices: Iterable[int]) -> str:
    """The frames' numbers, in words."""
    return "frames " + ", ".join(str(reader.names.number(index)) for index in indices)


def check_gone(marks: Marks, reader: VideoReader) -> None:
    """InputError if an object is both gone and marked in the same frame."""
    for index, numbers in marks.gone.items():
        if marks.masks is None or index not in marks.masks:
            continue
        if both := numbers & set(np.unique(marks.masks[index]).tolist()):
            raise InputError(
                f"gone {reader.names.number(index)}={min(both)}: the object is marked in that "
                "frame: expected another one"
            )


def record(request: TrackRequest, reader: VideoReader, task: Task, watch: Progress) -> Outcome:
    """Run the forward pass and write its frames. A correction can't be stopped here, so that its
    files are complete."""
    tracker = task.tracker
    what = "writing" if tracker.previous else "tracking"
    source = UntilDamage(reader.frames)
    shown, seen = tee(source)
    results = tracker.track(picture.pixels for picture in seen)
    with open_recording(request, reader, task) as recording:
        whole = True
        for picture, result in watch.show(
            zip(shown, results, strict=True), reader.count, what, "frames"
        ):
            recording.add(picture.pixels, picture.stamp, result)
            if watch.stopped() and not tracker.previous:
                whole = recording.count == reader.count
                if recording.count < task.earlier_count:
                    raise StoppedError
                break
        else:
            if source.damage and recording.count <= tracker.first:
                raise BrokenVideoError(source.damage)
            if not source.damage:
                check_reached(tracker.latest, recording.count)
        recording.finish(whole=whole and not source.damage)
    files = result_paths(request.out, task.annotations, masks=task.marks.masks is not None)
    review = tuple(
        (reader.names.number(index), confidence) for index, confidence in recording.to_review
    )
    kept = sum(not tracker.plan.is_tracked(index) for index in tracker.previous)
    whole = whole and not source.damage
    return Outcome(recording.count, whole, files, kept, review, source.damage, task.note)


def open_recording(request: TrackRequest, reader: VideoReader, task: Task) -> Recording[Any]:
    """Open a recording of masks or of points, as the tracker needs."""
    tracker, marks = task.tracker, task.marks
    video_format = VideoFormat(reader.width, reader.height, reader.tick, reader.fps)
    sound = (reader.sound.stream, reader.sound.packets) if reader.sound else None
    numbers = list(tracker.begins) if isinstance(tracker, MaskTracker) else []
    about = Recorded(
        as_text(request.video.name),
        reader.names,
        {number: owner.name for number, owner in enumerate(marks.objects, 1)},
        partial(open_annotations, request, task.annotations, reader, marks, numbers),
        request.review,
        task.provenance.to_dict(),
        task.is_kept,
        task.in_place,
        disposable_files(request, task.in_place),
    )
    if isinstance(tracker, MaskTracker):
        boxes = bool(request.prompts.box)
        return MaskRecording(request.out, video_format, sound, about, numbers, boxes=boxes)
    return PointRecording(request.out, video_format, sound, about)


def open_annotations(
    request: TrackRequest,
    formats: Iterable[str],
    reader: VideoReader,
    marks: Marks,
    numbers: list[int],
    folder: Path,
) -> dict[str, AnnotationWriter]:
    """Open a writer for each format, which writes into `folder`; objects without names are called
    by their numbers."""
    count = max(numbers, default=len(request.prompts.points))
    objects = marks.objects or [NamedObject(str(n)) for n in range(1, count + 1)]
    images = [path for _, path in frame_files(request.video)] if request.video.is_dir() else []
    name = as_text(request.video.name)
    video = AnnotatedVideo(name, reader.width, reader.height, objects, images)
    how = (request.out, video, request.tolerance, folder)
    return {name: open_writer(name, *how) for name in formats}
