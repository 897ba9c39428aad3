"""The kernels' product for Triton's interpreter: converts to float32 first, because the interpreter
multiplies the bits of bfloat16 as if they were integers."""

import triton
import triton.language as tl


@triton.jit
def product(a, b, PRECISION: tl.constexpr):  # noqa: N803
    return tl.dot(a.to(b.dtype).to(tl.float32), b.to(tl.float32))
