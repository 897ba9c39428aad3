"""The model: an encoder and a pointer.

Trained weights are loaded by `pretrained.py`, the loss is in `loss.py`, use on a video in
`propagation/`. Shapes: b batch, c k channels, h w pixels or cells.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from corrflow.attention import restricted_attention
from corrflow.color import InputSpace, to_input_space
from corrflow.device import Precision, has_bfloat16
from corrflow.encoders import Encoder, EncoderConfig, ExternalConfig, ResNetConfig
from corrflow.encoders.encoder import check_encoder, check_features
from corrflow.errors import InputError, check_positive, check_range
from corrflow.files import atomic_file
from corrflow.frames import check_frame

# of a folder that `save_pretrained` writes, as other libraries name them
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# cells in a row of an enlarged frame are a multiple of it: rows of 318 cells take nearly twice as
# long as those of 320, in bfloat16 on a processor
ROW_MULTIPLE = 8


@dataclass(frozen=True)
class ModelConfig:
    """All that a checkpoint must say so that its weights can be used."""

    encoder: EncoderConfig = field(default_factory=ResNetConfig)
    """The network that makes features of frames: resnet18 (the paper's), resnet34,
    resnet18-stride8, resnet18-half, resnet10-tiny, torchvision:NAME, timm:NAME, or your own,
    package.module:function or FILE.py:function."""
    radius: int = 6
    """Half the side of the attention's window in training, in cells of the encoder (paper, section
    4.1: 13x13 cells)."""
    inverse_temperature: float = 1.0
    """Factor of the dot products; 1 as released, 0.125 = 1/sqrt(64) against divergence."""
    input: InputSpace = "rgb"
    """The colour space of the frames that the encoder is shown: RGB as released, or Lab as in
    MAST."""

    input_scale: float = 1.0
    """How many times frames are enlarged before they are encoded; features are averaged to as many
    cells as without."""

    def __post_init__(self) -> None:
        check_range("model", self, "radius", 0)
        check_positive("model", self, "inverse_temperature")
        check_range("model", self, "input_scale", 1)


class CorrFlow(nn.Module):
    """The correspondence model: features that find, in a reference frame, where each point of a
    target frame was."""

    def __init__(
        self,
        config: ModelConfig | None = None,
        attention: str = "auto",
        encoder: Encoder | None = None,
    ) -> None:
        """A model of random weights, drawn from torch's global generator (`seeded_model` leaves
        that alone).

        Args:
            config: of the model.
            attention: backend of `restricted_attention`; may be changed at any time.
            encoder: one that is made already, instead of that of `config`.
        """
        super().__init__()
        config = config or ModelConfig()
        if encoder is not None:
            config = replace(config, encoder=encoder.config or ExternalConfig(""))
        self.config = config
        self.attention = attention
        self.encoder = encoder or config.encoder.build()
        check_encoder(self.encoder)
        self.precision = torch.float32  # of the encoder's convolutions
        # says where the model is and in which precision, even if its encoder has no weights
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.place.device

    @property
    def stride(self) -> int:
        """Pixels from one cell of the features to the next."""
        return self.encoder.stride

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into a folder: its configuration as `config.json`, its weights, at the
        precision that they have, as `model.safetensors`. `load_model` takes the folder.

        Raises:
            InputError: an encoder that was made by hand, which no configuration describes; a folder
                of something else, a run's for example.
        """
        if self.config.encoder == ExternalConfig(""):
            raise InputError("encoder: no name: expected one that corrflow.find_encoder finds")
        folder = Path(folder)
        check_model_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        # first the weights: a folder with a configuration is whole
        with atomic_file(folder / WEIGHTS_FILE) as file:
            file.write(save(weights, {"format": "pt"}))
        with atomic_file(folder / CONFIG_FILE) as file:
            file.write(json.dumps(config_to_dict(self.config), indent=2).encode())

    def accelerate(self, precision: Precision = "auto") -> "CorrFlow":
        """Let the encoder be computed as fast as it can be where it is, for use without gradients;
        features differ by rounding.

        Args:
            precision: of its convolutions; `auto` takes bfloat16 where the device multiplies it
                several times as fast, which leaves masks as good as they are
                (docs/performance.md).
        """
        half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(self.device))
        self.precision = torch.bfloat16 if half else torch.float32
        winograd = self.device.type == "cpu" and not half
        self.encoder.accelerate(self.device, half=half, winograd=winograd)
        return self

    def computed_by(self) -> str:
        """What rounding may depend on."""
        precision = str(self.precision).removeprefix("torch.")
        return f"{self.device.type}, {self.attention} attention, encoder in {precision}"

    def encode(self, frames: Tensor) -> Tensor:
        """Compute the features of frames (paper, section 3.1).

        Args:
            frames: RGB in [0, 1], floating, `[N, 3, H, W]`; H and W multiples of the encoder's
                stride.

        Returns:
            `[N, C, H/stride, W/stride]`; C = 64 and stride = 4 by default.

        Raises:
            InputError: another shape, integers or other values; an encoder whose features are not
                as it says.
        """
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise InputError(f"encode: frames {list(frames.shape)}: expected [N, 3, H, W]")
        if not frames.is_floating_point():
            raise InputError(
                f"encode: frames of {frames.dtype}: expected floating RGB in [0, 1] (divide uint8 "
                "by 255)"
            )
        if frames.device.type == "cpu":  # on a GPU a look at the values would wait for it
            check_frame(frames, "encode: frames")
        return self.encode_input(to_input_space(frames, self.config.input))

    def encode_input(self, input_n3hw: Tensor) -> Tensor:
        """Compute the features of frames that are in the input's colour space already; as
        `encode`."""
        height, width = input_n3hw.shape[-2:]
        if height % self.stride or width % self.stride:
            raise InputError(
                f"encode: frames {list(input_n3hw.shape)}: expected [N, 3, H, W] with H and W "
                f"multiples of {self.stride}"
            )
        if self.config.input_scale == 1:
            return self.encode_as_is(input_n3hw)
        cells = height // self.stride, width // self.stride
        rows, columns = (math.ceil(self.config.input_scale * side) for side in cells)
        columns += -columns % ROW_MULTIPLE
        size = rows * self.stride, columns * self.stride
        enlarged_n3hw = F.interpolate(input_n3hw, size, mode="bicubic", align_corners=False)
        features_nchw = self.encode_as_is(enlarged_n3hw)
        return overlapping_means(features_nchw, cells)

    def encode_as_is(self, input_n3hw: Tensor) -> Tensor:
        """`encode_input` without an `input_scale`."""
        features: Tensor
        if self.precision == torch.bfloat16:
            with torch.autocast(self.device.type, torch.bfloat16):
                features = self.encoder(input_n3hw)
        else:
            features = self.encoder(input_n3hw)
        check_features(features, input_n3hw, self.encoder)
        return features.float() if self.precision == torch.bfloat16 else features

    def propagate_values(
        self, target: Tensor, reference: Tensor, values: Tensor, radius: int | None = None
    ) -> Tensor:
        """Copy `values` of the reference to the target: features `[B, C, h, w]` twice,
        `[B, K, h, w]` to `[B, K, h, w]`."""
        chosen = self.config.radius if radius is None else radius
        return restricted_attention(
            target,
            reference,
            values,
            chosen,
            self.config.inverse_temperature,
            backend=self.attention,
        )


