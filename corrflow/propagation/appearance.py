"""Models what each label looks like, wherever it is. Attention only compares cells near each other.

Shapes: b videos, c channels, d random features, k labels, p cells, h w cells.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = 512  # number of random features
SHARPNESS = 1.0  # of the Gaussian kernel that they approximate, for features of length 1
RIDGE = 1e-3  # times the mean square of the random features
# all tracked frames together weigh TRACKED times as much as a frame in which labels were given;
# each of them weighs DECAY times as much as the frame after it
TRACKED, DECAY = 4.0, 0.97
SPACING = 8  # pixels between the cells to learn from: closer ones take time and gain nothing
MIN_LIKENESS = 0.02  # smallest likeness of a label, so that a mistake can be corrected later


class Moments(NamedTuple):
    """The weighted sums that a ridge regression keeps of its data: of x x^T and of x y^T."""

    square_bdd: Tensor
    product_bdk: Tensor

    def plus(self, other: "Moments", weight: float) -> "Moments":
        """Add `weight` times the other moments."""
        return Moments(*(one + weight * more for one, more in zip(self, other, strict=True)))


class AppearanceModel:
    """Predicts from a cell's features how much it looks like each label.

    It is a ridge regression from random Fourier features (Rahimi & Recht, NeurIPS 2007) to labels,
    fitted in each frame to all frames before, for several videos in step. All labels of a frame
    have the same weight, however few cells they have.
    """

    def __init__(self, features_bchw: Tensor, labels: int, stride: int) -> None:
        """Start without data, for features of this shape, device and stride and a number of
        labels."""
        batch, channels = features_bchw.shape[:2]
        draw, device = torch.Generator().manual_seed(0), features_bchw.device
        directions_dc = SHARPNESS * torch.randn(FEATURES, channels, generator=draw)
        phases_d1 = 2 * math.pi * torch.rand(FEATURES, 1, generator=draw)
        self.directions_dc, self.phases_d1 = directions_dc.to(device), phases_d1.to(device)
        self.step = max(1, SPACING // stride)
        # in double precision, rounded at the end, so that the order of summation, which depends on
        # the threads, does not change the result
        sizes = (batch, FEATURES, FEATURES), (batch, FEATURES, labels)
        nothing = (torch.zeros(size, dtype=torch.float64, device=device) for size in sizes)
        self.given = self.tracked = Moments(*nothing)
        self.weight = 0.0  # sum of the weights of the tracked frames

    def random_features(self, features_bchw: Tensor) -> Tensor:
        """Random Fourier features `[B, D, P]`, whose dot products approximate a Gaussian kernel of
        the features, normalised to length 1."""
        features_bcp = F.normalize(features_bchw.flatten(2).float(), dim=1)
        return (self.directions_dc @ features_bcp).add_(self.phases_d1).cos_()

    def learn(self, features_bchw: Tensor, values_bkhw: Tensor, *, given: bool) -> None:
        """Learn from the features of a frame and the shares of its labels in each cell; `given`:
        some labels were given there, else all were tracked."""
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
        """How much each cell is like each label, `[B, K, h, w]` from `MIN_LIKENESS` to 1."""
        square_bdd, product_bdk = self.given.plus(self.tracked, TRACKED / max(self.weight, 1.0))
        mean_b11 = square_bdd.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
        ridge_bdd = RIDGE * mean_b11 * torch.eye(FEATURES, device=square_bdd.device)
        fitted_bdk = torch.linalg.solve(square_bdd + ridge_bdd, product_bdk).float()
        likeness_bkp: Tensor = fitted_bdk.mT @ self.random_features(features_bchw)
        return likeness_bkp.clamp(MIN_LIKENESS, 1).view(
            *product_bdk.shape[::2], *features_bchw.shape[-2:]
        )

    def reweight(self, copied_bkhw: Tensor, features_bchw: Tensor, strength: float) -> Tensor:
        """Multiply the copied shares of each cell by the likeness to the power of `strength`, and
        rescale them so that their sum stays the same."""
        weighed_bkhw = copied_bkhw * self.likeness(features_bchw).pow(strength)
        before_b1hw, after_b1hw = (x.sum(dim=1, keepdim=True) for x in (copied_bkhw, weighed_bkhw))
        scaled_bkhw: Tensor = weighed_bkhw * (before_b1hw / after_b1hw.clamp_min(1e-6))
        return scaled_bkhw

    def select(self, rows: list[int]) -> None:
        """Keep only these rows of the batch; the other videos have ended."""
        self.given, self.tracked = (
            Moments(*(one[rows] for one in seen)) for seen in (self.given, self.tracked)
        )
