"""Encoders by name: variants of the paper's, those of torchvision and timm, and a user's own."""

import re

import pytest
import torch
import torch.nn.functional as F

import corrflow
from corrflow import CorrFlow, InputError, ModelConfig, find_encoder
from corrflow.encoders import ExternalConfig, ResNetConfig
from corrflow.encoders.registry import name_of, read_config
from corrflow.encoders.resnet import VARIANTS

OWN = """
import torch.nn.functional as F
from corrflow import Encoder

class Pixels(Encoder):
    stride, channels = 8, 3

    def forward(self, frames):
        return F.avg_pool2d(frames, 8)

def wrong():
    return 3
"""


@pytest.fixture
def own(tmp_path):
    """A Python file that defines an encoder."""
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def test_names_configurations_and_stored_dicts_can_be_converted(own):
    for name in (*VARIANTS, "torchvision:resnet18@layer2", "timm:resnet18", f"{own}:Pixels"):
        config = find_encoder(name)
        assert name_of(config) == name
        assert read_config(config.to_dict()) == config
    assert find_encoder("resnet18") == ResNetConfig()
    assert ModelConfig().encoder == ResNetConfig()
    assert name_of(ResNetConfig(features=5)).startswith("ResNetConfig(")


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_the_papers_encoder_have_the_declared_features(name):
    encoder = find_encoder(name).build().eval()
    features = encoder(torch.rand(1, 3, 16, 24))
    assert encoder.stride == (8 if name == "resnet18-stride8" else 4)
    assert features.shape == (1, encoder.channels, 16 // encoder.stride, 24 // encoder.stride)
    assert encoder.config == VARIANTS[name]


def test_a_users_own_encoder_is_found_by_file_and_name(own, monkeypatch):
    encoder = find_encoder(f"{own}:Pixels").build()
    frames = torch.rand(1, 3, 16, 24)
    assert torch.equal(encoder(frames), F.avg_pool2d(frames, 8))
    assert encoder.config == ExternalConfig(f"{own}:Pixels")
    # a relative path is made absolute, because a job runs in another folder
    monkeypatch.chdir(own.parent)
    assert find_encoder("mine.py:Pixels") == find_encoder(f"{own}:Pixels")


def test_names_that_are_not_encoders_are_refused(own):
    for name, words in (
        ("mine", "encoder 'mine': expected one of resnet18, resnet34"),
        (f"{own.parent / 'none.py'}:build", "no such file"),
        (f"{own}:missing", "has no missing"),
        (f"{own}:wrong", "returned int: expected a corrflow.Encoder"),
        ("no_such_package_at_all:build", "No module named 'no_such_package_at_all'"),
        ("torchvision:resnet17", "torchvision:resnet17: expected a classification network"),
        ("torchvision:resnet18@layer9", r"layer9: expected one of .*layer2 \(stride 8\)"),
        ("torchvision:vit_b_16", "does not accept frames of 64x64"),
        ("torchvision:alexnet", "none of its layers returns a feature map at an integer stride"),
    ):
        with pytest.raises(InputError, match=words):
            find_encoder(name).build()
    with pytest.raises(InputError, match="has no published weights"):
        find_encoder("resnet18").build(pretrained=True)


def test_a_torchvision_network_is_cut_at_the_deepest_layer_of_stride_8():
    encoder = find_encoder("torchvision:resnet18").build()
    assert (encoder.stride, encoder.channels) == (8, 128)
    encoder(torch.rand(2, 3, 32, 48)).square().sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters()), "for DDP"
    coarse = find_encoder("torchvision:resnet18@layer3").build().eval()
    assert coarse(torch.rand(1, 3, 32, 48)).shape == (1, 256, 2, 3)


def test_layers_with_channels_last_are_not_used_as_feature_maps():
    # all layers but the last have the channels last
    assert find_encoder("torchvision:swin_t").build().stride == 32


def test_a_torchvision_network_tracks_with_several_protocols():
    torch.manual_seed(0)
    model = CorrFlow(ModelConfig(find_encoder("torchvision:resnet18"))).eval()
    frames = torch.rand(3, 3, 41, 67)
    labels = torch.zeros(41, 67, dtype=torch.uint8)
    labels[8:24, 8:24] = 2
    for protocol in ("paper", "crw"):
        tracked = corrflow.propagate(model, frames, labels, protocol)
        assert torch.equal(tracked[0], labels) and tracked.shape == (3, 41, 67)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "hrnet_w18_small"])
def test_a_timm_network_that_needs_a_fixed_frame_size_is_refused(name):
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(InputError, match=rf"timm:{name}: does not accept frames of \d+x\d+ \("):
        find_encoder(f"timm:{name}").build()


def test_a_users_encoder_with_wrong_attributes_or_output_is_refused(own):
    encoder = find_encoder(f"{own}:Pixels").build()
    for name, value in (("stride", 8.0), ("stride", 0), ("channels", None)):
        setattr(encoder, name, value)
        with pytest.raises(
            InputError, match=f"encoder Pixels: {name} {value}: expected a positive"
        ):
            CorrFlow(encoder=encoder)
        encoder.stride, encoder.channels = 8, 3
    model = CorrFlow(encoder=encoder)
    for forward, words in (
        (lambda frames: (frames,), "tuple"),
        (lambda frames: frames, "[1, 3, 16"),
    ):
        encoder.forward = forward
        with pytest.raises(InputError, match=re.escape(f"became {words}")):
            model.encode(torch.rand(1, 3, 16, 24))


def test_a_network_gets_frames_normalised_as_in_its_training():
    encoder = find_encoder("torchvision:resnet18").build().eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    frames = torch.rand(1, 3, 16, 16)
    normalised = (frames - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(encoder(frames), encoder.network(normalised))
    assert not {"mean", "std"} & set(encoder.state_dict()), "they are known without it"


@pytest.mark.parametrize(
    ("name", "stride"), [("resnet18", 8), ("convnext_atto", 8), ("vit_tiny_patch16_224", 16)]
)
def test_a_timm_network_is_found_with_its_stride(name, stride):
    pytest.importorskip("timm", reason="timm is not installed")
    encoder = find_encoder(f"timm:{name}").build().eval()
    assert encoder.stride == stride
    assert encoder(torch.rand(1, 3, 64, 96)).shape == (
        1,
        encoder.channels,
        64 // stride,
        96 // stride,
    )
    with pytest.raises(InputError, match=r"expected a name of timm\.list_models"):
        find_encoder("timm:no_such_network").build()
    with pytest.raises(InputError, match=r"can't be built or downloaded \(Invalid pretrained tag"):
        find_encoder("timm:resnet18.no_such_weights").build()
