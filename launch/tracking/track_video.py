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
from corrflow.adaptation import adapt
from corrflow.annotations import (
    AnnotatedVideo,
    AnnotationWriter,
    NamedObject,
    open_writer,
)
from corrflow.files import content_digest
from corrflow.model import weights_digest
from corrflow.propagation import find_protocol
from corrflow.scale import Scale
from corrflow.tracking.corrections import Sorted, sort_masks, sort_points
from corrflow.tracking.earlier import Earlier, read_earlier
from corrflow.tracking.made_from import MadeFrom
from corrflow.tracking.plan import (
    Given,
    marked_objects,
    marked_points,
    plan_correction,
    plan_tracking,
)
from corrflow.tracking.recording import (
    MaskRecording,
    PointRecording,
    Recorded,
    Recording,
    masks_folder,
)
from corrflow.tracking.staging import complete_publishing
from corrflow.tracking.tracker import (
    MaskTracker,
    PointTracker,
    Tracker,
    check_large_enough,
    check_reached,
)
from corrflow.tracking.video_writer import VideoFormat
from launch.common.run_config import held_result
from launch.tracking.prompts import Marked, VideoInfo, read_prompts
from launch.tracking.request import Outcome, Progress, StoppedError, TrackRequest
from launch.tracking.result_files import (
    check_formats,
    check_names,
    digests_in_place,
    disposable_files,
    earlier_formats,
    result_paths,
)
from shards.video.decode import frame_files
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


