"""How a step is computed: which attention, in what precision, compiled or not. Speed and rounding; what is learnt is decided elsewhere."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from corrflow.attention import choose_backend
from corrflow.attention.choice import has_compiler, is_installed
from corrflow.errors import InputError


class Compute(NamedTuple):
    """The choices, made."""

    attention: str
    precision: torch.dtype
    compiled: bool

    def __str__(self) -> str:
        encoder = "compiled encoder" if self.compiled else "encoder as it is"
        return f"{self.attention} attention, {str(self.precision).removeprefix('torch.')}, {encoder}"


@dataclass(frozen=True)
class ComputeConfig:
    """How a step is computed; may change when a run goes on."""

    attention: Literal["auto", "reference", "tiled", "triton", "sampler"] = "auto"
    """Backend of the attention; auto: triton on CUDA, tiled on the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the encoder's convolutions; auto: bfloat16 (autocast) on CUDA, float32 on the CPU, where bfloat16 is slower."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the encoder by torch.compile, for which a C++ compiler is needed; auto: on CUDA where there is one."""

    def choose(self, device: torch.device) -> Compute:
        """What `auto` stands for on `device`; InputError where a choice can't be had there."""
        cuda = device.type == "cuda"
        half = self.precision == "bfloat16" or (self.precision == "auto" and cuda)
        if self.compile == "yes" and not has_compiler():
            raise InputError("compute: compile yes: expected a C++ compiler and Python's headers (apt install g++ python3-dev)")
        compiled = self.compile == "yes" or (self.compile == "auto" and cuda and is_installed("triton") and has_compiler())
        return Compute(choose_backend(self.attention, device), torch.bfloat16 if half else torch.float32, compiled)
