"""Reads what a user marks (masks, points, boxes or a tool's labels) from flags and files, and
checks it against the video."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from corrflow import InputError
from corrflow.annotations import NamedObject, Shape, number_objects, paint, read_shapes
from corrflow.annotations.documents import files_in
from corrflow.annotations.polygons import box_ring
from corrflow.pictures import Pixels, read_mask
from corrflow.scale import Points
from corrflow.tracking.disk_buffer import CompressedMasks
from corrflow.tracking.plan import Gone
from launch.tracking.frame_numbers import (
    frame_number,
    image_name,
    is_name_of_video,
    length_of_video_name,
)
from shards.video.video_reader import FrameNames

KEYED = re.compile(r"^(?:(\d+)=)?(.+)$", re.DOTALL)
XY = re.compile(r"^(-?\d+(?:\.\d*)?),(-?\d+(?:\.\d*)?)$")
BOX = re.compile(r"^(-?\d+),(-?\d+),(-?\d+),(-?\d+)$")


@dataclass(frozen=True)
class Prompts:
    """One kind of marks, as given by flags: `VALUE`, or `FRAME=VALUE`."""

    mask: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    box: tuple[str, ...] = ()
    labels: Path | None = None
    start: int | None = None
    """The frame of marks that are given without one; None for the first frame."""
    gone: tuple[str, ...] = ()
    """Objects, by number or name, that are absent from a frame on, until they are marked again."""
    names: tuple[str, ...] = ()
    """Names of the objects or points, in the order of their numbers."""

    def __post_init__(self) -> None:
        kinds = [
            f"--{name}"
            for name, given in (
                ("labels", self.labels),
                ("mask", self.mask),
                ("points", self.points),
                ("box", self.box),
            )
            if given
        ]
        if len(kinds) != 1:
            raise InputError(
                f"track: {' and '.join(kinds) or 'nothing marked'}: expected one of --labels, "
                "--mask, --points, --box"
            )
        if self.gone and self.points:
            raise InputError("track: --gone and --points: expected objects, which masks mark")
        if self.names and self.labels:
            raise InputError("track: --names and --labels: expected one: labels have names")
        if not all(map(str.strip, self.names)):
            raise InputError("track: names: one is empty: expected a word for each object")
        if self.start is not None and self.start < 0:
            raise InputError(f"track: start {self.start}: expected a frame's number, from 0 on")


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a video that marks are checked against."""

    width: int
    height: int
    count: int
    """Number of frames."""
    names: FrameNames = field(default_factory=FrameNames)


@dataclass(frozen=True)
class Marks:
    """What is marked in a video: masks or points, never both. Frames have an index in
    the video, from 0; a frame's number is what the user calls it."""

    masks: CompressedMasks | None = None
    """Masks of object numbers, by frame index."""
    points: dict[int, Points] | None = None
    """Points by frame index, `[k, 2]`, with NaN for points that are marked in other frames."""
    objects: tuple[NamedObject, ...] = ()
    """Names of the objects or points, in the order of their numbers; empty if they have none."""
    is_export: bool = False
    """Whether marked frames may include results that a tool exported again without changes."""
    has_polygons: bool = False
    """Whether masks came as polygons, whose outlines never fit the pixels exactly."""
    gone: Gone = field(default_factory=dict)
    """Objects that are absent from a frame on, until they are marked again; by frame
    index."""


def read_prompts(prompts: Prompts, video_info: VideoInfo) -> Marks:
    """Read the marks that flags give; InputError for marks that do not fit the video."""
    if prompts.points:
        marks = Marks(points=read_points(prompts, video_info))
    elif prompts.labels:
        marks = read_annotations(prompts.labels, prompts.start, video_info)
    elif prompts.box:
        marks = Marks(masks=read_boxes(prompts, video_info))
    else:
        folders = any(Path(value).is_dir() for value in prompts.mask)
        marks = Marks(masks=read_masks(prompts, video_info), is_export=folders)
    if prompts.names:
        marks = replace(marks, objects=read_names(prompts.names, marks))
    return replace(marks, gone=read_gone(prompts, marks, video_info)) if prompts.gone else marks


