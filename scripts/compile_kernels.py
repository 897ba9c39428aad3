"""Compile the Triton kernels for Hopper, for which no GPU is needed; prints a line of kernel, sizes
and shared memory in bytes for each."""

import itertools
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from corrflow.attention import fused, kernels
from corrflow.attention.window import Window

HOPPER = GPUTarget("cuda", 90, 32)
FEATURES = ("query", "key", "grad_query", "grad_key")
# as the allocator's pointers are: loads are wide, and copied ahead through shared memory
ALIGNED = [["tt.divisibility", 16]]


def compile_kernel(
    kernel: triton.JITFunction, dtype: torch.dtype, channels: int, values: int
) -> triton.compiler.CompiledKernel:
    """What a launch on one reference gets."""
    query = torch.empty(1, 64, 64, channels, dtype=dtype)
    value = torch.empty(1, 1, 64, 64, values) if "value" in kernel.arg_names else None
    launch = fused.Launch(query, 1, Window(), value)
    options = {"num_warps": launch.constants.pop("num_warps")}
    constants = (
        launch.constants
        | {"references": 1}
        | ({"WITH_VALUE": True} if "WITH_VALUE" in kernel.arg_names else {})
        | ({"TOP_K": 10, "BLOCK_T": 16} if "TOP_K" in kernel.arg_names else {})
    )
    kinds = (
        dict.fromkeys(("height", "width"), "i32")
        | {"places": "*i32"}
        | dict.fromkeys(constants, "constexpr")
        | {"scale": "fp32"}
    )
    kinds |= dict.fromkeys(FEATURES, "*bf16" if dtype == torch.bfloat16 else "*fp32")
    signature = {name: kinds.get(name, "*fp32") for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    aligned = {
        (i,): ALIGNED
        for i, name in enumerate(kernel.arg_names)
        if signature[name] not in ("constexpr", "fp32")
    }
    return triton.compile(
        ASTSource(kernel, signature, places, aligned), target=HOPPER, options=options
    )


if __name__ == "__main__":
    sizes = [tuple(map(int, size.split("x"))) for size in sys.argv[1:]]
    every = (
        kernels.copy_kernel,
        kernels.query_kernel,
        kernels.reference_kernel,
        kernels.largest_kernel,
    )
    for (channels, values), kernel, dtype in itertools.product(
        sizes, every, (torch.bfloat16, torch.float32)
    ):
        print(
            kernel.__name__,
            dtype,
            channels,
            values,
            compile_kernel(kernel, dtype, channels, values).metadata.shared,
            flush=True,
        )
