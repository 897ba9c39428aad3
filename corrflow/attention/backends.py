"""Chooses the backend that computes the attention: by device, by what is installed, or by name."""

import os
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from corrflow.attention import reference, sampler, tiled
from corrflow.attention.window import Window
from corrflow.device import has_triton, is_installed
from corrflow.errors import InputError

Attend = Callable[[Tensor, Tensor, Tensor, Window], Tensor]
Backend = Literal["reference", "tiled", "triton", "sampler"]
BackendName = Literal["auto", "reference", "tiled", "triton", "sampler"]
BACKENDS: tuple[str, ...] = get_args(Backend)
# the package that a backend imports, and how to install it
NEEDS = {
    "triton": ("triton", "pip install triton (a CUDA build of torch brings it)"),
    "sampler": (
        "spatial_correlation_sampler",
        "pip install --no-build-isolation spatial-correlation-sampler (0.5.0 needs the CUDA "
        "toolkit in CUDA_HOME, and torch up to 2.11)",
    ),
}
WIDEST = 512  # channels of features or values; more would overflow a multiprocessor's shared memory
LARGEST_TOP_K = 64  # the most similar cells are held in registers


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def choose_backend(
    name: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    top_k: int = 0,
    width: int = 0,
) -> str:
    """The backend that `name` stands for: `auto` is triton on CUDA if it supports the inputs and
    can be compiled, else tiled.

    Args:
        name: `auto` or one of `BACKENDS`.
        device: of the features.
        dtype: the widest of features and values.
        top_k: see `restricted_attention`.
        width: channels of features or of values, whichever is larger.

    Raises:
        InputError: an unknown backend; one that is not installed (the message has the command that
            installs it); one that does not support this device, dtype, top_k or width.
    """
    serves = dtype != torch.float64 and top_k <= LARGEST_TOP_K and width <= WIDEST
    if name == "auto":
        return "triton" if serves and has_triton(device) else "tiled"
    if name not in BACKENDS:
        raise InputError(
            f"attention: backend {name!r}: expected one of auto, {', '.join(BACKENDS)}"
        )
    if not is_available(name):
        package, command = NEEDS[name]
        raise InputError(f"attention: backend {name}: {package} is not installed: {command}")
    if name == "triton":
        if os.environ.get("TRITON_INTERPRET") != "1" and not has_triton(device):
            wanted = (
                "CUDA of compute capability 8.0, a C++ compiler and Python's headers, or "
                "TRITON_INTERPRET=1 for a test"
            )
            raise InputError(
                f"attention: backend triton: tensors on {device.type}: expected {wanted}"
            )
        if not serves:
            given = f"{dtype}, top_k {top_k}, {width} channels"
            raise InputError(
                f"attention: backend triton: {given}: expected at most 32 bits, top_k "
                f"{LARGEST_TOP_K} and {WIDEST} channels; tiled supports all"
            )
    return name


def is_available(backend: str) -> bool:
    """Whether what the backend imports is installed."""
    return backend not in NEEDS or is_installed(NEEDS[backend][0])


def find_attend(backend: str) -> Attend:
    """The function of a chosen backend."""
    if backend == "triton":
        from corrflow.attention import fused  # it imports packages that may be absent

        return fused.attend
    return in_float32(
        {"reference": reference.attend, "tiled": tiled.attend, "sampler": sampler.attend}[backend]
    )


def in_float32(attend: Attend) -> Attend:
    """Wrap `attend` to convert half precision to float32 first, except for the coarse-to-fine
    search, which does so itself."""

    def widened(query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
        if attend is tiled.attend and window.block > 1:
            return attend(query, key, value, window)
        wide = torch.promote_types(torch.promote_types(query.dtype, value.dtype), torch.float32)
        return attend(query.to(wide), key.to(wide), value.to(wide), window)

    return widened
