"""The average of the weights over the clips that were seen last: steadier than the weights of any
one step."""

import copy
import math

import torch

from corrflow.model import CorrFlow


class EMA:
    """A model whose weights are an exponential average of another's, over about `clips` clips; in
    eval mode."""

    def __init__(self, model: CorrFlow, clips: float) -> None:
        """Nothing is averaged yet: the first update makes it equal to `model`."""
        self.clips = clips
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: CorrFlow, batch: int, seen: int) -> None:
        """Take in the weights after a step on `batch` clips, by which `seen` clips were seen in
        all; the device is not waited for.

        With a decay of exp(-batch / clips) a step, weights count by how many clips ago they were,
        whatever the batch. The shares are divided by their sum so far, 1 - exp(-seen / clips), so
        that the random weights of the start never count. BatchNorm's statistics are averaged alike:
        each is a mean over the last steps, and belongs to the weights of its time.
        """
        share = math.expm1(-batch / self.clips) / math.expm1(-seen / self.clips)
        ours, theirs = self.model.state_dict().values(), model.state_dict().values()
        pairs = list(zip(ours, theirs, strict=True))
        weights = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([a for a, _ in weights], [b for _, b in weights], share)
        # how many batches BatchNorm has seen
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        if counts:
            torch._foreach_copy_([a for a, _ in counts], [b for _, b in counts])
