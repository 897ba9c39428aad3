"""Checkpoints of a run: written whole, found again newest first, thinned out.

They hold what can't be recomputed: weights, moments, step. `model.py` reads the weights for use.
"""

import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.model import CorrFlow, config_of, describe, load_weights, read_checkpoint

FOLDER = "checkpoints"
NAME = re.compile(r"^step-(\d{8})\.pt$")


def checkpoint_path(run: Path, step: int) -> Path:
    """`RUN/checkpoints/step-00012000.pt`."""
    return run / FOLDER / f"step-{step:08d}.pt"


def save_checkpoint(run: Path, step: int, model: CorrFlow, optimizer: torch.optim.Optimizer) -> Path:
    """Write the state after `step` steps. Any failure is raised: a run that can't save is not to go on."""
    path = checkpoint_path(run, step)
    state = {
        "step": step,
        "model_config": describe(model.config),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with atomic_file(path) as file:
        torch.save(state, file)
    return path


def checkpoints(run: Path) -> list[Path]:
    """All of a run, oldest first."""
    folder = run / FOLDER
    return sorted(path for path in folder.iterdir() if NAME.match(path.name)) if folder.is_dir() else []


def step_of(path: Path) -> int:
    """The step that a checkpoint's name tells."""
    return int(NAME.match(path.name)[1])  # type: ignore[index]


def restore(run: Path, model: CorrFlow, optimizer: torch.optim.Optimizer, only: int | None = None) -> int:
    """Load the newest checkpoint that can be read, or that of step `only`; returns its step, 0 if the run has none.

    Raises:
        InputError: checkpoints are there and none can be read, or they are of another architecture.
    """
    found = [path for path in checkpoints(run) if only in (None, step_of(path))]
    for path in reversed(found):
        try:
            state = read_checkpoint(path)
        except InputError as error:
            warnings.warn(f"{error}; trying the one before", stacklevel=2)
            continue
        restore_state(state, path, model, optimizer)
        return int(state["step"])
    if found:
        raise InputError(f"{run}: none of its {len(found)} checkpoints can be read")
    return 0


def restore_state(state: dict[str, Any], path: Path, model: CorrFlow, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and moments in place; InputError if it is of another architecture."""
    if (found := config_of(state, path)) != model.config:
        raise InputError(f"checkpoint {path}: another architecture: {found}, expected {model.config}")
    load_weights(model, state, path)
    optimizer.load_state_dict(state["optimizer"])
    for weight, moments in optimizer.state.items():  # fused Adam takes their layout for the weights', which differs between devices
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(weight).copy_(moments[name])


def parameters_digest(model: CorrFlow) -> str:
    """A short name of the weights, the same wherever they are; BatchNorm's statistics, which each process has for itself, left out."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def thin_out(run: Path, keep: int, keep_every: int) -> None:
    """Remove all but the last `keep` checkpoints and those whose step is a multiple of `keep_every` (0: none is)."""
    for path in checkpoints(run)[:-keep]:
        if not keep_every or step_of(path) % keep_every:
            path.unlink()
    for unfinished in (run / FOLDER).glob(".step-*.tmp"):  # a kill in the middle of a save leaves one
        unfinished.unlink()
