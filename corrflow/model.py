"""The model: an encoder, and attention that copies from a reference frame.

`pretrained.py` loads trained weights, `loss.py` has the loss, and `propagation/` applies the model
to a video. Shapes: b batch, c k channels, h w pixels or cells.
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
from corrflow.errors import InputError, check_choice, check_positive, check_range
from corrflow.files import atomic_file
from corrflow.frames import check_frame

# files of a folder that `save_pretrained` writes, named as in other libraries
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# the cells in a row of an enlarged frame are a multiple of this: on a CPU in bfloat16, rows of 318
# cells take nearly twice as long as rows of 320
ROW_MULTIPLE = 8


@dataclass(frozen=True)
class ModelConfig:
    """The architecture: everything that a checkpoint must hold besides its weights."""

    encoder: EncoderConfig = field(default_factory=ResNetConfig)
    """The network that computes the features of frames: resnet18 (the paper's), resnet34,
    resnet18-stride8, resnet18-half, resnet10-tiny, torchvision:NAME, timm:NAME, or your own as
    package.module:function or FILE.py:function."""
    radius: int = 6
    """Radius of the attention window in training, in cells of the encoder; 6 is a window of 13x13
    cells (paper, section 4.1)."""
    inverse_temperature: float = 1.0
    """Factor of the dot products before the softmax. 1 is the released value; 0.125 = 1/sqrt(64)
    prevents divergence."""
    input: InputSpace = "rgb"
    """The colour space of the encoder's input: RGB as released, or Lab as in MAST."""

    input_scale: float = 1.0
    """Factor by which frames are enlarged before they are encoded. The features are averaged, so
    that the number of cells stays the same."""

    def __post_init__(self) -> None:
        check_choice("model: input", self.input, InputSpace)
        check_range("model", self, "radius", 0)
        check_positive("model", self, "inverse_temperature")
        check_range("model", self, "input_scale", 1)


class CorrFlow(nn.Module):
    """The correspondence model: its features tell where each point of a target frame was in a
    reference frame."""

    def __init__(
        self,
        config: ModelConfig | None = None,
        attention: str = "auto",
        encoder: Encoder | None = None,
    ) -> None:
        """Make a model with random weights from torch's global generator (`seeded_model` leaves the
        generator unchanged).

        Args:
            config: the architecture; None for the default one.
            attention: backend of `restricted_attention`; it may be changed at any time.
            encoder: a ready-made encoder to use instead of the one in `config`.
        """
        super().__init__()
        config = config or ModelConfig()
        built = config.encoder.build() if encoder is None else encoder
        check_encoder(built)
        if encoder is not None:
            config = replace(config, encoder=encoder.config or ExternalConfig(""))
        self.config = config
        self.attention = attention
        self.encoder = built
        self.precision = torch.float32  # of the encoder's convolutions
        # has the model's device and dtype, even if its encoder has no weights
        self.marker: Tensor
        self.register_buffer("marker", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.marker.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the frames that the model takes."""
        return self.marker.dtype

    @property
    def stride(self) -> int:
        """Pixels between neighbouring cells of the features."""
        return self.encoder.stride

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into a folder that `load_model` takes: its configuration as
        `config.json`, and its weights, in their own precision, as `model.safetensors`.

        Raises:
            InputError: the encoder was made by hand, so no configuration describes it; the folder
                holds something else, a run for example.
        """
        if self.config.encoder == ExternalConfig(""):
            raise InputError("encoder: no name: expected one that corrflow.find_encoder finds")
        folder = Path(folder)
        check_model_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        # weights first, so that a folder with a configuration is always complete
        with atomic_file(folder / WEIGHTS_FILE) as file:
            file.write(save(weights, {"format": "pt"}))
        with atomic_file(folder / CONFIG_FILE) as file:
            file.write(json.dumps(config_to_dict(self.config), indent=2).encode())

    def accelerate(self, precision: Precision = "auto") -> "CorrFlow":
        """Make the encoder as fast as possible on its device, for inference; features change by
        rounding only.

        Args:
            precision: of its convolutions; `auto` is bfloat16 where the device multiplies it
                several times as fast as float32. Masks stay as good (docs/performance.md).
        """
        check_choice("model: precision", precision, Precision)
        half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(self.device))
        self.precision = torch.bfloat16 if half else torch.float32
        winograd = self.device.type == "cpu" and not half
        self.encoder.accelerate(self.device, half=half, winograd=winograd)
        return self

    def describe_compute(self) -> str:
        """What the rounding of results may depend on: device, attention backend and precision."""
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
            InputError: wrong shape, integers, or values out of range; features that do not have the
                encoder's stated stride and channels.
        """
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise InputError(f"encode: frames {list(frames.shape)}: expected [N, 3, H, W]")
        if not frames.is_floating_point():
            raise InputError(
                f"encode: frames of {frames.dtype}: expected floating RGB in [0, 1] (divide uint8 "
                "by 255)"
            )
        if frames.device.type == "cpu":  # on a GPU, checking values would synchronise
            check_frame(frames, "encode: frames")
        return self.encode_input(to_input_space(frames, self.config.input))

    def encode_input(self, input_n3hw: Tensor) -> Tensor:
        """As `encode`, for frames that are already in the input's colour space."""
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
        """As `encode_input`, but without `input_scale`."""
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
        """Copy `values` `[B, K, h, w]` from the reference to the target, whose features are
        `[B, C, h, w]` each; returns `[B, K, h, w]`."""
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
    """Raise InputError if the folder has a `config.json` that is not a model's, but a run's or
    another program's."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return
    try:
        names = set(json.loads(path.read_bytes()))
    except (TypeError, ValueError):  # not JSON, or not a JSON object
        names = set()
    if names != {setting.name for setting in fields(ModelConfig)}:
        raise InputError(f"{path}: does not belong to an exported model: expected another folder")


def overlapping_means(features_nchw: Tensor, cells: tuple[int, int]) -> Tensor:
    """Downsample features to `(h, w)` cells by a triangle filter that reaches into the neighbouring
    cells: plain means over each cell track worse."""
    # in float32, because this filter does not support bfloat16 on the CPU
    widened_nchw = features_nchw.to(torch.promote_types(features_nchw.dtype, torch.float32))
    means_nchw = F.interpolate(
        widened_nchw, cells, mode="bilinear", align_corners=False, antialias=True
    )
    return means_nchw.to(features_nchw.dtype)


def seeded_model(config: ModelConfig, seed: int, attention: str = "auto") -> CorrFlow:
    """Make a model on the CPU with the random weights of a seed.

    Layers draw their initial weights from torch's global generator only, so it is seeded here and
    restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CorrFlow(config, attention)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Convert `config` to plain types; `read_model_config` reads them back."""
    return {**asdict(config), "encoder": config.encoder.to_dict()}


def weights_digest(model: CorrFlow) -> str:
    """A digest of a model's architecture and weights, independent of the file that it was loaded
    from.

    Raises:
        InputError: the encoder was made by hand, so its code has no name.
    """
    if model.config.encoder == ExternalConfig(""):
        raise InputError("encoder: no name: expected one that corrflow.find_encoder finds")
    digest = hashlib.sha256(json.dumps(config_to_dict(model.config)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
