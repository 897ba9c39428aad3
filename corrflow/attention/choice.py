"""Which backend computes the attention: by device, by what is installed, or by name."""

import importlib
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from corrflow.attention import reference, sampler, tiled
from corrflow.attention.window import Window
from corrflow.errors import InputError

Attend = Callable[[Tensor, Tensor, Tensor, Window], Tensor]
BACKENDS = ("reference", "tiled", "triton", "sampler")
# what a backend imports, and how a user gets it
NEEDS = {
    "triton": ("triton", "pip install triton (a CUDA build of torch brings it)"),
    "sampler": (
        "spatial_correlation_sampler",
        "pip install --no-build-isolation spatial-correlation-sampler (needs the CUDA toolkit in CUDA_HOME, and torch up to 2.11)",
    ),
}


def choose_backend(asked: str, device: torch.device, dtype: torch.dtype = torch.float32, top_k: int = 0) -> str:
    """The backend that `asked` stands for: `auto` is triton on CUDA where it serves and can be compiled, else tiled.

    Raises:
        InputError: an unknown backend; one that is not installed, with the command that installs it; one that does not serve this
            device, dtype or top_k.
    """
    if asked == "auto":
        serves = device.type == "cuda" and dtype != torch.float64 and not top_k and is_installed("triton") and has_compiler()
        return "triton" if serves else "tiled"
    if asked not in BACKENDS:
        raise InputError(f"attention: backend {asked!r}: expected one of auto, {', '.join(BACKENDS)}")
    if not is_installed(asked):
        package, command = NEEDS[asked]
        raise InputError(f"attention: backend {asked}: {package} is not installed: {command}")
    if asked == "triton":
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            raise InputError(f"attention: backend triton: tensors on {device.type}: expected cuda, or TRITON_INTERPRET=1 for a test")
        if dtype == torch.float64 or top_k:
            raise InputError(f"attention: backend triton: {dtype}, top_k {top_k}: expected at most 32 bits and top_k 0; tiled serves both")
    return asked


@lru_cache
def is_installed(backend: str) -> bool:
    """Whether what the backend imports can be found."""
    return backend not in NEEDS or importlib.util.find_spec(NEEDS[backend][0]) is not None


@lru_cache
def has_compiler() -> bool:
    """Whether this machine can build what Triton and torch.compile generate: a C++ compiler and Python's headers."""
    found = any(shutil.which(os.environ.get(name, name)) for name in ("CC", "CXX", "g++", "clang++", "gcc", "clang"))
    return found and Path(sysconfig.get_path("include"), "Python.h").exists()


def find_attend(backend: str) -> Attend:
    """The function of a chosen backend."""
    if backend == "triton":
        attend: Attend = importlib.import_module("corrflow.attention.fused").attend  # compiles, and imports what may be absent
        return attend
    return in_float32({"reference": reference.attend, "tiled": tiled.attend, "sampler": sampler.attend}[backend])


def in_float32(attend: Attend) -> Attend:
    """`attend`, with half precision made wide before it."""

    def widened(query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
        wide = torch.promote_types(query.dtype, torch.float32)
        return attend(query.to(wide), key.to(wide), value.to(wide), window)

    return widened
