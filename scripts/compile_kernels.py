"""Compile the Triton kernels for Hopper, which needs no GPU; prints kernel, dtype, sizes and shared
memory in bytes on a line for each.

`python scripts/compile_kernels.py CHANNELSxVALUES ...`
"""

import itertools
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from corrflow.attention import fused, kernels
from corrflow.attention.window import Window
from corrflow.likelihood.fused import CELLS, PIXELS
from corrflow.likelihood.kernels import gradient_kernel, likelihood_kernel

HOPPER = GPUTarget("cuda", 90, 32)
ATTENTION = (
    kernels.copy_kernel,
    kernels.query_kernel,
    kernels.reference_kernel,
    kernels.topk_kernel,
)
LIKELIHOOD = (likelihood_kernel, gradient_kernel)
FEATURES = ("query", "key", "grad_query", "grad_key")
# PyTorch's allocator aligns pointers to 16 bytes, so loads are wide and are prefetched through
# shared memory
ALIGNED = [["tt.divisibility", 16]]


def compile_attention(
    kernel: triton.JITFunction, dtype: torch.dtype, channels: int, values: int
) -> triton.compiler.CompiledKernel:
    """Compile an attention kernel as a launch on one reference would."""
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
    return compile_kernel(kernel, kinds, constants, options)


def compile_likelihood(kernel: triton.JITFunction, values: int) -> triton.compiler.CompiledKernel:
    """Compile a likelihood kernel as a launch on cells of 4 pixels would; Triton takes a stride of
    1 as a constant."""
    constants = {
        "copied_k": 1,
        "classes_w": 1,
        "K": values,
        "BLOCK_K": triton.next_power_of_2(values),
        "STRIDE": 4,
        "BLOCK": PIXELS if kernel is likelihood_kernel else CELLS,
    }
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    strides = [name for name in kernel.arg_names if name.startswith(("copied_", "classes_"))]
    kinds = (
        dict.fromkeys(("height", "width", *strides), "i32")
        | {"classes": "*i64"}
        | dict.fromkeys(constants, "constexpr")
    )
    return compile_kernel(kernel, kinds, constants, {})


def compile_kernel(
    kernel: triton.JITFunction,
    kinds: dict[str, str],
    constants: dict[str, int],
    options: dict[str, int],
) -> triton.compiler.CompiledKernel:
    """Compile a kernel for arguments of these types; arguments not in `kinds` are float32
    tensors."""
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
    for channels, values in sizes:
        for kernel, dtype in itertools.product(ATTENTION, (torch.bfloat16, torch.float32)):
            shared = compile_attention(kernel, dtype, channels, values).metadata.shared
            print(kernel.__name__, dtype, channels, values, shared, flush=True)
        for kernel in LIKELIHOOD:
            shared = compile_likelihood(kernel, values).metadata.shared
            print(kernel.__name__, torch.float32, values, shared, flush=True)
