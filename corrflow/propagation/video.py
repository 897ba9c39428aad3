"""Propagates labels through a video, frame by frame, in memory that does not grow with its length.

Shapes: b videos, t frames, c channels, k labels or points, h w cells, H W pixels.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from types import MappingProxyType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from corrflow.encoders import Encoder
from corrflow.errors import InputError
from corrflow.frames import check_frame
from corrflow.model import CorrFlow
from corrflow.propagation.features import as_model, extract_features
from corrflow.propagation.labels import (
    Copied,
    Labels,
    MaskLabels,
    PointLabels,
    TrackedMasks,
    TrackedPoints,
)
from corrflow.propagation.protocols import Protocol, find_protocol
from corrflow.propagation.references import Reference, References

Model = CorrFlow | Encoder | None
Frames = Iterable[Tensor] | Tensor
GivenMasks = Tensor | Mapping[int, Tensor]
GivenPoints = Tensor | Mapping[int, Tensor]
Output = TypeVar("Output")


def propagate(
    model: Model, frames: Frames, labels: GivenMasks, protocol: str | Protocol = "paper"
) -> Tensor:
    """Track labels through a video (paper, section 4.2).

    Args:
        model: from `load_model`, or any encoder alone; may be None for `identity`.
        frames: `[T, 3, H, W]`, or any iterable of `[3, H, W]`: uint8, or floating in [0, 1], of any
            size. Frames of fewer than 480 rows are tracked better if they are enlarged
            (docs/results.md).
        labels: mask of the first frame, integers `[H, W]`: 0 for background, and a number for each
            object, at most 255. Or a mapping from frame numbers to such masks: in its frame, the
            objects in a mask get its pixels, and others keep what was tracked.
        protocol: a name of `PROTOCOLS`, or a protocol of your own.

    Returns:
        uint8 `[T, H, W]`: labels of every frame, 0 before the first mask. `stream` yields them one
        at a time.

    Raises:
        InputError: frames of another size or with other values, labels out of range, an unknown
            protocol, no frame at all.
    """
    tracked = list(stream(model, frames, labels, protocol))
    if not tracked:
        raise InputError("propagate: no frames: expected at least one")
    return torch.stack(tracked)


def stream(
    model: Model, frames: Frames, labels: GivenMasks, protocol: str | Protocol = "paper"
) -> Iterator[Tensor]:
    """`propagate` frame by frame: yields uint8 `[H, W]` on the CPU, and keeps in memory only one
    frame and those that the protocol remembers."""
    for outputs in stream_together(model, [frames], [labels], protocol):
        yield outputs[0]


def stream_masks(
    model: Model,
    frames: Frames,
    labels: GivenMasks,
    protocol: str | Protocol = "paper",
    gone: Mapping[int, Collection[int]] = MappingProxyType({}),
) -> Iterator[TrackedMasks]:
    """`stream` with the confidence of each object in each frame.

    Args:
        model: as for `propagate`.
        frames: as for `propagate`.
        labels: as for `propagate`.
        protocol: as for `propagate`.
        gone: objects that are known to be absent, by frame number. Their absence is propagated from
            that frame like a label; other references may bring them back later.
    """
    chosen = find_protocol(protocol)
    tracker = model_for(model, chosen)
    lanes = mask_lanes(tracker, [frames], [labels], chosen, gone)
    for outputs in track(tracker, lanes, chosen, with_agreement=True):
        yield outputs[0]


def stream_together(
    model: Model,
    videos: Sequence[Frames],
    labels: Sequence[GivenMasks],
    protocol: str | Protocol = "paper",
) -> Iterator[dict[int, Tensor]]:
    """`stream` for several videos of one size in step, as a batch, to fill a GPU.

    Args:
        model: as for `propagate`.
        videos: the frames of each video; videos may differ in length.
        labels: the labels of each video, in the same frames of all videos.
        protocol: as for `propagate`.

    Yields:
        For each frame number, uint8 `[H, W]` by index of the video, for videos that have not ended.

    Raises:
        InputError: as for `propagate`; videos of different sizes, or with labels in different
            frames.
    """
    chosen = find_protocol(protocol)
    tracker = model_for(model, chosen)
    check_count(videos, labels)
    tracked = track(tracker, mask_lanes(tracker, videos, labels, chosen), chosen)
    return ({lane: masks.labels for lane, masks in outputs.items()} for outputs in tracked)


def check_count(videos: Sequence[Frames], given: Sequence[Any]) -> None:
    """Raise InputError unless there are videos, and as many labels as videos."""
    if not videos or len(videos) != len(given):
        raise InputError(
            f"{len(videos)} videos, labels for {len(given)}: expected labels for each, and at "
            "least 1 video"
        )


def mask_lanes(
    model: CorrFlow | None,
    videos: Sequence[Frames],
    labels: Sequence[GivenMasks],
    protocol: Protocol,
    gone: Mapping[int, Collection[int]] = MappingProxyType({}),
) -> dict[int, "Lane"]:
    """The lanes of videos whose masks are tracked in step, by index of the video."""
    stride, device = cells_of_model(model)
    lanes = {}
    for number, (frames, given) in enumerate(zip(videos, labels, strict=True)):
        by_frame = given if isinstance(given, Mapping) else {0: given}
        masks = MaskLabels(by_frame, stride, device, protocol, gone)
        lanes[number] = Lane(iter(frames), masks, masks.size)
    return lanes


def stream_points(
    model: Model, frames: Frames, points: GivenPoints, protocol: str | Protocol = "paper"
) -> Iterator[TrackedPoints]:
    """Track points through a video, frame by frame.

    Args:
        model: as for `propagate`.
        frames: as for `propagate`.
        points: x and y in pixels in the first frame, `[K, 2]`, where (0, 0) is the centre of the
            top left pixel. Or a mapping from frame numbers to such points, NaN for those that are
            not given there. A point may enter in a later frame, and be given again.
        protocol: as for `propagate`.

    Yields:
        For each frame the points' positions, visibility and confidence.

    Raises:
        InputError: points outside of the frame, frames that differ in size, an unknown protocol.
    """
    for outputs in stream_points_together(model, [frames], [points], protocol):
        yield outputs[0]


def stream_points_together(
    model: Model,
    videos: Sequence[Frames],
    points: Sequence[GivenPoints],
    protocol: str | Protocol = "paper",
) -> Iterator[dict[int, TrackedPoints]]:
    """`stream_points` for several videos of one size in step, as `stream_together` for masks.

    Args:
        model: as for `propagate`.
        videos: the frames of each video; videos may differ in length or be empty.
        points: the points of each video, in the same frames of all videos; videos may differ in the
            number of points.
        protocol: as for `propagate`.

    Yields:
        For each frame number, the points by index of the video, for videos that have not ended.

    Raises:
        InputError: as for `stream_points`; videos of different sizes, or with points in different
            frames.
    """
    chosen = find_protocol(protocol)
    tracker = model_for(model, chosen)
    check_count(videos, points)
    lanes = {}
    for number, (frames, given) in enumerate(zip(videos, points, strict=True)):
        rest = map(torch.as_tensor, frames)
        if (first := next(rest, None)) is None:
            continue
        size = int(first.shape[-2]), int(first.shape[-1])
        by_frame = given if isinstance(given, Mapping) else {0: given}
        located = PointLabels(by_frame, size, *cells_of_model(tracker))
        lanes[number] = Lane(chain([first], rest), located, size)
    if lanes:
        yield from track(tracker, lanes, chosen)


@dataclass
class Lane:
    """One of the videos that are tracked in step."""

    frames: Iterator[Tensor]
    labels: Labels[Any]
    size: tuple[int, ...]


def model_for(model: Model, protocol: Protocol) -> CorrFlow | None:
    """The model, or None if the protocol needs none; InputError if it needs one and has none."""
    if not protocol.propagates:
        return None
    if model is None:
        raise InputError(f"protocol {protocol.name}: needs a model")
    return as_model(model)


def cells_of_model(model: CorrFlow | None) -> tuple[int, torch.device]:
    """The stride of a model's cells, and its device; without a model each pixel is a cell."""
    return (model.stride, model.device) if model else (1, torch.device("cpu"))


