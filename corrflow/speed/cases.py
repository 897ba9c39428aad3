"""What is measured: the attention, a training step, a tracked frame; each as it is here and as it
was released.

Every builder makes random inputs from a fixed seed and returns the work. Shapes: b batch, c k
channels, h w cells, H W pixels.
"""

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention import choose_backend, restricted_attention
from corrflow.attention.backends import BACKENDS, is_available
from corrflow.attention.window import Window
from corrflow.color import quantize_colors
from corrflow.device import can_compile, has_triton
from corrflow.encoders.resnet import VARIANTS, ResNetConfig
from corrflow.errors import InputError
from corrflow.likelihood import likelihood, likelihood_eager
from corrflow.memory import keep_freed_memory
from corrflow.model import ModelConfig, seeded_model
from corrflow.palette import CLASSES
from corrflow.propagation import find_protocol, stream
from corrflow.speed import cost, released
from corrflow.speed.measure import BASELINE, Need, Variant, Work
from corrflow.speed.released import STRIDE
from corrflow.training.compute import ComputeConfig
from corrflow.training.config import TrainerConfig, TrainingConfig
from corrflow.training.distributed import DistributedContext
from corrflow.training.schedule import step_draws
from corrflow.training.steplog import StepLog
from corrflow.training.trainer import Trainer

OBJECTS = 3  # that are tracked
# encoders of the models that ship, by the names of their rows
TRACKED = {"corrflow": ResNetConfig(), "corrflow, fast": VARIANTS["resnet18-stride8"]}
LIKELIHOOD_FLOPS = 9  # of a pixel: three mixtures of two values
TRUTH = True  # the path of scheduled sampling that is taken more often


