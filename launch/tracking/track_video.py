"""A video tracked from what was marked, to files: what the command and the page both do. The marks'
syntax is in `prompts.py`."""

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
from launch.common.run_config import held_result
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
# the last model that was adapted, and to what: corrections on the page are tracked by it again
ADAPTED: list[tuple[dict[str, Any], CorrFlow]] = []
NEARLY_ALL = 0.9  # of the frames are marked, where a tool gave back what was tracked


class Unbroken(Generic[Item]):
    """The frames of a video up to where it can't be decoded further, if there is such a place;
    `damage` then says why."""

    def __init__(self, frames: Iterable[Item]) -> None:
        self.frames, self.damage = frames, ""

    def __iter__(self) -> Iterator[Item]:
        try:
            yield from self.frames
        except BrokenVideoError as error:
            self.damage = str(error)


def track_video(request: TrackRequest, model: CorrFlow, watch: Progress) -> Outcome:
    """Track, and write the video, tables and masks. Memory does not grow with the video.

    Where the same video was tracked to the same files in the same way, only those frames are
    tracked that are concerned by what is marked otherwise. A video that is damaged at some place is
    tracked up to there. Files that were there stay as they were until all new ones are whole.

    Raises:
        InputError: something given is wrong, the video is damaged before anything is marked, the
            disk is full, another process writes the same files, or somebody has changed them
            meanwhile.
        StoppedError: before the first frame was written, or as many as were there before; all is
            as it was.
    """
    check_names(request)
    try:
        with held_result(request.out), open_video_reader(request.video) as reader:
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
    """Track a video that is opened; what is tracked beforehand reads it once more."""
    in_place = digests_in_place(request)
    video_info = VideoInfo(reader.width, reader.height, reader.count, reader.names)
    marks = read_prompts(request.prompts, video_info)
    check_formats(request, marks)
    task = prepare(request, model, reader, marks, in_place, watch)
    tracker = task.tracker
    with ExitStack() as opened:
        if tracker.plan.has_backward_passes:
            with open_video_reader(request.video) as again:
                frames = Unbroken(picture.pixels for picture in again.frames)
                passes = tracker.track_backward(frames, request.out.parent, watch.look)
                opened.enter_context(passes)
        if tracker.previous and tracker.plan.spans:
            with open_video_reader(request.video) as again:
                shown = watch.look(again.frames, tracker.plan.stop or again.count, "tracking")
                frames = Unbroken(picture.pixels for picture in shown)
                opened.enter_context(tracker.track_ahead(frames, request.out.parent))
        return record(request, reader, task, watch)


@dataclass(frozen=True)
class Task:
    """All that is known before the first frame is written."""

    tracker: Tracker[Any, Any, Any, Any]
    marks: Marks
    provenance: Provenance
    is_kept: Callable[[int], bool]
    """Whether a frame's mask is there already."""
    annotations: tuple[str, ...]
    """Formats to write: those that are asked for, and those that an earlier tracking wrote."""
    in_place: Mapping[str, str]
    """Digests of the files that may be replaced, as they were before anything was read."""
    earlier_count: int = 0
    """Frames of the earlier tracking, which stay if this one ends before as many."""
    note: str = ""
    """What a user may not have meant."""


def prepare(
    request: TrackRequest,
    model: CorrFlow,
    reader: VideoReader,
    marks: Marks,
    in_place: Mapping[str, str],
    watch: Progress,
) -> Task:
    """The tracker of what is marked; if it was tracked before, of what is marked otherwise."""
    provenance = describe(request, model, marks)
    notes = [frame_by_name(request.prompts, marks, reader)]
    previous = find_previous(request, provenance)
    if previous:
        marks, provenance, note = find_corrections(request, reader, marks, provenance, previous)
        notes.append(note)
    check_gone(marks, reader)
    if request.prompts.labels and 1 < NEARLY_ALL * reader.count <= len(provenance.given):
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
    if previous and not request.overwrite and previous.can_be_taken_over(provenance):
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

    def is_kept(place: int) -> bool:
        return place in found and not is_renumbered and not plan.is_tracked(place)

    formats = tuple(dict.fromkeys([*request.write, *previous_formats(request, previous)]))
    count = previous.provenance.frames if previous else 0
    note = "; ".join(filter(None, notes))
    return Task(tracker, marks, provenance, is_kept, formats, in_place, count, note)


