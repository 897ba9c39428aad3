"""A video's frames and labels in, labels of every frame out, one at a time: memory does not grow
with the video.

Shapes: b videos, t frames, c channels, k labels or points, h w cells, H W pixels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.errors import InputError
from corrflow.model import CorrFlow
from corrflow.propagation.backbone import Backbone, as_backbone
from corrflow.propagation.labels import Labels, MaskLabels, PointLabels, TrackedPoints
from corrflow.propagation.protocols import Protocol, find_protocol
from corrflow.propagation.references import Reference, References

Model = CorrFlow | Backbone | None
Frames = Iterable[Tensor] | Tensor
GivenMasks = Tensor | Mapping[int, Tensor]
GivenPoints = Tensor | Mapping[int, Tensor]
Output = TypeVar("Output")


def propagate(
    model: Model, frames: Frames, labels: GivenMasks, protocol: str | Protocol = "paper"
) -> Tensor:
    """Track labels through a video (paper, section 4.2).

    Args:
        model: from `load_model`, or any encoder as a `Backbone`; None will do for `identity`.
        frames: `[T, 3, H, W]`, or any iterable of `[3, H, W]`: uint8, or floating in [0, 1]. Any H
            and W.
        labels: whole numbers `[H, W]`, the first frame's: 0 for background, one number for each
            object, at most 255. Or such masks by frame number: the objects in a mask get its pixels
            there, others keep what was tracked.
        protocol: a name of `PROTOCOLS`, or one of your own.

    Returns:
        uint8 `[T, H, W]`: labels of every frame; as given where all is given, 0 before the first
        mask. `stream` yields them one at a time.

    Raises:
        InputError: sizes that differ, labels out of range, an unknown protocol, no frame at all.
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
    chosen, backbone = find_protocol(protocol), needed(model, protocol)
    if not videos or len(videos) != len(labels):
        raise InputError(
            f"{len(videos)} videos, labels of {len(labels)}: expected as many, at least 1"
        )
    given = [one if isinstance(one, Mapping) else {0: one} for one in labels]
    masks = [
        MaskLabels(one, backbone.stride, backbone.device, hard=chosen.argmax_each_frame)
        for one in given
    ]
    lanes = [
        Lane(iter(frames), mask, mask.size) for frames, mask in zip(videos, masks, strict=True)
    ]
    return track(backbone, lanes, chosen)


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
    chosen, backbone = find_protocol(protocol), needed(model, protocol)
    rest = map(torch.as_tensor, frames)
    if (first := next(rest, None)) is None:
        return
    size = int(first.shape[-2]), int(first.shape[-1])
    given = points if isinstance(points, Mapping) else {0: points}
    located = PointLabels(given, size, backbone.stride, backbone.device)
    for outputs in track(backbone, [Lane(chain_first(first, rest), located, size)], chosen):
        yield outputs[0]


@dataclass
class Lane:
    """One of the videos that are tracked in step."""

    frames: Iterator[Tensor]
    labels: Labels[Any]
    size: tuple[int, ...]


def needed(model: Model, protocol: str | Protocol) -> Backbone:
    """The encoder; one that encodes nothing where the protocol needs none."""
    if model is not None:
        return as_backbone(model)
    if find_protocol(protocol).propagates:
        raise InputError(f"protocol {find_protocol(protocol).name}: needs a model")
    return Backbone(lambda frames_n3hw: frames_n3hw, stride=1, name="none")


def chain_first(first: Tensor, rest: Iterable[Tensor]) -> Iterator[Tensor]:
    """All of them again."""
    yield first
    yield from rest


@torch.inference_mode()
def track(backbone: Backbone, lanes: list[Lane], protocol: Protocol) -> Iterator[dict[int, Any]]:
    """The loop that masks and points share; yields each frame's outputs by lane."""
    if len({(lane.size, tuple(sorted(lane.labels.given))) for lane in lanes}) > 1:
        raise InputError("videos in step: expected one size, and labels in the same frames")
    references, live = References(protocol, backbone), list(range(len(lanes)))
    given = lanes[0].labels.given
    for number in count():
        frames = {
            lane: frame for lane in live if (frame := next_frame(lanes[lane], number)) is not None
        }
        if (
            number
            and len(frames) < len(live)
            and (unused := sorted(frame for frame in given if frame >= number))
        ):
            raise InputError(
                f"labels or points of frame {unused[0]}: the video has {number} frames: expected 0 "
                f"to {number - 1}"
            )
        if not frames:
            return
        if len(frames) < len(live):
            references.select([row for row, lane in enumerate(live) if lane in frames])
            live = list(frames)
        if not protocol.propagates or number < min(given):
            yield {lane: lanes[lane].labels.decode(number, None) for lane in live}
            continue
        features_bchw = references.prepare(backbone.features(torch.stack(list(frames.values()))))
        copied_bkhw = references.copy(number, features_bchw)
        copied = [
            None if copied_bkhw is None else copied_bkhw[row, : lanes[lane].labels.channels]
            for row, lane in enumerate(live)
        ]
        outputs = {
            lane: lanes[lane].labels.decode(number, mine)
            for lane, mine in zip(live, copied, strict=True)
        }
        soft = [
            lanes[lane].labels.encode(number, None if protocol.argmax_each_frame else mine)
            for lane, mine in zip(live, copied, strict=True)
        ]
        marked = stacked([lanes[lane].labels.given_labels(number)[:, None, None] for lane in live])[
            :, :, 0, 0
        ]
        references.remember(number, Reference(features_bchw, stacked(soft), marked))
        if number in given and number > min(given):
            references.backfill_labels(number, exclusive=lanes[0].labels.exclusive)
        yield outputs


def next_frame(lane: Lane, number: int) -> Tensor | None:
    """`[3, H, W]`; None at the end. InputError for one of another size."""
    if (frame := next(lane.frames, None)) is None:
        return None
    frame = torch.as_tensor(frame)
    if frame.shape != (3, *lane.size):
        raise InputError(
            f"frame {number} is {list(frame.shape)}, expected {[3, *lane.size]}: the size of the "
            "labels"
        )
    return frame


def stacked(soft: list[Tensor]) -> Tensor:
    """`[B, K, h, w]`, K the most that a lane has; the others get empty labels."""
    most = max(len(soft_khw) for soft_khw in soft)
    return torch.stack(
        [F.pad(soft_khw, (0, 0, 0, 0, 0, most - len(soft_khw))) for soft_khw in soft]
    )
