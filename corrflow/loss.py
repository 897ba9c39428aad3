"""The recursion: colours copied along a clip and back, and the losses on them (paper, sections 3.3
and 3.4).

Each frame is encoded once, and the affinity of an ordered pair of frames is computed once: all
colours that travel between the same two frames travel together, stacked as channels.

Shapes: b clips, t frames of a clip, m targets, k colour classes of all of them, h w cells at stride
4, H W pixels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corrflow.encoder import STRIDE
from corrflow.errors import InputError
from corrflow.model import CorrFlow
from corrflow.palette import Target

# keeps the log of a copied probability finite; the released value, which the losses' exact equality
# needs
EPSILON = 1e-8


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    cycle_weight: float = 0.1
    """Weight of the cycles' loss beside the hops' (paper, section 3.4)."""
    batch_frames: bool = False
    """Encode all frames of the clips as one batch: faster, and BatchNorm sees them all at once;
    else frame by frame, as released."""

    def __post_init__(self) -> None:
        if self.cycle_weight < 0:
            raise InputError(f"objective: cycle_weight {self.cycle_weight}: expected at least 0")


class Losses(NamedTuple):
    """Scalars, mean over pixels and clips."""

    total: Tensor
    hop_loss: Tensor
    cycle_loss: Tensor


class CorrespondenceLoss(nn.Module):
    """One training step's forward pass, whole, so that DDP wraps a single call."""

    def __init__(
        self, model: CorrFlow, config: LossConfig, targets: tuple[Target, ...] = ()
    ) -> None:
        """`targets`: what is asked for; unless given, one palette, of any size, whose classes come
        without the axis of targets."""
        super().__init__()
        self.model = model
        self.config = config
        self.targets = targets

    def forward(
        self,
        frames_bt3hw: Tensor,
        colors_btkhw: Tensor,
        classes_btmhw: Tensor,
        teacher_forced: tuple[bool, ...],
    ) -> Losses:
        """The losses of a batch of clips.

        Args:
            frames_bt3hw: bottlenecked, as the encoder is shown them (`color.to_input_space`),
                `[B, T, 3, H, W]`.
            colors_btkhw: shares of the true colours in each cell, those of all targets one after
                the other, `[B, T, K, H/4, W/4]`.
            classes_btmhw: the true class of each pixel by each target, int64 `[B, T, M, H, W]`.
            truth: for each frame 1 .. T-2, whether the next hop starts from its true colours or
                from the model's own copy.
        """
        features = self.encode(frames_bt3hw)
        hops, copies = forward_hops(self.model, features, colors_btkhw, teacher_forced)
        short = torch.stack(
            [self.loss(hop, classes_btmhw[:, t]) for t, hop in enumerate(hops, 1)]
        ).sum()
        cycles = backward_cycles(self.model, features, copies)
        long = torch.stack([self.loss(cycle, classes_btmhw[:, 0]) for cycle in cycles]).sum()
        return Losses(short + self.config.cycle_weight * long, short, long)

    def loss(self, copied_bkhw: Tensor, classes_bmhw: Tensor) -> Tensor:
        """Those of the targets, each by its share; scalar."""
        if not self.targets:
            return color_loss(copied_bkhw, classes_bmhw)
        copies = torch.split(copied_bkhw, [len(target.palette) for target in self.targets], dim=1)
        weighed = [
            target.share * color_loss(copy, classes_bmhw[:, m])
            for m, (target, copy) in enumerate(zip(self.targets, copies, strict=True))
        ]
        return torch.stack(weighed).sum()

    def encode(self, frames_bt3hw: Tensor) -> list[Tensor]:
        """Features of each frame of the clips, `[B, C, h, w]`."""
        frames = frames_bt3hw.unbind(dim=1)
        if self.config.batch_frames:
            return list(self.model.encoder(torch.cat(frames)).chunk(len(frames)))
        # one frame at a time: BatchNorm's statistics are those of frames t, not of the clip (as
        # released)
        return [self.model.encoder(frame) for frame in frames]


def forward_hops(
    model: CorrFlow, features: list[Tensor], colors_btkhw: Tensor, teacher_forced: tuple[bool, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Copy colours 0 -> 1 -> ... -> T-1 twice: by scheduled sampling (section 3.3), and on the
    model's own copies alone.

    Returns:
        For frames 1 .. T-1, each `[B, K, h, w]`: the copies that scheduled sampling made, for their
        loss, and the model's own, as the next hop takes them.
    """
    own_bkhw = start_bkhw = colors_btkhw[:, 0]
    hops, copies = [], []
    for t in range(1, len(features)):
        if start_bkhw is own_bkhw:
            hop_bkhw = own_bkhw = model.propagate_values(features[t], features[t - 1], own_bkhw)
        else:
            both = model.propagate_values(
                features[t], features[t - 1], torch.cat([start_bkhw, own_bkhw], dim=1)
            )
            hop_bkhw, own_bkhw = both.chunk(2, dim=1)
        hops.append(hop_bkhw)
        start_bkhw, own_bkhw = next_references(hop_bkhw, own_bkhw)
        copies.append(own_bkhw)
        if t < len(features) - 1 and teacher_forced[t - 1]:
            start_bkhw = colors_btkhw[:, t]
    return hops, copies


def next_references(hop_bkhw: Tensor, own_bkhw: Tensor) -> tuple[Tensor, Tensor]:
    """Both kinds of copies, ready for the next hop; one tensor still where they are one."""
    own = smooth(own_bkhw)
    return (own if hop_bkhw is own_bkhw else smooth(hop_bkhw)), own


def backward_cycles(model: CorrFlow, features: list[Tensor], copies: list[Tensor]) -> list[Tensor]:
    """Copy each own copy back to frame 0, the way it came (section 3.4): one `[B, K, h, w]` for
    each turning point, longest first."""
    travelling: list[Tensor] = []
    for t in range(len(features) - 1, 0, -1):
        travelling.append(copies[t - 1])
        back = model.propagate_values(features[t - 1], features[t], torch.cat(travelling, dim=1))
        if t > 1:
            back = smooth(back)
        travelling = list(back.chunk(len(travelling), dim=1))
    return travelling


def smooth(copied_bkhw: Tensor) -> Tensor:
    """A copy as the next hop's reference: enlarged four times and shrunk again (released code;
    section 3.3 does not say).

    Enlarging bilinearly and taking the middle of each cell is a filter of [1, 14, 1] / 16 along
    either side, done here at stride 4.
    """
    edged = F.pad(copied_bkhw, (1, 1, 1, 1), mode="replicate")
    rows = edged[..., 1:-1, :] * 0.875 + (edged[..., :-2, :] + edged[..., 2:, :]) * 0.0625
    return rows[..., 1:-1] * 0.875 + (rows[..., :-2] + rows[..., 2:]) * 0.0625


def color_loss(copied_bkhw: Tensor, classes_bhw: Tensor) -> Tensor:
    """Negative log likelihood of the true classes `[B, H, W]` under copies at stride 4, enlarged
    bilinearly (section 3.1)."""
    enlarged = F.interpolate(copied_bkhw, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    likelihood_bhw = enlarged.gather(1, classes_bhw[:, None])
    return -(likelihood_bhw + EPSILON).log().mean()