def read_names(names: tuple[str, ...], marks: Marks) -> tuple[NamedObject, ...]:
    """The names of the objects 1, 2, ..., in this order; InputError unless there is one name for
    each."""
    numbers = marked_numbers(marks)
    if len(names) != len(numbers):
        counted = ", ".join(map(str, numbers))
        raise InputError(
            f"names {' '.join(names)}: {len(names)} names: expected one for each of what is "
            f"marked: {counted}"
        )
    called = dict(zip(numbers, names, strict=True))
    # the number distinguishes objects of the same name
    return tuple(NamedObject(called.get(n, str(n)), str(n)) for n in range(1, numbers[-1] + 1))


def marked_numbers(marks: Marks) -> list[int]:
    """The numbers of all marked objects or points, in order."""
    if marks.masks is None:
        xy_k2: Points = next(iter((marks.points or {}).values()))
        return list(range(1, len(xy_k2) + 1))
    return sorted(
        {n for labels_hw in marks.masks.values() for n in np.unique(labels_hw).tolist() if n}
    )


def read_gone(prompts: Prompts, marks: Marks, video_info: VideoInfo) -> Gone:
    """The numbers of absent objects by frame index; InputError for objects that are not
    marked in any frame."""
    if marks.masks is None:
        raise InputError("track: gone: the labels are points: expected objects, which have areas")
    numbers = marked_numbers(marks)
    gone: dict[int, set[int]] = {}
    for value in prompts.gone:
        frame, name = keyed(value, prompts.start)
        index = find_index(frame, video_info, f"gone {value}")
        called = [n for n, owner in enumerate(marks.objects, 1) if owner.name == name]
        found = called or [n for n in numbers if name == str(n)]
        if len(found) != 1:
            known = ", ".join(
                f"{n} ({marks.objects[n - 1].name})" if marks.objects else str(n)
                for n in called or numbers
            )
            what = f"several are called {name}: " if called else ""
            raise InputError(
                f"gone {value}: frame {video_info.names.number(index)}, object {name!r}: "
                f"{what}expected FRAME=OBJECT, by the number or name of one: {known}"
            )
        gone.setdefault(index, set()).add(found[0])
    return gone


def read_annotations(path: Path, start: int | None, video_info: VideoInfo) -> Marks:
    """Read the marks in a tool's labels."""
    where = f"labels {path}"
    shapes, objects = number_objects(read_shapes(path, video_info.width, video_info.height), where)
    by_index = shapes_by_frame(shapes, start, video_info, where)
    kinds = {shape.point is None for shape in shapes}
    if len(kinds) > 1:
        raise InputError(f"{where}: points and areas: expected one of them, the others removed")
    if kinds == {False}:
        points = {
            index: point_rows(found, objects, video_info, where)
            for index, found in by_index.items()
        }
        return Marks(points=points, objects=tuple(objects), is_export=True)
    masks = CompressedMasks(video_info.height, video_info.width)
    for index, found in by_index.items():
        masks[index] = paint(found, objects, video_info.height, video_info.width, where)
    has_polygons = any(shape.bitmap is None or shape.is_filled for shape in shapes)
    return Marks(masks, None, tuple(objects), is_export=True, has_polygons=has_polygons)


def shapes_by_frame(
    shapes: list[Shape], start: int | None, video_info: VideoInfo, where: str
) -> dict[int, list[Shape]]:
    """Group shapes by frame index; InputError if two images belong to one frame."""
    by_frame: dict[int | str, list[Shape]] = {}
    for shape in shapes:
        by_frame.setdefault(shape.frame, []).append(shape)
    check_named_alike([name for name in by_frame if isinstance(name, str)], video_info, where)
    by_index: dict[int, list[Shape]] = {}
    for frame, found in by_frame.items():
        if isinstance(frame, int):
            index = find_index(frame, replace(video_info, names=FrameNames()), where)
        else:
            what = f"{where}: image {frame!r}"
            index = index_by_name(frame, start, len(by_frame) == 1, video_info, what)
        if index in by_index:
            other = by_index[index][0].frame
            raise InputError(
                f"{where}: images {other!r} and {frame!r}: both of frame "
                f"{video_info.names.number(index)}: expected one for each frame"
            )
        by_index[index] = found
    return by_index


def check_named_alike(names: list[str], video_info: VideoInfo, where: str) -> None:
    """InputError if the names of some images begin with the video's name and others don't, because
    then the folder probably has frames of several videos."""
    video = video_info.names.video
    begins = {
        length_of_video_name(image_name(name), video) > 0: name
        for name in names
        if video_info.names.index_of(name) is None
    }
    if len(begins) > 1:
        raise InputError(
            f"{where}: image {begins[False]!r}: does not begin with the video's name, as "
            f"{begins[True]!r} does: expected those of one video"
        )


