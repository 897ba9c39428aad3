"""Adaptation to one video: before a trained model tracks it, it goes on learning to copy colours,
on the frames of that video alone. No label is looked at.

Shapes: b clips of a step, n clips of all steps, t frames of a clip, h w pixels.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from corrflow.augmentation import step_draws
from corrflow.errors import InputError
from corrflow.frames import check_frame, to_bytes
from corrflow.inputs import InputPipeline
from corrflow.loss import CorrespondenceLoss, LossConfig
from corrflow.model import CorrFlow
from corrflow.palette import LAB64, TargetConfig

# as the pretrained model was trained (docs/model.md), but for the rate
TARGET = TargetConfig(second_palette=str(LAB64), second_share=0.4, lightness=0.3)
LOSS = LossConfig(batch_frames=True)
TEACHER_FORCING = 0.9  # share of the steps that copy the true colours of the middle frame
BATCH, CLIP_FRAMES = 4, 3  # of a step, and of a clip
SIDE = 192  # of a clip's frames, in pixels, or less where the video has less
SHIFT = 16  # pixels by which the crop of each frame is moved
LEARNING_RATE = 1e-4


def adapt(
    model: CorrFlow,
    frames: Iterable[Tensor],
    steps: int,
    seed: int = 0,
    watch: Callable[[range], Iterable[int]] = iter,
) -> CorrFlow:
    """Let a copy of a model learn on a video, for as many steps of Adam on four random clips.

    Args:
        model: any that sees frames of this video's size; it stays as it is.
        frames: of the video, RGB `[3, H, W]`, uint8 or floating in [0, 1]; read once, and 1.3 MB a
            step are kept.
        steps: how many.
        seed: of the clips and of their augmentation.
        watch: passes the numbers of the steps through, and may show how far they are.

    Returns:
        The copy, to be used as the model.

    Raises:
        InputError: fewer than three frames, frames of several sizes, of other values or smaller
            than a cell, less than one step.
    """
    if steps < 1:
        raise InputError(f"adapt: {steps} steps: expected at least 1")
    clips_nt3hw = sample_clips(frames, steps * BATCH, model.stride, seed)
    with torch.inference_mode(False), torch.enable_grad():
        # BatchNorm keeps its statistics: by those of crops of one video the tracks get worse
        adapted = copy.deepcopy(model).eval().requires_grad_()
        pipeline = InputPipeline.of(adapted, TARGET)
        loss_of = CorrespondenceLoss(adapted, LOSS, pipeline.targets)
        optimizer = torch.optim.Adam(adapted.parameters(), lr=LEARNING_RATE)
        for step in watch(range(steps)):
            draws = step_draws(seed, step)
            clips_bt3hw = clips_nt3hw[BATCH * step : BATCH * (step + 1)]
            data = pipeline.prepare(clips_bt3hw, draws, model.device)
            forced = torch.rand(1, generator=draws("teacher_forcing")).item() < TEACHER_FORCING
            losses = loss_of(data.inputs_bt3hw, data.colors_btkhw, data.classes_btmhw, (forced,))
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
    return adapted.requires_grad_(False)


def sample_clips(frames: Iterable[Tensor], count: int, stride: int, seed: int) -> Tensor:
    """Crops of frames that follow one another, each clip from anywhere in the video; uint8 `[N, T,
    3, h, w]`. Each is drawn anew from the frames seen so far, so that the video is read once and
    its length need not be known (reservoir sampling)."""
    generator = torch.Generator().manual_seed(seed)
    recent: deque[Tensor] = deque(maxlen=CLIP_FRAMES)
    clips_nt3hw = torch.empty(0)
    for number, given in enumerate(frames):
        frame = check_frame(torch.as_tensor(given), f"adapt: frame {number}")
        expected = recent[0].shape if recent else frame.shape
        if frame.ndim != 3 or len(frame) != 3 or frame.shape != expected:
            raise InputError(
                f"adapt: frame {number} is {list(frame.shape)}: expected [3, H, W] of one size"
            )
        recent.append(to_bytes(frame))
        seen = number + 2 - CLIP_FRAMES  # clips that there have been, with the one that ends here
        if seen < 1:
            continue
        if seen == 1:
            height, width = (min(SIDE, side) // stride * stride for side in frame.shape[-2:])
            if not height or not width:
                raise InputError(
                    f"adapt: frames {list(frame.shape)}: expected {stride} pixels to a side at "
                    "least, the model's stride"
                )
            clips_nt3hw = torch.empty(count, CLIP_FRAMES, 3, height, width, dtype=torch.uint8)
        for chosen in (torch.rand(count, generator=generator) * seen < 1).nonzero()[:, 0].tolist():
            clips_nt3hw[chosen] = crop_clip(torch.stack([*recent]), (height, width), generator)
    if not len(clips_nt3hw):
        raise InputError(f"adapt: a video of {len(recent)} frames: expected at least {CLIP_FRAMES}")
    return clips_nt3hw


def crop_clip(frames_t3hw: Tensor, sides: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A random crop of the frames, moved for each of them, mirrored or not."""
    rooms = [whole - side for whole, side in zip(frames_t3hw.shape[-2:], sides, strict=True)]
    place_2 = torch.rand(2, generator=generator) * torch.tensor(rooms)
    moves_t2 = (torch.rand(CLIP_FRAMES, 2, generator=generator) * 2 - 1) * SHIFT
    corners_t2 = (place_2 + moves_t2).round().long().clamp_min(0).minimum(torch.tensor(rooms))
    clip_t3hw = torch.stack(
        [
            frame_3hw[:, top : top + sides[0], left : left + sides[1]]
            for frame_3hw, (top, left) in zip(frames_t3hw, corners_t2.tolist(), strict=True)
        ]
    )
    return clip_t3hw.flip(-1) if torch.rand((), generator=generator).item() < 0.5 else clip_t3hw
