"""The exponential moving average (EMA) of the weights over recent clips, which is steadier than the
weights of a single step."""

import copy
import math

import torch

from corrflow.model import CorrFlow


class EMA:
    """A model in eval mode whose weights are an exponential moving average of another's over about
    `clips` clips."""

    def __init__(self, model: CorrFlow, clips: float) -> None:
        """Copy `model`; nothing is averaged yet, and the first update makes the EMA equal to the
        model."""
        self.clips = clips
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: CorrFlow, batch: int, seen: int) -> None:
        """Add the weights after a step on `batch` clips, when `seen` clips have been seen in total;
        does not wait for the device.

        The decay is exp(-batch / clips) per step, so that weights count by how many clips ago they
        were, at any batch size. The shares are divided by their sum so far, 1 - exp(-seen / clips),
        so that the initial random weights never count. BatchNorm's statistics are averaged in the
        same way, since each belongs to the weights of its step.
        """
        share = math.expm1(-batch / self.clips) / math.expm1(-seen / self.clips)
        ours, theirs = self.model.state_dict().values(), model.state_dict().values()
        pairs = list(zip(ours, theirs, strict=True))
        weights = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([a for a, _ in weights], [b for _, b in weights], share)
        # BatchNorm's counters of batches
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        if counts:
            torch._foreach_copy_([a for a, _ in counts], [b for _, b in counts])