def track_video(order: TrackRequest, model: CorrFlow, watch: Progress) -> Outcome:
    """Track, and write film, tables and masks. Memory does not grow with the video.

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
    check_names(order)
    try:
        with held_result(order.out), open_video_reader(order.video) as footage:
            complete_publishing(order.out)
            return track_footage(order, model, footage, watch)
    except BrokenVideoError as error:
        raise InputError(f"video {order.video}: {error}") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"out {order.out}: {error.strerror}: expected room for it") from None


def track_footage(
    order: TrackRequest, model: CorrFlow, footage: VideoReader, watch: Progress
) -> Outcome:
    """Track a video that is opened; what is tracked beforehand reads it once more."""
    in_place = digests_in_place(order)
    stage = VideoInfo(footage.width, footage.height, footage.count, footage.names)
    marked = read_prompts(order.prompts, stage)
    check_formats(order, marked)
    task = prepare(order, model, footage, marked, in_place, watch)
    follower = task.follower
    with ExitStack() as opened:
        if follower.plan.has_backward_passes:
            with open_video_reader(order.video) as again:
                frames = Unbroken(picture.pixels for picture in again.frames)
                passes = follower.track_backward(frames, order.out.parent, watch.look)
                opened.enter_context(passes)
        if follower.earlier and follower.plan.spans:
            with open_video_reader(order.video) as again:
                shown = watch.look(again.frames, follower.plan.stop or again.count, "tracking")
                frames = Unbroken(picture.pixels for picture in shown)
                opened.enter_context(follower.track_ahead(frames, order.out.parent))
        return record(order, footage, task, watch)


@dataclass(frozen=True)
class Task:
    """All that is known before the first frame is written."""

    follower: Tracker[Any, Any, Any, Any]
    marked: Marked
    made_from: MadeFrom
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
    order: TrackRequest,
    model: CorrFlow,
    footage: VideoReader,
    marked: Marked,
    in_place: Mapping[str, str],
    watch: Progress,
) -> Task:
    """The follower of what is marked; if it was tracked before, of what is marked otherwise."""
    made_from, note = describe(order, model, marked), ""
    earlier = find_earlier(order, made_from)
    if earlier:
        marked, made_from, note = find_corrections(order, footage, marked, made_from, earlier)
    check_gone(marked, footage)
    if order.prompts.labels and 1 < NEARLY_ALL * footage.count <= len(made_from.given):
        why = "are not as they were tracked" if earlier else "correct no tracking that is there"
        note = (
            f"labels {order.prompts.labels}: mark {len(made_from.given)} of {footage.count} frames "
            f"of {order.out}, which stay as they are marked: they {why}"
        )
    found: Mapping[int, Any] = {}
    plan = plan_tracking(made_from.given, to_beginning=order.backward)
    if earlier and not order.overwrite and earlier.can_be_taken_over(made_from):
        found, old = earlier.found, earlier.made_from.given
        withdrawn = earlier.withdrawn(made_from.given)
        plan = plan_correction(
            old, made_from.given, to_beginning=order.backward, withdrawn=withdrawn
        )
    scale = Scale.of(footage.width, footage.height, order.size)
    if order.adapt and plan.spans and find_protocol(order.protocol).propagates:
        model = adapt_to_video(order, model, made_from, watch, scale)
    follower: Tracker[Any, Any, Any, Any]
    if marked.masks is None:
        points = marked.points or {}
        follower = PointTracker(model, scale, points, order.protocol, plan, found)
    else:
        check_large_enough(marked.masks, scale, footage.names.number)
        masks, gone = marked.masks, marked.gone
        follower = MaskTracker(model, scale, masks, order.protocol, plan, found, gone)
    is_renumbered = earlier is not None and earlier.is_renumbered

    def is_kept(place: int) -> bool:
        return place in found and not is_renumbered and not plan.is_tracked(place)

    formats = tuple(dict.fromkeys([*order.write, *earlier_formats(order, earlier)]))
    count = earlier.made_from.frames if earlier else 0
    return Task(follower, marked, made_from, is_kept, formats, in_place, count, note)


def adapt_to_video(
    order: TrackRequest, model: CorrFlow, made_from: MadeFrom, watch: Progress, scale: Scale
) -> CorrFlow:
    """The model, adapted to the video at the size at which it is tracked."""
    key = replace(made_from, objects={}, given={}, returned={}, edited={}).to_dict()
    if ADAPTED and ADAPTED[0][0] == key:
        return ADAPTED[0][1]
    ADAPTED.clear()
    with open_video_reader(order.video) as again:
        read = watch.look(again.frames, again.count, "choosing clips")
        frames = Unbroken(picture.pixels for picture in read)
        scaled = (torch.from_numpy(scale.frame(frame)).movedim(-1, 0) for frame in frames)
        shown = partial(watch.look, total=order.adapt, what="adapting", unit="steps")
        adapted = adapt(model, scaled, order.adapt, watch=shown)
    ADAPTED.append((key, adapted))
    return adapted


def describe(order: TrackRequest, model: CorrFlow, marked: Marked) -> MadeFrom:
    """What decides the tracks."""
    images = [path for _, path in frame_files(order.video)] if order.video.is_dir() else None
    return MadeFrom(
        video=content_digest(order.video, images),
        weights=weights_digest(model),
        protocol=order.protocol,
        size=order.size,
        to_beginning=order.backward,
        adapt=order.adapt,
        kind="points" if marked.masks is None else "objects",
        objects=dict(enumerate(marked.objects, 1)),
        given=digests_of(marked),
    )


def digests_of(marked: Marked) -> Given:
    """What is marked, in short."""
    if marked.masks is not None:
        return marked_objects(marked.masks, marked.gone)
    return marked_points(marked.points or {})


def find_earlier(order: TrackRequest, made_from: MadeFrom) -> Earlier[Any] | None:
    """What was tracked to the same files. If that is to be overwritten, without what was painted
    into it, and nothing of what does not fit together."""
    try:
        earlier = read_earlier(order.out, made_from)
        return replace(earlier, edited={}, painted={}) if earlier and order.overwrite else earlier
    except InputError:
        if order.overwrite:
            return None
        raise


def find_corrections(
    order: TrackRequest,
    footage: VideoReader,
    marked: Marked,
    made_from: MadeFrom,
    earlier: Earlier[Any],
) -> tuple[Marked, MadeFrom, str]:
    """What is marked, without what is as it was tracked, and with what was painted into the
    masks; and a word about what the user may not have meant."""
    found: Sorted[Any]
    if marked.masks is None:
        found = sort_points(marked.points or {}, earlier)
        corrections = replace(marked, points=found.marks)
    else:
        tolerance = order.tolerance if marked.has_polygons else None
        is_export, gone = marked.is_export, marked.gone
        found = sort_masks(marked.masks, gone, earlier, tolerance, is_export=is_export)
        corrections = replace(marked, masks=found.marks, gone=found.gone)
    given = digests_of(corrections)
    made_from = replace(made_from, given=given, returned=found.returned, edited=found.edited)
    folder, notes = masks_folder(order.out), list[str]()
    if found.overruled:
        frames = frames_in_words(footage, found.overruled)
        notes.append(f"{frames}: what is painted in {folder} goes before what is marked")
    if earlier.forgotten:
        frames = frames_in_words(footage, sorted(earlier.forgotten))
        notes.append(f"{frames}: what was painted in {folder} of objects that came no more is lost")
    return corrections, made_from, "; ".join(notes)


def frames_in_words(footage: VideoReader, places: Iterable[int]) -> str:
    """As a user calls them."""
    return "frames " + ", ".join(str(footage.names.number(place)) for place in places)


def check_gone(marked: Marked, footage: VideoReader) -> None:
    """InputError for an object that is to be gone in a frame in which it is marked."""
    for place, numbers in marked.gone.items():
        if marked.masks is None or place not in marked.masks:
            continue
        if both := numbers & set(np.unique(marked.masks[place]).tolist()):
            raise InputError(
                f"gone {footage.names.number(place)}={min(both)}: the object is marked in that "
                "frame: expected another one"
            )


def record(order: TrackRequest, footage: VideoReader, task: Task, watch: Progress) -> Outcome:
    """The forward pass, written as it goes; a correction is written to its end."""
    follower = task.follower
    what = "writing" if follower.earlier else "tracking"
    source = Unbroken(footage.frames)
    shown, seen = tee(source)
    results = follower.track(picture.pixels for picture in seen)
    with open_recording(order, footage, task) as recording:
        whole = True
        for picture, result in watch.show(
            zip(shown, results, strict=True), footage.count, what, "frames"
        ):
            recording.add(picture.pixels, picture.stamp, result)
            if watch.stopped() and not follower.earlier:
                whole = recording.count == footage.count
                if recording.count < task.earlier_count:
                    raise StoppedError
                break
        else:
            if source.damage and recording.count <= follower.first:
                raise BrokenVideoError(source.damage)
            if not source.damage:
                check_reached(follower.latest, recording.count)
        recording.finish(whole=whole and not source.damage)
    files = result_paths(order.out, task.annotations, masks=task.marked.masks is not None)
    review = tuple(
        (footage.names.number(place), confidence) for place, confidence in recording.to_review
    )
    kept = sum(not follower.plan.is_tracked(place) for place in follower.earlier)
    whole = whole and not source.damage
    return Outcome(recording.count, whole, files, kept, review, source.damage, task.note)


def open_recording(order: TrackRequest, footage: VideoReader, task: Task) -> Recording[Any]:
    """Of the kind that suits."""
    follower, marked = task.follower, task.marked
    reel = VideoFormat(footage.width, footage.height, footage.tick, footage.fps)
    sound = (footage.sound.stream, footage.sound.packets) if footage.sound else None
    numbers = list(follower.begins) if isinstance(follower, MaskTracker) else []
    about = Recorded(
        order.video.name,
        footage.names,
        {number: owner.name for number, owner in enumerate(marked.objects, 1)},
        partial(open_annotations, order, task.annotations, footage, marked, numbers),
        order.review,
        task.made_from.to_dict(),
        task.is_kept,
        task.in_place,
        disposable_files(order, task.in_place),
    )
    if isinstance(follower, MaskTracker):
        boxes = bool(order.prompts.box)
        return MaskRecording(order.out, reel, sound, about, numbers, boxes=boxes)
    return PointRecording(order.out, reel, sound, about)


def open_annotations(
    order: TrackRequest,
    formats: Iterable[str],
    footage: VideoReader,
    marked: Marked,
    numbers: list[int],
    folder: Path,
) -> dict[str, AnnotationWriter]:
    """A writer for each format, into a folder; objects without names go by their numbers."""
    count = max(numbers, default=len(order.prompts.points))
    objects = marked.objects or [NamedObject(str(n)) for n in range(1, count + 1)]
    images = [path for _, path in frame_files(order.video)] if order.video.is_dir() else []
    video = AnnotatedVideo(order.video.name, footage.width, footage.height, objects, images)
    how = (order.out, video, order.tolerance, folder)
    return {name: open_writer(name, *how) for name in formats}
