import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, SHARED

from corrflow import CorrFlow, Encoder, InputError, ModelConfig, load_model
from corrflow.color import to_input_space
from corrflow.encoders.resnet import ResNetConfig
from corrflow.model import weights_digest
from corrflow.pretrained import export_model
from corrflow.training.checkpoint import save_checkpoint

SMALL = ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2, inverse_temperature=0.5)
ORACLE = SHARED / "oracle"


class MeanColors(Encoder):
    """An encoder whose features are the mean colour of each cell."""

    stride, channels = 4, 3

    def forward(self, frames_n3hw):
        return F.avg_pool2d(frames_n3hw, 4)


def released_names(model):
    """A model's weights under the names that the released files use."""
    names = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("encoder.head.", "post_convolution.").replace(
            "encoder.stem.", "feature_extraction.conv1."
        )
        names[name.replace("encoder.", "feature_extraction.").replace(".residual.", ".left.")] = (
            tensor
        )
    return names


def test_the_default_model_has_the_papers_number_of_parameters():
    assert sum(p.numel() for p in CorrFlow().parameters()) == 5_291_648


def test_features_have_a_quarter_of_the_frames_resolution():
    assert CorrFlow(SMALL).encode(torch.rand(2, 3, 24, 36)).shape == (2, 8, 6, 9)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_an_accelerated_model_gives_the_same_features_up_to_rounding(precision, tolerance):
    model, frames = load_model("fast"), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model.encode(frames)
        features = model.accelerate(precision).encode(frames)
    assert features.dtype == torch.float32
    assert 0 < (features - expected).norm() / expected.norm() < tolerance


def test_auto_precision_is_bfloat16_on_devices_that_are_fast_at_it(monkeypatch):
    for is_fast, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("corrflow.model.has_bfloat16", lambda device, yes=is_fast: yes)
        assert CorrFlow(SMALL).accelerate().describe_compute() == (
            f"cpu, auto attention, encoder in {name}"
        )


@pytest.mark.parametrize("input_scale", [1.0, 1.5, 2.0])
def test_input_scale_does_not_change_the_number_of_cells(input_scale):
    model = CorrFlow(replace(SMALL, input_scale=input_scale))
    model.encoder = MeanColors()
    cells_3hw = torch.arange(3 * 5 * 7).view(3, 5, 7) / 105
    frame_3hw = cells_3hw.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    features_3hw = model.encode(frame_3hw[None])[0]
    assert features_3hw.shape == cells_3hw.shape
    # enlarging a frame mixes the colours of neighbouring cells
    assert (features_3hw - cells_3hw).abs().mean() < 0.01


def test_frames_are_enlarged_in_half_precision_as_well():
    model = CorrFlow(replace(SMALL, input_scale=1.5)).eval()
    frames = torch.rand(1, 3, 32, 32)
    expected = model.encode(frames)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.encode(frames)
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(features.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "frames",
    [torch.rand(1, 3, 30, 32), torch.rand(3, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)],
)
def test_encode_refuses_frames_of_wrong_shape_or_type(frames):
    with pytest.raises(InputError, match="encode: frames"):
        CorrFlow(SMALL).encode(frames)