@dataclass(frozen=True)
class Sizes:
    """How large the measured work is."""

    batch: int = 2
    """Frames or clips at a time."""
    height: int = 256
    """Pixels."""
    width: int = 256
    """Pixels."""
    radius: int = 6
    """Half the window's side, in cells of 4 pixels."""
    channels: int = 64
    """Of the features."""

    def __post_init__(self) -> None:
        if (
            min(self.batch, self.height, self.width, self.channels) < 1
            or self.radius < 0
            or self.height % STRIDE
            or self.width % STRIDE
        ):
            raise InputError(
                f"bench: {self}: expected whole numbers from 1 on (radius from 0), sides multiples "
                f"of {STRIDE}"
            )

    @property
    def area(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.height // STRIDE, self.width // STRIDE


def variants_of(work: str, sizes: Sizes, device: torch.device) -> list[Variant]:
    """The ways to do a work: `attention`, `step` (and its encoder and the likelihood of colours
    alone) or `inference`."""
    if work == "attention":
        return attention_variants(sizes, device)
    if work == "step":
        return [
            *step_variants(sizes, device),
            *encoder_variants(sizes, device),
            *likelihood_variants(sizes, device),
        ]
    return inference_variants(sizes, device)


def attention_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Forward alone, and forward with backward, of one copy of 16 classes."""
    flops = sizes.batch * cost.attention_flops(
        *sizes.area, sizes.channels, CLASSES, Window(sizes.radius)
    )
    moved = sizes.batch * cost.attention_bytes(
        *sizes.area, sizes.channels, CLASSES, 2 if device.type == "cuda" else 4
    )
    backends = [name for name in BACKENDS if serves(name, device)]
    variants = []
    for name, backward in (("attention-forward", False), ("attention-forward-backward", True)):
        # gradients are as large
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
        # torch has no backward of it on the CPU
        if can_compile(device) and (device.type == "cuda" or not backward):
            variants.append(
                Variant(name, "flex", partial(build_flex, sizes, str(device), backward), need)
            )
    return variants


def growing_attention(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Forward with backward, as released and by the backend of choice."""
    chosen = choose_backend("auto", device)
    return [
        v
        for v in attention_variants(sizes, device)
        if v.name == "attention-forward-backward" and v.variant in (BASELINE, chosen)
    ]


def serves(backend: str, device: torch.device) -> bool:
    """Whether a backend can be measured here."""
    return has_triton(device) if backend == "triton" else is_available(backend)


def build_attention(backend: str, sizes: Sizes, device: str, backward: bool) -> Work:
    """One copy; no backend's name for the released formulation."""
    inputs = attention_inputs(sizes, device, backward)
    if backend:
        attend: Callable[..., Tensor] = partial(
            restricted_attention, radius=sizes.radius, backend=backend
        )
    else:
        # it knew no other precision
        inputs = [x.detach().float().requires_grad_(backward) for x in inputs]
        attend = partial(released.copy, window=Window(sizes.radius))
    return partial(run_attention, attend, inputs, backward)


def attention_inputs(sizes: Sizes, device: str, backward: bool) -> list[Tensor]:
    """Query, key `[B, C, h, w]` and value `[B, K, h, w]`; on CUDA the features in bfloat16,
    channels last, as an encoder gives them."""
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
    """One copy, with its gradients."""
    if not backward:
        with torch.inference_mode():
            attend(*inputs)
        return
    out = attend(*inputs)
    torch.autograd.grad(out, inputs, out.detach())


def build_flex(sizes: Sizes, device: str, backward: bool) -> Work:
    """The same copy by PyTorch's FlexAttention, compiled: windows as a mask of blocks."""
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


class SyntheticBatch(NamedTuple):
    """Clips as the trainer takes them."""

    clips: Tensor
    keys: list[str]


def step_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """A training step on clips of three frames: colours, both losses, backward, Adam."""
    arguments = (
        ResNetConfig(),
        sizes.batch,
        3,
        sizes.height,
        sizes.width,
        Window(sizes.radius),
        CLASSES,
    )
    need = Need(sizes.batch, cost.step_flops(*arguments), 0)
    fast = [
        Variant("step", "corrflow", partial(build_step, ComputeConfig(), sizes, str(device)), need)
    ]
    if device.type == "cpu":
        direct = ComputeConfig(convolution="direct")
        fast.append(
            Variant(
                "step", "corrflow, direct", partial(build_step, direct, sizes, str(device)), need
            )
        )
    if device.type == "cuda":
        compiled = ComputeConfig(compile="yes")
        fast.append(
            Variant(
                "step",
                "corrflow, compiled",
                partial(build_step, compiled, sizes, str(device)),
                need,
            )
        )
        single = ComputeConfig(precision="float32")
        fast.append(
            Variant(
                "step", "corrflow, float32", partial(build_step, single, sizes, str(device)), need
            )
        )
    return [
        Variant("step", BASELINE, partial(build_released_step, sizes, str(device)), need),
        *fast,
    ]


def clips_of(sizes: Sizes) -> Tensor:
    """uint8 `[B, 3, 3, H, W]`: smooth random pictures that move a little."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(
        sizes.batch, 3, sizes.height // 16 + 1, sizes.width // 16 + 1, generator=draw
    )
    large = F.interpolate(coarse, (sizes.height + 8, sizes.width + 8), mode="bicubic").clamp(0, 1)
    frames = [
        large[..., 4 * t : 4 * t + sizes.height, 4 * t : 4 * t + sizes.width] for t in range(3)
    ]
    return (torch.stack(frames, dim=1) * 255).byte()


def build_step(compute: ComputeConfig, sizes: Sizes, device: str) -> Work:
    """The trainer's own step."""
    return step_of(make_trainer(compute, device), sizes)


def step_of(trainer: Trainer, sizes: Sizes) -> Work:
    """A step of a trainer, on the same clips each time."""
    log = StepLog(
        trainer.config.trainer,
        trainer.context,
        trainer.timer,
        trainer.errors,
        None,
        lambda line: None,
        trainer.config.loss.terms,
    )
    batch = SyntheticBatch(clips_of(sizes), ["bench"])
    return partial(trainer.train_step, batch, log)


def build_graph_step(sizes: Sizes, device: str) -> Work:
    """A step whose forward, backward and optimizer are replayed as one CUDA graph, launched at
    once; one path of scheduled sampling."""
    trainer = make_trainer(ComputeConfig(), device)
    adam = torch.optim.Adam(trainer.model.parameters(), lr=2e-4, fused=True, capturable=True)
    clips_bt3hw = clips_of(sizes)
    data = trainer.prepare(clips_bt3hw, step_draws(0, 0))
    half = trainer.compute.precision == torch.bfloat16

    def run() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False):
            total, _ = trainer.loss_module(
                data.inputs_bt3hw, data.colors_btkhw, data.classes_btmhw, (TRUTH,)
            )
        total.backward()
        adam.step()

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # kernels are chosen and compiled before the capture
            adam.zero_grad()
            run()
    torch.cuda.current_stream().wait_stream(side)
    adam.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        fresh = trainer.prepare(clips_bt3hw, step_draws(0, 0))
        for kept, new in zip(data, fresh, strict=True):
            kept.copy_(new)
        graph.replay()

    return replay


def build_compiled_graph_step(sizes: Sizes, device: str) -> Work:
    """The trainer's step, compiled, and what is compiled replayed as CUDA graphs."""
    trainer = make_trainer(ComputeConfig(), device)
    trainer.loss_module.compile(dynamic=False, mode="reduce-overhead")
    return step_of(trainer, sizes)


def make_trainer(compute: ComputeConfig, device: str) -> Trainer:
    """A trainer of random weights."""
    settings = TrainingConfig(compute=compute, trainer=TrainerConfig(pictures_every=0))
    # looked into for checkpoints, once; a step alone writes nothing
    with tempfile.TemporaryDirectory() as empty:
        return Trainer(Path(empty), settings, DistributedContext(0, 1, torch.device(device)))


