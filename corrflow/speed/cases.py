"""What is benchmarked: attention, a training step, and a tracked frame, each in our implementation
and as released. Every builder makes random inputs from a fixed seed and returns the work."""

import torch

from corrflow.speed.attention_cases import attention_variants
from corrflow.speed.measure import Variant
from corrflow.speed.sizes import Sizes
from corrflow.speed.step_cases import encoder_variants, likelihood_variants, step_variants
from corrflow.speed.tracking_cases import inference_variants


def variants_of(work: str, sizes: Sizes, device: torch.device) -> list[Variant]:
    """The variants of a work: `attention`, `step` (also its encoder alone, and the likelihood of
    colours alone) or `inference`."""
    if work == "attention":
        return attention_variants(sizes, device)
    if work == "step":
        return [
            *step_variants(sizes, device),
            *encoder_variants(sizes, device),
            *likelihood_variants(sizes, device),
        ]
    return inference_variants(sizes, device)
