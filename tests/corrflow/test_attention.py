import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import DATA, ROOT, SHARED, TIMEOUT_SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st

from corrflow import InputError, device, restricted_attention
from corrflow.attention import backends, choose_backend, topk, topk_search
from corrflow.attention.backends import is_available

RELEASED = sorted(
    {
        path.name: path
        for path in (*(SHARED / "oracle").glob("a_col*.npz"), *DATA.glob("a_col*.npz"))
    }.values()
)
# in these cases the released code mistakes an exact zero inside the image for padding; ours
# differs on purpose
ZERO_RULE = ("inbounds_zero", "all_zero")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(not is_available("triton"), reason="triton is not installed")
needs_sampler = pytest.mark.skipif(
    not is_available("sampler"), reason="spatial-correlation-sampler is not installed"
)
FAST = [
    "tiled",
    pytest.param("triton", marks=needs_triton),
    pytest.param("sampler", marks=needs_sampler),
]


def attention_on_its_device(*inputs, backend, **settings):
    """Attention on the CPU; for Triton on a GPU, or in its interpreter if there is no GPU."""
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    return restricted_attention(*(x.to(device) for x in inputs), backend=backend, **settings).cpu()


def central_mean(x):
    """Downsample as the released code does: the mean of the middle 2x2 pixels of each 4x4 cell."""
    return (x[..., 1::4, 1::4] + x[..., 2::4, 1::4] + x[..., 1::4, 2::4] + x[..., 2::4, 2::4]) / 4


def released_case(path):
    """A fixture of the released code, and its query, key and value."""
    fixture = np.load(path)
    query, key = (
        torch.tensor(fixture[name], requires_grad=True) for name in ("feats_t", "feats_r")
    )
    value = (
        torch.tensor(fixture["prep"])
        if "prep" in fixture
        else central_mean(torch.tensor(fixture["quantized_r"]))
    )
    return fixture, query, key, value


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize(
    "path", [p for p in RELEASED if not any(z in p.name for z in ZERO_RULE)], ids=lambda p: p.stem
)
def test_attention_equals_the_released_code(path, backend):
    fixture, query, key, value = released_case(path)
    out = attention_on_its_device(query, key, value, backend=backend)
    # the interpreter multiplies with NumPy, whose order of summation depends on the shape of the
    # block and on the processor: an error of 2e-5 for a logit of 200
    coarser = 2 if INTERPRETED and backend == "triton" and "large" in path.name else 1
    np.testing.assert_allclose(out.detach(), fixture["out"], rtol=0, atol=1e-6 * coarser)
    limit = 1e-5 * coarser
    grads = torch.autograd.grad((out * torch.tensor(fixture["cotangent"])).sum(), [query, key])
    for grad, name in zip(grads, ("grad_feats_t", "grad_feats_r"), strict=True):
        assert np.abs(grad.numpy() - fixture[name]).max() <= limit * np.abs(fixture[name]).max()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize(
    "path", [p for p in RELEASED if any(z in p.name for z in ZERO_RULE)], ids=lambda p: p.stem
)
def test_attention_equals_the_released_code_except_for_its_zero_rule(path, backend):
    fixture, query, key, value = released_case(path)
    ours = attention_on_its_device(query, key, value, backend=backend).detach().numpy()
    expected, sees_a_zero = exact_attention(
        *(x.detach().double().numpy() for x in (query, key, value))
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    kept = np.broadcast_to(~sees_a_zero[:, None], ours.shape)
    np.testing.assert_allclose(ours[kept], fixture["out"][kept], rtol=0, atol=1e-6)
    assert np.abs(ours - fixture["out"]).max() > 1e-3  # the rule makes a difference in these cases


def exact_attention(query, key, value, radius=6):
    """Attention by its definition, cell by cell, and which cells see an exact zero."""
    out, zeros = (
        np.zeros((len(query), value.shape[1], *query.shape[2:])),
        np.zeros((len(query), *query.shape[2:]), dtype=bool),
    )
    for b, y, x in np.ndindex(zeros.shape):
        rows, columns = (
            slice(max(y - radius, 0), y + radius + 1),
            slice(max(x - radius, 0), x + radius + 1),
        )
        logits = np.einsum("c,chw->hw", query[b, :, y, x], key[b, :, rows, columns])
        weights = np.exp(logits - logits.max())
        out[b, :, y, x] = np.einsum(
            "hw,khw->k", weights / weights.sum(), value[b, :, rows, columns]
        )
        zeros[b, y, x] = (logits == 0).any()
    return out, zeros


def random_case(seed, batch, references, channels, values, height, width, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    shapes = (
        (batch, channels, height, width),
        (batch, references, channels, height, width),
        (batch, references, values, height, width),
    )
    return [torch.randn(shape, generator=draw).to(dtype).requires_grad_() for shape in shapes]


def outputs_and_gradients(inputs, **settings):
    out = attention_on_its_device(*inputs, **settings)
    upstream = torch.cos(torch.arange(out.numel(), dtype=out.dtype)).view_as(out)
    return [out, *torch.autograd.grad(out, inputs, upstream)]


SHAPES = {
    "seed": st.integers(0, 1000),
    "batch": st.integers(1, 2),
    "references": st.integers(1, 3),
    "channels": st.integers(1, 20),
    "values": st.integers(1, 5),
    "height": st.integers(1, 20),
    "width": st.integers(1, 37),
    "radius": st.integers(0, 9),
    "scale": st.sampled_from([1.0, 0.3]),
}


@settings(max_examples=40, deadline=None)
@given(**SHAPES, top_k=st.sampled_from([1, 5, 200]), block=st.integers(2, 4))
def test_coarse_to_fine_and_its_gradients_equal_the_reference(radius, scale, top_k, block, **shape):
    inputs = random_case(**shape)
    how = {"radius": radius, "scale": scale, "top_k": top_k, "block": block}
    fast, plain = (
        outputs_and_gradients(inputs, **how, backend=name) for name in ("tiled", "reference")
    )
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@needs_triton
@settings(max_examples=5, deadline=None)
@given(
    **SHAPES
    | {"height": st.integers(1, 12), "width": st.integers(1, 19), "radius": st.integers(0, 5)},
    top_k=st.sampled_from([1, 5, 32]),
)
def test_coarse_to_fine_with_triton_equals_the_reference(radius, scale, top_k, **shape):
    inputs = [x.detach() for x in random_case(**shape, dtype=torch.float32)]
    how = {"radius": radius, "scale": scale, "top_k": top_k, "block": 2}
    fused, plain = (
        attention_on_its_device(*inputs, **how, backend=name) for name in ("triton", "reference")
    )
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-4)


def test_coarse_to_fine_is_exact_if_the_cells_of_each_block_are_equal():
    inputs = [x.detach() for x in random_case(6, 2, 3, 8, 3, 6, 7)]
    alike = [x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2) for x in inputs]
    found = restricted_attention(*alike, radius=20, top_k=12, block=2)
    torch.testing.assert_close(found, restricted_attention(*alike, radius=20, top_k=12))


