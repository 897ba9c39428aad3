"""Extracts features from frames of any size, with a model or any encoder.

Shapes: n frames, c channels, h w cells, H W pixels.
"""

import torch.nn.functional as F
from torch import Tensor

from corrflow.encoders import Encoder
from corrflow.frames import to_float
from corrflow.model import CorrFlow


def as_model(model: CorrFlow | Encoder) -> CorrFlow:
    """Wrap an encoder as a model, whose dot products are not scaled; a model is returned as it
    is."""
    return model if isinstance(model, CorrFlow) else CorrFlow(encoder=model).eval()


def extract_features(model: CorrFlow, frames_n3hw: Tensor) -> Tensor:
    """Features `[N, C, h, w]` of frames of any size, uint8 or floating in [0, 1]; h and w are
    rounded up. InputError if the encoder returns another size than it states."""
    rgb_n3hw = to_float(frames_n3hw.to(model.device)).to(model.dtype)
    padded_n3hw = pad_to_stride(rgb_n3hw, model.stride)
    was_training = model.training  # eval mode, so that BatchNorm's statistics do not change
    features = model.eval().encode(padded_n3hw)
    model.train(was_training)
    return features


def pad_to_stride(x_nchw: Tensor, stride: int) -> Tensor:
    """Pad by repeating the last row and column, until both sides are multiples of the stride."""
    height, width = x_nchw.shape[-2:]
    return F.pad(x_nchw, (0, -width % stride, 0, -height % stride), mode="replicate")
