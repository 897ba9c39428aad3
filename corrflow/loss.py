"""The losses of a training step: a weighted sum of named terms (paper, sections 3.1 to 3.4).

To add a term, add a function of a `PropagatedClip` to `TERMS`, and a field `NAME_weight` to
`LossConfig`. The log, TensorBoard and the progress bar then show it. How colours are copied is in
`recursion.py`.

Shapes: b clips, t frames of a clip, m targets, k colour classes of all targets, h w cells, H W
pixels.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from corrflow.errors import InputError, check_range
from corrflow.likelihood import likelihood
from corrflow.model import CorrFlow
from corrflow.palette import Target
from corrflow.recursion import backward_cycles, forward_hops

# keeps the log of a copied probability finite; the released code's value, so that the losses are
# exactly equal to it
EPSILON = 1e-8
DISTILLATION = "distillation"  # the term of `distillation.py`


@dataclass(frozen=True)
class LossConfig:
    """The weights of the losses (a loss of weight 0 is not computed), and how frames are
    encoded."""

    hop_weight: float = 1.0
    """Weight of the hop loss: each frame's colours copied from the frame before (paper, section
    3.3)."""
    cycle_weight: float = 0.1
    """Weight of the cycle loss: the first frame's colours after they were copied forward and back
    again (paper, section 3.4)."""
    batch_frames: bool = False
    """Encode all frames of the clips as one batch, which is faster and lets BatchNorm see all of
    them at once. Otherwise they are encoded frame by frame, as in the released code."""
    teacher: str = ""
    """Distillation: learn the features of this model (the name of a model that ships, or a
    checkpoint) instead of copying colours. The weights above are then ignored. Its input colour
    space must be the same, and its stride must divide the encoder's."""

    def __post_init__(self) -> None:
        check_range("loss", self, " ".join(f"{name}_weight" for name in TERMS), 0)
        if not any(self.weights.values()):
            raise InputError(f"loss: {self}: expected a weight above 0")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term, by its name."""
        settings = asdict(self)
        return {name: settings[f"{name}_weight"] for name in TERMS}

    @property
    def terms(self) -> list[str]:
        """The names of the terms that are computed."""
        if self.teacher:
            return [DISTILLATION]
        return [name for name, weight in self.weights.items() if weight]


class PropagatedClip(NamedTuple):
    """A batch of clips with their copied colours: the input of each term of the loss."""

    model: CorrFlow
    features: list[Tensor]
    """The features of each frame, `[B, C, h, w]`."""
    hops: list[Tensor]
    """Colours of frames 1 .. T-1, each `[B, K, h, w]`, copied by scheduled sampling."""
    copies: list[Tensor]
    """The same, but copied from the model's own copies alone."""
    classes_btmhw: Tensor
    """The true class of each pixel by each target, int64 `[B, T, M, H, W]`."""
    targets: tuple[Target, ...]
    """Palettes whose classes are predicted; empty for a single palette, of any size."""

    def loss_of(self, copied_bkhw: Tensor, frame: int) -> Tensor:
        """The loss of a frame's copied colours: the sum over targets, weighted by their shares;
        scalar."""
        classes_bmhw = self.classes_btmhw[:, frame]
        if not self.targets:
            return color_loss(copied_bkhw, classes_bmhw)
        sizes = [len(target.palette) for target in self.targets]
        losses = []
        for m, copy_bkhw in enumerate(torch.split(copied_bkhw, sizes, dim=1)):
            losses.append(self.targets[m].share * color_loss(copy_bkhw, classes_bmhw[:, m]))
        return torch.stack(losses).sum()


def hop_loss(clip: PropagatedClip) -> Tensor:
    """The loss of each frame's colours, copied from the frame before (section 3.3)."""
    losses = [clip.loss_of(hop_bkhw, t) for t, hop_bkhw in enumerate(clip.hops, 1)]
    return torch.stack(losses).sum()


def cycle_loss(clip: PropagatedClip) -> Tensor:
    """The loss of frame 0's colours after each cycle through the clip (section 3.4)."""
    cycles = backward_cycles(clip.model, clip.features, clip.copies)
    losses = [clip.loss_of(cycle_bkhw, 0) for cycle_bkhw in cycles]
    return torch.stack(losses).sum()


TERMS: dict[str, Callable[[PropagatedClip], Tensor]] = {"hop": hop_loss, "cycle": cycle_loss}


class Losses(NamedTuple):
    """The losses of a batch: scalars, averaged over pixels and clips."""

    total: Tensor
    terms: dict[str, Tensor]
    """The unweighted terms, by name."""


class CorrespondenceLoss(nn.Module):
    """The whole forward pass of a training step, so that DDP wraps a single call."""

    def __init__(
        self, model: CorrFlow, config: LossConfig, targets: tuple[Target, ...] = ()
    ) -> None:
        """`targets`: palettes whose classes are predicted; without them, there is a single palette,
        of any size, and classes have no axis of targets."""
        super().__init__()
        self.model = model
        self.weights = config.weights
        self.batch_frames = config.batch_frames
        self.targets = targets

    def forward(
        self,
        frames_bt3hw: Tensor,
        colors_btkhw: Tensor,
        classes_btmhw: Tensor,
        teacher_forced: tuple[bool, ...],
    ) -> Losses:
        """Compute the losses of a batch of clips.

        Args:
            frames_bt3hw: augmented, in the input's colour space (`color.to_input_space`),
                `[B, T, 3, H, W]`.
            colors_btkhw: shares of the true colour classes in each cell, concatenated over the
                targets, `[B, T, K, h, w]`.
            classes_btmhw: the true class of each pixel by each target, int64 `[B, T, M, H, W]`.
            teacher_forced: for each frame 1 .. T-2, whether the next hop starts from its true
                colours or from the model's own copy.
        """
        features = self.encode(frames_bt3hw)
        hops, copies = forward_hops(self.model, features, colors_btkhw, teacher_forced)
        clip = PropagatedClip(self.model, features, hops, copies, classes_btmhw, self.targets)
        terms = {name: TERMS[name](clip) for name, weight in self.weights.items() if weight}
        weighted = [self.weights[name] * term for name, term in terms.items()]
        return Losses(torch.stack(weighted).sum(), terms)

    def encode(self, frames_bt3hw: Tensor) -> list[Tensor]:
        """Features of each frame of the clips, `[B, C, h, w]`."""
        frames = frames_bt3hw.unbind(dim=1)
        if self.batch_frames:
            return list(self.model.encode_input(torch.cat(frames)).chunk(len(frames)))
        # one frame at a time, as released: BatchNorm then normalises over the frames at time t, not
        # over whole clips
        return [self.model.encode_input(frame) for frame in frames]


def color_loss(copied_bkhw: Tensor, classes_bhw: Tensor) -> Tensor:
    """Mean negative log likelihood of the true classes `[B, H, W]` under copies that are upsampled
    bilinearly to pixels (section 3.1)."""
    return -(likelihood(copied_bkhw, classes_bhw) + EPSILON).log().mean()
