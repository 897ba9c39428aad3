"""Entry points of `torch.hub`: `torch.hub.load("OWNER/corrflow", "corrflow")`, or of a checkout
`torch.hub.load("path/to/it", "corrflow", source="local")`."""

import torch

from corrflow.model import CorrFlow, load_model

dependencies = ["torch", "torchvision", "numpy", "PIL", "scipy", "safetensors"]


def corrflow(
    pretrained: bool = True, device: str | torch.device = "cpu", attention: str = "auto"
) -> CorrFlow:
    """The model in eval mode.

    Args:
        pretrained: with the pretrained model's weights; else with random ones.
        device: where it goes.
        attention: backend of the attention, see `corrflow.restricted_attention`.
    """
    if pretrained:
        return load_model(None, device, attention)
    return CorrFlow(attention=attention).to(device).eval()
