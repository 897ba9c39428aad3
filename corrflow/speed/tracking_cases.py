"""Variants of tracking one more frame, to benchmark. Shapes: h w cells, H W pixels."""

import itertools
from functools import partial

import torch
from torch import Tensor

from corrflow.attention import choose_backend
from corrflow.attention.window import Window
from corrflow.encoders.resnet import VARIANTS, ResNetConfig
from corrflow.errors import InputError
from corrflow.memory import keep_freed_memory
from corrflow.model import ModelConfig, seeded_model
from corrflow.propagation import find_protocol, stream
from corrflow.speed import cost, released
from corrflow.speed.measure import BASELINE, Need, Variant, Work
from corrflow.speed.sizes import Sizes, clips_of

OBJECTS = 3  # number of tracked objects
# encoders of the models that ship, by row name
TRACKED = {"corrflow": ResNetConfig(), "corrflow, fast": VARIANTS["resnet18-stride8"]}


def inference_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Variants of tracking one more frame of a video with three objects."""
    if sizes.batch != 1:
        raise InputError(
            f"bench: inference, batch {sizes.batch}: expected 1: a video is tracked a frame at a "
            "time"
        )
    encoder = ResNetConfig()
    flops = cost.encoder_flops(encoder, sizes.height, sizes.width)
    need = Need(
        1,
        flops
        + cost.attention_flops(*sizes.area, encoder.features, OBJECTS + 1, Window(sizes.radius)),
        0,
    )
    return [
        Variant(
            "inference", BASELINE, partial(build_released_tracking, sizes, str(device), False), need
        ),
        Variant(
            "inference",
            "released, memory kept",
            partial(build_released_tracking, sizes, str(device), True),
            need,
        ),
        Variant(
            "inference", "corrflow", partial(build_tracking, "paper", sizes, str(device)), need
        ),
        *(
            Variant(
                "inference-memory",
                way,
                partial(build_tracking, "memory", sizes, str(device), encoder),
                memory_need(sizes, encoder),
            )
            for way, encoder in TRACKED.items()
        ),
    ]


def memory_need(sizes: Sizes, encoder: ResNetConfig) -> Need:
    """The least that a frame needs by the memory protocol, once all its references are there."""
    protocol = find_protocol("memory").for_frames((sizes.height, sizes.width))
    references = len(protocol.recent) + len(protocol.anchors)
    # each cell is compared with blocks; the comparison with the cells of the found blocks is small
    # beside it
    side = encoder.stride * protocol.block
    window = Window(-(-protocol.radius // side))
    area = sizes.height // side, sizes.width // side
    compared = cost.attention_flops(*area, encoder.features, 0, window, references)
    compared *= protocol.block**2
    return Need(1, cost.encoder_flops(encoder, sizes.height, sizes.width) + compared, 0)


def first_labels(sizes: Sizes) -> Tensor:
    """Labels int64 `[H, W]`: background and vertical bars, one per object."""
    columns = torch.arange(sizes.width) * (2 * OBJECTS + 1) // sizes.width
    return (
        torch.where(columns % 2 == 1, (columns + 1) // 2, 0).expand(sizes.height, -1).contiguous()
    )


def build_tracking(
    protocol: str, sizes: Sizes, device: str, encoder: ResNetConfig | None = None
) -> Work:
    """Build `propagation.stream`, a frame at a time, from the frame on at which the protocol has
    all its references."""
    keep_freed_memory()  # as the commands do
    attention = choose_backend("auto", torch.device(device))
    config = ModelConfig(encoder or ResNetConfig())
    model = seeded_model(config, 0, attention).to(device).eval().accelerate()
    frames = itertools.cycle(clips_of(sizes)[0].unbind())
    tracked = stream(model, frames, first_labels(sizes), protocol)
    for _ in range(max(find_protocol(protocol).recent) + 1):
        next(tracked)
    return partial(next, tracked)


def build_released_tracking(sizes: Sizes, device: str, keep: bool) -> Work:
    """Build released tracking, which encodes both frames each time and copies 16 classes for any
    number of objects; `keep` applies our commands' memory setting."""
    if keep:
        keep_freed_memory()
    model = seeded_model(ModelConfig(), seed=0).to(device).eval()
    frames = clips_of(sizes)[0].to(device).float() / 255
    labels = first_labels(sizes)[None].to(device)

    @torch.inference_mode()
    def track() -> None:
        released.track(model, frames[:1], frames[1:2], labels).cpu()

    return track
