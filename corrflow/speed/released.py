"""The released formulation, for comparison of speed only: every hop encodes both of its frames,
correlates and unfolds.

It is written from a description of what the released code computes, and contains no line of that
code. A training step has 8 hops, so 16 encodings and 8 correlations. The correlation uses
`spatial-correlation-sampler` if that is installed, else a product for each shift. Exact zeros are
taken for padding, the softmax is over the 169 affinities, and the reference's colours are unfolded
into 169 copies, with border cells repeated.

Shapes: b batch, k colour classes, h w cells at stride 4, H W pixels, s shifts of the window.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention import reference
from corrflow.attention.backends import is_available
from corrflow.attention.window import Window
from corrflow.loss import color_loss
from corrflow.model import CorrFlow
from corrflow.palette import CLASSES

STRIDE = 4  # of the released encoder
PADDING = -1e10  # the logit of cells that are taken for padding


def copy(query_bchw: Tensor, key_bchw: Tensor, value_bkhw: Tensor, window: Window) -> Tensor:
    """The released attention: features `[B, C, H, W]` twice and values `[B, K, H, W]` to
    `[B, K, H, W]`."""
    dots_bshw = correlate(query_bchw, key_bchw, window)
    weights_bshw = dots_bshw.masked_fill(dots_bshw == 0, PADDING).softmax(dim=1)
    edged = F.pad(value_bkhw, (window.radius,) * 4, mode="replicate")
    unfolded_bkshw = F.unfold(edged, window.side).view(
        *value_bkhw.shape[:2], window.side**2, *value_bkhw.shape[2:]
    )
    return torch.einsum("bshw,bkshw->bkhw", weights_bshw, unfolded_bkshw)


def correlate(query_bchw: Tensor, key_bchw: Tensor, window: Window) -> Tensor:
    """Dot products `[B, S, H, W]`, zero outside of the image."""
    if not is_available("sampler"):
        return reference.correlate(query_bchw, key_bchw, window)
    from spatial_correlation_sampler import spatial_correlation_sample

    sampled: Tensor = spatial_correlation_sample(
        query_bchw.contiguous(), key_bchw.contiguous(), patch_size=window.side
    )
    return sampled.flatten(1, 2)


def correlation_name() -> str:
    """How the correlation is computed on this machine, for reports."""
    return (
        "sampler"
        if is_available("sampler")
        else "products by shift (spatial-correlation-sampler is not installed)"
    )


def hop(model: CorrFlow, source_b3hw: Tensor, target_b3hw: Tensor, colors_bkhw: Tensor) -> Tensor:
    """Encode both frames and copy the colours of one to the other, at stride 4."""
    reference_bchw, target_bchw = model.encode(source_b3hw), model.encode(target_b3hw)
    return copy(target_bchw, reference_bchw, colors_bkhw, Window(model.config.radius))


def losses(
    model: CorrFlow,
    frames_bt3hw: Tensor,
    classes_bthw: Tensor,
    truth: bool,
    cycle_weight: float = 0.1,
) -> Tensor:
    """The training loss of clips of three frames, scalar: two hops for the short loss, and cycles
    of two and four hops for the long loss."""
    frames, classes = frames_bt3hw.unbind(dim=1), classes_bthw.unbind(dim=1)
    first = hop(model, frames[0], frames[1], shrunk_labels(classes[0]))
    second = hop(
        model, frames[1], frames[2], shrunk_labels(classes[1]) if truth else carried(first)
    )
    short = color_loss(first, classes[1]) + color_loss(second, classes[2])
    long = torch.zeros_like(short)
    for path in ((0, 1, 0), (0, 1, 2, 1, 0)):
        colors = shrunk_labels(classes[0])
        for source, target in itertools.pairwise(path):
            copied = hop(model, frames[source], frames[target], colors)
            colors = carried(copied)
        long = long + color_loss(copied, classes[0])
    return short + cycle_weight * long


def track(model: CorrFlow, previous_13hw: Tensor, frame_13hw: Tensor, labels_1hw: Tensor) -> Tensor:
    """Track labels `[1, H, W]` from the previous frame of a video to the next."""
    copied = hop(model, previous_13hw, frame_13hw, shrunk_labels(labels_1hw))
    return enlarged(copied).argmax(dim=1)


def shrunk_labels(classes_bhw: Tensor) -> Tensor:
    """One class for each cell, one-hot `[B, K, H/4, W/4]`: the truncated mean of class indices (a
    defect of the released code, kept so that the cost is the same)."""
    middle_b1hw = F.interpolate(
        classes_bhw[:, None].float(), scale_factor=1 / STRIDE, mode="bilinear"
    ).long()
    return F.one_hot(middle_b1hw[:, 0], CLASSES).movedim(-1, 1).float()


def carried(copied_bkhw: Tensor) -> Tensor:
    """Upsample copies to pixels and downsample them again, as the next hop needs them."""
    return F.interpolate(enlarged(copied_bkhw), scale_factor=1 / STRIDE, mode="bilinear")


def enlarged(copied_bkhw: Tensor) -> Tensor:
    """Upsample from cells to pixels."""
    return F.interpolate(copied_bkhw, scale_factor=STRIDE, mode="bilinear", align_corners=False)
