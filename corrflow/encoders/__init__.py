"""Encoders, which compute the features of frames: the paper's ResNet, networks of torchvision and
timm, or your own.

`encoder` is the interface, `resnet` the paper's encoder and its variants, `adapters` wraps networks
of torchvision and timm, and `registry` finds an encoder by its name. `corrflow.model` uses the
features.
"""

from corrflow.encoders.encoder import Encoder, EncoderConfig
from corrflow.encoders.registry import ExternalConfig, find_encoder
from corrflow.encoders.resnet import ResNet, ResNetConfig

__all__ = [
    "Encoder",
    "EncoderConfig",
    "ExternalConfig",
    "ResNet",
    "ResNetConfig",
    "find_encoder",
]