def index_by_name(
    name: str, start: int | None, alone: bool, video_info: VideoInfo, what: str
) -> int:
    """The index, from 0, of the frame that an image belongs to.

    Args:
        name: of the image, without suffix.
        start: frame of a single image, whatever its name; None if the name decides.
        alone: whether there is only this image. A single image belongs to the first frame if its
            name has no number, or is the video's name.
        video_info: the video.
        what: how error messages refer to the image.

    Raises:
        InputError: the video has no such frame, or the name of one of several images has no number.
    """
    if alone and start is not None:
        return find_index(start, video_info, what)
    names = video_info.names
    for called in (name, image_name(name)):
        if (index := names.index_of(called)) is not None:
            return index
    if alone and is_name_of_video(name, names.video):
        return 0
    number = frame_number(name, names.video)
    if number is None and not alone:
        raise InputError(
            f"{what}: no frame has this name: expected a name that ends in the frame's number, as "
            "frame_000012, and has no other number"
        )
    hint = " (--start N for another frame)" if alone else ""
    return find_index(number, video_info, f"{what}, by its name{hint}")


def point_rows(
    shapes: list[Shape], objects: list[NamedObject], video_info: VideoInfo, where: str
) -> Points:
    """One frame's points, a row for each object."""
    rows = np.full((len(objects), 2), np.nan, np.float32)
    for shape in shapes:
        x, y = shape.point or (np.nan, np.nan)
        if not (0 <= x <= video_info.width and 0 <= y <= video_info.height):
            raise InputError(
                f"{where}: frame {shape.frame}: {shape.object.name} at {x:g},{y:g}: is outside the "
                f"video of {video_info.width}x{video_info.height}"
            )
        row = objects.index(shape.object)
        if not np.isnan(rows[row]).any():
            raise InputError(
                f"{where}: frame {shape.frame}: {shape.object}: two points: expected one of each "
                "label and id"
            )
        # the origin is the first pixel's corner in tools, but its centre in tracking
        inside = np.clip((x - 0.5, y - 0.5), 0, (video_info.width - 1, video_info.height - 1))
        rows[row] = inside
    return rows


def read_masks(prompts: Prompts, video_info: VideoInfo) -> CompressedMasks:
    """Read masks by frame index; InputError if they do not fit the video."""
    masks = CompressedMasks(video_info.height, video_info.width)
    files, folders = mask_files(prompts), {Path(value) for value in prompts.mask}
    by_name = [path.stem for number, path in files if number is None]
    alone = len(by_name) == 1
    check_named_alike(by_name, video_info, "masks")
    for number, path in files:
        if number is None:
            index = index_by_name(path.stem, prompts.start, alone, video_info, f"mask {path}")
        else:
            index = find_index(number, video_info, f"mask {path}")
        if index in masks:
            taken = video_info.names.number(index)
            raise InputError(
                f"mask {path}: frame {taken} has a mask already: expected one for each frame"
            )
        labels_hw = fitting_mask(path, video_info)
        if labels_hw.any():
            masks[index] = labels_hw
        # a folder may have a mask for each frame, so some of them may be empty
        elif path.parent not in folders:
            raise InputError(f"mask {path}: is empty: expected objects marked 1, 2, ... or 255")
    if not masks:
        where = " ".join(prompts.mask)
        raise InputError(f"mask {where}: all are empty: expected objects marked 1, 2, ... or 255")
    return masks


def read_boxes(prompts: Prompts, video_info: VideoInfo) -> CompressedMasks:
    """Masks of boxes by frame index; InputError if a box does not fit the video."""
    by_index: dict[int, list[Shape]] = {}
    shapes = []
    for object_number, value in enumerate(prompts.box, 1):
        number, corners = keyed(value, prompts.start)
        index = find_index(number, video_info, f"box {corners}")
        ring = box_ring(*read_box(corners, video_info))
        owner = NamedObject(str(object_number), str(object_number))
        shapes.append(Shape(video_info.names.number(index), owner, rings=(ring,)))
        by_index.setdefault(index, []).append(shapes[-1])
    _, objects = number_objects(shapes, "box")
    masks = CompressedMasks(video_info.height, video_info.width)
    for index, found in by_index.items():
        masks[index] = paint(found, objects, video_info.height, video_info.width, "box")
    return masks


