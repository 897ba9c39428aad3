"""A video tracked from what was marked, to files: what the command and the page both do. The marks'
syntax is in `prompts.py`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import tee
from pathlib import Path
from typing import Any, Generic, TypeVar

from corrflow import CorrFlow, InputError
from corrflow.annotations import (
    AnnotatedVideo,
    AnnotationWriter,
    NamedObject,
    find_writer,
    open_writer,
)
from corrflow.files import content_digest
from corrflow.model import weights_digest
from corrflow.scale import Scale
from corrflow.tracking.corrections import correcting_masks, correcting_points
from corrflow.tracking.disk_buffer import CompressedMasks
from corrflow.tracking.earlier import MadeFrom, read_earlier
from corrflow.tracking.plan import (
    Given,
    marked_objects,
    marked_points,
    plan_correction,
    plan_tracking,
    share_marks,
)
from corrflow.tracking.recording import (
    MaskRecording,
    PointRecording,
    Recorded,
    Recording,
    masks_folder,
)
from corrflow.tracking.tracker import MaskTracker, PointTracker, Tracker, check_reached
from corrflow.tracking.video_writer import VideoFormat
from launch.tracking.prompts import Marked, Prompts, VideoInfo, mask_paths, read_prompts
from shards.video.decode import frame_files
from shards.video.video_reader import BrokenVideoError, VideoReader, open_video_reader

Item = TypeVar("Item")


@dataclass(frozen=True)
class TrackRequest:
    """What is to be tracked, and how."""

    video: Path
    prompts: Prompts
    out: Path
    backward: bool
    size: int
    """Short side at which to track, in pixels."""
    protocol: str
    write: tuple[str, ...] = ()
    """Formats of annotations to write besides."""
    tolerance: float = 1.0
    """How far the lines of their polygons may be moved to be simpler, in pixels."""
    review: int = 5
    """How many frames to name that a person should look at first."""
    overwrite: bool = False
    """Track all frames, even those that an earlier tracking to the same files can give."""


@dataclass(frozen=True)
class Progress:
    """Who looks on."""

    show: Callable[[Iterable[Any], int, str], Iterable[Any]]
    """Passes things through, of which there will be so many, and shows how far they are."""
    stopped: Callable[[], bool]
    """Asked after each frame; True ends the tracking there."""

    def look(self, things: Iterable[Item], total: int, what: str) -> Iterator[Item]:
        """Things, shown as they pass; StoppedError between two of them."""
        for thing in self.show(things, total, what):
            yield thing
            if self.stopped():
                raise StoppedError


class StoppedError(Exception):
    """Somebody asked for the end."""


@dataclass(frozen=True)
class Outcome:
    """What has been written."""

    frames: int
    whole: bool
    """Whether that is all of the video."""
    files: tuple[Path, ...]
    """Files and folders."""
    kept: int = 0
    """Frames that are as an earlier tracking had them."""
    review: tuple[tuple[int, float], ...] = ()
    """Frames by number that a person should look at first, and how sure they are."""
    damage: str = ""
    """Why it can't be read any further, if that is why it ended."""

    def review_line(self) -> str:
        """The frames to look at, in words; empty if there are none."""
        frames = ", ".join(f"{number} ({confidence:.2f})" for number, confidence in self.review)
        return f"look first at the frames of least confidence: {frames}" if frames else ""


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
    tracked up to there.

    Raises:
        InputError: something given is wrong, or the video is damaged before anything is marked;
            nothing is left then but masks of the frames before.
        StoppedError: before the first frame was written; what an earlier tracking left is there.
    """
    check_names(order)
    try:
        with ExitStack() as opened:
            footage = opened.enter_context(open_video_reader(order.video))
            stage = VideoInfo(footage.width, footage.height, footage.count, footage.names)
            marked = read_prompts(order.prompts, stage)
            check_formats(order, marked)
            follower, made_from = prepare(order, model, footage, marked)
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
            return record(order, footage, follower, marked, made_from, watch)
    except BrokenVideoError as error:
        raise InputError(f"video {order.video}: {error}") from None


def check_names(order: TrackRequest) -> None:
    """InputError for results that would overwrite what is read."""
    if order.out.suffix.lower() != ".mp4":
        raise InputError(f"out {order.out}: expected a name that ends in .mp4")
    masks = masks_folder(order.out).resolve()
    if order.video.resolve() in (order.out.resolve(), masks):
        raise InputError(
            f"out {order.out}: would overwrite the video itself: expected another name"
        )
    for name in order.write:
        path, labels = find_writer(name).path_of(order.out).resolve(), order.prompts.labels
        if labels and path in (labels.resolve(), *labels.resolve().parents):
            raise InputError(
                f"out {order.out}: would overwrite labels {labels}: expected another name"
            )
    if given := next(
        (path for path in mask_paths(order.prompts) if path.resolve().parent == masks), None
    ):
        raise InputError(f"out {order.out}: would overwrite mask {given}: expected another name")


def check_formats(order: TrackRequest, marked: Marked) -> None:
    """InputError, before anything is tracked, for a format that can't hold what is marked or lacks
    a library."""
    for name in order.write:
        if marked.masks is not None:
            find_writer(name).check_installed()
        if marked.points and not find_writer(name).has_points:
            raise InputError(f"write {name}: the format has no points: expected another one")


def describe(order: TrackRequest, model: CorrFlow, marked: Marked) -> MadeFrom:
    """What decides the tracks."""
    given = digests_of(marked)
    numbers = sorted({number for marks in given.values() for number in marks})
    called = {number: owner.name for number, owner in enumerate(marked.objects, 1)}
    return MadeFrom(
        video=content_digest(order.video),
        weights=weights_digest(model),
        protocol=order.protocol,
        size=order.size,
        to_beginning=order.backward,
        kind="points" if marked.masks is None else "objects",
        names={number: called.get(number, str(number)) for number in numbers},
        given=given,
    )


def digests_of(marked: Marked) -> Given:
    """What is marked, in short."""
    if marked.masks is not None:
        return marked_objects(marked.masks)
    return marked_points(marked.points or {})


def prepare(
    order: TrackRequest, model: CorrFlow, footage: VideoReader, marked: Marked
) -> tuple[Tracker[Any, Any, Any], MadeFrom]:
    """The follower of what is marked, or of what is marked otherwise than before."""
    made_from = describe(order, model, marked)
    plan = plan_tracking(made_from.given, to_beginning=order.backward)
    found = None if order.overwrite else read_earlier(order.out, footage.names, made_from)
    earlier: Mapping[int, Any] = {}
    if found:
        before, results = found
        corrections = find_corrections(marked, before, results, order.tolerance)
        given = digests_of(corrections)
        if share_marks(before.given, given):
            marked, earlier, made_from = corrections, results, replace(made_from, given=given)
            plan = plan_correction(before.given, given, to_beginning=order.backward)
    scale = Scale.of(footage.width, footage.height, order.size)
    if marked.masks is not None:
        masks = MaskTracker(model, scale, marked.masks, order.protocol, plan, earlier)
        return masks, made_from
    points = PointTracker(model, scale, marked.points or {}, order.protocol, plan, earlier)
    return points, made_from


def find_corrections(
    marked: Marked, before: MadeFrom, earlier: Mapping[int, Any], tolerance: float
) -> Marked:
    """What is marked, without what is as it was tracked."""
    if marked.masks is None:
        points = correcting_points(marked.points or {}, before.given, earlier)
        return replace(marked, points=points)
    masks = CompressedMasks(*marked.masks.shape)
    for place, labels_hw in correcting_masks(marked.masks, before.given, earlier, tolerance):
        masks[place] = labels_hw
    return replace(marked, masks=masks)


def record(
    order: TrackRequest,
    footage: VideoReader,
    follower: Tracker[Any, Any, Any],
    marked: Marked,
    made_from: MadeFrom,
    watch: Progress,
) -> Outcome:
    """The forward pass, written as it goes; a correction is written to its end."""
    what = "writing" if follower.earlier else "tracking"
    source = Unbroken(footage.frames)
    shown, seen = tee(source)
    results = follower.track(picture.pixels for picture in seen)
    with open_recording(order, footage, follower, marked, made_from) as recording:
        whole = True
        for picture, result in watch.show(zip(shown, results, strict=True), footage.count, what):
            recording.add(picture.pixels, picture.stamp, result)
            if watch.stopped() and not follower.earlier:
                whole = recording.count == footage.count
                break
        else:
            if source.damage and recording.count <= follower.first:
                raise BrokenVideoError(source.damage)
            if not source.damage:
                check_reached(follower.latest, recording.count)
        recording.finish(whole=whole and not source.damage)
    files = written_files(order, masks=marked.masks is not None)
    review = tuple(
        (footage.names.number(place), confidence) for place, confidence in recording.to_review
    )
    kept = sum(not follower.plan.is_tracked(place) for place in follower.earlier)
    return Outcome(recording.count, whole and not source.damage, files, kept, review, source.damage)


def open_recording(
    order: TrackRequest,
    footage: VideoReader,
    follower: Tracker[Any, Any, Any],
    marked: Marked,
    made_from: MadeFrom,
) -> Recording[Any]:
    """Of the kind that suits."""
    reel = VideoFormat(footage.width, footage.height, footage.tick, footage.fps)
    sound = (footage.sound.stream, footage.sound.packets) if footage.sound else None
    numbers = list(follower.begins) if isinstance(follower, MaskTracker) else []
    about = Recorded(
        order.video.name,
        footage.names,
        {number: owner.name for number, owner in enumerate(marked.objects, 1)},
        open_annotations(order, footage, marked, numbers),
        order.review,
        made_from.to_dict(),
        lambda place: place in follower.earlier and not follower.plan.is_tracked(place),
    )
    if isinstance(follower, MaskTracker):
        boxes = bool(order.prompts.box)
        return MaskRecording(order.out, reel, sound, about, numbers, boxes=boxes)
    return PointRecording(order.out, reel, sound, about)


def open_annotations(
    order: TrackRequest, footage: VideoReader, marked: Marked, numbers: list[int]
) -> list[AnnotationWriter]:
    """A writer for each format; objects without names are called by their numbers."""
    count = max(numbers, default=len(order.prompts.points))
    objects = marked.objects or [NamedObject(str(n)) for n in range(1, count + 1)]
    images = [path for _, path in frame_files(order.video)] if order.video.is_dir() else []
    video = AnnotatedVideo(order.video.name, footage.width, footage.height, objects, images)
    return [open_writer(name, order.out, video, order.tolerance) for name in order.write]


def written_files(order: TrackRequest, *, masks: bool) -> tuple[Path, ...]:
    """The files and folders that a finished order leaves."""
    tables = [order.out.with_suffix(".csv"), order.out.with_suffix(".json")]
    folders = [masks_folder(order.out)] if masks else []
    annotations = [find_writer(name).path_of(order.out) for name in order.write]
    return (order.out, *tables, *folders, *annotations)
