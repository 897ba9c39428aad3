"""The Triton kernels of `fused.py`: the likelihood of true classes, and its gradient.

Shapes: k colour classes, c cells of a block.
"""

import triton
import triton.language as tl


@triton.jit
def likelihood_kernel(
    copied, classes, out, height, width,
    copied_b, copied_k, copied_h, copied_w, classes_b, classes_h, classes_w,
    STRIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the likelihood of a block of a clip's pixels."""
    columns = width * STRIDE
    pixels = height * STRIDE * columns
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < pixels
    y = pixel // columns
    x = pixel % columns
    clip = tl.program_id(1).to(tl.int64)
    true_class = tl.load(
        classes + clip * classes_b + y * classes_h + x * classes_w, mask=there, other=0
    )
    shares = copied + clip * copied_b + true_class * copied_k
    place_y = place_of(y, height, STRIDE)
    place_x = place_of(x, width, STRIDE)
    # places are not negative, so this rounds down
    upper = place_y.to(tl.int32)
    left = place_x.to(tl.int32)
    lower = tl.minimum(upper + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    down = place_y - upper
    across = place_x - left
    upper_left = tl.load(shares + upper * copied_h + left * copied_w, mask=there, other=0.0)
    upper_right = tl.load(shares + upper * copied_h + right * copied_w, mask=there, other=0.0)
    lower_left = tl.load(shares + lower * copied_h + left * copied_w, mask=there, other=0.0)
    lower_right = tl.load(shares + lower * copied_h + right * copied_w, mask=there, other=0.0)
    above = upper_left + across * (upper_right - upper_left)
    below = lower_left + across * (lower_right - lower_left)
    tl.store(out + clip * pixels + pixel, above + down * (below - above), mask=there)


@triton.jit
def gradient_kernel(
    grad, classes, out, height, width, classes_b, classes_h, classes_w,
    K: tl.constexpr, BLOCK_K: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of each class in a block of a clip's cells, from the pixels between each
    cell's centre and those of its neighbours."""
    columns = width * STRIDE
    rows = height * STRIDE
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = cell < height * width
    cell_y = cell // width
    cell_x = cell % width
    clip = tl.program_id(1).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    grad_ck = tl.zeros([BLOCK, BLOCK_K], tl.float32)
    for pixel in range(4 * STRIDE * STRIDE):
        y = cell_y * STRIDE - STRIDE // 2 + pixel // (2 * STRIDE)
        x = cell_x * STRIDE - STRIDE // 2 + pixel % (2 * STRIDE)
        there = valid & (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        grad_c = tl.load(grad + clip * rows * columns + y * columns + x, mask=there, other=0.0)
        class_c = tl.load(
            classes + clip * classes_b + y * classes_h + x * classes_w, mask=there, other=-1
        )
        near_y = tl.maximum(1 - tl.abs(place_of(y, height, STRIDE) - cell_y), 0.0)
        near_x = tl.maximum(1 - tl.abs(place_of(x, width, STRIDE) - cell_x), 0.0)
        given_c = grad_c * near_y * near_x
        grad_ck += tl.where(class_c[:, None] == k[None, :], given_c[:, None], 0.0)
    offsets_ck = (clip * height * width + cell[:, None]) * K + k[None, :]
    tl.store(out + offsets_ck, grad_ck, mask=valid[:, None] & (k[None, :] < K))


@triton.jit
def place_of(pixel, cells, STRIDE: tl.constexpr):
    """A pixel's position along a side in units of cells, 0 at the first cell's centre, clamped to
    the outermost centres."""
    place = (pixel.to(tl.float32) + 0.5) / STRIDE - 0.5
    return tl.minimum(tl.maximum(place, 0.0), cells - 1.0)