def read_points(prompts: Prompts, video_info: VideoInfo) -> dict[int, Points]:
    """Points by frame index, `[k, 2]`, with NaN for points that are marked in other frames;
    InputError if a point does not fit the video."""
    points: dict[int, Points] = {}
    for row, value in enumerate(prompts.points):
        number, xy = keyed(value, prompts.start)
        index = find_index(number, video_info, f"point {xy}")
        xy_k2 = points.setdefault(index, np.full((len(prompts.points), 2), np.nan, np.float32))
        xy_k2[row] = parse_point(xy, video_info)
    return points


def mask_paths(prompts: Prompts) -> list[Path]:
    """The mask files that are read."""
    return [path for _, path in mask_files(prompts)]


def mask_files(prompts: Prompts) -> list[tuple[int | None, Path]]:
    """Frame numbers and mask files; a number is None if the file's name decides."""
    files: list[tuple[int | None, Path]] = []
    for value in prompts.mask:
        path = Path(value)
        if path.is_dir():
            masks = files_in(path, ".png")
            if not masks:
                raise InputError(
                    f"mask {path}: no PNG there: expected masks named by frame number, as 00057.png"
                )
            files += [(None, file) for file in masks]
        else:
            number, name = keyed(value, None)
            files.append((number, Path(name)))
    return files


def keyed(value: str, start: int | None) -> tuple[int | None, str]:
    """Split `FRAME=VALUE`; without `FRAME=` the frame is `start`, or None for the first."""
    match = KEYED.match(value)
    if match is None:
        raise InputError("track: an empty value: expected a mask, a point x,y or a box x0,y0,x1,y1")
    return (start if match[1] is None else int(match[1])), match[2]


def find_index(number: int | None, video_info: VideoInfo, what: str) -> int:
    """The index, from 0, of the frame with this number, None for the first; InputError if there is
    none."""
    if number is None:
        return 0
    index = video_info.names.index(number)
    if index is None or not 0 <= index < video_info.count:
        first, last = video_info.names.number(0), video_info.names.number(video_info.count - 1)
        raise InputError(
            f"{what}: frame {number}: the video has {video_info.count} frames: expected {first} to "
            f"{last}"
        )
    return index


def fitting_mask(path: Path, video_info: VideoInfo) -> Pixels:
    """Read a mask; InputError unless it has the video's size."""
    labels_hw = read_mask(path)
    if labels_hw.shape != (video_info.height, video_info.width):
        size = f"{labels_hw.shape[1]}x{labels_hw.shape[0]}"
        expected = f"{video_info.width}x{video_info.height}"
        raise InputError(f"mask {path} is {size}, the video {expected}: expected the same size")
    return labels_hw


def parse_point(xy: str, video_info: VideoInfo) -> tuple[float, float]:
    """Parse `x,y`; InputError unless it is inside the frame."""
    match = XY.match(xy)
    if match is None:
        raise InputError(f"point {xy}: expected x,y in pixels, or FRAME=x,y")
    x, y = float(match[1]), float(match[2])
    if not (0 <= x <= video_info.width - 1 and 0 <= y <= video_info.height - 1):
        limits = f"x from 0 to {video_info.width - 1}, y from 0 to {video_info.height - 1}"
        raise InputError(
            f"point {xy}: is outside the video of {video_info.width}x{video_info.height}: "
            f"expected {limits}"
        )
    return x, y


def read_box(corners: str, video_info: VideoInfo) -> tuple[int, int, int, int]:
    """Parse `x0,y0,x1,y1`; InputError unless the box is inside the frame and at least one pixel
    wide and high."""
    match = BOX.match(corners)
    if match is None:
        raise InputError(
            f"box {corners}: expected x0,y0,x1,y1 in whole pixels, or FRAME=x0,y0,x1,y1"
        )
    x0, y0, x1, y1 = (int(part) for part in match.groups())
    if not (0 <= x0 < x1 <= video_info.width and 0 <= y0 < y1 <= video_info.height):
        raise InputError(
            f"box {corners}: expected 0 <= x0 < x1 <= {video_info.width} and 0 <= y0 < y1 <= "
            f"{video_info.height}, the video's size"
        )
    return x0, y0, x1, y1