def build_released_step(sizes: Sizes, device: str) -> Work:
    """8 hops, 16 encodings; the classes are given, since its loader workers compute them."""
    model = seeded_model(ModelConfig(), seed=0).to(device).train()
    adam = torch.optim.Adam(model.parameters(), lr=2e-4)
    frames_bt3hw = clips_of(sizes).to(device).float() / 255
    classes_bthw = quantize_colors(frames_bt3hw.flatten(0, 1)).view(
        sizes.batch, 3, sizes.height, sizes.width
    )

    def step() -> None:
        loss = released.losses(model, frames_bt3hw, classes_bthw, TRUTH)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def encoder_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """The encoder alone in a step: three frames of each clip forward and backward, in the step's
    own precision and layout."""
    need = Need(
        sizes.batch,
        3 * 3 * sizes.batch * cost.encoder_flops(ResNetConfig(), sizes.height, sizes.width),
        0,
    )
    return [Variant("encoder", "corrflow", partial(build_encoder, sizes, str(device)), need)]


def build_encoder(sizes: Sizes, device: str) -> Work:
    """The trainer's model, without recursion and losses."""
    trainer = make_trainer(ComputeConfig(), device)
    frames_bt3hw = clips_of(sizes).to(device).float() / 255
    half = trainer.compute.precision == torch.bfloat16

    def encode() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            features = [trainer.model.encode(frame) for frame in frames_bt3hw.unbind(dim=1)]
        trainer.model.zero_grad()
        torch.stack(features).square().sum().backward()  # type: ignore[no-untyped-call]

    return encode


def likelihood_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """The likelihood of a frame's true colours with its gradient; on CUDA also without the
    kernel."""
    pixels = sizes.batch * sizes.height * sizes.width
    # forward and backward read the class of each pixel, and write or read one number
    moved = 2 * (8 + 4) * pixels + 2 * 4 * CLASSES * pixels // STRIDE**2
    need = Need(sizes.batch, 3 * LIKELIHOOD_FLOPS * pixels, moved)
    ways = {BASELINE: upsampled_likelihood, "corrflow": likelihood}
    if device.type == "cuda":
        ways["corrflow, four values"] = likelihood_eager
    return [
        Variant("likelihood", way, partial(build_likelihood, function, sizes, str(device)), need)
        for way, function in ways.items()
    ]


def upsampled_likelihood(copied_bkhw: Tensor, classes_bhw: Tensor) -> Tensor:
    """By a map of pixels for each class; `[B, H, W]`."""
    return released.enlarged(copied_bkhw).gather(1, classes_bhw[:, None])[:, 0]


def build_likelihood(
    function: Callable[[Tensor, Tensor], Tensor], sizes: Sizes, device: str
) -> Work:
    """Forward and backward of the likelihood of random classes."""
    draw = torch.Generator().manual_seed(0)
    copied = torch.rand(sizes.batch, *sizes.area, CLASSES, generator=draw).permute(0, 3, 1, 2)
    classes = torch.randint(CLASSES, (sizes.batch, sizes.height, sizes.width), generator=draw)
    inputs = copied.to(device).requires_grad_(), classes.to(device)

    def run() -> None:
        out = function(*inputs)
        torch.autograd.grad(out, inputs[0], out.detach())

    return run


def inference_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """One more frame of a video with three objects."""
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
    """Of a frame by the memory protocol, its references all there."""
    protocol = find_protocol("memory").for_frames((sizes.height, sizes.width))
    references = len(protocol.recent) + len(protocol.anchors)
    # each cell is compared with blocks; what is then compared of their cells is little beside it
    side = encoder.stride * protocol.block
    window = Window(-(-protocol.radius // side))
    area = sizes.height // side, sizes.width // side
    compared = cost.attention_flops(*area, encoder.features, 0, window, references)
    compared *= protocol.block**2
    return Need(1, cost.encoder_flops(encoder, sizes.height, sizes.width) + compared, 0)


def first_labels(sizes: Sizes) -> Tensor:
    """int64 `[H, W]`: background and upright bars, one an object."""
    columns = torch.arange(sizes.width) * (2 * OBJECTS + 1) // sizes.width
    return (
        torch.where(columns % 2 == 1, (columns + 1) // 2, 0).expand(sizes.height, -1).contiguous()
    )


def build_tracking(
    protocol: str, sizes: Sizes, device: str, encoder: ResNetConfig | None = None
) -> Work:
    """`propagation.stream`, a frame at a time, from where the protocol has all its references."""
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
    """Both frames encoded anew each time, 16 classes whatever the objects; `keep` gives it our
    commands' setting of the memory."""
    if keep:
        keep_freed_memory()
    model = seeded_model(ModelConfig(), seed=0).to(device).eval()
    frames = clips_of(sizes)[0].to(device).float() / 255
    labels = first_labels(sizes)[None].to(device)

    @torch.inference_mode()
    def track() -> None:
        released.track(model, frames[:1], frames[1:2], labels).cpu()

    return track