def test_our_checkpoints_store_their_architecture(tmp_path):
    model = CorrFlow(SMALL)
    path = save_checkpoint(tmp_path, 7, model, torch.optim.Adam(model.parameters()))
    loaded = load_model(path)
    assert loaded.config == SMALL
    assert not loaded.training
    frames = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded.encode(frames), model.eval().encode(frames))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_checkpoint_loads_with_or_without_prefix(tmp_path, prefix):
    model = CorrFlow()
    torch.save(
        {"epoch": 3, "state_dict": {prefix + k: v for k, v in released_names(model).items()}},
        tmp_path / "checkpoint.tar",
    )
    loaded = load_model(tmp_path / "checkpoint.tar").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.skipif(not ORACLE.exists(), reason="the released code's fixtures are not here")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_features_and_copied_values_equal_the_released_codes(tmp_path, mode):
    weights, fixture = (
        np.load(ORACLE / "state_dict_seed0.npz"),
        np.load(ORACLE / "b_model_forward.npz"),
    )
    torch.save(
        {"state_dict": {name: torch.tensor(weights[name]) for name in weights.files}},
        tmp_path / "checkpoint.tar",
    )
    model = load_model(tmp_path / "checkpoint.tar")
    with torch.no_grad():
        features = [
            model.train(mode == "train").encode(torch.tensor(fixture[f"frame{t}"]))
            for t in range(3)
        ]
    for t in range(3):
        true = fixture[f"feats_{mode}_{t}"]
        assert np.abs(features[t].numpy() - true).max() <= 1e-5 * np.abs(true).max()
    for t in range(2):
        labels = torch.tensor(fixture[f"q{t}"])[:, 0]
        middle = F.interpolate(
            labels[:, None].float(), scale_factor=0.25, mode="bilinear", recompute_scale_factor=True
        ).long()
        # the released code downsamples labels like this, which is a defect
        colors = F.one_hot(middle[:, 0], 16).movedim(-1, 1).float()
        np.testing.assert_allclose(
            model.propagate_values(features[t + 1], features[t], colors),
            fixture[f"out_{mode}_{t}to{t + 1}"],
            rtol=0,
            atol=1e-5,
        )


