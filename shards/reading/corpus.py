"""The training data: the shards of a store, without the samples that are in quarantine."""

import contextlib
import tarfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from shards.errors import DataError
from shards.manifest import Manifest, Shard
from shards.reading.stores import Store, open_store
from shards.samples import NeedMoreError, parse_note


@dataclass(frozen=True)
class Corpus:
    """A store with its manifest, and the samples to leave out."""

    store: Store
    manifest: Manifest
    quarantined: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Index of a shard -> indices of its samples that are in quarantine."""

    @property
    def samples(self) -> tuple[int, ...]:
        """Number of samples to read in each shard."""
        return tuple(
            shard.samples - len(self.quarantined.get(number, ()))
            for number, shard in enumerate(self.manifest.shards)
        )

    def numbers(self, shard: int) -> list[int]:
        """Indices of the samples to read in a shard."""
        out = set(self.quarantined.get(shard, ()))
        return [
            number for number in range(self.manifest.shards[shard].samples) if number not in out
        ]


def open_corpus(data: str | Path, quarantine: Path | None = None) -> Corpus:
    """Open the shards at `data` (see `open_store`).

    Args:
        data: folder, URL or command.
        quarantine: file that lists samples to leave out, with a line `SHARD KEY` for each, as error
            messages name them.

    Raises:
        DataError: there is no manifest, the shards do not match it, or a line of the list names no
            sample.
    """
    store = open_store(data)
    manifest = store.manifest()
    if quarantine is None:
        return Corpus(store, manifest)
    asked = read_quarantine(quarantine)
    known = {shard.name: number for number, shard in enumerate(manifest.shards)}
    quarantined = {}
    for name, keys in asked.items():
        if name not in known:
            raise DataError(f"quarantine {quarantine}: {name}: no such shard in {data}")
        numbers = find_keys(store, manifest.shards[known[name]], set(keys))
        if missing := [key for key in keys if key not in numbers]:
            raise DataError(
                f"quarantine {quarantine}: {name} {missing[0]}: no such sample in that shard"
            )
        quarantined[known[name]] = tuple(sorted(set(numbers.values())))
    return Corpus(store, manifest, quarantined)


def read_quarantine(path: Path) -> dict[str, list[str]]:
    """Read a quarantine list to shard name -> keys; DataError if a line is not `SHARD KEY`."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"quarantine {path}: {getattr(error, 'strerror', None) or error}") from None
    asked: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        shard, _, key = line.strip().partition(" ")
        if key:
            asked.setdefault(shard, []).append(key.strip())
        elif shard:
            raise DataError(
                f"quarantine {path}, line {number}: {line!r}: expected SHARD KEY, as in "
                "shard-000012.tar abseiling/x7/000003"
            )
    return asked


def find_keys(store: Store, shard: Shard, keys: set[str]) -> dict[str, int]:
    """Find the wanted keys in a shard: key -> index of the sample. A key `#12` is itself an
    index."""
    numbers = {f"#{number}": number for number in range(shard.samples) if f"#{number}" in keys}
    if len(numbers) == len(keys):
        return numbers
    with store.open(shard.name, shard.offsets[0], shard.offsets[-1], shard.bytes) as file:
        for number, (start, stop) in enumerate(pairwise(shard.offsets)):
            content = file.read(stop - start)
            with contextlib.suppress(
                tarfile.TarError, ValueError, KeyError, TypeError, NeedMoreError
            ):
                key = parse_note(content)[0]["key"]
                if key in keys:
                    numbers[key] = number
    return numbers