def test_searching_few_blocks_at_a_time_gives_the_same_result(monkeypatch):
    inputs = [x.detach() for x in random_case(7, 2, 3, 8, 3, 9, 11)]
    expected = restricted_attention(*inputs, radius=4, top_k=5, block=2)
    monkeypatch.setattr(topk, "GATHERED", 1)
    torch.testing.assert_close(restricted_attention(*inputs, radius=4, top_k=5, block=2), expected)


@pytest.mark.parametrize("backend", [name for name in FAST if "triton" not in str(name)])
@settings(max_examples=40, deadline=None)
@given(**SHAPES, top_k=st.sampled_from([0, 0, 1, 5, 200]))
def test_fast_backends_and_their_gradients_equal_the_reference(
    backend, radius, scale, top_k, **shape
):
    inputs, how = random_case(**shape), {"radius": radius, "scale": scale, "top_k": top_k}
    fast, plain = (
        outputs_and_gradients(inputs, **how, backend=name) for name in (backend, "reference")
    )
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@needs_triton
@settings(max_examples=10, deadline=None)
@given(
    **SHAPES
    | {"height": st.integers(1, 12), "width": st.integers(1, 19), "radius": st.integers(0, 5)},
    top_k=st.sampled_from([0, 0, 1, 5, 64]),
)
def test_triton_and_its_gradients_equal_the_reference(radius, scale, top_k, **shape):
    inputs = random_case(**shape, dtype=torch.float32)
    how = {"radius": radius, "scale": scale, "top_k": top_k}
    fused, plain = (
        outputs_and_gradients(inputs, **how, backend=name) for name in ("triton", "reference")
    )
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@needs_triton
@pytest.mark.parametrize(("channels", "values"), [(64, 48), (200, 3)])
def test_triton_supports_wide_features_and_many_values(channels, values):
    inputs = random_case(1, 1, 1, channels, values, 9, 11, dtype=torch.float32)
    fused, plain = (
        outputs_and_gradients(inputs, radius=3, scale=0.1, backend=name)
        for name in ("triton", "reference")
    )
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_triton_accepts_half_precision_and_accumulates_in_float32(dtype, monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(
            importlib.import_module("corrflow.attention.kernels"),
            "product",
            importlib.import_module("wide_product").product,
        )
    inputs = random_case(5, 1, 2, 16, 4, 9, 14, dtype=dtype)
    fused, plain = (
        outputs_and_gradients(inputs, radius=4, scale=0.5, backend=name)
        for name in ("triton", "reference")
    )
    assert fused[0].dtype == torch.float32
    for ours, theirs in zip(fused, plain, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).float().norm() < (
            2e-3 if dtype == torch.float16 else 1e-2
        ) * theirs.float().norm()


@needs_triton
def test_triton_kernels_compile_for_hopper_within_its_shared_memory():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(ROOT / "scripts" / "compile_kernels.py"),
        "64x16",
        "512x16",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    used = [int(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(used) == 2 * (4 * 2 + 2)
    assert max(used) <= 227 * 1024


@pytest.mark.parametrize("backend", ["reference", "tiled"])
@pytest.mark.parametrize("top_k", [0, 4])
def test_gradients_match_finite_differences(backend, top_k):
    inputs = random_case(3, 1, 2, 2, 2, 4, 5)

    def attention(query, key, value):
        return restricted_attention(
            query, key, value, radius=2, scale=0.5, top_k=top_k, backend=backend
        )

    assert torch.autograd.gradcheck(attention, inputs)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_several_references_share_one_softmax(backend):
    query, key, value = random_case(2, 1, 2, 4, 3, 5, 6, dtype=torch.float32)
    alone = [
        attention_on_its_device(query, key[:, r], value[:, r], radius=2, backend=backend)
        for r in range(2)
    ]
    twice = attention_on_its_device(
        query, key[:, :1].expand_as(key), value[:, :1].expand_as(value), radius=2, backend=backend
    )
    torch.testing.assert_close(twice, alone[0])
    faint = torch.stack([key[:, 0], torch.zeros_like(key[:, 1])], dim=1)
    strong = query * 200  # the matching reference gets all the weight, and the one of zeros none
    both = attention_on_its_device(
        strong,
        torch.stack([query, torch.zeros_like(query)], dim=1),
        value,
        radius=2,
        backend=backend,
    )
    torch.testing.assert_close(
        both, attention_on_its_device(strong, query, value[:, 0], radius=2, backend=backend)
    )
    assert not torch.allclose(
        attention_on_its_device(query, faint, value, radius=2, backend=backend), alone[0]
    )


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_top_1_attention_copies_single_cells(backend):
    query, key, value = random_case(4, 1, 3, 4, 1, 7, 8, dtype=torch.float32)
    copied = attention_on_its_device(query, key, value, radius=1, top_k=1, backend=backend)
    assert torch.isin(copied.detach(), value.detach()).all()


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_exactly_top_k_of_several_equal_cells_count(backend):
    zeros, value = torch.zeros(1, 1, 1, 3), torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 1, 3)
    copied = attention_on_its_device(zeros, zeros, value, radius=2, top_k=1, backend=backend)
    assert torch.isin(copied, value).all()
    assert torch.isin(
        attention_on_its_device(zeros, zeros, value, radius=2, top_k=2, backend=backend),
        torch.tensor([1.5, 2.5, 3.0]),
    ).all()


def test_searching_references_in_slabs_gives_the_same_top_k(monkeypatch):
    query, key, value = (x.detach().float() for x in random_case(5, 2, 9, 4, 3, 20, 18))
    expected = restricted_attention(query, key, value, radius=3, top_k=7, backend="reference")
    for slab in (1, 3 * 2 * 64 * 14 * 14, topk_search.SLAB):
        monkeypatch.setattr(topk_search, "SLAB", slab)
        torch.testing.assert_close(
            restricted_attention(query, key, value, radius=3, top_k=7, backend="tiled"), expected
        )


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_an_exact_zero_inside_the_image_counts_like_any_other_value(backend):
    zeros, value = torch.zeros(1, 4, 3, 3), torch.arange(9.0).view(1, 1, 3, 3)
    torch.testing.assert_close(
        attention_on_its_device(zeros, zeros, value, radius=6, backend=backend),
        torch.full((1, 1, 3, 3), 4.0),
    )


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_each_cell_attends_only_to_its_window(backend):
    query, value = torch.zeros(1, 1, 30, 40), torch.zeros(1, 1, 30, 40)
    value[0, 0, 20, 20] = 1.0
    seen = attention_on_its_device(query, query, value, radius=3, backend=backend)[0, 0] > 0
    rows, columns = torch.nonzero(seen, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 23, 17, 23)
    assert seen.sum() == 49


def test_half_precision_inputs_are_computed_in_float32():
    inputs = [x.detach() for x in random_case(0, 1, 1, 8, 3, 9, 9, dtype=torch.bfloat16)]
    out = restricted_attention(*inputs)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, restricted_attention(*(x.float() for x in inputs)))


def test_half_precision_affects_only_the_choice_of_blocks():
    inputs = [x.detach() for x in random_case(0, 1, 2, 8, 3, 20, 20, dtype=torch.bfloat16)]
    how = {"radius": 6, "scale": 4.0, "top_k": 5, "block": 2, "backend": "tiled"}
    out = restricted_attention(*inputs, **how)
    expected = restricted_attention(*(x.float() for x in inputs), **how)
    assert out.dtype == torch.float32
    is_same_bhw = ((out - expected).abs() < 1e-4).all(dim=1)
    # among nearly equal blocks another one may be chosen; logits in bfloat16 would change all cells
    assert is_same_bhw.float().mean() > 0.9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": torch.zeros(1, 4, 5, 6)}, "expected [B, C, H, W] and the same"),
        ({"key": torch.zeros(4, 5, 5)}, "expected [B, C, H, W] and the same"),
        ({"value": torch.zeros(2, 4, 5, 5)}, "value [2, 1, 4, 5, 5]"),
        ({"value": torch.zeros(1, 2, 4, 5, 5)}, "value [1, 2, 4, 5, 5]"),
        ({"value": torch.zeros(1, 4, 5, 5, dtype=torch.int64)}, "torch.int64: expected floating"),
        ({"key": torch.zeros(1, 0, 4, 5, 5), "value": torch.zeros(1, 0, 4, 5, 5)}, "R >= 1"),
        ({"radius": -1}, "radius -1"),
        ({"top_k": -1}, "top_k -1"),
        ({"block": 2}, "block 2: expected"),
        ({"top_k": 1, "block": 0}, "block 0: expected"),
        ({"backend": "magic"}, "'magic': expected one of auto, reference, tiled, triton, sampler"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(change, words):
    good = {name: torch.zeros(1, 4, 5, 5) for name in ("query", "key", "value")}
    with pytest.raises(InputError) as error:
        restricted_attention(**{**good, **change})
    assert words in str(error.value)


CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_auto_chooses_triton_on_cuda_where_it_is_supported(monkeypatch):
    monkeypatch.setattr(device, "is_installed", lambda package: True)
    monkeypatch.setattr(device, "has_compiler", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_backend("auto", CPU) == "tiled"
    assert choose_backend("auto", CUDA) == "triton"
    assert choose_backend("auto", CUDA, width=513) == "tiled"
    assert choose_backend("auto", CUDA, torch.float64) == "tiled"
    assert choose_backend("auto", CUDA, top_k=10) == "triton"
    assert choose_backend("auto", CUDA, top_k=65) == "tiled"
    assert choose_backend("reference", CUDA) == "reference"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose_backend("auto", CUDA) == "tiled"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(device, "has_compiler", lambda: False)
    assert choose_backend("auto", CUDA) == "tiled"


@pytest.mark.parametrize(
    ("backend", "command"),
    [("sampler", "pip install --no-build-isolation"), ("triton", "pip install triton")],
)
def test_the_error_for_a_missing_backend_names_its_install_command(monkeypatch, backend, command):
    monkeypatch.setattr(backends, "is_installed", lambda package: False)
    with pytest.raises(InputError, match=f"backend {backend}: .* is not installed: {command}"):
        choose_backend(backend, CUDA)


def test_triton_refuses_inputs_that_it_does_not_support(monkeypatch):
    monkeypatch.setattr(backends, "is_installed", lambda package: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for arguments in ({"dtype": torch.float64}, {"top_k": 65}, {"width": 600}):
        with pytest.raises(InputError, match="tiled supports all"):
            choose_backend("triton", CPU, **arguments)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(InputError, match="tensors on cpu: expected CUDA"):
        choose_backend("triton", CPU)
