"""Variants of attention (copying from one frame to another) to benchmark. Shapes: b pairs, c k
channels, h w cells."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from corrflow.attention import choose_backend, restricted_attention
from corrflow.attention.backends import BACKENDS, is_available
from corrflow.attention.window import Window
from corrflow.device import can_compile, has_triton
from corrflow.palette import CLASSES
from corrflow.speed import cost, released
from corrflow.speed.measure import BASELINE, Need, Variant, Work
from corrflow.speed.sizes import Sizes


def attention_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Variants of one copy of 16 classes: forward alone, and forward with backward."""
    flops = sizes.batch * cost.attention_flops(
        *sizes.area, sizes.channels, CLASSES, Window(sizes.radius)
    )
    moved = sizes.batch * cost.attention_bytes(
        *sizes.area, sizes.channels, CLASSES, 2 if device.type == "cuda" else 4
    )
    backends = [name for name in BACKENDS if serves(name, device)]
    variants = []
    for name, backward in (("attention-forward", False), ("attention-forward-backward", True)):
        # backward takes twice the operations and bytes of forward: gradients are as large as their
        # tensors
        need = Need(sizes.batch, flops * (3 if backward else 1), moved * (3 if backward else 1))
        variants.append(
            Variant(
                name, BASELINE, partial(build_attention, "", sizes, str(device), backward), need
            )
        )
        variants += [
            Variant(
                name, backend, partial(build_attention, backend, sizes, str(device), backward), need
            )
            for backend in backends
        ]
        # on the CPU torch has no backward for it
        if can_compile(device) and (device.type == "cuda" or not backward):
            variants.append(
                Variant(name, "flex", partial(build_flex, sizes, str(device), backward), need)
            )
    return variants


def attention_scaling_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Forward with backward, as released and by the default backend."""
    chosen = choose_backend("auto", device)
    return [
        v
        for v in attention_variants(sizes, device)
        if v.name == "attention-forward-backward" and v.variant in (BASELINE, chosen)
    ]


def serves(backend: str, device: torch.device) -> bool:
    """Whether a backend can be run on this device."""
    return has_triton(device) if backend == "triton" else is_available(backend)


def build_attention(backend: str, sizes: Sizes, device: str, backward: bool) -> Work:
    """Build the work of one copy; an empty `backend` is the released formulation."""
    inputs = attention_inputs(sizes, device, backward)
    if backend:
        attend: Callable[..., Tensor] = partial(
            restricted_attention, radius=sizes.radius, backend=backend
        )
    else:
        # the released code supports only float32
        inputs = [x.detach().float().requires_grad_(backward) for x in inputs]
        attend = partial(released.copy, window=Window(sizes.radius))
    return partial(run_attention, attend, inputs, backward)


def attention_inputs(sizes: Sizes, device: str, backward: bool) -> list[Tensor]:
    """Make query and key `[B, C, h, w]` and value `[B, K, h, w]`; on CUDA the features are bfloat16
    and channels last, like an encoder's output."""
    draw = torch.Generator().manual_seed(0)
    features = [
        0.3 * torch.randn(sizes.batch, sizes.channels, *sizes.area, generator=draw)
        for _ in range(2)
    ]
    value = torch.randn(sizes.batch, CLASSES, *sizes.area, generator=draw).softmax(dim=1)
    if torch.device(device).type == "cuda":
        features = [x.to(torch.bfloat16).to(memory_format=torch.channels_last) for x in features]
    return [x.to(device).requires_grad_(backward) for x in (*features, value)]


def run_attention(attend: Callable[..., Tensor], inputs: list[Tensor], backward: bool) -> None:
    """Run one copy, with its gradients if `backward`."""
    if not backward:
        with torch.inference_mode():
            attend(*inputs)
        return
    out = attend(*inputs)
    torch.autograd.grad(out, inputs, out.detach())


def build_flex(sizes: Sizes, device: str, backward: bool) -> Work:
    """Build the work of the same copy by PyTorch's FlexAttention, compiled, with the windows as a
    block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    (height, width), radius = sizes.area, sizes.radius

    def near(b: Any, h: Any, q: Any, k: Any) -> Any:
        return ((q // width - k // width).abs() <= radius) & (
            (q % width - k % width).abs() <= radius
        )

    mask = create_block_mask(near, None, None, height * width, height * width, device=device)
    compiled = torch.compile(flex_attention)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (x.flatten(2).mT[:, None].contiguous() for x in (query, key, value))
        out_b1nk: Tensor = compiled(query, key, value.to(query.dtype), block_mask=mask, scale=1.0)
        return out_b1nk[:, 0].mT.reshape(len(query), -1, height, width)

    return partial(run_attention, attend, attention_inputs(sizes, device, backward), backward)