@torch.inference_mode()
def track(
    model: CorrFlow | None,
    lanes: dict[int, Lane],
    protocol: Protocol,
    *,
    with_agreement: bool = False,
) -> Iterator[dict[int, Any]]:
    """Track masks or points, and yield the outputs of each frame by lane. With `with_agreement` the
    confidence includes the agreement with the given frames, which takes a little time."""
    first, *_ = lanes.values()
    given = first.labels.given
    for lane in lanes.values():
        if lane.size != first.size or lane.labels.given != given:
            raise InputError(
                "videos in step: expected the same size, and labels in the same frames"
            )
    settings = protocol.for_frames(first.size)
    if not first.labels.exclusive:
        settings = replace(settings, appearance=0.0)
    references = References(settings, model, with_agreement=with_agreement) if model else None
    live = list(lanes)
    for number in count():
        frames = read_frames(lanes, live, number)
        if number and len(frames) < len(live):
            check_labels_used(given, number)
        if not frames:
            return
        if len(frames) < len(live):
            if references:
                references.select([row for row, lane in enumerate(live) if lane in frames])
            live = list(frames)
        labels = {lane: lanes[lane].labels for lane in live}
        if references is None or number < min(given):
            yield {lane: one.decode(number, None, frames[lane]) for lane, one in labels.items()}
        else:
            frames_b3hw = torch.stack(list(frames.values()))
            yield track_frame(references, labels, number, frames_b3hw)