def check_model_folder(folder: Path) -> None:
    """InputError if `config.json` is there and is no model's, but a run's or another program's."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return
    try:
        names = set(json.loads(path.read_bytes()))
    except (TypeError, ValueError):  # no JSON, or a number
        names = set()
    if names != {setting.name for setting in fields(ModelConfig)}:
        raise InputError(f"{path}: is not of an exported model: expected a folder of its own")


def overlapping_means(features_nchw: Tensor, cells: tuple[int, int]) -> Tensor:
    """Bring features to fewer cells, `(h, w)`, each the mean of those around it by a triangle that
    reaches into its neighbours: means of each cell alone track worse."""
    # in single precision, since on a CPU there is no such mean of bfloat16
    widened_nchw = features_nchw.to(torch.promote_types(features_nchw.dtype, torch.float32))
    means_nchw = F.interpolate(
        widened_nchw, cells, mode="bilinear", align_corners=False, antialias=True
    )
    return means_nchw.to(features_nchw.dtype)


def seeded_model(config: ModelConfig, seed: int, attention: str = "auto") -> CorrFlow:
    """A model of the random weights that `seed` names, on the CPU.

    Layers draw their first weights from torch's global generator and from no other; it is set for
    as long as that takes, and then put back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CorrFlow(config, attention)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """`config` in plain types, as `read_model_config` reads it back."""
    return {**asdict(config), "encoder": config.encoder.to_dict()}


def weights_digest(model: CorrFlow) -> str:
    """Names what a model computes, wherever it came from: architecture and weights.

    Raises:
        InputError: an encoder that was made by hand, whose code has no name.
    """
    if model.config.encoder == ExternalConfig(""):
        raise InputError("encoder: no name: expected one that corrflow.find_encoder finds")
    digest = hashlib.sha256(json.dumps(config_to_dict(model.config)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
