from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED

from corrflow import CorrFlow, ModelConfig, load_model
from corrflow.encoders.resnet import ResNetConfig
from corrflow.loss import TERMS, CorrespondenceLoss, LossConfig, color_loss
from corrflow.palette import Target
from corrflow.pretrained import rename_released
from corrflow.recursion import smooth

ORACLE = SHARED / "oracle"
SMALL = ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2)


def numbers(losses):
    """The total loss and its terms hop and cycle, as one tensor."""
    return torch.stack([losses.total, losses.terms["hop"], losses.terms["cycle"]])


def plain_losses(model, frames, colors, classes, truth):
    """The losses as section 3 of the paper words them: each hop encodes both of its frames and
    copies one tensor."""

    def hop(source, target, values):
        copied = model.propagate_values(
            model.encode(frames[:, target]), model.encode(frames[:, source]), values
        )
        return F.interpolate(copied, scale_factor=4, mode="bilinear")

    def to_tracked_size(enlarged):
        return F.interpolate(enlarged, scale_factor=0.25, mode="bilinear")

    def loss(enlarged, t):
        return F.nll_loss((enlarged + 1e-8).log(), classes[:, t])

    first = hop(0, 1, colors[:, 0])
    second = hop(1, 2, colors[:, 1] if truth else to_tracked_size(first))
    short = loss(first, 1) + loss(second, 2)
    there = hop(1, 2, to_tracked_size(first))
    cycles = (
        hop(1, 0, to_tracked_size(first)),
        hop(1, 0, to_tracked_size(hop(2, 1, to_tracked_size(there)))),
    )
    return short, sum(loss(cycle, 0) for cycle in cycles)


@pytest.mark.parametrize("truth", [True, False])
def test_the_shared_recursion_and_its_gradients_equal_the_plain_ones(truth):
    torch.manual_seed(0)
    model = CorrFlow(SMALL).double().eval()
    frames, classes = torch.rand(2, 3, 3, 24, 28).double(), torch.randint(16, (2, 3, 24, 28))
    colors = torch.rand(2, 3, 16, 6, 7).double().softmax(dim=2)
    parameters = list(model.parameters())
    ours = CorrespondenceLoss(model, LossConfig(cycle_weight=0.25))(
        frames, colors, classes, (truth,)
    )
    short, long = plain_losses(model, frames, colors, classes, truth)
    torch.testing.assert_close(numbers(ours), torch.stack([short + 0.25 * long, short, long]))
    for a, b in zip(
        torch.autograd.grad(ours.total, parameters),
        torch.autograd.grad(short + 0.25 * long, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-7)


def test_frames_encoded_as_one_batch_share_batch_norm_statistics():
    torch.manual_seed(0)
    model = CorrFlow(SMALL).train()
    frames = torch.rand(2, 3, 3, 24, 28)
    together, apart = (
        CorrespondenceLoss(model, LossConfig(batch_frames=yes)).encode(frames)
        for yes in (True, False)
    )
    wanted = model.encoder(frames.transpose(0, 1).flatten(0, 1)).unflatten(0, (3, 2))
    torch.testing.assert_close(torch.stack(together), wanted)
    assert (torch.stack(apart) - wanted).abs().max() > 1e-4
    torch.testing.assert_close(
        torch.stack(apart), torch.stack([model.encoder(frames[:, t]) for t in range(3)])
    )


def test_the_losses_of_two_targets_are_weighted_by_their_shares():
    torch.manual_seed(0)
    model = CorrFlow(SMALL).eval()
    frames, classes = (
        torch.rand(2, 3, 3, 16, 16),
        torch.stack([torch.randint(3, (2, 3, 16, 16)), torch.randint(5, (2, 3, 16, 16))], dim=2),
    )
    colors = torch.rand(2, 3, 8, 4, 4)
    few, many = (
        Target(((0.0, 0.0),) * count, share, 1.0) for count, share in ((3, 0.75), (5, 0.25))
    )
    both = numbers(
        CorrespondenceLoss(model, LossConfig(), (few, many))(frames, colors, classes, (False,))
    )
    apart = [
        numbers(CorrespondenceLoss(model, LossConfig())(frames, part, classes[:, :, m], (False,)))
        for m, part in enumerate(colors.split((3, 5), dim=2))
    ]
    torch.testing.assert_close(both, 0.75 * apart[0] + 0.25 * apart[1])


def test_each_frame_is_encoded_once_and_each_pair_compared_once(monkeypatch):
    model, calls = CorrFlow(SMALL), {"forward": 0, "propagate_values": 0}
    for name, owner in (("forward", model.encoder), ("propagate_values", model)):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner,
            name,
            lambda *a, name=name, original=original: (
                calls.update({name: calls[name] + 1}),
                original(*a),
            )[1],
        )
    CorrespondenceLoss(model, LossConfig())(
        torch.rand(1, 3, 3, 16, 16),
        torch.rand(1, 3, 16, 4, 4),
        torch.zeros(1, 3, 16, 16).long(),
        (True,),
    )
    assert calls == {"forward": 3, "propagate_values": 4}


