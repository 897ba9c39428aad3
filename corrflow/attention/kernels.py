"""The Triton kernels of `fused.py`: the copy, the gradients of its query and of its references, and
the search for the most similar cells.

A program takes a tile of cells and iterates over the patch of cells that its windows reach, a block
at a time.

Shapes: c channels of the features, k channels of the values, q cells of a tile, p cells of a block
of the patch, t most similar cells. Cells are rows of matrices: an image is `[H x W, C]`, and the
references of a batch follow one another.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)  # a logit of weight 0; finite, since inf - inf would be NaN


@triton.jit
def copy_kernel(
    query, key, value, out, highests, totals, height, width, references, scale,
    C: tl.constexpr, K: tl.constexpr, RADIUS: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For a tile of targets, attend to the patches of all references: stores the copied values, and
    the highest logit and sum of each softmax."""
    y, x, cell, valid, top, left = tile_cells(height, width, TILE_H, TILE_W)
    patch_top, patch_left, columns, cells = patch_bounds(
        top, left, height, width, RADIUS, TILE_H, TILE_W
    )
    image = height * width
    batch = tl.program_id(1).to(tl.int64)
    query_qc = load_rows(query + batch * image * C, cell, valid, C, BLOCK_C)
    highest = tl.full([TILE_H * TILE_W], LOWEST, tl.float32)
    total = tl.zeros([TILE_H * TILE_W], tl.float32)
    copied_qk = tl.zeros([TILE_H * TILE_W, BLOCK_K], tl.float32)
    for r in range(references):
        reference = (batch * references + r) * image
        for start in range(0, cells, BLOCK):
            patch_y, patch_x, patch_cell, there = block_cells(
                start, patch_top, patch_left, columns, cells, width, BLOCK
            )
            key_pc = load_rows(key + reference * C, patch_cell, there, C, BLOCK_C)
            value_pk = load_rows(value + reference * K, patch_cell, there, K, BLOCK_K)
            logits_qp = product(query_qc, tl.trans(key_pc), PRECISION) * scale
            reach_qp = in_reach(y, x, patch_y, patch_x, there, RADIUS)
            logits_qp = tl.where(reach_qp, logits_qp, LOWEST)
            raised = tl.maximum(highest, tl.max(logits_qp, axis=1))
            weights_qp = tl.where(reach_qp, tl.exp(logits_qp - raised[:, None]), 0.0)
            rescale = tl.exp(highest - raised)
            total = total * rescale + tl.sum(weights_qp, axis=1)
            copied_qk = copied_qk * rescale[:, None] + product(weights_qp, value_pk, PRECISION)
            highest = raised
    total = tl.where(valid, total, 1.0)  # avoids 0 / 0 outside of the image
    store_rows(out + batch * image * K, cell, valid, copied_qk / total[:, None], K, BLOCK_K)
    tl.store(highests + batch * image + cell, highest, mask=valid)
    tl.store(totals + batch * image + cell, total, mask=valid)


