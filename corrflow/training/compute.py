"""How a step is computed: attention backend, precision, compilation. This affects speed and
rounding only, not what is learnt."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from corrflow.attention import choose_backend
from corrflow.attention.backends import BackendName
from corrflow.device import Precision, can_compile, has_bfloat16
from corrflow.errors import InputError


class Compute(NamedTuple):
    """The choices for one device, with `auto` resolved."""

    attention: str
    precision: torch.dtype
    compiled: bool
    winograd: bool

    def __str__(self) -> str:
        precision = str(self.precision).removeprefix("torch.")
        convolution = ", Winograd convolution" if self.winograd else ""
        compiled = ", compiled" if self.compiled else ""
        return f"{self.attention} attention, {precision}{convolution}{compiled}"


@dataclass(frozen=True)
class ComputeConfig:
    """How a step is computed; may change when a run is resumed."""

    attention: BackendName = "auto"
    """Attention backend; auto is triton on CUDA and tiled on the CPU."""
    precision: Precision = "auto"
    """Precision of the encoder's convolutions; auto is bfloat16 (autocast) on CUDA devices of
    compute capability 8.0 or later, else float32."""
    compile: Literal["yes", "no"] = "no"
    """Compile encoder, recursion and losses together by torch.compile. This needs a C++ compiler,
    and takes a minute or more for each pattern of teacher forcing in a clip."""
    convolution: Literal["auto", "direct", "winograd"] = "auto"
    """How 3x3 convolutions with many channels are computed; auto is Winograd convolution on the CPU
    in float32, where it is nearly twice as fast, else direct convolution."""

    def choose(self, device: torch.device) -> Compute:
        """Resolve `auto` for `device`; InputError if a choice is not supported there."""
        on_cuda = device.type == "cuda"
        half = self.precision == "bfloat16" or (
            self.precision == "auto" and on_cuda and has_bfloat16(device)
        )
        if self.compile == "yes" and not can_compile(device):
            wanted = (
                "a C++ compiler and Python's headers (apt install g++ python3-dev); on CUDA, "
                "compute capability 8.0 and triton"
            )
            raise InputError(f"compute: compile yes on {device.type}: expected {wanted}")
        compiled = self.compile == "yes"
        plain = not half and not compiled and device.type == "cpu"
        if self.convolution == "winograd" and not plain:
            given = (
                f"{'bfloat16' if half else 'float32'}, {'compiled' if compiled else 'not compiled'}"
            )
            raise InputError(
                f"compute: convolution winograd on {device.type}, {given}: expected cpu, float32, "
                "not compiled"
            )
        winograd = plain and self.convolution != "direct"
        return Compute(
            choose_backend(self.attention, device),
            torch.bfloat16 if half else torch.float32,
            compiled,
            winograd,
        )