def test_terms_of_weight_0_are_skipped_and_registered_terms_are_added(monkeypatch):
    model, frames = CorrFlow(SMALL), torch.rand(1, 3, 3, 16, 16)
    colors, classes = torch.rand(1, 3, 16, 4, 4), torch.zeros(1, 3, 16, 16).long()
    hops = CorrespondenceLoss(model, LossConfig(cycle_weight=0.0))
    losses = hops(frames, colors, classes, (True,))
    assert list(losses.terms) == ["hop"] and torch.equal(losses.total, losses.terms["hop"])

    @dataclass(frozen=True)
    class WithNorm(LossConfig):
        norm_weight: float = 0.5

    monkeypatch.setitem(TERMS, "norm", lambda clip: clip.features[0].square().mean())
    losses = CorrespondenceLoss(model, WithNorm(cycle_weight=0.0))(frames, colors, classes, (True,))
    assert list(losses.terms) == ["hop", "norm"]
    torch.testing.assert_close(losses.total, losses.terms["hop"] + 0.5 * losses.terms["norm"])


def test_longer_clips_have_a_cycle_for_each_turning_point():
    model = CorrFlow(SMALL)
    frames, classes = torch.rand(1, 5, 3, 16, 16), torch.zeros(1, 5, 16, 16).long()
    losses = CorrespondenceLoss(model, LossConfig())(
        frames, torch.full((1, 5, 16, 4, 4), 1 / 16), classes, (True, False, True)
    )
    assert losses.terms["hop"].item() == pytest.approx(4 * np.log(16), rel=1e-4)
    assert losses.terms["cycle"].item() == pytest.approx(4 * np.log(16), rel=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
def test_smooth_equals_upsampling_and_downsampling(stride):
    x = torch.rand(1, 3, 7, 5, dtype=torch.float64)
    enlarged = F.interpolate(x, scale_factor=stride, mode="bilinear")
    there_and_back = F.interpolate(enlarged, scale_factor=1 / stride, mode="bilinear")
    torch.testing.assert_close(smooth(x, stride), there_and_back)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (2, 4, 5)])
def test_gradients_of_smooth_match_finite_differences(shape):
    x = torch.rand(1, *shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: smooth(x, 4), x)


def test_a_certain_and_correct_copy_has_no_loss():
    certain = F.one_hot(torch.full((1, 4, 4), 3), 16).movedim(-1, 1).float()
    assert color_loss(certain, torch.full((1, 16, 16), 3)).item() == pytest.approx(0.0, abs=1e-6)


needs_oracle = pytest.mark.skipif(
    not ORACLE.exists(), reason="the released code's fixtures are not here"
)
BOTH_PATHS = pytest.mark.parametrize(("name", "truth"), [("truth", True), ("sampled", False)])


