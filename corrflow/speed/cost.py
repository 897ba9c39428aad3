"""What the parts must compute and keep, by size: floating-point operations and bytes, counted from the architecture. Pure.

An operation is a multiplication or an addition; a multiply-add is two. Backward of a product is two products of the same size.
"""

from corrflow.attention.window import Window
from corrflow.encoder import STRIDE, EncoderConfig


def encoder_flops(config: EncoderConfig, height: int, width: int) -> int:
    """Forward operations of the convolutions for one frame of `height` x `width` pixels; those of normalisation are under 1 %."""
    w1, w2, w3, w4 = config.widths
    half, quarter = (height // 2) * (width // 2), (height // STRIDE) * (width // STRIDE)
    macs = half * 3 * w1 * 7 * 7
    for c_in, c_out, depth, cells in ((w1, w1, 0, half), (w1, w2, 1, quarter), (w2, w3, 2, quarter), (w3, w4, 3, quarter)):
        blocks = config.depths[depth]
        macs += cells * 9 * (c_in * c_out + c_out * c_out * (2 * blocks - 1))
        if c_in != c_out or depth == 1:
            macs += cells * c_in * c_out
    return 2 * (macs + quarter * 9 * w4 * config.features)


def activation_bytes(config: EncoderConfig, height: int, width: int, item: int = 4) -> int:
    """What the encoder keeps of one frame for its backward, with `item` bytes a number: inputs of convolutions and of normalisations.

    A block keeps four pictures (the outputs of its two convolutions, normalised and cut at zero once between them and once at the
    end, in place), and that of its shortcut's convolution; the stem keeps its convolution's and its own output, and the frame.
    """
    half, quarter = (height // 2) * (width // 2), (height // STRIDE) * (width // STRIDE)
    numbers = 3 * height * width + 2 * half * config.widths[0]
    before = config.widths[0]
    for index, (c_out, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        shortcut = index == 1 or before != c_out
        numbers += (half if index == 0 else quarter) * c_out * (4 * depth + shortcut)
        before = c_out
    return item * numbers


def attention_flops(rows: int, columns: int, channels: int, values: int, window: Window, references: int = 1) -> int:
    """Forward operations of one copy between frames of `rows` x `columns` cells: a dot product and a weighted sum for each pair."""
    return 2 * pairs(rows, window) * pairs(columns, window) * references * (channels + values)


def attention_bytes(rows: int, columns: int, channels: int, values: int, item: int = 4) -> int:
    """Query, key and value read once, the copy written once, `item` bytes a number."""
    return item * rows * columns * (2 * channels + 2 * values)


def pairs(length: int, window: Window) -> int:
    """How many cells of a line see how many others of it, those beyond its ends left out."""
    return sum(min(i + window.radius, length - 1) - max(i - window.radius, 0) + 1 for i in range(length))


def copies_of_recursion(frames: int) -> int:
    """Affinities of a clip: each neighbouring pair there, and back."""
    return 2 * (frames - 1)


def values_of_recursion(frames: int, classes: int) -> int:
    """Channels copied over all affinities of a clip: one or two kinds on the way there, a cycle more at each turn on the way back."""
    there = 2 * (frames - 1) - 1
    back = frames * (frames - 1) // 2
    return classes * (there + back)


def step_flops(config: EncoderConfig, clips: int, frames: int, height: int, width: int, window: Window, classes: int) -> int:
    """Operations of a training step, forward and backward: each frame encoded once, each ordered pair compared once."""
    area = height // STRIDE, width // STRIDE
    compared = copies_of_recursion(frames) * attention_flops(*area, config.features, 0, window)
    copied = attention_flops(*area, 0, values_of_recursion(frames, classes), window)
    return 3 * clips * (frames * encoder_flops(config, height, width) + compared + copied)


def released_step_flops(config: EncoderConfig, clips: int, height: int, width: int, window: Window, classes: int) -> int:
    """The same step of three frames in the released formulation: 16 encodings, 8 copies."""
    copy = attention_flops(height // STRIDE, width // STRIDE, config.features, classes, window)
    return 3 * clips * (16 * encoder_flops(config, height, width) + 8 * copy)


def affinity_bytes(cells: int, window: Window) -> int:
    """What the affinities of one pair of frames take where they are kept, float32; `tiled` and `triton` never keep them."""
    return 4 * cells * window.side**2
