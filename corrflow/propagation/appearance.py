"""What labels look like: the pointer knows where a cell was, and this what it is.

Shapes: b videos, c channels, d random features, k labels, p cells, h w cells.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = 512  # random ones
SHARPNESS = 1.0  # of the Gaussian kernel that they stand for, of features of length 1
RIDGE = 1e-3  # of the mean square of the random features
# all tracked frames together count so many times as one in which labels were given, and each of
# them a little less than the one after it
TRACKED, DECAY = 4.0, 0.97
SPACING = 8  # pixels between the cells that are learnt from; closer ones add time and no more
LEAST = 0.02  # likeness of a label, lest one mistake be for ever


class Moments(NamedTuple):
    """All that a ridge regression keeps of what it has seen."""

    square_bdd: Tensor
    product_bdk: Tensor

    def plus(self, other: "Moments", weight: float) -> "Moments":
        """These, and `weight` times the others."""
        return Moments(*(one + weight * more for one, more in zip(self, other, strict=True)))


class AppearanceModel:
    """What each label looks like, wherever it is: a ridge regression from random Fourier features
    (Rahimi & Recht, NeurIPS 2007) to labels, fitted anew in each frame to all frames before; of
    several videos in step. The labels of a frame count alike, however few cells they have."""

    def __init__(self, features_bchw: Tensor, labels: int, stride: int) -> None:
        """One that has seen nothing, for features of this kind and so many labels."""
        batch, channels = features_bchw.shape[:2]
        draw, device = torch.Generator().manual_seed(0), features_bchw.device
        directions_dc = SHARPNESS * torch.randn(FEATURES, channels, generator=draw)
        phases_d1 = 2 * math.pi * torch.rand(FEATURES, 1, generator=draw)
        self.directions_dc, self.phases_d1 = directions_dc.to(device), phases_d1.to(device)
        self.step = max(1, SPACING // stride)
        # in double precision, which is rounded in the end: the order of a sum, which threads
        # decide, must not be seen in what is tracked
        sizes = (batch, FEATURES, FEATURES), (batch, FEATURES, labels)
        nothing = (torch.zeros(size, dtype=torch.float64, device=device) for size in sizes)
        self.given = self.tracked = Moments(*nothing)
        self.weight = 0.0  # of the tracked frames, added up

    def random_features(self, features_bchw: Tensor) -> Tensor:
        """`[B, D, P]`, whose dot products are nearly a Gaussian kernel of the features, brought to
        length 1."""
        features_bcp = F.normalize(features_bchw.flatten(2).float(), dim=1)
        return (self.directions_dc @ features_bcp).add_(self.phases_d1).cos_()

    def learn(self, features_bchw: Tensor, values_bkhw: Tensor, *, given: bool) -> None:
        """Learn from a frame's features and its labels' shares of each cell, whether some were
        given there or all were tracked."""
        step = self.step
        x_bdp = self.random_features(features_bchw[..., ::step, ::step]).double()
        y_bkp = values_bkhw[..., ::step, ::step].flatten(2).double()
        totals_bk1 = y_bkp.sum(dim=2, keepdim=True).clamp_min(1e-6)
        weights_b1p = (y_bkp / totals_bk1).sum(dim=1, keepdim=True)
        weighted_bdp = x_bdp * (weights_b1p / weights_b1p.sum(dim=2, keepdim=True))
        seen = Moments(weighted_bdp @ x_bdp.mT, weighted_bdp @ y_bkp.mT)
        if given:
            self.given = seen.plus(self.given, 1.0)
        else:
            self.tracked = seen.plus(self.tracked, DECAY)
            self.weight = 1 + DECAY * self.weight

    def likeness(self, features_bchw: Tensor) -> Tensor:
        """How much each cell is like each label, `[B, K, h, w]` from `LEAST` to 1."""
        square_bdd, product_bdk = self.given.plus(self.tracked, TRACKED / max(self.weight, 1.0))
        mean_b11 = square_bdd.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
        ridge_bdd = RIDGE * mean_b11 * torch.eye(FEATURES, device=square_bdd.device)
        fitted_bdk = torch.linalg.solve(square_bdd + ridge_bdd, product_bdk).float()
        likeness_bkp: Tensor = fitted_bdk.mT @ self.random_features(features_bchw)
        return likeness_bkp.clamp(LEAST, 1).view(*product_bdk.shape[::2], *features_bchw.shape[-2:])

    def weigh(self, copied_bkhw: Tensor, features_bchw: Tensor, strength: float) -> Tensor:
        """Copied shares of each cell, each times its likeness to the power of `strength`; what they
        add up to stays."""
        weighed_bkhw = copied_bkhw * self.likeness(features_bchw).pow(strength)
        before_b1hw, after_b1hw = (x.sum(dim=1, keepdim=True) for x in (copied_bkhw, weighed_bkhw))
        scaled_bkhw: Tensor = weighed_bkhw * (before_b1hw / after_b1hw.clamp_min(1e-6))
        return scaled_bkhw

    def select(self, rows: list[int]) -> None:
        """Go on with these of the videos; the others have ended."""
        self.given, self.tracked = (
            Moments(*(one[rows] for one in seen)) for seen in (self.given, self.tracked)
        )
