"""Adapt a trained model to one video: before tracking, train it further to copy colours on the
frames of that video alone, without labels.

Shapes: b clips per step, n clips of all steps, t frames per clip, h w pixels.
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

# the settings that the pretrained model was trained with (docs/model.md), except the learning rate
TARGET = TargetConfig(second_palette=str(LAB64), second_share=0.4, lightness=0.3)
LOSS = LossConfig(batch_frames=True)
TEACHER_FORCING = 0.9  # share of the steps whose second hop starts from true colours
BATCH, CLIP_FRAMES = 4, 3  # clips per step, and frames per clip
SIDE = 192  # of the crops, in pixels; less if the video is smaller
SHIFT = 16  # pixels by which the crop of each frame is shifted at most, in either direction
LEARNING_RATE = 1e-4


def adapt(
    model: CorrFlow,
    frames: Iterable[Tensor],
    steps: int,
    seed: int = 0,
    watch: Callable[[range], Iterable[int]] = iter,
) -> CorrFlow:
    """Train a copy of a model on a video by `steps` steps of Adam, each on four random clips.

    Args:
        model: any model that accepts frames of this video's size; it is not changed.
        frames: the frames of the video, RGB `[3, H, W]`, uint8 or floating in [0, 1]. They are read
            once, and 1.3 MB per step are kept in memory.
        steps: number of training steps.
        seed: seed of the choice of clips and of their augmentation.
        watch: wraps the iteration over the steps, for example in a progress bar.

    Returns:
        The adapted copy.

    Raises:
        InputError: fewer than three frames, or fewer than one step; frames that differ in size,
            hold values out of range or are smaller than the model's stride.
    """
    if steps < 1:
        raise InputError(f"adapt: {steps} steps: expected at least 1")
    clips_nt3hw = sample_clips(frames, steps * BATCH, model.stride, seed)
    with torch.inference_mode(False), torch.enable_grad():
        # BatchNorm keeps its statistics, because tracking is worse with the statistics of crops of
        # one video
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
    """Sample clips of consecutive frames, cropped, uniformly from the video; uint8
    `[N, T, 3, h, w]`.

    Each clip is sampled by reservoir sampling, so the video is read only once and its length need
    not be known.
    """
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
        seen = number + 2 - CLIP_FRAMES  # clips so far, with the one that ends with this frame
        if seen < 1:
            continue
        if seen == 1:
            height, width = (min(SIDE, side) // stride * stride for side in frame.shape[-2:])
            if not height or not width:
                raise InputError(
                    f"adapt: frames {list(frame.shape)}: expected sides of at least {stride} "
                    "pixels, the model's stride"
                )
            clips_nt3hw = torch.empty(count, CLIP_FRAMES, 3, height, width, dtype=torch.uint8)
        for chosen in (torch.rand(count, generator=generator) * seen < 1).nonzero()[:, 0].tolist():
            clips_nt3hw[chosen] = crop_clip(torch.stack([*recent]), (height, width), generator)
    if not len(clips_nt3hw):
        raise InputError(f"adapt: a video of {len(recent)} frames: expected at least {CLIP_FRAMES}")
    return clips_nt3hw


def crop_clip(frames_t3hw: Tensor, sides: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A random crop of the frames, shifted at random for each frame, and flipped with probability
    0.5."""
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
