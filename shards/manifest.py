"""The list of a shard folder's contents, `manifest.json`. It is written last, so a folder that has
one is complete."""

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
    """Byte offset of each sample, and of the end of the last one."""


@dataclass(frozen=True)
class Counts:
    """Counts of what was packed and what was left out."""

    videos: int
    failures: int
    """Broken videos: see failures.csv."""
    too_short: int
    """Videos that yielded no segment."""
    short_frames: int
    """Frames left out at the end of a video or before its size changes, because they were too few
    for a segment."""


@dataclass(frozen=True)
class Manifest:
    """The contents of a shard folder, in order."""

    settings: dict[str, Any]
    """The settings with which it was packed, in JSON types."""
    counts: Counts
    shards: tuple[Shard, ...]
    short_sides: dict[int, int]
    """Shorter side of a segment's frames, in pixels -> number of segments; empty if packing did not
    count them."""

    @property
    def samples(self) -> int:
        """Number of segments in all shards."""
        return sum(shard.samples for shard in self.shards)

    def digest(self) -> str:
        """Identifies the data: equal for equal samples in the same order, in whatever folder."""
        text = json.dumps([[shard.name, shard.samples, shard.sha256] for shard in self.shards])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically, with a line for each shard."""
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
    """Read a folder's manifest; DataError if it has none, or one of another format."""
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
    """Parse a manifest; DataError, which names its source `name`, if it is not valid."""
    try:
        stored = json.loads(content)
    except ValueError as error:
        raise DataError(f"{name}: not readable as a manifest ({error})") from None
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        kind = stored.get("format") if isinstance(stored, dict) else type(stored).__name__
        raise DataError(f"{name}: format {kind}: expected {FORMAT}: pack again")
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
