"""corrflow: learn correspondence from video without labels, and track with it.

`load_model`, `restricted_attention`, `propagate` and `metrics` are the public interface; see
README.md.
"""

from corrflow import metrics
from corrflow.attention import restricted_attention
from corrflow.errors import InputError
from corrflow.model import CorrFlow, ModelConfig, load_model
from corrflow.propagation import Backbone, Protocol, propagate

__all__ = [
    "Backbone",
    "CorrFlow",
    "InputError",
    "ModelConfig",
    "Protocol",
    "load_model",
    "metrics",
    "propagate",
    "restricted_attention",
]