def track_frame(
    references: References, labels: dict[int, Labels[Any]], number: int, frames_b3hw: Tensor
) -> dict[int, Any]:
    """Propagate labels from the references to one frame of each lane, and remember the frame."""
    features_bchw = references.prepare(extract_features(references.model, frames_b3hw))
    copied_bkhw = references.copy(number, features_bchw)
    agreement_bk = references.agreement(features_bchw, copied_bkhw)
    outputs, soft, given = {}, [], []
    for row, (lane, one) in enumerate(labels.items()):
        copied_khw = None if copied_bkhw is None else copied_bkhw[row, : one.channels]
        agreement_k = None if agreement_bk is None else agreement_bk[row, : one.channels]
        copied = None if copied_khw is None else Copied(copied_khw, agreement_k)
        outputs[lane] = one.decode(number, copied, frames_b3hw[row])
        soft.append(remembered(one, number, copied_khw, references.protocol.hardening))
        given.append(one.given_labels(number))
    given_bk = pad_sequence(given, batch_first=True)
    references.remember(number, Reference(features_bchw, stack_padded(soft), given_bk))
    first, *_ = labels.values()
    if number in first.given and number > min(first.given):
        references.backfill_labels(number, exclusive=first.exclusive)
    return outputs


def remembered(
    labels: Labels[Any], number: int, copied_khw: Tensor | None, hardening: float
) -> Tensor:
    """What the next frames copy from a frame, `[K, h, w]`: the decision, the shares, or a mean of
    both."""
    if copied_khw is None or hardening == 1:
        return labels.encode(number, None)
    shares_khw = labels.encode(number, copied_khw)
    return shares_khw.lerp(labels.encode(number, None), hardening) if hardening else shares_khw


def read_frames(lanes: dict[int, Lane], live: list[int], number: int) -> dict[int, Tensor]:
    """Read the next frame `[3, H, W]` of each lane that has one; InputError if its size differs."""
    frames = {}
    for lane in live:
        if (frame := next(lanes[lane].frames, None)) is None:
            continue
        frame = torch.as_tensor(frame)
        expected = (3, *lanes[lane].size)
        if frame.shape != expected:
            raise InputError(
                f"frame {number} is {list(frame.shape)}, expected {list(expected)}: the size of "
                "the labels"
            )
        frames[lane] = check_frame(frame, f"frame {number}")
    return frames


def check_labels_used(given: set[int], length: int) -> None:
    """Raise InputError if something is given in a frame beyond the length of the video."""
    unused = [frame for frame in sorted(given) if frame >= length]
    if unused:
        raise InputError(
            f"labels or points of frame {unused[0]}: the video has {length} frames: expected 0 to "
            f"{length - 1}"
        )


def stack_padded(soft: list[Tensor]) -> Tensor:
    """Stack the soft labels of the lanes to `[B, K, h, w]`, padded with empty labels to the largest
    K."""
    most = max(len(soft_khw) for soft_khw in soft)
    return torch.stack(
        [F.pad(soft_khw, (0, 0, 0, 0, 0, most - len(soft_khw))) for soft_khw in soft]
    )