@triton.jit
def query_kernel(
    query, key, value, grad_out, highests, totals, means, grad_query, height, width, references,
    scale,
    C: tl.constexpr, K: tl.constexpr, RADIUS: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For a tile of targets, compute the gradient of the query from the patches of all
    references."""
    y, x, cell, valid, top, left = tile_cells(height, width, TILE_H, TILE_W)
    patch_top, patch_left, columns, cells = patch_bounds(
        top, left, height, width, RADIUS, TILE_H, TILE_W
    )
    image = height * width
    batch = tl.program_id(1).to(tl.int64)
    query_qc = load_rows(query + batch * image * C, cell, valid, C, BLOCK_C)
    grad_qk = load_rows(grad_out + batch * image * K, cell, valid, K, BLOCK_K)
    highest_q = tl.load(highests + batch * image + cell, mask=valid, other=0.0)
    total_q = tl.load(totals + batch * image + cell, mask=valid, other=1.0)
    mean_q = tl.load(means + batch * image + cell, mask=valid, other=0.0)
    grad_qc = tl.zeros([TILE_H * TILE_W, BLOCK_C], tl.float32)
    for r in range(references):
        reference = (batch * references + r) * image
        for start in range(0, cells, BLOCK):
            patch_y, patch_x, patch_cell, there = block_cells(
                start, patch_top, patch_left, columns, cells, width, BLOCK
            )
            key_pc = load_rows(key + reference * C, patch_cell, there, C, BLOCK_C)
            value_pk = load_rows(value + reference * K, patch_cell, there, K, BLOCK_K)
            reach_qp = in_reach(y, x, patch_y, patch_x, there, RADIUS) & valid[:, None]
            logits_qp = tl.where(
                reach_qp, product(query_qc, tl.trans(key_pc), PRECISION) * scale, LOWEST
            )
            weights_qp = tl.exp(logits_qp - highest_q[:, None]) / total_q[:, None]
            grad_qp = weights_qp * (
                product(grad_qk, tl.trans(value_pk), PRECISION) - mean_q[:, None]
            )
            grad_qc += product(grad_qp, key_pc, PRECISION)
    store_rows(grad_query + batch * image * C, cell, valid, grad_qc * scale, C, BLOCK_C)


@triton.jit
def reference_kernel(
    query, key, value, grad_out, highests, totals, means, grad_key, grad_value, height, width,
    references, scale,
    C: tl.constexpr, K: tl.constexpr, RADIUS: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
    WITH_VALUE: tl.constexpr,
):  # fmt: skip
    """For a tile of one reference's cells, compute the gradients of key and value from the targets
    whose windows hold them."""
    y, x, cell, valid, top, left = tile_cells(height, width, TILE_H, TILE_W)
    patch_top, patch_left, columns, cells = patch_bounds(
        top, left, height, width, RADIUS, TILE_H, TILE_W
    )
    image = height * width
    reference = tl.program_id(1).to(tl.int64) * image
    target = (tl.program_id(1) // references).to(tl.int64) * image
    key_qc = load_rows(key + reference * C, cell, valid, C, BLOCK_C)
    value_qk = load_rows(value + reference * K, cell, valid, K, BLOCK_K)
    grad_qc = tl.zeros([TILE_H * TILE_W, BLOCK_C], tl.float32)
    grad_qk = tl.zeros([TILE_H * TILE_W, BLOCK_K], tl.float32)
    for start in range(0, cells, BLOCK):
        patch_y, patch_x, patch_cell, there = block_cells(
            start, patch_top, patch_left, columns, cells, width, BLOCK
        )
        query_pc = load_rows(query + target * C, patch_cell, there, C, BLOCK_C)
        grad_pk = load_rows(grad_out + target * K, patch_cell, there, K, BLOCK_K)
        highest_p = tl.load(highests + target + patch_cell, mask=there, other=0.0)
        total_p = tl.load(totals + target + patch_cell, mask=there, other=1.0)
        mean_p = tl.load(means + target + patch_cell, mask=there, other=0.0)
        # rows are targets, as in the other kernels, so that the logits are bitwise the same
        reach_pq = in_reach(patch_y, patch_x, y, x, valid, RADIUS) & there[:, None]
        logits_pq = tl.where(
            reach_pq, product(query_pc, tl.trans(key_qc), PRECISION) * scale, LOWEST
        )
        weights_pq = tl.exp(logits_pq - highest_p[:, None]) / total_p[:, None]
        if WITH_VALUE:
            grad_qk += product(tl.trans(weights_pq), grad_pk, PRECISION)
        grad_pq = weights_pq * (product(grad_pk, tl.trans(value_qk), PRECISION) - mean_p[:, None])
        grad_qc += product(tl.trans(grad_pq), query_pc, PRECISION)
    store_rows(grad_key + reference * C, cell, valid, grad_qc * scale, C, BLOCK_C)
    if WITH_VALUE:
        store_rows(grad_value + reference * K, cell, valid, grad_qk, K, BLOCK_K)


@triton.jit
def topk_kernel(
    query, key, topk, places, height, width, references, scale,
    C: tl.constexpr, RADIUS: tl.constexpr, BLOCK_C: tl.constexpr, TOP_K: tl.constexpr,
    BLOCK_T: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For a tile of targets, find the `TOP_K` largest logits in the patches of all references, and
    the indices of their cells among those of all references.

    They are held in registers. A block is searched repeatedly, as long as it has a logit that is
    larger than the smallest of them, which is rare after the first blocks.
    """
    y, x, cell, valid, top, left = tile_cells(height, width, TILE_H, TILE_W)
    patch_top, patch_left, columns, cells = patch_bounds(
        top, left, height, width, RADIUS, TILE_H, TILE_W
    )
    image = height * width
    batch = tl.program_id(1).to(tl.int64)
    query_qc = load_rows(query + batch * image * C, cell, valid, C, BLOCK_C)
    rank, within = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK)
    # the slots that pad the row to a power of 2 are never the smallest
    topk_qt = tl.zeros([TILE_H * TILE_W, BLOCK_T], tl.float32)
    topk_qt += tl.where(rank < TOP_K, LOWEST, -LOWEST)[None, :]
    place_qt = tl.zeros([TILE_H * TILE_W, BLOCK_T], tl.int32)
    for r in range(references):
        reference = (batch * references + r) * image
        for start in range(0, cells, BLOCK):
            patch_y, patch_x, patch_cell, there = block_cells(
                start, patch_top, patch_left, columns, cells, width, BLOCK
            )
            key_pc = load_rows(key + reference * C, patch_cell, there, C, BLOCK_C)
            logits_qp = product(query_qc, tl.trans(key_pc), PRECISION) * scale
            reach_qp = in_reach(y, x, patch_y, patch_x, there, RADIUS) & valid[:, None]
            logits_qp = tl.where(reach_qp, logits_qp, LOWEST)
            least_q = tl.min(topk_qt, axis=1)
            while tl.max(tl.max(logits_qp, axis=1) - least_q, axis=0) > 0:
                highest_q = tl.max(logits_qp, axis=1)
                index_q = tl.argmax(logits_qp, axis=1)
                slot_q = tl.argmin(topk_qt, axis=1)
                replaced_qt = (highest_q > least_q)[:, None] & (rank[None, :] == slot_q[:, None])
                patch_q = start + index_q
                place_q = (patch_top + patch_q // columns) * width + patch_left + patch_q % columns
                topk_qt = tl.where(replaced_qt, highest_q[:, None], topk_qt)
                place_qt = tl.where(replaced_qt, (r * image + place_q)[:, None], place_qt)
                logits_qp = tl.where(within[None, :] == index_q[:, None], LOWEST, logits_qp)
                least_q = tl.min(topk_qt, axis=1)
    store_rows(topk + batch * image * TOP_K, cell, valid, topk_qt, TOP_K, BLOCK_T)
    store_rows(places + batch * image * TOP_K, cell, valid, place_qt, TOP_K, BLOCK_T)


@triton.jit
def tile_cells(height, width, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """This program's tile: its cells' rows, columns, indices, and whether they are in the image,
    `[Q]` each; and the tile's corner."""
    across = tl.cdiv(width, TILE_W)
    top = tl.program_id(0) // across * TILE_H
    left = tl.program_id(0) % across * TILE_W
    cell = tl.arange(0, TILE_H * TILE_W)
    y, x = top + cell // TILE_W, left + cell % TILE_W
    return y, x, y * width + x, (y < height) & (x < width), top, left


@triton.jit
def patch_bounds(
    top, left, height, width, RADIUS: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr
):
    """The part of the image that a tile's windows reach: its corner, its width and its number of
    cells."""
    patch_top = tl.maximum(top - RADIUS, 0)
    patch_left = tl.maximum(left - RADIUS, 0)
    rows = tl.minimum(top + TILE_H + RADIUS, height) - patch_top
    columns = tl.minimum(left + TILE_W + RADIUS, width) - patch_left
    return patch_top, patch_left, columns, rows * columns


@triton.jit
def block_cells(start, patch_top, patch_left, columns, cells, width, BLOCK: tl.constexpr):
    """The block of the patch that begins at cell `start`: its cells' rows, columns, indices, and
    whether they are in the patch, `[P]` each."""
    place = start + tl.arange(0, BLOCK)
    y, x = patch_top + place // columns, patch_left + place % columns
    return y, x, y * width + x, place < cells


@triton.jit
def in_reach(y, x, patch_y, patch_x, valid, RADIUS: tl.constexpr):
    """Whether each cell of the block is in the window of each cell of the tile, `[Q, P]`."""
    return (
        (tl.abs(y[:, None] - patch_y[None, :]) <= RADIUS)
        & (tl.abs(x[:, None] - patch_x[None, :]) <= RADIUS)
        & valid[None, :]
    )


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """`a @ b` accumulated in float32, with `a` rounded to the dtype of `b`; `PRECISION` is used if
    that is float32."""
    return tl.dot(a.to(b.dtype), b, input_precision=PRECISION)


@triton.jit
def load_rows(base, cell, valid, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Load rows `cell` of a matrix of `SIZE` columns as `[N, BLOCK]`, zero where there is no row or
    column."""
    column = tl.arange(0, BLOCK)
    return tl.load(
        base + cell[:, None] * SIZE + column[None, :],
        mask=valid[:, None] & (column < SIZE)[None, :],
        other=0.0,
    )


@triton.jit
def store_rows(base, cell, valid, rows, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Store rows, the reverse of `load_rows`, in the matrix's own precision."""
    column = tl.arange(0, BLOCK)
    place = base + cell[:, None] * SIZE + column[None, :]
    tl.store(place, rows.to(base.dtype.element_ty), mask=valid[:, None] & (column < SIZE)[None, :])
