"""Which device computes: by name, and of several GPUs by the number of the process."""

from typing import Literal

import torch

from corrflow.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]
AMPERE = (8, 0)  # the compute capability from which tensor cores take bfloat16 and tf32


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 several times as fast as float32: a recent GPU, or a
    processor with AMX, of which older versions of torch do not know."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("amx_bf16", False))


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`cpu`, `cuda`, or `auto`: CUDA where there is one.

    Raises:
        InputError: CUDA asked for without one, or fewer devices than processes on this machine.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local_rank >= count:
        raise InputError(
            f"device cuda: {count} here, {local_rank + 1} or more processes: expected a device for "
            "each"
        )
    return torch.device("cuda", local_rank)
