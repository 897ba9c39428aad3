"""What a shard folder holds: `manifest.json`, written last, so that a folder with one is whole."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards.errors import InputError
from shards.files import atomic_file

FORMAT = 1
NAME = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    samples: int
    frames: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A shard folder's content, in order."""

    settings: dict[str, Any]
    """How it was packed, in plain types."""
    shards: tuple[Shard, ...]

    @property
    def samples(self) -> int:
        """Segments in all shards."""
        return sum(shard.samples for shard in self.shards)

    def digest(self) -> str:
        """Names the data: equal for equal samples in equal order, wherever the folder lies."""
        text = json.dumps([[shard.name, shard.samples, shard.sha256] for shard in self.shards])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it, whole or not at all."""
    content = {"format": FORMAT, "settings": manifest.settings, "shards": [asdict(shard) for shard in manifest.shards]}
    with atomic_file(folder / NAME) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read it; InputError if the folder has none, or one of another format."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder}: no {NAME} there: expected a folder that launch/shard.py wrote to the end") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as a manifest ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: format {found}: expected {FORMAT}")
    shards = tuple(Shard(**entry) for entry in content["shards"])
    if not shards:
        raise InputError(f"{path}: names no shards")
    return Manifest(content["settings"], shards)
