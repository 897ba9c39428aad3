import numpy as np
import pytest
import torch
from conftest import DATA, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from corrflow import InputError, restricted_attention

RELEASED = sorted((*DATA.glob("a_colorizer_*.npz"), *(SHARED / "oracle").glob("a_colorizer_*.npz")))
# where the released code takes an exact zero inside of the image for padding, ours differs on purpose
ZERO_RULE = ("inbounds_zero", "all_zero")


def central_mean(x):
    """The released shrinking: the mean of the middle 2x2 of each 4x4 cell."""
    return (x[..., 1::4, 1::4] + x[..., 2::4, 1::4] + x[..., 1::4, 2::4] + x[..., 2::4, 2::4]) / 4


@pytest.mark.parametrize("backend", ["reference", "tiled"])
@pytest.mark.parametrize("path", [p for p in RELEASED if not any(z in p.name for z in ZERO_RULE)], ids=lambda p: p.stem)
def test_equals_the_released_code(path, backend):
    fixture = np.load(path)
    query, key = (torch.tensor(fixture[name], requires_grad=True) for name in ("feats_t", "feats_r"))
    value = torch.tensor(fixture["prep"]) if "prep" in fixture else central_mean(torch.tensor(fixture["quantized_r"]))
    out = restricted_attention(query, key, value, backend=backend)
    np.testing.assert_allclose(out.detach(), fixture["out"], atol=1.5e-6)
    grads = torch.autograd.grad((out * torch.tensor(fixture["cotangent"])).sum(), [query, key])
    for grad, name in zip(grads, ("grad_feats_t", "grad_feats_r"), strict=True):
        assert np.abs(grad.numpy() - fixture[name]).max() <= 1e-5 * np.abs(fixture[name]).max()


def random_case(seed, batch, channels, values, height, width, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    shapes = [(batch, channels, height, width), (batch, channels, height, width), (batch, values, height, width)]
    return [torch.randn(shape, generator=draw, dtype=dtype, requires_grad=True) for shape in shapes]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), batch=st.integers(1, 3), channels=st.integers(1, 9), values=st.integers(1, 5),
    height=st.integers(1, 37), width=st.integers(1, 37), radius=st.integers(0, 9),
)  # fmt: skip
def test_tiled_equals_the_reference_with_gradients(seed, batch, channels, values, height, width, radius):
    inputs = random_case(seed, batch, channels, values, height, width)
    plain, fast = (restricted_attention(*inputs, radius=radius, backend=name) for name in ("reference", "tiled"))
    torch.testing.assert_close(fast, plain, atol=1e-10, rtol=1e-10)
    upstream = torch.cos(torch.arange(plain.numel(), dtype=plain.dtype)).view_as(plain)
    for ours, theirs in zip(torch.autograd.grad(fast, inputs, upstream), torch.autograd.grad(plain, inputs, upstream), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_gradients_are_those_of_the_function(backend):
    inputs = random_case(3, 1, 2, 2, 4, 5)
    assert torch.autograd.gradcheck(lambda q, k, v: restricted_attention(q, k, v, radius=2, scale=0.5, backend=backend), inputs)


def test_an_exact_zero_inside_of_the_image_counts_as_any_other_number():
    zeros, value = torch.zeros(1, 4, 3, 3), torch.arange(9.0).view(1, 1, 3, 3)
    torch.testing.assert_close(restricted_attention(zeros, zeros, value, radius=6), torch.full((1, 1, 3, 3), 4.0))


def test_each_cell_sees_its_window_and_nothing_beyond():
    query, value = torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40)
    value[0, 0, 20, 20] = 1.0
    seen = restricted_attention(query, query, value, radius=3)[0, 0] > 0
    rows, columns = torch.nonzero(seen, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 23, 17, 23)
    assert seen.sum() == 49


def test_half_precision_is_computed_in_float32():
    inputs = [x.detach().to(torch.bfloat16) for x in random_case(0, 1, 8, 3, 9, 9)]
    out = restricted_attention(*inputs)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, restricted_attention(*(x.float() for x in inputs)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": torch.zeros(1, 4, 5, 6)}, "expected the same"),
        ({"value": torch.zeros(2, 4, 5, 5)}, "value [2, 4, 5, 5]"),
        ({"radius": -1}, "radius -1"),
        ({"backend": "magic"}, "'magic'"),
    ],
)
def test_refuses_what_does_not_go_together(change, words):
    good = {name: torch.zeros(1, 4, 5, 5) for name in ("query", "key", "value")}
    with pytest.raises(InputError) as error:
        restricted_attention(**{**good, **change})
    assert words in str(error.value)
