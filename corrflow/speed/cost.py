"""What the parts must compute and keep, by size: floating-point operations and bytes, counted from
the architecture. Pure.

An operation is a multiplication or an addition; a multiply-add is two. Backward of a product is two
products of the same size.
"""

from collections.abc import Iterator
from typing import NamedTuple

from corrflow.attention.window import Window
from corrflow.encoders.resnet import ResNetConfig


class Weight(NamedTuple):
    """A parameter tensor: its numbers, and the operations of the layer that it is the weight of,
    forward, for one frame."""

    numbers: int
    flops: int


def encoder_flops(config: ResNetConfig, height: int, width: int) -> int:
    """Forward operations of the convolutions for one frame of `height` x `width` pixels; those of
    normalisation are under 1 %."""
    return sum(weight.flops for weight in encoder_weights(config, height, width))


def encoder_weights(config: ResNetConfig, height: int, width: int) -> Iterator[Weight]:
    """The encoder's parameters in their order, with the operations of convolutions."""

    def convolution(c_in: int, c_out: int, side: int, cells: int) -> Iterator[Weight]:
        yield Weight(c_in * c_out * side**2, 2 * c_in * c_out * side**2 * cells)
        yield from (Weight(c_out, 0), Weight(c_out, 0))  # the normalisation's factor and offset

    stride, before = 2, config.widths[0]
    cells = (height // stride) * (width // stride)
    yield from convolution(3, before, 7, cells)
    for c_out, depth, step in zip(config.widths, config.depths, config.strides, strict=True):
        stride *= step
        cells = (height // stride) * (width // stride)
        for block in range(depth):
            c_in = before if block == 0 else c_out
            yield from convolution(c_in, c_out, 3, cells)
            yield from convolution(c_out, c_out, 3, cells)
            if block == 0 and (c_in != c_out or step != 1):
                yield from convolution(c_in, c_out, 1, cells)
        before = c_out
    yield Weight(before * config.features * 9, 2 * before * config.features * 9 * cells)
    yield Weight(config.features, 0)


def gradient_bytes(encoder: ResNetConfig) -> int:
    """Of all gradients, float32."""
    return 4 * sum(weight.numbers for weight in encoder_weights(encoder, 1, 1))


def buffer_bytes(encoder: ResNetConfig) -> int:
    """Of BatchNorm's running means and variances, float32, and its counters: DDP sends rank 0's to
    all before each forward."""
    weights = list(encoder_weights(encoder, 1, 1))
    layers = (len(weights) - 2) // 3
    return 2 * 4 * sum(factor.numbers for factor in weights[1:-2:3]) + 8 * layers


def checkpoint_bytes(encoder: ResNetConfig) -> int:
    """Weights, Adam's two moments, running statistics."""
    return 3 * gradient_bytes(encoder) + buffer_bytes(encoder)


def attention_flops(
    rows: int, columns: int, channels: int, values: int, window: Window, references: int = 1
) -> int:
    """Forward operations of one copy between frames of `rows` x `columns` cells: a dot product and
    a weighted sum for each pair."""
    return 2 * pairs(rows, window) * pairs(columns, window) * references * (channels + values)


def attention_bytes(rows: int, columns: int, channels: int, values: int, item: int = 4) -> int:
    """Query, key and value read once, the copy written once, `item` bytes a number."""
    return item * rows * columns * (2 * channels + 2 * values)


def pairs(length: int, window: Window) -> int:
    """How many cells of a line see how many others of it, those beyond its ends left out."""
    return sum(
        min(i + window.radius, length - 1) - max(i - window.radius, 0) + 1 for i in range(length)
    )


def copies_of_recursion(frames: int) -> int:
    """Affinities of a clip: each neighbouring pair there, and back."""
    return 2 * (frames - 1)


def values_of_recursion(frames: int, classes: int) -> int:
    """Channels copied over all affinities of a clip: one or two kinds on the way there, a cycle
    more at each turn on the way back."""
    there = 2 * (frames - 1) - 1
    back = frames * (frames - 1) // 2
    return classes * (there + back)


def step_flops(
    config: ResNetConfig,
    clips: int,
    frames: int,
    height: int,
    width: int,
    window: Window,
    classes: int,
) -> int:
    """Operations of a training step, forward and backward: each frame encoded once, each ordered
    pair compared once."""
    area = height // config.stride, width // config.stride
    compared = copies_of_recursion(frames) * attention_flops(*area, config.features, 0, window)
    copied = attention_flops(*area, 0, values_of_recursion(frames, classes), window)
    return 3 * clips * (frames * encoder_flops(config, height, width) + compared + copied)
