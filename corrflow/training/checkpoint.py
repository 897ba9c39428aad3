"""Checkpoints of a run: saves them atomically, restores the newest readable one, and prunes old
ones.

They hold what can't be recomputed: weights, Adam's moments, step. `pretrained.py` loads the weights
for inference.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from corrflow.encoders.adapters import LIBRARIES
from corrflow.encoders.registry import name_of
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
    """The path of a step's checkpoint, for example `RUN/checkpoints/step-00012000.pt`."""
    return run / FOLDER / f"step-{step:08d}.pt"


def save_checkpoint(
    run: Path,
    step: int,
    model: CorrFlow,
    optimizer: torch.optim.Optimizer,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write the state after `step` steps, and the trainer's own state `more`; an error is raised,
    since a run that can't save must not go on."""
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
    """All checkpoints of a run, oldest first."""
    folder = run / FOLDER
    return (
        sorted(path for path in folder.iterdir() if NAME.match(path.name))
        if folder.is_dir()
        else []
    )


def step_of(path: Path) -> int:
    """The step in a checkpoint's file name."""
    return int(NAME.match(path.name)[1])  # type: ignore[index]


def restore(
    run: Path,
    model: CorrFlow,
    optimizer: torch.optim.Optimizer,
    warn: Callable[[str], None],
    only: int | None = None,
) -> dict[str, Any] | None:
    """Load the newest readable checkpoint, or that of step `only`, and return its content; None if
    the run has no checkpoint. `warn` is called for each one that can't be read.

    Raises:
        InputError: the run has checkpoints but none can be read, or one has another architecture;
            there is no checkpoint of step `only`.
    """
    paths = [path for path in checkpoints(run) if only in (None, step_of(path))]
    for path in reversed(paths):
        try:
            state = read_checkpoint(path)
        except InputError as error:
            warn(f"{error}; trying the previous one")
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
    """Load a checkpoint's weights and moments into model and optimizer; InputError if it has
    another architecture."""
    config = read_model_config(state, path)
    if config != model.config:
        raise InputError(
            f"checkpoint {path}: another architecture: {config}, expected {model.config}"
        )
    load_weights(model, find_state_dict(state), path)
    optimizer.load_state_dict(state["optimizer"])
    # fused Adam assumes that moments have the memory layout of the weights, which differs between
    # devices
    for weight, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(weight).copy_(moments[name])


def load_initial_model(start: str, config: ModelConfig) -> CorrFlow:
    """The model that `trainer.start` names, checked to have the encoder and input of `config`.
    Radius and inverse temperature may differ, since the weights do not depend on them.

    Raises:
        InputError: as `load_model`; another encoder or input colour space; an encoder without
            published weights.
    """
    if start == "encoder":
        library = name_of(config.encoder).partition(":")[0]
        if library in LIBRARIES and config.input != "rgb":
            raise InputError(
                f"trainer.start encoder: weights of {library} are for RGB, the input is "
                f"{config.input}: expected --model.input rgb"
            )
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
    """A digest of the weights that does not depend on the device; it leaves out BatchNorm's
    statistics, which differ between processes."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_ema(model: CorrFlow, state: dict[str, Any], run: Path, step: int) -> None:
    """Load a checkpoint's moving average into `model`; InputError if it has none."""
    path = checkpoint_path(run, step)
    if "ema" not in state:
        raise InputError(
            f"checkpoint {path}: no moving average of the weights: expected a run with "
            "trainer.ema_clips from its start"
        )
    load_weights(model, state["ema"], path)


def prune(run: Path, step: int, keep: int, keep_every: int) -> None:
    """Remove checkpoints of a run that was just saved at `step`, except the last `keep` up to that
    step and those whose step is a multiple of `keep_every` (0: none).

    Checkpoints of later steps are removed, too: they were unreadable when the run was resumed from
    an earlier one, and their steps are done again.
    """
    past = [path for path in checkpoints(run) if step_of(path) <= step]
    marked = [path for path in past if keep_every and step_of(path) % keep_every == 0]
    for path in set(checkpoints(run)).difference(past[-keep:], marked):
        path.unlink()
    for unfinished in (run / FOLDER).glob(".*.tmp"):  # left by a process killed while saving
        unfinished.unlink()


def keep_best(run: Path, step: int) -> None:
    """Make `best.pt` a hard link to the checkpoint of `step`, or a copy where links are not
    supported; `prune` may then remove the checkpoint."""
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
    """Restore `best.pt` to its state after `step` steps, from which a run is resumed; returns its
    validation, or None if there is none.

    A `best.pt` of a later step is removed, and `warn` is called: that step is done again, perhaps
    with another result. The checkpoint of `step` itself may be the best, if the run was interrupted
    before it became `best.pt`.
    """
    best, here = run / FOLDER / BEST, checkpoint_path(run, step)
    held = read_validation(best)
    if best.exists() and (held is None or held["step"] > step):
        why = (
            "it has no readable validation"
            if held is None
            else f"it is of step {held['step']}, but the run resumes from step {step}"
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
    """Whether a validation is better than the best so far. It always is if the best was validated
    on other sequences or settings, since the two do not compare."""
    return best is None or validation["of"] != best["of"] or validation["jf"] > best["jf"]


def read_validation(path: Path) -> dict[str, Any] | None:
    """The validation stored in a checkpoint: `step`, `jf` and `of` (what was validated); None if it
    has none or can't be read."""
    try:
        state = read_checkpoint(path)
    except InputError:
        return None
    validation: dict[str, Any] | None = state.get("validation")
    return validation
