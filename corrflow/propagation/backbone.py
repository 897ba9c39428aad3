"""Any encoder, as propagation takes it: frames to features at a stride.

Shapes: n frames, c channels, h w cells, H W pixels.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.encoder import STRIDE
from corrflow.errors import InputError
from corrflow.model import CorrFlow, weights_digest


@dataclass(frozen=True)
class Backbone:
    """An encoder of your own: a function, or a module in eval mode."""

    encode: Callable[[Tensor], Tensor]
    """RGB in [0, 1], `[N, 3, H, W]` with H and W multiples of the stride, to
    `[N, C, H/stride, W/stride]`."""
    stride: int
    """Pixels from one cell to the next."""
    name: str = ""
    """By which an evaluation knows it again; give another to one that computes something else."""
    scale: float = 1.0
    """Of dot products, where the protocol sets no temperature."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where it computes."""
    attention: str = "auto"
    """Backend of `restricted_attention`."""

    def __post_init__(self) -> None:
        if self.stride < 1 or self.scale <= 0:
            raise InputError(
                f"backbone {self.name!r}: stride {self.stride}, scale {self.scale}: expected >= 1 "
                "and > 0"
            )

    def features(self, frames_n3hw: Tensor) -> Tensor:
        """Features `[N, C, h, w]` of frames of any size, bytes or [0, 1]; h and w are rounded up.
        InputError if they have another size."""
        padded_n3hw = padded(unit_range(frames_n3hw.to(self.device)), self.stride)
        features: Tensor = self.encode(padded_n3hw)
        cells = [side // self.stride for side in padded_n3hw.shape[2:]]
        if features.ndim != 4 or list(features.shape[2:]) != cells:
            given = f"frames {list(padded_n3hw.shape)} became {list(features.shape)}"
            raise InputError(
                f"backbone {self.name!r}: {given}: expected [N, C, {cells[0]}, {cells[1]}] at "
                f"stride {self.stride}"
            )
        return features


def as_backbone(model: CorrFlow | Backbone) -> Backbone:
    """A model of ours as one of many."""
    if isinstance(model, Backbone):
        return model
    device = next(model.parameters()).device

    def encode(frames_n3hw: Tensor) -> Tensor:
        was_training = model.training  # a look must not change BatchNorm's statistics
        features = model.eval().encode(frames_n3hw)
        model.train(was_training)
        return features

    return Backbone(
        encode, STRIDE, "corrflow", model.config.inverse_temperature, device, model.attention
    )


def digest(model: CorrFlow | Backbone) -> str:
    """Names what it computes: of ours by the weights, of others by name and stride; InputError for
    one without a name."""
    if isinstance(model, CorrFlow):
        return weights_digest(model)
    if not model.name:
        raise InputError(
            "backbone: no name: expected one by which an evaluation knows the encoder again"
        )
    return f"{model.name} at stride {model.stride}"


def load_backbone(place: str, device: torch.device) -> Backbone:
    """Call `function(device)` of `package.module:function` or `path/to/file.py:function`, which
    returns a Backbone.

    Raises:
        InputError: there is no such module or function, or it returns something else.
    """
    source, _, function = place.rpartition(":")
    if not source or not function:
        raise InputError(f"encoder {place!r}: expected package.module:function or file.py:function")
    module = import_file(Path(source)) if source.endswith(".py") else import_module(source)
    if not hasattr(module, function):
        raise InputError(f"encoder {place!r}: {source} has no {function}")
    found = getattr(module, function)(device)
    if not isinstance(found, Backbone):
        raise InputError(
            f"encoder {place!r}: returned {type(found).__name__}: expected a corrflow.Backbone"
        )
    return found


def import_module(name: str) -> ModuleType:
    """By its dotted name; an error inside of it is the user's to see whole."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"encoder: module {name}: {error}") from None


def import_file(path: Path) -> ModuleType:
    """From a file that is in no package."""
    if not path.is_file():
        raise InputError(f"encoder {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses and pickles look it up
    spec.loader.exec_module(module)
    return module


def unit_range(frames: Tensor) -> Tensor:
    """uint8 to [0, 1]; floating frames are there already."""
    return frames if frames.is_floating_point() else frames.float() / 255


def padded(x_nchw: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of the stride."""
    height, width = x_nchw.shape[-2:]
    return F.pad(x_nchw, (0, -width % stride, 0, -height % stride), mode="replicate")
