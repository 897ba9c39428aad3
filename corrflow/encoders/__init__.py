"""Encoders: a frame to features. The paper's ResNet, torchvision's and timm's networks, or your
own.

`encoder` is the contract, `resnet` the paper's encoder and its variants, `adapters` torchvision and
timm, `registry` finds each by its name. What is done with the features is in `corrflow.model`.
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
