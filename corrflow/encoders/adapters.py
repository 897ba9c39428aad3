"""Networks of torchvision and timm as encoders: the features of one layer, with the input
normalisation that the network was trained with.

A name may end in `@LAYER`. Without it, the deepest layer of stride 8 or less is taken, or, if the
network has none, the deepest layer of its smallest stride: label propagation needs fine features
more than deep ones. Shapes: n frames, c channels, h w cells, H W pixels.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from corrflow.encoders.encoder import Encoder, check_features
from corrflow.errors import InputError

MAX_STRIDE = 8  # pixels: the largest stride to choose, if there is a choice
PROBE = 64  # side, in pixels, of the frame that is used to measure strides
PROBE_CELLS = (5, 7)  # rows and columns, in cells, of a frame that each network must accept
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std of RGB


class FeatureLayer(NamedTuple):
    """A layer whose output is a feature map."""

    name: str
    stride: int
    channels: int


class Adapter(Encoder):
    """A network that returns one feature map, preceded by input normalisation."""

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        layer: FeatureLayer,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.network = network
        self.stride, self.channels = layer.stride, layer.channels
        # not stored in checkpoints, since the values are the same each time it is built
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, frames_n3hw: Tensor) -> Tensor:
        """Compute features: `[N, 3, H, W]` to `[N, C, H/stride, W/stride]`."""
        return self.network((frames_n3hw - self.mean) / self.std)


class SingleOutput(nn.Module):
    """Unpacks the output of a network that returns a dict or list with one entry."""

    def __init__(self, network: nn.Module, key: str | int) -> None:
        super().__init__()
        self.network, self.key = network, key

    def forward(self, frames_n3hw: Tensor) -> Tensor:
        """Return the single output, `[N, C, h, w]`."""
        output: Tensor = self.network(frames_n3hw)[self.key]
        return output


def build_torchvision(name: str, pretrained: bool) -> Encoder:
    """Build `NAME` or `NAME@LAYER` of `torchvision.models`; a layer is a module's name, such as
    `layer2`."""
    models = importlib.import_module("torchvision.models")
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    name, _, wanted = name.partition("@")
    where = f"encoder torchvision:{name}"
    if name not in models.list_models(module=models):
        raise InputError(f"{where}: expected a classification network of torchvision.models")
    network = build_network(
        where, models.get_model, name, weights="DEFAULT" if pretrained else None
    )
    try:
        layers = probe_layers(network)
    except (AssertionError, RuntimeError) as error:
        raise InputError(f"{where}: does not accept frames of {PROBE}x{PROBE} ({error})") from None
    layer = choose_layer(where, wanted, layers)
    extractor = extraction.create_feature_extractor(network, {layer.name: "features"})
    encoder = Adapter(SingleOutput(extractor, "features"), layer, *IMAGENET)
    check_frames(where, encoder)
    return encoder


def probe_layers(network: nn.Module) -> list[FeatureLayer]:
    """The layers of a network, down to two levels of modules, that return feature maps, in the
    order in which they run. Layers whose stride is not a whole number, or whose output has its
    channels last, are left out."""
    layers: list[FeatureLayer] = []
    was_training = network.training
    network.eval()

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim != 4:
                return
            _, channels, rows, columns = output.shape
            if rows == columns > 1 and PROBE % columns == 0:
                layers.append(FeatureLayer(name, PROBE // columns, channels))

        return hook

    hooks = [
        part.register_forward_hook(note(name))
        for name, part in network.named_modules()
        if name and name.count(".") < 2
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, PROBE, PROBE))
    for hook in hooks:
        hook.remove()
    network.train(was_training)
    return layers


def build_timm(name: str, pretrained: bool) -> Encoder:
    """Build `NAME` or `NAME@INDEX` of timm; the index counts the feature maps of
    `features_only=True`, from 0."""
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise InputError(f"encoder timm:{name}: timm is not installed: pip install timm") from None
    name, _, wanted = name.partition("@")
    where = f"encoder timm:{name}"
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"{where}: expected a name of timm.list_models()")
    # vision transformers accept frames of any size only with this setting
    sizes = {"dynamic_img_size": True} if name.startswith(("vit_", "deit", "eva")) else {}
    settings: dict[str, Any] = {"features_only": True, **sizes}
    probe: Any = build_network(where, timm.create_model, name, pretrained=False, **settings)
    layers = [
        FeatureLayer(str(index), int(info["reduction"]), int(info["num_chs"]))
        for index, info in enumerate(probe.feature_info.info)
    ]
    layer = choose_layer(where, wanted, layers)
    settings |= {"pretrained": pretrained, "out_indices": (int(layer.name),)}
    network = build_network(where, timm.create_model, name, **settings)
    trained = probe.pretrained_cfg
    encoder = Adapter(SingleOutput(network, 0), layer, trained["mean"], trained["std"])
    check_frames(where, encoder)
    return encoder


def check_frames(where: str, encoder: Encoder) -> None:
    """Raise InputError if a network accepts only frames of one size, or of multiples of more than
    its stride."""
    was_training = encoder.training
    encoder.eval()
    rows, columns = (cells * encoder.stride for cells in PROBE_CELLS)
    frames_13hw = torch.zeros(1, 3, rows, columns)
    try:
        with torch.no_grad():
            check_features(encoder(frames_13hw), frames_13hw, encoder)
    except (AssertionError, RuntimeError, InputError) as error:
        raise InputError(f"{where}: does not accept frames of {columns}x{rows} ({error})") from None
    encoder.train(was_training)


def choose_layer(where: str, wanted: str, layers: list[FeatureLayer]) -> FeatureLayer:
    """The wanted layer, or by default the deepest that is fine enough; InputError lists the
    layers."""
    if not layers:
        raise InputError(f"{where}: none of its layers returns a feature map at an integer stride")
    if wanted:
        named = [layer for layer in layers if layer.name == wanted]
        if not named:
            names = ", ".join(f"{layer.name} (stride {layer.stride})" for layer in layers)
            raise InputError(f"{where}@{wanted}: expected one of {names}")
        return named[-1]
    finest = min(layer.stride for layer in layers)
    return [layer for layer in layers if layer.stride <= max(MAX_STRIDE, finest)][-1]


def build_network(where: str, create: Callable[..., Any], name: str, **settings: Any) -> nn.Module:
    """Create a library's network; InputError if that, or the download of its weights, fails."""
    try:
        network: nn.Module = create(name, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{where}: can't be built or downloaded ({reason[:120]})") from None
    return network


LIBRARIES: dict[str, Callable[[str, bool], Encoder]] = {
    "torchvision": build_torchvision,
    "timm": build_timm,
}
