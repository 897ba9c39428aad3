"""Trained models: loads those that ship, our checkpoints and the files that the method's authors
released, and exports a checkpoint's weights alone."""

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
from corrflow.errors import InputError
from corrflow.model import CONFIG_FILE, WEIGHTS_FILE, CorrFlow, ModelConfig

MODELS = Path(__file__).parent / "weights"  # a folder of `save_pretrained` for each that ships
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
        # a run that is not validated has no best.pt
        beside = max((file.name for file in Path(path).parent.glob("*.pt")), default="")
        like = f"expected one, as {beside} beside it" if beside else "expected one"
        raise InputError(f"checkpoint {path}: no such file: {like}, {known}") from None
    except UnpicklingError:
        raise InputError(
            f"checkpoint {path}: damaged, or holds objects of Python, whose code is not run: "
            "expected tensors, numbers and texts alone, as torch.save writes them"
        ) from None
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
