"""Entry points of `torch.hub`: `torch.hub.load("OWNER/corrflow", "corrflow")`, or of a checkout
`torch.hub.load("path/to/it", "corrflow", source="local")`."""

import torch

from corrflow.model import CorrFlow
from corrflow.pretrained import load_model

dependencies = ["torch", "torchvision", "numpy", "PIL", "scipy", "safetensors"]


def corrflow(
    pretrained: bool = True,
    device: str | torch.device = "cpu",
    attention: str = "auto",
    name: str = "base",
) -> CorrFlow:
    """The model in eval mode.

    Args:
        pretrained: with a pretrained model's weights; else with random ones.
        device: where it goes.
        attention: backend of the attention, see `corrflow.restricted_attention`.
        name: of the pretrained model, `fast`, `base` or `large`.
    """
    if pretrained:
        return load_model(name, device, attention)
    return CorrFlow(attention=attention).to(device).eval()
