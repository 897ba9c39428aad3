"""Chooses the device by name and local rank, and tells what it supports."""

import importlib.util
import os
import shutil
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from corrflow.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]
AMPERE = (8, 0)  # the compute capability from which tensor cores take bfloat16 and tf32


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 several times as fast as float32: a recent GPU, or a CPU
    with AMX. Older versions of torch do not report AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("amx_bf16", False))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_triton(device: torch.device) -> bool:
    """Whether Triton can compile kernels for a device: a recent GPU."""
    return device.type == "cuda" and can_compile(device)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: a C++ compiler, and on CUDA also a recent GPU and
    Triton."""
    serves = device.type == "cpu" or (has_bfloat16(device) and is_installed("triton"))
    return serves and has_compiler()


@lru_cache
def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


@lru_cache
def has_compiler() -> bool:
    """Whether this machine has a C++ compiler and Python's headers, which Triton and torch.compile
    need to build the code that they generate."""
    has_command = any(
        shutil.which(os.environ.get(name, name))
        for name in ("CC", "CXX", "g++", "clang++", "gcc", "clang")
    )
    return has_command and Path(sysconfig.get_path("include"), "Python.h").exists()


def share_cores(processes: int) -> None:
    """Limit torch's threads to this process's share of the cores, which `processes` processes on
    this machine divide; a lower OMP_NUM_THREADS is kept."""
    cores = len(os.sched_getaffinity(0)) // processes
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores)))


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device for a name: `cpu`, `cuda`, or `auto`, which is CUDA if a GPU is found and else the
    CPU.

    Raises:
        InputError: an unknown name; `cuda` where there is no GPU; fewer GPUs than processes on this
            machine.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise InputError("device cuda: torch finds no CUDA device here: expected one, or cpu")
    if local_rank >= count:
        raise InputError(
            f"device cuda: {count} here, {local_rank + 1} or more processes: expected a device for "
            "each"
        )
    return torch.device("cuda", local_rank)