def released_case(tmp_path, name, truth, dtype):
    """The model of the fixture, its losses on one of the two paths of scheduled sampling, and the
    values that the released code computed."""
    weights, inputs = (
        np.load(ORACLE / "state_dict_seed0.npz"),
        np.load(ORACLE / "b_model_forward.npz"),
    )
    torch.save(
        {"epoch": 0, "state_dict": {name: torch.tensor(weights[name]) for name in weights.files}},
        tmp_path / "checkpoint.tar",
    )
    model = load_model(tmp_path / "checkpoint.tar").train().to(dtype)
    labels = torch.stack([torch.tensor(inputs[f"q{t}"])[:, 0] for t in range(3)], dim=1)
    # this reproduces a defect of the released code, which downsamples labels to the truncated mean
    # of the class numbers of the middle 2x2 pixels
    middle = F.interpolate(
        labels.float(), scale_factor=0.25, mode="bilinear", recompute_scale_factor=True
    ).long()
    colors = F.one_hot(middle, 16).movedim(-1, 2).to(dtype)
    frames = torch.stack([torch.tensor(inputs[f"frame{t}"]) for t in range(3)], dim=1).to(dtype)
    losses = CorrespondenceLoss(model, LossConfig())(frames, colors, labels.long(), (truth,))
    return model, losses, np.load(ORACLE / f"b_losses_{name}.npz")


@needs_oracle
@BOTH_PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_equal_the_released_codes(tmp_path, name, truth, dtype):
    _, losses, expected = released_case(tmp_path, name, truth, dtype)
    for loss, key in zip(numbers(losses), ("l_total", "l_sim", "l_long"), strict=True):
        assert loss.item() == pytest.approx(float(expected[key]), rel=1e-6)


@needs_oracle
@BOTH_PATHS
def test_gradients_equal_the_released_codes_in_float64(tmp_path, name, truth):
    model, losses, expected = released_case(tmp_path, name, truth, torch.float64)
    losses.total.backward()
    parameters = dict(model.named_parameters())
    compared = [key for key in expected.files if key.startswith("grad_total_f64/")]
    assert len(compared) == 10
    for key in compared:
        true = expected[key]
        gradient = parameters[rename_released(key.split("/", 1)[1])].grad[: len(true)].numpy()
        assert np.abs(gradient - true).max() <= 1e-6 * np.abs(true).max(), key


@needs_oracle
@BOTH_PATHS
def test_gradients_and_one_adam_step_equal_the_released_codes(tmp_path, name, truth):
    model, losses, expected = released_case(tmp_path, name, truth, torch.float32)
    parameters = dict(model.named_parameters())
    for which, loss in (
        ("sim", losses.terms["hop"]),
        ("long", losses.terms["cycle"]),
        ("total", losses.total),
    ):
        gradients = dict(
            zip(
                parameters,
                torch.autograd.grad(loss, list(parameters.values()), retain_graph=True),
                strict=True,
            )
        )
        norms = np.array(
            [
                gradients[rename_released(released)].norm().item()
                for released in expected["param_names"]
            ]
        )
        np.testing.assert_allclose(norms, expected[f"gradnorm_{which}"], rtol=1e-3)
        for released in (
            "feature_extraction.layer4.1.left.3.weight",
            "post_convolution.weight",
            "post_convolution.bias",
        ):
            true = expected[f"grad_{which}/{released}"]
            assert (
                np.abs(gradients[rename_released(released)][: len(true)].numpy() - true).max()
                <= 1e-5 * np.abs(true).max()
            )
    for parameter, gradient in zip(parameters.values(), gradients.values(), strict=True):
        parameter.grad = gradient
    torch.optim.Adam(parameters.values(), lr=2e-4, fused=True).step()
    for key in (key for key in expected.files if key.startswith("after_adam/")):
        released, true = key.split("/", 1)[1], expected[key]
        # Adam's first step has the sign of the gradient; in early layers, some gradients are
        # smaller than the error of float32, and either sign is right
        gradient = np.abs(expected[f"grad_total/{released}"])
        clear = gradient > 0.01 * gradient.max()
        assert clear.mean() > 0.5
        stepped = parameters[rename_released(released)].detach()[: len(true)].numpy()
        np.testing.assert_allclose(stepped[clear], true[clear], rtol=0, atol=1e-6)
