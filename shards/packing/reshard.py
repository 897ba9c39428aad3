"""Makes shards of the right size from parts of any size. A sample is a run of bytes, so samples are
copied without being parsed."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shards.errors import DataError
from shards.files import atomic_file, sha256_of
from shards.manifest import Shard
from shards.packing.parts import TarPart
from shards.samples import END

COPY_BYTES = 1 << 22


def make_shards(
    out: Path, folder: Path, parts: list[TarPart], limit: float, spread: int
) -> list[Shard]:
    """Make shards `shard-000000.tar` and so on in `out` from the parts in `folder`, in order.

    If about the right number of parts exists, they are renamed; else samples are divided anew. If
    interrupted, it can be repeated.

    Args:
        out: folder for the shards. Other shards there, of an earlier attempt, are removed.
        folder: of the parts.
        parts: what was packed.
        limit: approximate size of a shard in bytes.
        spread: smallest number of shards, if there are as many samples.

    Raises:
        DataError: a part is missing or incomplete.
    """
    samples, size = sum(len(part.frames) for part in parts), sum(part.bytes for part in parts)
    wanted = max(min(spread, samples), round(size / limit), 1)
    if wanted <= len(parts) <= 2 * wanted:
        shards = [
            renamed(folder / part.name, out / f"shard-{number:06d}.tar", part)
            for number, part in enumerate(parts)
        ]
    else:
        for part in parts:
            check_whole(folder / part.name, part, out)
        ends = [samples * number // wanted for number in range(wanted + 1)]
        shards = [
            cut(out / f"shard-{n:06d}.tar", folder, parts, ends[n], ends[n + 1])
            for n in range(wanted)
        ]
    names = {shard.name for shard in shards}
    for stranger in out.glob("shard-[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
        if stranger.name not in names:
            stranger.unlink()
    return shards


def renamed(part_path: Path, path: Path, part: TarPart) -> Shard:
    """Rename a part to a shard, unless an earlier attempt did so.

    Raises:
        DataError: the part is missing or incomplete.
    """
    if part_path.exists() or not path.exists() or sha256_of(path) != part.sha256:
        check_whole(part_path, part, path.parent)
        part_path.replace(path)
    return Shard(
        path.name, len(part.frames), sum(part.frames), part.bytes, part.sha256, tuple(part.offsets)
    )


def check_whole(path: Path, part: TarPart, out: Path) -> None:
    """DataError unless a part exists with its full size. The message asks to remove all of `out`,
    because an earlier attempt may have left some shards there."""
    size = path.stat().st_size if path.exists() else None
    if size != part.bytes:
        found = "is gone" if size is None else f"{size} bytes, {part.bytes} were packed"
        raise DataError(f"{path}: {found}: remove {out} to pack again")


def cut(path: Path, folder: Path, parts: list[TarPart], first: int, stop: int) -> Shard:
    """Write a shard of the samples from `first` to before `stop`, counted over all parts."""
    offsets, frames = [0], 0
    with atomic_file(path) as file:
        for part, low, high in pieces(parts, first, stop):
            copy(folder / part.name, part.offsets[low], part.offsets[high], file)
            base = offsets[-1] - part.offsets[low]
            offsets += [base + offset for offset in part.offsets[low + 1 : high + 1]]
            frames += sum(part.frames[low:high])
        file.write(END)
    return Shard(
        path.name, stop - first, frames, offsets[-1] + len(END), sha256_of(path), tuple(offsets)
    )


def pieces(parts: list[TarPart], first: int, stop: int) -> Iterator[tuple[TarPart, int, int]]:
    """Yield where the samples from `first` to before `stop`, counted over all parts, are: as (part,
    first, stop) within each part."""
    begin = 0
    for part in parts:
        count = len(part.frames)
        low, high = max(first - begin, 0), min(stop - begin, count)
        if low < high:
            yield part, low, high
        begin += count


def copy(path: Path, start: int, stop: int, file: IO[bytes]) -> None:
    """Append the bytes from `start` to before `stop` of a file."""
    with path.open("rb") as source:
        source.seek(start)
        left = stop - start
        while left:
            content = source.read(min(left, COPY_BYTES))
            left -= len(content)
            file.write(content)
