"""Counts what each part must compute and keep: floating-point operations and bytes, from the
architecture and sizes. Pure functions.

A multiplication or an addition is one operation, a multiply-add two. Backward of a matrix product
is two products of the same size.
"""

from collections.abc import Iterator
from typing import NamedTuple

from corrflow.attention.window import Window
from corrflow.encoders.resnet import ResNetConfig


class Weight(NamedTuple):
    """A parameter tensor: its number of elements, and the forward operations of its layer for one
    frame."""

    numbers: int
    flops: int


def encoder_flops(config: ResNetConfig, height: int, width: int) -> int:
    """Forward operations of the convolutions for one frame of `height` x `width` pixels;
    normalisation, which is left out, is under 1 %."""
    return sum(weight.flops for weight in encoder_weights(config, height, width))


def encoder_weights(config: ResNetConfig, height: int, width: int) -> Iterator[Weight]:
    """The encoder's parameters in order, with the operations of their convolutions."""

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
    """Bytes of all gradients in float32."""
    return 4 * sum(weight.numbers for weight in encoder_weights(encoder, 1, 1))


def buffer_bytes(encoder: ResNetConfig) -> int:
    """Bytes of BatchNorm's running means and variances in float32, and of its counters."""
    weights = list(encoder_weights(encoder, 1, 1))
    layers = (len(weights) - 2) // 3
    return 2 * 4 * sum(factor.numbers for factor in weights[1:-2:3]) + 8 * layers


def checkpoint_bytes(encoder: ResNetConfig) -> int:
    """Bytes of weights, Adam's two moments, and BatchNorm's running statistics."""
    return 3 * gradient_bytes(encoder) + buffer_bytes(encoder)


def attention_flops(
    rows: int, columns: int, channels: int, values: int, window: Window, references: int = 1
) -> int:
    """Forward operations of one copy between frames of `rows` x `columns` cells: a dot product and
    a weighted sum for each pair."""
    return 2 * pairs(rows, window) * pairs(columns, window) * references * (channels + values)


def attention_bytes(rows: int, columns: int, channels: int, values: int, item: int = 4) -> int:
    """Bytes moved if query, key and value are read once and the copy is written once, at `item`
    bytes per number."""
    return item * rows * columns * (2 * channels + 2 * values)


def pairs(length: int, window: Window) -> int:
    """The number of pairs of cells along a line of `length` cells that are within the window's
    radius."""
    return sum(
        min(i + window.radius, length - 1) - max(i - window.radius, 0) + 1 for i in range(length)
    )


def copies_of_recursion(frames: int) -> int:
    """The number of affinities of a clip: one per neighbouring pair of frames, forward and back."""
    return 2 * (frames - 1)


def values_of_recursion(frames: int, classes: int) -> int:
    """Channels copied over all affinities of a clip. Forward, the first hop copies one set of
    classes and the others two; backward, each hop copies one set more than the hop before."""
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
    """Operations of a training step, forward and backward, if each frame is encoded once and each
    ordered pair is compared once."""
    area = height // config.stride, width // config.stride
    compared = copies_of_recursion(frames) * attention_flops(*area, config.features, 0, window)
    copied = attention_flops(*area, 0, values_of_recursion(frames, classes), window)
    return 3 * clips * (frames * encoder_flops(config, height, width) + compared + copied)
