"""What a shard folder holds: `manifest.json`, written last, so that a folder with one is whole."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.files import atomic_file

FORMAT = 2
NAME = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    samples: int
    frames: int
    bytes: int
    sha256: str
    offsets: tuple[int, ...]
    """Byte at which each sample begins, and the last one ends."""


@dataclass(frozen=True)
class Counts:
    """What became of the videos."""

    videos: int
    failures: int
    """Broken ones: see failures.csv."""
    too_short: int
    """Videos that gave no segment."""
    short_frames: int
    """Frames left out at the ends of videos, in segments shorter than a clip."""


@dataclass(frozen=True)
class Manifest:
    """A shard folder's content, in order."""

    settings: dict[str, Any]
    """How it was packed, in plain types."""
    counts: Counts
    shards: tuple[Shard, ...]
    short_sides: dict[int, int]
    """Shorter side of a segment's frames, in pixels -> segments; empty where packing counted
    none."""

    @property
    def samples(self) -> int:
        """Segments in all shards."""
        return sum(shard.samples for shard in self.shards)

    def digest(self) -> str:
        """Names the data: equal for equal samples in equal order, wherever the folder lies."""
        text = json.dumps([[shard.name, shard.samples, shard.sha256] for shard in self.shards])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it, whole or not at all; a line a shard."""
    shards = ",\n".join("  " + json.dumps(asdict(shard)) for shard in manifest.shards)
    facts = {
        "format": FORMAT,
        "settings": manifest.settings,
        "counts": asdict(manifest.counts),
        "short_sides": manifest.short_sides,
    }
    head = json.dumps(facts, indent=1)
    with atomic_file(folder / NAME) as file:
        file.write(f'{head[:-2]},\n "shards": [\n{shards}\n ]\n}}\n'.encode())


def read_manifest(folder: Path) -> Manifest:
    """Read it; DataError if the folder has none, or one of another format."""
    try:
        content = (folder / NAME).read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no {NAME} there: expected a folder that launch/shard.py wrote to the end"
        ) from None
    except OSError as error:
        raise DataError(f"{folder / NAME}: {error.strerror}") from None
    return parse_manifest(content, str(folder / NAME))


def parse_manifest(content: bytes, name: str) -> Manifest:
    """A manifest from its text; DataError, with the name of where it came from, if it is none."""
    try:
        stored = json.loads(content)
    except ValueError as error:
        raise DataError(f"{name}: not readable as a manifest ({error})") from None
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        kind = stored.get("format") if isinstance(stored, dict) else type(stored).__name__
        raise DataError(f"{name}: format {kind}: expected {FORMAT}: pack anew")
    try:
        shards = tuple(
            Shard(**{**entry, "offsets": tuple(entry["offsets"])}) for entry in stored["shards"]
        )
        sides = {int(side): int(count) for side, count in stored.get("short_sides", {}).items()}
        manifest = Manifest(stored["settings"], Counts(**stored["counts"]), shards, sides)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: not readable as a manifest ({error!r})") from None
    if not shards:
        raise DataError(f"{name}: names no shards")
    if sides and sum(sides.values()) != manifest.samples:
        counted = f"short_sides of {sum(sides.values())} segments"
        raise DataError(
            f"{name}: {counted}: expected those of {manifest.samples}, as in its shards"
        )
    for shard in shards:
        if len(shard.offsets) != shard.samples + 1 or shard.offsets[-1] >= shard.bytes:
            raise DataError(
                f"{name}: {shard.name}: {len(shard.offsets)} offsets up to {shard.offsets[-1:]} "
                f"for {shard.samples} samples"
            )
    return manifest
