"""Compile the Triton kernels for Hopper, for which no GPU is needed; prints a line of kernel, precision and shared memory in bytes each."""

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from corrflow.attention import fused, kernels
from corrflow.attention.window import Window

HOPPER = GPUTarget("cuda", 90, 32)
FEATURES = ("query", "key", "grad_query", "grad_key")


def compile_kernel(kernel: triton.JITFunction, dtype: torch.dtype) -> int:
    """Bytes of shared memory that a launch at the sizes of training takes."""
    launch = fused.Launch(torch.empty(1, 64, 64, 64, dtype=dtype), torch.empty(1, 1, 64, 64, 16), Window())
    options = {"num_warps": launch.constants.pop("num_warps")}
    constants = launch.constants | ({"WITH_VALUE": True} if "WITH_VALUE" in kernel.arg_names else {})
    kinds = dict.fromkeys(constants, "constexpr") | dict.fromkeys(("height", "width", "references"), "i32") | {"scale": "fp32"}
    kinds |= dict.fromkeys(FEATURES, "*bf16" if dtype == torch.bfloat16 else "*fp32")
    signature = {name: kinds.get(name, "*fp32") for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    return triton.compile(ASTSource(kernel, signature, places), target=HOPPER, options=options).metadata.shared


if __name__ == "__main__":
    for kernel in (kernels.copy_kernel, kernels.query_kernel, kernels.reference_kernel):
        for dtype in (torch.bfloat16, torch.float32):
            print(kernel.__name__, dtype, compile_kernel(kernel, dtype))