def adapt_to_video(
    request: TrackRequest, model: CorrFlow, provenance: Provenance, watch: Progress, scale: Scale
) -> CorrFlow:
    """The model, adapted to the video at the size at which it is tracked."""
    key = replace(provenance, objects={}, given={}, returned={}, edited={}).to_dict()
    if ADAPTED and ADAPTED[0][0] == key:
        return ADAPTED[0][1]
    ADAPTED.clear()
    with open_video_reader(request.video) as again:
        read = watch.look(again.frames, again.count, "choosing clips")
        frames = Unbroken(picture.pixels for picture in read)
        scaled = (torch.from_numpy(scale.frame(frame)).movedim(-1, 0) for frame in frames)
        shown = partial(watch.look, total=request.adapt, what="adapting", unit="steps")
        adapted = adapt(model, scaled, request.adapt, watch=shown)
    ADAPTED.append((key, adapted))
    return adapted


def describe(request: TrackRequest, model: CorrFlow, marks: Marks) -> Provenance:
    """What decides the tracks."""
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
    """What is marked, in short."""
    if marks.masks is not None:
        return marked_objects(marks.masks, marks.gone)
    return marked_points(marks.points or {})


def find_previous(request: TrackRequest, provenance: Provenance) -> PreviousResult[Any] | None:
    """What was tracked to the same files. If that is to be overwritten, without what was painted
    into it, and nothing of what does not fit together."""
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
    """What is marked, without what is as it was tracked, and with what was painted into the
    masks; and a word about what the user may not have meant."""
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
    """A line where a mask that is alone is of a later frame, as its name says; else nothing."""
    place = min(marks.masks) if marks.masks else 0
    is_by_name = len(prompts.mask) == 1 and "=" not in prompts.mask[0] and prompts.start is None
    if not place or not is_by_name or Path(prompts.mask[0]).is_dir():
        return ""
    number = reader.names.number(place)
    return f"mask {prompts.mask[0]}: is of frame {number}, by its name (--start N says another)"


def frames_in_words(reader: VideoReader, places: Iterable[int]) -> str:
    """As a user calls them."""
    return "frames " + ", ".join(str(reader.names.number(place)) for place in places)


def check_gone(marks: Marks, reader: VideoReader) -> None:
    """InputError for an object that is to be gone in a frame in which it is marked."""
    for place, numbers in marks.gone.items():
        if marks.masks is None or place not in marks.masks:
            continue
        if both := numbers & set(np.unique(marks.masks[place]).tolist()):
            raise InputError(
                f"gone {reader.names.number(place)}={min(both)}: the object is marked in that "
                "frame: expected another one"
            )


def record(request: TrackRequest, reader: VideoReader, task: Task, watch: Progress) -> Outcome:
    """The forward pass, written as it goes; a correction is written to its end."""
    tracker = task.tracker
    what = "writing" if tracker.previous else "tracking"
    source = Unbroken(reader.frames)
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
        (reader.names.number(place), confidence) for place, confidence in recording.to_review
    )
    kept = sum(not tracker.plan.is_tracked(place) for place in tracker.previous)
    whole = whole and not source.damage
    return Outcome(recording.count, whole, files, kept, review, source.damage, task.note)


def open_recording(request: TrackRequest, reader: VideoReader, task: Task) -> Recording[Any]:
    """Of the kind that suits."""
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
    """A writer for each format, into a folder; objects without names go by their numbers."""
    count = max(numbers, default=len(request.prompts.points))
    objects = marks.objects or [NamedObject(str(n)) for n in range(1, count + 1)]
    images = [path for _, path in frame_files(request.video)] if request.video.is_dir() else []
    name = as_text(request.video.name)
    video = AnnotatedVideo(name, reader.width, reader.height, objects, images)
    how = (request.out, video, request.tolerance, folder)
    return {name: open_writer(name, *how) for name in formats}
