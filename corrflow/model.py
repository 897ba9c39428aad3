"""The model: an encoder and a pointer. Loads our checkpoints and the files that the method's
authors released.

The loss is in `loss.py`, use on a video in `propagation/`. Shapes: b batch, c k channels, h w
pixels or cells.
"""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from corrflow.attention import choose_backend, restricted_attention
from corrflow.color import InputSpace, to_input_space
from corrflow.device import Precision, has_bfloat16
from corrflow.encoders import Encoder, EncoderConfig, ExternalConfig, ResNetConfig
from corrflow.encoders.encoder import check_features
from corrflow.encoders.registry import read_config
from corrflow.errors import InputError
from corrflow.files import atomic_file

MODELS = Path(__file__).parent / "weights"  # a folder of `save_pretrained` for each that ships
DEFAULT = "base"
# of a folder that `save_pretrained` writes, as other libraries name them
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# cells in a row of an enlarged frame are a multiple of it: rows of 318 cells take nearly twice as
# long as those of 320, in bfloat16 on a processor
ROW_MULTIPLE = 8
RELEASED_NAMES = (
    (r"^module\.", ""),
    (r"^feature_extraction\.conv1\.", "encoder.stem."),
    (r"^feature_extraction\.", "encoder."),
    (r"^post_convolution\.", "encoder.head."),
    (r"\.left\.", ".residual."),
)


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
        if (
            self.radius < 0
            or not 0 < self.inverse_temperature < math.inf
            or not 1 <= self.input_scale < math.inf
        ):
            raise InputError(
                f"model: radius {self.radius}, inverse_temperature {self.inverse_temperature}, "
                f"input_scale {self.input_scale}: expected >= 0, > 0 and >= 1"
            )


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
        self.precision = torch.float32  # of the encoder's convolutions
        # says where the model is, even if its encoder has no weights
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

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> "CorrFlow":
        """`load_model`, by the name that other libraries give it."""
        return load_model(DEFAULT if path is None else path, device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into a folder: its configuration as `config.json`, its weights, at the
        precision that they have, as `model.safetensors`. `load_model` takes the folder.

        Raises:
            InputError: an encoder that was made by hand, which no configuration describes.
        """
        if self.config.encoder == ExternalConfig(""):
            raise InputError("encoder: no name: expected one that corrflow.find_encoder finds")
        folder = Path(folder)
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
            InputError: another shape, or integers; an encoder whose features are not as it says.
        """
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise InputError(f"encode: frames {list(frames.shape)}: expected [N, 3, H, W]")
        if not frames.is_floating_point():
            raise InputError(
                f"encode: frames of {frames.dtype}: expected floating RGB in [0, 1] (divide uint8 "
                "by 255)"
            )
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
                features = self.encoder(input_n3hw).float()
        else:
            features = self.encoder(input_n3hw)
        check_features(features, input_n3hw, self.encoder)
        return features

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


Weights = Literal["auto", "ema", "last"]


def overlapping_means(features_nchw: Tensor, cells: tuple[int, int]) -> Tensor:
    """Bring features to fewer cells, `(h, w)`, each the mean of those around it by a triangle that
    reaches into its neighbours: means of each cell alone track worse (docs/results.md)."""
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


def load_model(
    path: str | Path = DEFAULT,
    device: str | torch.device = "cpu",
    attention: str = "auto",
    weights: Weights = "auto",
) -> CorrFlow:
    """Load a model for use, in eval mode.

    Args:
        path: the name of a model that ships, `fast`, `base` or `large`; a checkpoint of ours, a
            folder of `CorrFlow.save_pretrained`, or a checkpoint in the released layout (with or
            without the `module.` prefix).
        device: where it goes.
        attention: backend of the attention, see `restricted_attention`.
        weights: `ema`, their exponential moving average over training; `last`, those of the last
            step; `auto`, the moving average where one was kept.

    Raises:
        InputError: no such file, a truncated one, or weights of another architecture; no `ema`; a
            backend that can't be had.
    """
    choose_backend(attention, torch.device(device))
    path = model_path(path)
    state = read_checkpoint(path)
    model = CorrFlow(read_model_config(state, path), attention)
    load_weights(model, select_weights(state, weights, path), path)
    return model.to(device).eval()


def model_path(path: str | Path) -> Path:
    """Of a model that ships, by its name, unless something here is called so; else the path."""
    shipped = MODELS / path
    return shipped if (shipped / CONFIG_FILE).exists() and not Path(path).exists() else Path(path)


def select_weights(state: dict[str, Any], weights: Weights, path: str | Path) -> dict[str, Any]:
    """Those of the last step, or their moving average, by name; InputError if there is none."""
    if weights == "ema" and "ema" not in state:
        raise InputError(
            f"checkpoint {path}: no moving average of the weights: expected weights auto or last "
            "(trainer.ema_clips keeps one)"
        )
    ema: dict[str, Any] | None = None if weights == "last" else state.get("ema")
    return find_state_dict(state) if ema is None else ema


def export_model(
    source: str | Path,
    folder: Path,
    weights: Weights = "auto",
    inverse_temperature: float | None = None,
    input_scale: float | None = None,
) -> None:
    """Write a checkpoint's weights alone, in half precision, as `CorrFlow.save_pretrained` does: an
    eighth of a checkpoint with its optimizer, and `load_model` takes it.

    Args:
        source: the checkpoint.
        folder: to write.
        weights: as `load_model`.
        inverse_temperature: by which it copies from now on; None: as it was trained.
        input_scale: how many times it sees frames enlarged from now on; None: as it was.

    Raises:
        InputError: as `load_model`; a weight that half precision can't hold.
    """
    model = load_model(source, weights=weights)
    if inverse_temperature is not None:
        model.config = replace(model.config, inverse_temperature=inverse_temperature)
    if input_scale is not None:
        model.config = replace(model.config, input_scale=input_scale)
    # BatchNorm's statistics take no room, and a variance may be beyond half precision
    for name, weight in model.named_parameters():
        weight.data = weight.data.half()
        if not weight.isfinite().all():
            raise InputError(
                f"checkpoint {source}: {name} holds what half precision can't: expected finite "
                "weights up to 65,504"
            )
    model.save_pretrained(folder)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file or of a folder of `save_pretrained`, on the CPU; InputError
    if there is none that can be read."""
    if Path(path).is_dir():
        return read_pretrained(Path(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        names = ", ".join(sorted(config.parent.name for config in MODELS.glob(f"*/{CONFIG_FILE}")))
        known = f"or one of {names}" if names else "since this copy comes without a model"
        raise InputError(f"checkpoint {path}: no such file: expected one, {known}") from None
    # garbage makes the unpickler raise anything; none of it is carried on from
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"checkpoint {path}: not a readable checkpoint, truncated perhaps ({reason[:120]})"
        ) from None
    if not isinstance(state, dict):
        raise InputError(
            f"checkpoint {path}: holds a {type(state).__name__}, expected a dict of weights"
        )
    return state


def read_pretrained(folder: Path) -> dict[str, Any]:
    """The content of a folder of `save_pretrained`, as of a checkpoint."""
    try:
        config = dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
        return {"model_config": config, "model": load_file(folder / WEIGHTS_FILE)}
    except FileNotFoundError as error:
        missing = Path(error.filename or WEIGHTS_FILE).name
        raise InputError(
            f"checkpoint {folder}: has no {missing}: expected a folder of save_pretrained"
        ) from None
    except (TypeError, ValueError, SafetensorError) as error:  # no JSON, or no object
        raise InputError(f"checkpoint {folder}: damaged: {error}") from None


def read_model_config(state: dict[str, Any], path: str | Path) -> ModelConfig:
    """The architecture as the checkpoint tells it; the released files tell none and have the
    default one."""
    if "model_config" not in state:
        return ModelConfig()
    stored = state["model_config"]
    names = {f.name for f in fields(ModelConfig)}
    if set(stored) != names:
        raise InputError(
            f"checkpoint {path}: model_config has {sorted(stored)}, expected {sorted(names)}"
        )
    try:
        encoder = read_config(stored["encoder"])
    except TypeError as error:
        raise InputError(f"checkpoint {path}: model_config: {error}") from None
    return ModelConfig(**{**stored, "encoder": encoder})


def load_weights(model: CorrFlow, state: dict[str, Any], path: str | Path) -> None:
    """Put the weights of a checkpoint into `model`, every one of them or none; InputError names the
    first that does not fit."""
    weights = {
        rename_released(name): tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
    }
    expected = model.state_dict()
    for name in (*expected, *weights):
        if name not in weights or name not in expected:
            where = "is missing" if name not in weights else "is not known"
            raise InputError(f"checkpoint {path}: another architecture: {name} {where}")
        if weights[name].shape != expected[name].shape:
            actual, wanted = list(weights[name].shape), list(expected[name].shape)
            raise InputError(
                f"checkpoint {path}: another architecture: {name} is {actual}, expected {wanted}"
            )
    model.load_state_dict(weights)


def find_state_dict(state: dict[str, Any]) -> dict[str, Any]:
    """The dict of weights within a checkpoint: under `model` (ours), `state_dict` (released), or
    the whole."""
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), dict):
            inner: dict[str, Any] = state[key]
            return inner
    return state


def rename_released(name: str) -> str:
    """A released weight's name as ours; our own names stay."""
    for pattern, replacement in RELEASED_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


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
