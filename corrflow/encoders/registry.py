"""Finds an encoder by its name: `resnet18`, `torchvision:resnet50`, `timm:NAME`, or a function of
your own."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from corrflow.encoders import adapters
from corrflow.encoders.encoder import Encoder, EncoderConfig
from corrflow.encoders.resnet import VARIANTS, ResNetConfig
from corrflow.errors import InputError

FORMS = (
    f"one of {', '.join(VARIANTS)}; torchvision:NAME or timm:NAME (with @LAYER for the features of "
    "another layer); package.module:function or path/to/file.py:function"
)


@dataclass(frozen=True)
class ExternalConfig(EncoderConfig):
    """An encoder that this project does not define, by its name."""

    name: str
    """`torchvision:NAME`, `timm:NAME`, `package.module:function` or `path/to/file.py:function`."""

    def build(self, *, pretrained: bool = False) -> Encoder:
        """Make the encoder, see `EncoderConfig.build`. A function of your own chooses the weights
        itself, and `pretrained` is ignored."""
        source, _, rest = self.name.rpartition(":")
        if source in adapters.LIBRARIES:
            encoder = adapters.LIBRARIES[source](rest, pretrained)
        else:
            encoder = call_function(source, rest)
        encoder.config = self
        return encoder

    def to_dict(self) -> dict[str, Any]:
        """The name, in a dict."""
        return {"name": self.name}


def find_encoder(name: str) -> EncoderConfig:
    """Find the configuration of an encoder by its name; InputError lists the forms of names."""
    if name in VARIANTS:
        return VARIANTS[name]
    source, colon, rest = name.rpartition(":")
    if not (source and colon and rest):
        raise InputError(f"encoder {name!r}: expected {FORMS}")
    if source.endswith(".py"):  # absolute, so that a job in another folder finds the file
        source = str(Path(source).absolute())
    return ExternalConfig(f"{source}:{rest}")


def name_of(config: EncoderConfig) -> str:
    """The name by which `find_encoder` finds an encoder; for a ResNet without a name, its
    settings."""
    if isinstance(config, ExternalConfig):
        return config.name
    for name, variant in VARIANTS.items():
        if variant == config:
            return name
    return str(config)


def read_config(state: dict[str, Any]) -> EncoderConfig:
    """Read what `to_dict` returned; TypeError for anything else."""
    if "name" in state:
        return ExternalConfig(**state)
    return ResNetConfig(**{name: as_tuple(value) for name, value in state.items()})


def as_tuple(value: Any) -> Any:
    """Convert a list to a tuple, so that configurations compare equal; return anything else
    unchanged."""
    return tuple(value) if isinstance(value, list) else value


def call_function(source: str, function: str) -> Encoder:
    """The encoder that `function()` of a module or a file returns.

    Raises:
        InputError: there is no such module, file or function, or it does not return an Encoder.
    """
    module = import_file(Path(source)) if source.endswith(".py") else import_module(source)
    if not hasattr(module, function):
        raise InputError(f"encoder {source}:{function}: {source} has no {function}")
    encoder = getattr(module, function)()
    if not isinstance(encoder, Encoder):
        raise InputError(
            f"encoder {source}:{function}: returned {type(encoder).__name__}: expected a "
            "corrflow.Encoder"
        )
    return encoder


def import_module(name: str) -> ModuleType:
    """Import a module by its dotted name; errors within the module keep their traceback, except for
    a missing module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"encoder: module {name}: {error}") from None


def import_file(path: Path) -> ModuleType:
    """Import a module from a file outside of any package."""
    if not path.is_file():
        raise InputError(f"encoder {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickle look it up here
    spec.loader.exec_module(module)
    return module
