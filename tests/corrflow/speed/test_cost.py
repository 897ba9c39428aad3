import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from corrflow import CorrFlow, ModelConfig
from corrflow.attention.tiled import copy_by_tiles
from corrflow.attention.window import Window
from corrflow.encoders.resnet import ResNetConfig
from corrflow.loss import CorrespondenceLoss, LossConfig
from corrflow.speed import cost


@pytest.mark.parametrize("config", [ResNetConfig(), ResNetConfig((8, 8, 16, 24), (1, 2, 1, 3), 10)])
def test_the_encoders_operations_equal_those_that_torch_counts(config):
    model = CorrFlow(ModelConfig(config)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encode(torch.zeros(2, 3, 32, 48))
    assert 2 * cost.encoder_flops(config, 32, 48) == counter.get_total_flops()


def test_the_default_encoder_costs_as_much_as_the_papers():
    assert cost.encoder_flops(ResNetConfig(), 256, 256) / 2 == pytest.approx(23.6e9, rel=0.005)


def test_one_window_over_the_whole_image_is_plain_attention():
    """If every cell sees every other, the operations are those of two matrix products."""
    query, value = torch.zeros(1, 8, 9, 5), torch.zeros(1, 3, 9, 5)
    with FlopCounterMode(display=False) as counter:
        # called directly, because torch does not count inside a custom operator
        copy_by_tiles(query, query[:, None], value[:, None], radius=9, scale=1.0)
    assert cost.attention_flops(9, 5, 8, 3, Window(9)) == counter.get_total_flops()


def test_cells_beyond_the_image_are_not_counted():
    assert [cost.pairs(n, Window(1)) for n in (1, 2, 3, 4)] == [1, 4, 7, 10]


@pytest.mark.parametrize(("frames", "truth"), [(3, (True,)), (5, (True, False, True))])
def test_the_recursion_copies_as_many_values_as_counted(monkeypatch, frames, truth):
    model, copied = CorrFlow(ModelConfig(ResNetConfig((4, 4, 4, 4), (1, 1, 1, 1), 4))), []
    original = model.propagate_values
    monkeypatch.setattr(
        model,
        "propagate_values",
        lambda *inputs: (copied.append(inputs[2].shape[1]), original(*inputs))[1],
    )
    clip = (
        torch.rand(1, frames, 3, 16, 16),
        torch.full((1, frames, 16, 4, 4), 1 / 16),
        torch.zeros(1, frames, 16, 16).long(),
    )
    CorrespondenceLoss(model, LossConfig())(*clip, truth)
    assert len(copied) == cost.copies_of_recursion(frames)
    assert sum(copied) <= cost.values_of_recursion(frames, 16)
    assert truth != (True,) or sum(copied) == cost.values_of_recursion(frames, 16)
