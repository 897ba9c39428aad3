"""The prediction for many GPUs, compared with values computed by hand, with torch's own buckets and
with the size of a real checkpoint."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from corrflow import CorrFlow, InputError, ModelConfig
from corrflow.encoders.resnet import ResNetConfig
from corrflow.loss import CorrespondenceLoss, LossConfig
from corrflow.speed import cost, scaling
from corrflow.speed.scaling import Bucket, ScalingConfig, exposed_seconds, predict, ring_seconds
from corrflow.training.checkpoint import save_checkpoint

ENCODERS = [
    ResNetConfig(),
    ResNetConfig((8, 8, 16, 24), (1, 2, 1, 3), 10),
    ResNetConfig((16, 32, 32, 64), (2, 1, 2, 1), 7),
]


@pytest.mark.parametrize("config", ENCODERS)
def test_the_counted_weights_are_those_of_the_model_in_its_order(config):
    model = CorrFlow(ModelConfig(config))
    weights = list(cost.encoder_weights(config, 32, 48))
    assert [weight.numbers for weight in weights] == [p.numel() for p in model.parameters()]
    assert sum(weight.flops for weight in weights) == cost.encoder_flops(config, 32, 48)
    assert cost.gradient_bytes(config) == sum(4 * p.numel() for p in model.parameters())
    assert cost.buffer_bytes(config) == sum(b.numel() * b.element_size() for b in model.buffers())


def test_the_papers_model_has_the_expected_number_of_parameters():
    assert cost.gradient_bytes(ResNetConfig()) == 4 * 5_291_648


@pytest.mark.parametrize("config", ENCODERS)
@pytest.mark.parametrize("limit", [25, 4, 1])
def test_buckets_equal_those_of_ddp(config, limit):
    last_first = list(CorrFlow(ModelConfig(config)).parameters())[::-1]
    limits = [1 << 20, limit << 20]
    expected, _ = dist._compute_bucket_assignment_by_size(
        last_first, limits, [False] * len(last_first)
    )
    found = scaling.buckets(config, 64, limit)
    assert [bucket.bytes for bucket in found] == [
        sum(4 * last_first[index].numel() for index in bucket) for bucket in expected
    ]
    assert found[-1].ready == 1.0


def test_gradients_are_ready_in_the_last_third_of_backward():
    early, late = scaling.buckets(ResNetConfig(), 256, 25)
    assert (early.bytes, late.bytes) == (2_951_424, 18_215_168)
    # by hand: backward takes the first of three frames last, so 2/3 of it come before; of the
    # 11.5 M multiplications per cell, the head has 0.295 M and the last convolution 1.18 M
    weights = 64 * 256 * 9, 256 * 256 * 9
    assert early.ready == pytest.approx(
        (2 + 2 * 4096 * sum(weights) / cost.encoder_flops(ResNetConfig(), 256, 256)) / 3
    )


def test_no_gradient_is_ready_before_backward_reaches_the_first_frame():
    """The basis of `ready`: backward goes from the last frame to the first, so the gradient of a
    weight is complete only in the first frame."""
    model = CorrFlow(ModelConfig(ResNetConfig((4, 4, 4, 4), (1, 1, 1, 1), 4), radius=1))
    order = []
    for name, weight in model.encoder.named_parameters():
        weight.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    for name, module in (("stem", model.encoder.stem), ("head", model.encoder.head)):
        calls = itertools.count()

        def watch(_, __, out, name=name, calls=calls):
            event = f"{name} of frame {next(calls)}"
            out.register_hook(lambda _: order.append(event))

        module.register_forward_hook(watch)
    clip = (
        torch.rand(1, 3, 3, 16, 16),
        torch.full((1, 3, 16, 4, 4), 1 / 16),
        torch.zeros(1, 3, 16, 16).long(),
    )
    CorrespondenceLoss(model, LossConfig())(*clip, (True,)).total.backward()
    frames = [
        "head of frame 2",
        "stem of frame 2",
        "head of frame 1",
        "stem of frame 1",
        "head of frame 0",
        "head.bias",
    ]
    assert [order.index(event) for event in frames] == sorted(
        order.index(event) for event in frames
    )
    weights = [
        "head.weight",
        "layer4.0.residual.3.weight",
        "layer1.0.residual.0.weight",
        "stem.0.weight",
    ]
    assert order.index("head of frame 0") < order.index(weights[0])
    assert [order.index(event) for event in weights] == sorted(
        order.index(event) for event in weights
    )


def test_the_time_of_a_ring_equals_that_computed_by_hand():
    # 4 ranks, 100 MB at 10 GB/s: 6 rounds of 25 MB, each of 2.5 ms and a hop of 10 us
    assert ring_seconds(100e6, 4, 10e9, 10e-6) == pytest.approx(6 * (2.5e-3 + 10e-6))
    assert ring_seconds(100e6, 1, 10e9, 10e-6) == 0


def test_only_the_all_reduce_after_backward_is_exposed():
    # with 2 ranks at 1 GB/s and no latency, a bucket takes a nanosecond per byte
    early, late = Bucket(30_000_000, 0.5), Bucket(20_000_000, 1.0)
    assert exposed_seconds([early, late], 2, 1e9, 0, backward=0.1) == pytest.approx(0.02)
    # the first bucket ends 10 ms after backward, and the second waits for it
    assert exposed_seconds([early, late], 2, 1e9, 0, backward=0.04) == pytest.approx(0.03)
    assert exposed_seconds([early, late], 1, 1e9, 0, backward=0.04) == 0


def test_the_prediction_for_two_nodes_equals_that_computed_by_hand():
    config = ScalingConfig(
        gpus=(1, 16), batch=10, peak_tflops=426, achieved=0.5, network_gbit=80, reached=1.0,
        nvlink_us=0, network_us=0, flag_us=0,
    )  # fmt: skip
    one, many = predict(config)
    # 426 GFLOP per clip, as in docs/performance.md
    assert one.compute == pytest.approx(10 * 426e9 / 213e12, rel=0.002)
    assert one.step == one.compute + one.saving
    assert (one.limit, one.efficiency, one.exposed, one.flag) == ("arithmetic", 1.0, 0, 0)
    # twice 15/16 of 21.17 MB at 10 GB/s; all buckets but the first are reduced after backward
    assert many.reduce == pytest.approx(30 / 16 * 21_166_592 / 10e9)
    assert many.exposed == pytest.approx(30 / 16 * 18_215_168 / 10e9)
    assert many.limit == "all-reduce"
    assert many.step == pytest.approx(many.compute + many.exposed + many.saving)
    assert many.local == pytest.approx(80 / many.step * (4096 + 3 * 22_400))
    assert many.whole == pytest.approx(80 / many.step * 31 * 22_400)
    assert many.workers == pytest.approx(10 / many.step / 299)


def test_a_stop_flag_slower_than_the_device_is_the_limit():
    (row,) = predict(ScalingConfig(gpus=(256,), batch=1, flag_us=1000))
    assert row.flag == pytest.approx(510 * 1e-3)
    assert row.step == pytest.approx(row.flag + row.saving)
    assert row.limit == "flag"


def test_the_papers_batch_is_divided_among_at_most_six_gpus():
    rows = predict(ScalingConfig(gpus=(1, 2, 3, 4, 5, 6, 7, 64), global_batch=6))
    assert [(row.gpus, row.clips) for row in rows] == [(1, 6), (2, 3), (3, 2), (6, 1)]


def test_more_bandwidth_never_slows_a_step():
    rows = [
        predict(ScalingConfig(gpus=(64,), network_gbit=gbit))[0] for gbit in (10, 25, 100, 200, 400)
    ]
    assert [row.step for row in rows] == sorted((row.step for row in rows), reverse=True)
    assert rows[0].efficiency < 0.5 < rows[-1].efficiency < 1


def test_a_checkpoint_has_the_counted_number_of_bytes(tmp_path):
    model = CorrFlow()
    adam = torch.optim.Adam(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    adam.step()
    size = save_checkpoint(tmp_path, 1, model, adam).stat().st_size
    assert size == pytest.approx(cost.checkpoint_bytes(ResNetConfig()), rel=0.002)


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 0},
        {"gpus": ()},
        {"achieved": 1.5},
        {"network_gbit": 0.0},
        {"size": 30},
        {"flag_us": -1.0},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError, match="scaling: "):
        replace(ScalingConfig(), **change)