def test_missing_truncated_and_foreign_checkpoints_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "none.pt")
    model = CorrFlow(SMALL)
    path = save_checkpoint(tmp_path, 1, model, torch.optim.Adam(model.parameters()))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="truncated"):
        load_model(path)
    (tmp_path / "text.pt").write_text("not weights at all")
    with pytest.raises(InputError, match=r"text\.pt: damaged, or holds Python objects"):
        load_model(tmp_path / "text.pt")
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1.0)}, tmp_path / "objects.pt")
    with pytest.raises(InputError, match=r"objects\.pt: damaged, or holds Python objects"):
        load_model(tmp_path / "objects.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_model(tmp_path / "empty.pt")
    torch.save({"state_dict": {"fc.weight": torch.zeros(3, 3)}}, tmp_path / "foreign.pt")
    with pytest.raises(InputError, match="another architecture"):
        load_model(tmp_path / "foreign.pt")


def test_weights_of_another_width_are_refused(tmp_path):
    torch.save(released_names(CorrFlow(SMALL)), tmp_path / "narrow.pt")
    with pytest.raises(
        InputError, match=r"encoder\.stem\.0\.weight is \[4, 3, 7, 7\], expected \[64, 3, 7, 7\]"
    ):
        load_model(tmp_path / "narrow.pt")


def test_a_lab_model_takes_rgb_and_is_still_one_after_loading(tmp_path):
    model = CorrFlow(replace(SMALL, input="lab")).eval()
    path = save_checkpoint(tmp_path, 7, model, torch.optim.Adam(model.parameters()))
    loaded, frames = load_model(path), torch.rand(1, 3, 16, 16)
    assert loaded.config.input == "lab"
    assert torch.equal(loaded.encode(frames), model.encode(frames))
    assert torch.equal(model.encode(frames), model.encoder(to_input_space(frames, "lab")))
    assert not torch.equal(model.encode(frames), model.encoder(frames))


def test_an_export_is_small_and_equal_up_to_half_precision(tmp_path):
    torch.manual_seed(0)
    model, ema = CorrFlow(SMALL), CorrFlow(SMALL).eval()
    more = {"ema": ema.state_dict(), "clips": 28}
    path = save_checkpoint(tmp_path, 7, model, torch.optim.Adam(model.parameters()), more)
    frames = torch.rand(1, 3, 32, 32)
    for weights, expected in (("auto", ema), ("last", model.eval())):
        export_model(path, tmp_path / "small", weights)
        loaded = load_model(tmp_path / "small")
        assert all(
            tensor.dtype in (torch.float32, torch.int64) for tensor in loaded.state_dict().values()
        )
        torch.testing.assert_close(
            loaded.encode(frames), expected.encode(frames), atol=5e-3, rtol=5e-3
        )
    bytes_of_weights = sum(p.numel() for p in model.parameters()) * 2
    assert (tmp_path / "small/model.safetensors").stat().st_size < bytes_of_weights + 40_000


@pytest.mark.parametrize(
    ("setting", "value", "wrong"), [("inverse_temperature", 0.25, 0), ("input_scale", 2.0, 0.5)]
)
def test_an_export_with_a_changed_setting_is_another_model(tmp_path, setting, value, wrong):
    model = CorrFlow(SMALL).eval()
    path = save_checkpoint(tmp_path, 7, model, torch.optim.Adam(model.parameters()))
    for name, requested in (("as_trained", None), ("changed", value)):
        export_model(path, tmp_path / name, **{setting: requested})
    as_trained, changed = load_model(tmp_path / "as_trained"), load_model(tmp_path / "changed")
    assert (as_trained.config, changed.config) == (SMALL, replace(SMALL, **{setting: value}))
    assert weights_digest(as_trained) != weights_digest(changed)
    with pytest.raises(InputError, match=f"{setting} {wrong}"):
        export_model(path, tmp_path / "none", **{setting: wrong})


def test_weights_that_exceed_half_precision_are_not_exported(tmp_path):
    model = CorrFlow(SMALL)
    with torch.no_grad():
        model.encoder.head.bias[0] = 1e6
    path = save_checkpoint(tmp_path, 7, model, torch.optim.Adam(model.parameters()))
    with pytest.raises(InputError, match=r"encoder\.head\.bias exceeds half precision"):
        export_model(path, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_the_error_for_a_missing_checkpoint_names_the_latest_one(tmp_path):
    model = CorrFlow(SMALL)
    for step in (7, 12):
        save_checkpoint(tmp_path, step, model, torch.optim.Adam(model.parameters()))
    with pytest.raises(InputError, match=r"best\.pt: no such file: .* step-00000012\.pt beside it"):
        load_model(tmp_path / "checkpoints/best.pt")


def test_load_model_defaults_to_the_model_that_ships(tmp_path, monkeypatch):
    model = CorrFlow(SMALL).eval()
    export_model(
        save_checkpoint(tmp_path, 7, model, torch.optim.Adam(model.parameters())),
        tmp_path / "base",
    )
    monkeypatch.setattr("corrflow.pretrained.MODELS", tmp_path)
    assert weights_digest(load_model()) == weights_digest(load_model(tmp_path / "base"))
    with pytest.raises(
        InputError, match=r"fsat: no such file: expected a checkpoint, or one of base"
    ):
        load_model("fsat")
    (tmp_path / "base/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"base: has no model\.safetensors"):
        load_model()
    (tmp_path / "base/config.json").unlink()
    with pytest.raises(InputError, match=r"base: no such file: .* this copy has no models"):
        load_model()


@pytest.mark.parametrize("content", ['{"training": {}}', "[1, 2]", "7", "cut"])
def test_save_pretrained_does_not_overwrite_a_foreign_folder(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        InputError, match=r"config\.json: does not belong to an exported model: exp"
    ):
        CorrFlow(SMALL).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == content


def test_a_folder_from_save_pretrained_loads_as_the_same_model(tmp_path):
    torch.manual_seed(0)
    model = CorrFlow(replace(SMALL, input="lab", inverse_temperature=0.25)).eval()
    model.save_pretrained(tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    again = load_model(tmp_path / "mine")
    assert not again.training
    assert again.config == model.config
    assert weights_digest(again) == weights_digest(model)
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="mine: damaged: "):
        load_model(tmp_path / "mine")
    (tmp_path / "mine" / "config.json").unlink()
    with pytest.raises(InputError, match=r"mine: has no config.json: expected a folder of"):
        load_model(tmp_path / "mine")


def test_torch_hub_loads_the_pretrained_models():
    digest = weights_digest(load_model())
    hub = torch.hub.load(str(ROOT), "corrflow", source="local")
    assert weights_digest(hub) == digest
    fast = torch.hub.load(str(ROOT), "corrflow", source="local", name="fast")
    assert fast.stride == 8
    assert weights_digest(fast) == weights_digest(load_model("fast"))
    untrained = torch.hub.load(str(ROOT), "corrflow", source="local", pretrained=False)
    assert weights_digest(untrained) != digest
    assert untrained.encode(torch.rand(1, 3, 32, 32)).shape == (1, 64, 8, 8)
