"""Loads trained models (those that ship, our checkpoints, and the files that the method's authors
released), and exports the weights of a checkpoint."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from corrflow.attention import choose_backend
from corrflow.encoders.registry import read_config
from corrflow.errors import InputError, check_choice
from corrflow.model import CONFIG_FILE, WEIGHTS_FILE, CorrFlow, ModelConfig

MODELS = Path(__file__).parent / "weights"  # a `save_pretrained` folder per model
DEFAULT = "base"
Weights = Literal["auto", "ema", "last"]
RELEASED_NAMES = (
    (r"^module\.", ""),
    (r"^feature_extraction\.conv1\.", "encoder.stem."),
    (r"^feature_extraction\.", "encoder."),
    (r"^post_convolution\.", "encoder.head."),
    (r"\.left\.", ".residual."),
)


def load_model(
    path: str | Path = DEFAULT,
    device: str | torch.device = "cpu",
    attention: str = "auto",
    weights: Weights = "auto",
) -> CorrFlow:
    """Load a model for use, in eval mode.

    Args:
        path: the name of a model that ships (`fast`, `base` or `large`), one of our checkpoints, a
            folder that `CorrFlow.save_pretrained` wrote, or a checkpoint in the released layout
            (with or without the `module.` prefix).
        device: the device to load the model to.
        attention: backend of the attention, see `restricted_attention`.
        weights: `ema` for the exponential moving average over training, `last` for the weights of
            the last step, `auto` for the moving average if the checkpoint has one.

    Raises:
        InputError: a missing or truncated file, weights of another architecture, a checkpoint
            without moving average where `ema` is asked for, or a backend that is not available.
    """
    check_choice("checkpoint: weights", weights, Weights)
    choose_backend(attention, torch.device(device))
    path = model_path(path)
    state = read_checkpoint(path)
    model = CorrFlow(read_model_config(state, path), attention)
    load_weights(model, select_weights(state, weights, path), path)
    return model.to(device).eval()


def model_path(path: str | Path) -> Path:
    """The folder of the model that ships under this name, unless a file of that name exists;
    otherwise the path itself."""
    shipped = MODELS / path
    return shipped if (shipped / CONFIG_FILE).exists() and not Path(path).exists() else Path(path)


def select_weights(state: dict[str, Any], weights: Weights, path: str | Path) -> dict[str, Any]:
    """The last step's weights or their moving average, by parameter name; InputError if `ema` is
    asked for and there is none."""
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
    """Export a checkpoint's weights in half precision to a folder that `load_model` takes, in the
    format of `CorrFlow.save_pretrained`; an eighth of the size of a checkpoint with its optimizer.

    Args:
        source: the checkpoint.
        folder: the folder to write.
        weights: as `load_model`.
        inverse_temperature: the exported model's inverse temperature; None for that of its
            training.
        input_scale: the exported model's input scale; None for that of the checkpoint.

    Raises:
        InputError: as `load_model`; or a weight is too large for half precision.
    """
    model = load_model(source, weights=weights)
    if inverse_temperature is not None:
        model.config = replace(model.config, inverse_temperature=inverse_temperature)
    if input_scale is not None:
        model.config = replace(model.config, input_scale=input_scale)
    # BatchNorm's statistics stay in float32: they are small, and a variance may exceed half
    # precision
    for name, weight in model.named_parameters():
        weight.data = weight.data.half()
        if not weight.isfinite().all():
            raise InputError(
                f"checkpoint {source}: {name} exceeds half precision: expected finite "
                "weights up to 65,504"
            )
    model.save_pretrained(folder)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file, or a folder that `save_pretrained` wrote, onto the CPU; InputError if
    it can't be read."""
    if Path(path).is_dir():
        return read_pretrained(Path(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        names = ", ".join(sorted(config.parent.name for config in MODELS.glob(f"*/{CONFIG_FILE}")))
        known = f"or one of {names}" if names else "since this copy has no models"
        # a run that is not validated has no best.pt
        beside = max((file.name for file in Path(path).parent.glob("*.pt")), default="")
        like = (
            f"expected a checkpoint such as {beside} beside it"
            if beside
            else "expected a checkpoint"
        )
        raise InputError(f"checkpoint {path}: no such file: {like}, {known}") from None
    except UnpicklingError:
        raise InputError(
            f"checkpoint {path}: damaged, or holds Python objects, whose code is not run: "
            "expected only tensors, numbers and strings, as torch.save writes them"
        ) from None
    # the unpickler may raise any exception on a damaged file; each ends in an InputError
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
    """Read a folder that `save_pretrained` wrote into the layout of a checkpoint."""
    try:
        config = dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
        return {"model_config": config, "model": load_file(folder / WEIGHTS_FILE)}
    except FileNotFoundError as error:
        missing = Path(error.filename or WEIGHTS_FILE).name
        raise InputError(
            f"checkpoint {folder}: has no {missing}: expected a folder of save_pretrained"
        ) from None
    except (TypeError, ValueError, SafetensorError) as error:  # not JSON, or not a JSON object
        raise InputError(f"checkpoint {folder}: damaged: {error}") from None


def read_model_config(state: dict[str, Any], path: str | Path) -> ModelConfig:
    """The architecture stored in a checkpoint; the released files store none and have the default
    one."""
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
    """Load the weights of a checkpoint into `model`, all of them or none; InputError names the
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
    """The dict of weights in a checkpoint: under `model` (ours), under `state_dict` (released), or
    the checkpoint itself."""
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), dict):
            inner: dict[str, Any] = state[key]
            return inner
    return state


def rename_released(name: str) -> str:
    """Convert the name of a released weight to ours; our own names stay."""
    for pattern, replacement in RELEASED_NAMES:
        name = re.sub(pattern, replacement, name)
    return name
