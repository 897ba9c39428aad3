"""Predicts the time of a training step on many GPUs: arithmetic, all-reduce and its overlap with
backward, and reading. Pure functions.

The prediction is based on the work that `cost.py` counts and on rates that the caller states;
docs/clusters.md compares it with measurements. Times are seconds, sizes bytes.
"""

from dataclasses import dataclass
from typing import NamedTuple

from corrflow.attention.window import Window
from corrflow.encoders.resnet import ResNetConfig
from corrflow.errors import InputError, check_positive, check_range
from corrflow.palette import CLASSES
from corrflow.speed import cost
from corrflow.speed.released import STRIDE

MIB, MICRO, GIGA = 1 << 20, 1e-6, 1e9
FIRST_BUCKET = 1 * MIB  # DDP's own value, so that the first all-reduce starts early
JSON_BYTES = 4096  # bytes of a sample's JSON that are read before its frames
CLIP_FRAMES = 3


@dataclass(frozen=True)
class ScalingConfig:
    """Predict training on many GPUs from counted work and stated rates. Nothing is measured; set
    the rates of your own cluster."""

    gpus: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers of GPUs to predict for."""
    batch: int = 16
    """Clips per GPU, each of 3 frames."""
    global_batch: int = 0
    """Clips over all GPUs, instead of per GPU; numbers of GPUs that do not divide it are left
    out."""
    size: int = 256
    """Side of the frames in pixels."""
    peak_tflops: float = 989.0
    """Peak of a GPU in dense bfloat16, in TFLOP/s; by their datasheets 989 for an H100 (SXM), 312
    for an A100."""
    achieved: float = 0.35
    """Share of the peak that a step reaches."""
    gpus_per_node: int = 8
    """GPUs of a node."""
    nvlink_gbyte: float = 450.0
    """Bandwidth between two GPUs of a node, in 10^9 bytes per second; by their datasheets 450 for
    an H100, 300 for an A100."""
    network_gbit: float = 400.0
    """Network bandwidth of a node over all its network cards, in 10^9 bits per second."""
    reached: float = 0.8
    """Share of either bandwidth that an all-reduce reaches."""
    nvlink_us: float = 5.0
    """Latency of a hop of the ring within a node, in microseconds."""
    network_us: float = 15.0
    """Latency of a hop of the ring between nodes, in microseconds."""
    flag_us: float = 100.0
    """Latency of a hop, over TCP, of the stop flag that all ranks agree on before each step, in
    microseconds."""
    bucket_mib: float = 25.0
    """Size of a DDP bucket of gradients, in MiB; 25 is DDP's default."""
    save_every: int = 1000
    """Steps between checkpoints."""
    disk_mbyte: float = 500.0
    """Rate at which a checkpoint is written, in 10^6 bytes per second."""
    frame_kbyte: float = 22.4
    """Size of a stored frame, in 10^3 bytes."""
    sample_frames: int = 31
    """Frames per stored sample."""
    worker_clips: float = 299.0
    """Clips per second that a worker reads and decodes on one core."""

    def __post_init__(self) -> None:
        check_positive(
            "scaling",
            self,
            "peak_tflops nvlink_gbyte network_gbit bucket_mib disk_mbyte frame_kbyte worker_clips "
            "achieved reached",
        )
        check_range("scaling", self, "gpus batch size gpus_per_node save_every sample_frames", 1)
        check_range("scaling", self, "global_batch nvlink_us network_us flag_us", 0)
        check_range("scaling", self, "achieved reached", 0, 1)
        if not self.gpus:
            raise InputError("scaling: no gpus: expected one count or more")
        if self.size % STRIDE:
            raise InputError(f"scaling: size {self.size}: expected a multiple of {STRIDE}")

    def clips(self, gpus: int) -> int:
        """Clips per GPU; 0 if the number of GPUs does not divide the global batch."""
        if not self.global_batch:
            return self.batch
        return 0 if self.global_batch % gpus else self.global_batch // gpus

    def nodes(self, gpus: int) -> int:
        """The number of nodes for this many GPUs."""
        return -(-gpus // self.gpus_per_node)


class Bucket(NamedTuple):
    """A DDP bucket: gradients that are reduced together."""

    bytes: int
    ready: float
    """Share of backward after which the last of these gradients is ready."""


class Prediction(NamedTuple):
    """The prediction of a step on a number of GPUs."""

    gpus: int
    nodes: int
    clips: int
    """Clips per GPU."""
    compute: float
    reduce: float
    """Time of the all-reduce without overlap."""
    exposed: float
    """The part of the all-reduce that comes after backward."""
    flag: float
    """Time of the agreement whether to stop, which runs in parallel to the device's work."""
    saving: float
    """A step's share of the time of a checkpoint."""
    step: float
    efficiency: float
    """The time of a step with as many clips on a single GPU, divided by `step`."""
    limit: str
    """What costs most besides arithmetic, if it is over 5 %."""
    local: float
    """Bytes per second that a node reads from shards on its own disk or in a network folder."""
    whole: float
    """The same over http(s) or a pipe, which transfer whole samples."""
    workers: float
    """CPU cores per GPU that are needed to decode its clips."""


def predict(config: ScalingConfig) -> list[Prediction]:
    """Predict each number of GPUs that divides the global batch, if there is one."""
    return [predict_step(config, gpus) for gpus in config.gpus if config.clips(gpus)]


def predict_step(config: ScalingConfig, gpus: int) -> Prediction:
    """Predict all terms of one step."""
    encoder, nodes, clips = ResNetConfig(), config.nodes(gpus), config.clips(gpus)
    flops = cost.step_flops(
        encoder, clips, CLIP_FRAMES, config.size, config.size, Window(), CLASSES
    )
    compute = flops / (config.peak_tflops * 1e12 * config.achieved)
    bandwidth, hop = link(config, gpus)
    gradient_buckets = buckets(encoder, config.size, config.bucket_mib)
    reduce = sum(ring_seconds(bucket.bytes, gpus, bandwidth, hop) for bucket in gradient_buckets)
    # backward takes twice the time of forward
    exposed = exposed_seconds(gradient_buckets, gpus, bandwidth, hop, compute * 2 / 3)
    flag = ring_seconds(0, gpus, bandwidth, config.flag_us * MICRO)
    saving = cost.checkpoint_bytes(encoder) / (config.disk_mbyte * 1e6) / config.save_every
    device = compute + exposed
    # the host runs ahead of the device, so the flag costs time only if it takes longer
    step = max(device, flag) + saving
    losses = (
        {"flag": flag - compute} if flag > device else {"all-reduce": exposed, "checkpoint": saving}
    )
    worst = max(losses, key=lambda name: losses[name])
    served = min(gpus, config.gpus_per_node) * clips / step
    local, whole = clip_bytes(config)
    return Prediction(
        gpus=gpus,
        nodes=nodes,
        clips=clips,
        compute=compute,
        reduce=reduce,
        exposed=exposed,
        flag=flag,
        saving=saving,
        step=step,
        efficiency=(compute + saving) / step,
        limit=worst if losses[worst] > 0.05 * step else "arithmetic",
        local=local * served,
        whole=whole * served,
        workers=clips / step / config.worker_clips,
    )


def link(config: ScalingConfig, gpus: int) -> tuple[float, float]:
    """Bytes per second, and seconds per hop, of the slowest link of the ring, which enters and
    leaves each node once."""
    inner, outer = config.nvlink_gbyte * GIGA, config.network_gbit * GIGA / 8
    if config.nodes(gpus) == 1:
        return inner * config.reached, config.nvlink_us * MICRO
    return min(inner, outer) * config.reached, max(config.nvlink_us, config.network_us) * MICRO


def ring_seconds(size: float, ranks: int, bandwidth: float, hop: float) -> float:
    """Time of an all-reduce by a ring: 2 (n - 1) rounds, in each of which every rank sends an n-th
    of the bytes to the next."""
    return 2 * (ranks - 1) * (size / ranks / bandwidth + hop)


def exposed_seconds(
    gradient_buckets: list[Bucket], ranks: int, bandwidth: float, hop: float, backward: float
) -> float:
    """The time by which the buckets' all-reduces, which run one after another as they become ready,
    exceed backward."""
    if ranks == 1:
        return 0.0
    end = 0.0
    for bucket in gradient_buckets:
        end = max(end, bucket.ready * backward) + ring_seconds(bucket.bytes, ranks, bandwidth, hop)
    return max(0.0, end - backward)


def buckets(encoder: ResNetConfig, size: int, limit_mib: float) -> list[Bucket]:
    """Fill buckets as DDP does: the last weights first, and a bucket ends with the tensor that
    brings it to its limit, which is 1 MiB for the first.

    Frames are encoded one by one, so a weight's gradient is ready once backward has passed its
    layer in the clip's first frame, which comes last.
    """
    weights = list(cost.encoder_weights(encoder, size, size))[::-1]
    total = sum(weight.flops for weight in weights)
    filled, held, passed = [], 0, 0
    limit = float(FIRST_BUCKET)
    for number, weight in enumerate(weights, 1):
        held, passed = held + 4 * weight.numbers, passed + weight.flops
        if held >= limit or number == len(weights):
            filled.append(Bucket(held, (CLIP_FRAMES - 1 + passed / total) / CLIP_FRAMES))
            held, limit = 0, limit_mib * MIB
    return filled


def clip_bytes(config: ScalingConfig) -> tuple[float, float]:
    """Bytes read for a clip of consecutive frames: its JSON and its own frames, or the whole
    sample."""
    frame = config.frame_kbyte * 1e3
    return JSON_BYTES + CLIP_FRAMES * frame, config.sample_frames * frame


def scaling_table(rows: list[Prediction]) -> str:
    """A text table with a line for each row: times in milliseconds, reading in 10^6 bytes per
    second and node."""
    head = (
        f"{'GPUs':>5} {'nodes':>5} {'clips':>6} {'compute':>8} {'reduce':>8} {'exposed':>8} "
        f"{'flag':>7} {'step':>8} "
        f"{'clips/s':>9} {'of linear':>9}  {'limited by':10} {'MB/s local':>10} {'whole':>7} "
        f"{'cores/GPU':>9}"
    )
    lines = [
        f"{row.gpus:5} {row.nodes:5} {row.gpus * row.clips:6} {row.compute * 1e3:8.2f} "
        f"{row.reduce * 1e3:8.2f} {row.exposed * 1e3:8.2f} "
        f"{row.flag * 1e3:7.2f} {row.step * 1e3:8.2f} {row.gpus * row.clips / row.step:9.0f} "
        f"{row.efficiency:9.0%}  {row.limit:10} {row.local / 1e6:10.0f} {row.whole / 1e6:7.0f} "
        f"{row.workers:9.1f}"
        for row in rows
    ]
    return "\n".join([head, *lines])
