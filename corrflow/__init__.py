"""corrflow learns correspondence from video without labels, and tracks with it.

`load_model`, `restricted_attention`, `propagate` and `metrics` are the public interface; see
README.md.
"""

from corrflow import metrics
from corrflow.attention import restricted_attention
from corrflow.encoders import Encoder, find_encoder
from corrflow.errors import InputError
from corrflow.model import CorrFlow, ModelConfig
from corrflow.pretrained import load_model
from corrflow.propagation import Protocol, propagate

__all__ = [
    "CorrFlow",
    "Encoder",
    "InputError",
    "ModelConfig",
    "Protocol",
    "find_encoder",
    "load_model",
    "metrics",
    "propagate",
    "restricted_attention",
]
