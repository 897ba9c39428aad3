"""A video's frames and labels in, labels of every frame out, one at a time: memory does not grow
with the video.

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
        model: from `load_model`, or any encoder alone; None will do for `identity`.
        frames: `[T, 3, H, W]`, or any iterable of `[3, H, W]`: uint8, or floating in [0, 1]. Any H
            and W; with fewer than 480 rows more is found in them enlarged (docs/results.md).
        labels: whole numbers `[H, W]`, the first frame's: 0 for background, one number for each
            object, at most 255. Or such masks by frame number: the objects in a mask get its pixels
            there, others keep what was tracked.
        protocol: a name of `PROTOCOLS`, or one of your own.

    Returns:
        uint8 `[T, H, W]`: labels of every frame; as given where all is given, 0 before the first
        mask. `stream` yields them one at a time.

    Raises:
        InputError: frames of another size or of other values, labels out of range, an unknown
            protocol, no frame at all.
    """
    tracked = list(stream(model, frames, labels, protocol))
    if not tracked:
        raise InputError("propagate: no frames: expected at least one")
    return torch.stack(tracked)


def stream(
    model: Model, frames: Frames, labels: GivenMasks, protocol: str | Protocol = "paper"
) -> Iterator[Tensor]:
    """`propagate`, frame by frame: yields uint8 `[H, W]` on the CPU; holds one frame and those that
    the protocol remembers."""
    for outputs in stream_together(model, [frames], [labels], protocol):
        yield outputs[0]


def stream_masks(
    model: Model,
    frames: Frames,
    labels: GivenMasks,
    protocol: str | Protocol = "paper",
    gone: Mapping[int, Collection[int]] = MappingProxyType({}),
) -> Iterator[TrackedMasks]:
    """`stream`, with how sure the copy is of each object in each frame.

    Args:
        model: as `propagate` takes it.
        frames: as `propagate` takes them.
        labels: as `propagate` takes them.
        protocol: as `propagate` takes it.
        gone: by frame number, the objects that are known to be nowhere in that frame. They are
            copied from it as such; whether they come again later is for the other references.
    """
    chosen = find_protocol(protocol)
    tracker = model_for(model, chosen)
    lanes = mask_lanes(tracker, [frames], [labels], chosen, gone)
    for outputs in track(tracker, lanes, chosen, compares=True):
        yield outputs[0]


def stream_together(
    model: Model,
    videos: Sequence[Frames],
    labels: Sequence[GivenMasks],
    protocol: str | Protocol = "paper",
) -> Iterator[dict[int, Tensor]]:
    """Several videos of one size in step, each frame of all of them encoded and compared at once:
    for a GPU that one would not fill.

    Args:
        model: as `propagate` takes it.
        videos: frames of each; they may end at different times.
        labels: of each, given in the same frames of all videos.
        protocol: as `propagate` takes it.

    Yields:
        For each frame number, uint8 `[H, W]` by the number of the video, of those that have not
        ended.

    Raises:
        InputError: as `propagate`; videos of several sizes, or with labels in different frames.
    """
    chosen = find_protocol(protocol)
    tracker = model_for(model, chosen)
    check_count(videos, labels)
    tracked = track(tracker, mask_lanes(tracker, videos, labels, chosen), chosen)
    return ({lane: masks.labels for lane, masks in outputs.items()} for outputs in tracked)


def check_count(videos: Sequence[Frames], given: Sequence[Any]) -> None:
    """InputError unless something is given for each of some videos."""
    if not videos or len(videos) != len(given):
        raise InputError(
            f"{len(videos)} videos, labels of {len(given)}: expected as many, at least 1"
        )


def mask_lanes(
    model: CorrFlow | None,
    videos: Sequence[Frames],
    labels: Sequence[GivenMasks],
    protocol: Protocol,
    gone: Mapping[int, Collection[int]] = MappingProxyType({}),
) -> dict[int, "Lane"]:
    """Videos whose masks are tracked in step, by number."""
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
        model: as `propagate` takes it.
        frames: as `propagate` takes them.
        points: x and y in pixels in the first frame, `[K, 2]`, (0, 0) the middle of the top left
            pixel; or such by frame number, NaN for points that are not given there. A point may
            enter late, and be given anew.
        protocol: as `propagate` takes it.

    Yields:
        For each frame the points' places, and whether they are seen.

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
    """`stream_points` of several videos of one size in step, as `stream_together` does for masks.

    Args:
        model: as `propagate` takes it.
        videos: frames of each; they may end at different times, or have none.
        points: of each, as many as it has, given in the same frames of all videos.
        protocol: as `propagate` takes it.

    Yields:
        For each frame number, by the number of the video, of those that have not ended, its points.

    Raises:
        InputError: as `stream_points`; videos of several sizes, or with points in different frames.
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
    """The model, where the protocol needs one; InputError if there is none."""
    if not protocol.propagates:
        return None
    if model is None:
        raise InputError(f"protocol {protocol.name}: needs a model")
    return as_model(model)


def cells_of_model(model: CorrFlow | None) -> tuple[int, torch.device]:
    """The stride of a model's cells, and where they are; without a model each pixel is a cell."""
    return (model.stride, model.device) if model else (1, torch.device("cpu"))


@torch.inference_mode()
def track(
    model: CorrFlow | None,
    lanes: dict[int, Lane],
    protocol: Protocol,
    *,
    compares: bool = False,
) -> Iterator[dict[int, Any]]:
    """The loop that masks and points share; yields each frame's outputs by lane. `compares`: with
    the given frames, which is for those who look at confidence, and takes a little time."""
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
    references = References(settings, model, compares=compares) if model else None
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
    """Propagate labels from the references to one frame of each lane, and remember that."""
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
    """What the next frames copy of a frame: decisions, shares, or some of each; `[K, h, w]`."""
    if copied_khw is None or hardening == 1:
        return labels.encode(number, None)
    shares_khw = labels.encode(number, copied_khw)
    return shares_khw.lerp(labels.encode(number, None), hardening) if hardening else shares_khw


def read_frames(lanes: dict[int, Lane], live: list[int], number: int) -> dict[int, Tensor]:
    """The next frame `[3, H, W]` of each lane that has one; InputError for one of another size."""
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
    """InputError if something is given in a frame that a video of this length does not have."""
    unused = [frame for frame in sorted(given) if frame >= length]
    if unused:
        raise InputError(
            f"labels or points of frame {unused[0]}: the video has {length} frames: expected 0 to "
            f"{length - 1}"
        )


def stack_padded(soft: list[Tensor]) -> Tensor:
    """`[B, K, h, w]`, K the most labels that a lane has; the others get empty ones."""
    most = max(len(soft_khw) for soft_khw in soft)
    return torch.stack(
        [F.pad(soft_khw, (0, 0, 0, 0, 0, most - len(soft_khw))) for soft_khw in soft]
    )
