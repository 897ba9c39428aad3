"""Whitening: gives features mean 0 and about the same variance in all directions.

Directions in which all cells vary strongly say little about which cell is which. Shapes: b videos,
c channels, h w cells, p cells of a frame.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 1e-12  # a variance, so that features of a frame of one colour are not divided by 0


class Whitening(NamedTuple):
    """The mean and the matrix that whiten the features of a video."""

    mean_bc1: Tensor
    matrix_bcc: Tensor
    """The inverse square root of their covariance, symmetric."""

    @classmethod
    def fit(cls, features_bchw: Tensor, floor: float) -> "Whitening":
        """Compute the whitening from the cells of these features; `floor` as in `inverse_sqrt`."""
        # in double precision, then rounded: the order of summation depends on the number of
        # threads, and must not change what is tracked
        cells_bcp = features_bchw.flatten(2).double()
        mean_bc1 = cells_bcp.mean(dim=2, keepdim=True)
        centred_bcp = cells_bcp - mean_bc1
        covariance_bcc = torch.bmm(centred_bcp, centred_bcp.mT) / cells_bcp.shape[2]
        matrix_bcc = inverse_sqrt(covariance_bcc, floor)
        return cls(mean_bc1.to(features_bchw.dtype), matrix_bcc.to(features_bchw.dtype))

    def apply(self, features_bchw: Tensor) -> Tensor:
        """Whiten features; the shape stays the same."""
        return torch.bmm(self.matrix_bcc, features_bchw.flatten(2) - self.mean_bc1).view_as(
            features_bchw
        )


def inverse_sqrt(covariance_bcc: Tensor, floor: float) -> Tensor:
    """The inverse square root of covariances `[..., C, C]`, symmetric.

    Args:
        covariance_bcc: in double precision.
        floor: this factor times the mean variance is added to the variance of each direction, so
            that noise is not amplified.
    """
    variances_bc, axes_bcc = torch.linalg.eigh(covariance_bcc)
    variances_bc = variances_bc + floor * variances_bc.mean(dim=-1, keepdim=True) + SMALLEST
    matrix_bcc: Tensor = axes_bcc * variances_bc.rsqrt()[..., None, :] @ axes_bcc.mT
    return matrix_bcc
