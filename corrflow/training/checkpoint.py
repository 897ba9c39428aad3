"""Checkpoints of a run: saved atomically, restored from the newest that can be read, pruned.

They hold what can't be recomputed: weights, moments, step. `pretrained.py` loads the weights for
use.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.model import CorrFlow, ModelConfig, config_to_dict
from corrflow.pretrained import (
    find_state_dict,
    load_model,
    load_weights,
    read_checkpoint,
    read_model_config,
)

FOLDER = "checkpoints"
BEST = "best.pt"
NAME = re.compile(r"^step-(\d{8})\.pt$")


def checkpoint_path(run: Path, step: int) -> Path:
    """`RUN/checkpoints/step-00012000.pt`."""
    return run / FOLDER / f"step-{step:08d}.pt"


def save_checkpoint(
    run: Path,
    step: int,
    model: CorrFlow,
    optimizer: torch.optim.Optimizer,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write the state after `step` steps, and what `more` the trainer keeps. A failure is raised:
    who can't save is not to go on."""
    path = checkpoint_path(run, step)
    state = {
        "step": step,
        "model_config": config_to_dict(model.config),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        **(more or {}),
    }
    with atomic_file(path) as file:
        torch.save(state, file)
    return path


def checkpoints(run: Path) -> list[Path]:
    """All of a run, oldest first."""
    folder = run / FOLDER
    return (
        sorted(path for path in folder.iterdir() if NAME.match(path.name))
        if folder.is_dir()
        else []
    )


def step_of(path: Path) -> int:
    """The step that a checkpoint's name tells."""
    return int(NAME.match(path.name)[1])  # type: ignore[index]


def restore(
    run: Path,
    model: CorrFlow,
    optimizer: torch.optim.Optimizer,
    warn: Callable[[str], None],
    only: int | None = None,
) -> dict[str, Any] | None:
    """Load the newest checkpoint that can be read, or that of step `only`; returns what it holds,
    None if the run has none. `warn` is told of one that can't be read.

    Raises:
        InputError: checkpoints are there and none can be read, or they are of another architecture;
            no checkpoint of step `only`.
    """
    paths = [path for path in checkpoints(run) if only in (None, step_of(path))]
    for path in reversed(paths):
        try:
            state = read_checkpoint(path)
        except InputError as error:
            warn(f"{error}; trying the one before")
            continue
        restore_state(state, path, model, optimizer)
        return state
    if paths:
        raise InputError(f"{run}: none of its {len(paths)} checkpoints can be read")
    if only is not None:
        raise InputError(
            f"checkpoint {checkpoint_path(run, only)}: not visible from this process: expected "
            "a run folder on a file system that all processes share"
        )
    return None


def restore_state(
    state: dict[str, Any], path: Path, model: CorrFlow, optimizer: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's weights and moments in place; InputError if it is of another
    architecture."""
    config = read_model_config(state, path)
    if config != model.config:
        raise InputError(
            f"checkpoint {path}: another architecture: {config}, expected {model.config}"
        )
    load_weights(model, find_state_dict(state), path)
    optimizer.load_state_dict(state["optimizer"])
    # fused Adam takes their layout for the weights', which differs between devices
    for weight, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(weight).copy_(moments[name])


def initial_model(start: str, config: ModelConfig) -> CorrFlow:
    """The model of `trainer.start`, which one of `config` may begin with: the encoder's weights do
    not depend on radius and inverse temperature.

    Raises:
        InputError: as `load_model`; another encoder, or another input; an encoder without published
            weights.
    """
    if start == "encoder":
        return CorrFlow(config, encoder=config.encoder.build(pretrained=True))
    model = load_model(start)
    actual = model.config.encoder, model.config.input
    wanted = config.encoder, config.input
    if actual != wanted:
        raise InputError(
            f"trainer.start {start}: another architecture: {actual}, expected {wanted}"
        )
    return model


def parameters_digest(model: CorrFlow) -> str:
    """A short name of the weights, the same wherever they are; BatchNorm's statistics, which each
    process has for itself, left out."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_ema(model: CorrFlow, state: dict[str, Any], run: Path, step: int) -> None:
    """Put a checkpoint's moving average into `model`; InputError if it has none."""
    path = checkpoint_path(run, step)
    if "ema" not in state:
        raise InputError(
            f"checkpoint {path}: no moving average of the weights: expected a run with "
            "trainer.ema_clips from its start"
        )
    load_weights(model, state["ema"], path)


def prune(run: Path, step: int, keep: int, keep_every: int) -> None:
    """Remove, of a run that was saved at `step`, all but the last `keep` checkpoints up to there
    and those whose step is a multiple of `keep_every` (0: none is).

    Those of later steps go, too: they could not be read when the run went on from an earlier one,
    and their steps are done again.
    """
    past = [path for path in checkpoints(run) if step_of(path) <= step]
    marked = [path for path in past if keep_every and step_of(path) % keep_every == 0]
    for path in set(checkpoints(run)).difference(past[-keep:], marked):
        path.unlink()
    for unfinished in (run / FOLDER).glob(".*.tmp"):  # a kill in the middle of a save leaves one
        unfinished.unlink()


def keep_best(run: Path, step: int) -> None:
    """Let `best.pt` be the checkpoint of `step`, which `prune` may then remove: the same bytes, or
    a copy where links can't be had."""
    path = checkpoint_path(run, step)
    temporary = path.with_name(f".{BEST}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        with atomic_file(path.with_name(BEST)) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file)
    else:
        temporary.replace(path.with_name(BEST))


def restore_best(run: Path, step: int, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Make `best.pt` what it was after `step` steps, from which a run goes on; returns its
    validation, None without one.

    One of a later step is of a past that is done again, perhaps otherwise: it goes, and `warn` is
    told. The checkpoint of `step` itself may be the best, if the run was cut before it could become
    it.
    """
    best, here = run / FOLDER / BEST, checkpoint_path(run, step)
    held = read_validation(best)
    if best.exists() and (held is None or held["step"] > step):
        why = (
            "no validation can be read in it"
            if held is None
            else f"of step {held['step']}, and the run goes on from step {step}"
        )
        warn(f"{best}: removed: {why}")
        best.unlink()
        held = None
    own = read_validation(here)
    if own and (held is None or is_better(own, held)):
        keep_best(run, step)
        return own
    return held


def is_better(validation: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Whether a validation is better than the best so far; one of other sequences or settings is no
    measure for it."""
    return best is None or validation["of"] != best["of"] or validation["jf"] > best["jf"]


def read_validation(path: Path) -> dict[str, Any] | None:
    """The validation that a checkpoint holds (`step`, `jf` and `of`: what was validated); None if
    it has none or can't be read."""
    try:
        state = read_checkpoint(path)
    except InputError:
        return None
    validation: dict[str, Any] | None = state.get("validation")
    return validation
