"""What there is to learn from: the shards of a store, less the samples that are in quarantine."""

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
    """Samples by shard and number."""

    store: Store
    manifest: Manifest
    taken_out: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Shard -> numbers of its samples that are in quarantine."""

    @property
    def samples(self) -> tuple[int, ...]:
        """Of each shard, those to be read."""
        return tuple(
            shard.samples - len(self.taken_out.get(number, ()))
            for number, shard in enumerate(self.manifest.shards)
        )

    def numbers(self, shard: int) -> list[int]:
        """Where in the shard those to be read lie."""
        out = set(self.taken_out.get(shard, ()))
        return [
            number for number in range(self.manifest.shards[shard].samples) if number not in out
        ]


def open_corpus(data: str | Path, quarantine: Path | None = None) -> Corpus:
    """What lies at `data` (see `open_store`).

    Args:
        data: folder, URL or command.
        quarantine: a list of samples to leave out, a line each: shard and key, as errors name them.

    Raises:
        DataError: no manifest there, or one that does not match; a line of the list that names no
            sample.
    """
    store = open_store(data)
    manifest = store.manifest()
    if quarantine is None:
        return Corpus(store, manifest)
    asked = read_quarantine(quarantine)
    known = {shard.name: number for number, shard in enumerate(manifest.shards)}
    taken_out = {}
    for name, keys in asked.items():
        if name not in known:
            raise DataError(f"quarantine {quarantine}: {name}: no such shard in {data}")
        numbers = find_keys(store, manifest.shards[known[name]], set(keys))
        if missing := [key for key in keys if key not in numbers]:
            raise DataError(
                f"quarantine {quarantine}: {name} {missing[0]}: no such sample in that shard"
            )
        taken_out[known[name]] = tuple(sorted(set(numbers.values())))
    return Corpus(store, manifest, taken_out)


def read_quarantine(path: Path) -> dict[str, list[str]]:
    """Shard name -> keys. DataError for what is no `SHARD KEY` line."""
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
    """Key -> number in the shard, of those that are wanted; a key `#12` is a number itself."""
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
