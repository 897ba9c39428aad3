"""Checks a shard folder against its manifest: every file, sample and frame is read again."""

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from shards.errors import reason_of
from shards.files import sha256_of
from shards.manifest import Manifest, Shard, read_manifest
from shards.process_pool import run_in_processes
from shards.samples import NeedMoreError, iterate_samples, parse_note, read_samples

Check = tuple[Path, Shard]


def verify(folder: Path, processes: int) -> Iterator[tuple[str, list[str]]]:
    """Check the shards of `folder`, several at a time.

    Yields:
        (name, damages) for each shard as it is checked, with a line for each damage that names
        shard, sample and frame; at last, under the folder's name, tar files that are not in the
        manifest.

    Raises:
        DataError: there is no manifest.
    """
    manifest = read_manifest(folder)
    yield from run_in_processes(
        check_shard, [(folder, shard) for shard in manifest.shards], processes
    )
    yield folder.name, unlisted_files(folder, manifest)


def check_shard(check: Check) -> tuple[str, list[str]]:
    """Check one shard; returns its name and its damages."""
    folder, shard = check
    path = folder / shard.name
    if not path.exists():
        return shard.name, [f"{shard.name}: missing"]
    size = path.stat().st_size
    problem = f"{size} bytes, the manifest says {shard.bytes}"
    if size == shard.bytes:
        problem = "sha256 differs"
        try:
            if sha256_of(path) == shard.sha256:
                # the bytes are as they were packed, but earlier versions packed samples with
                # frames of several sizes
                return shard.name, list(mixed_sizes(path))
        except OSError as error:  # from a failing disk
            problem = f"can't be read to its end ({error.strerror})"
    return shard.name, [f"{shard.name}: {problem}", *check_samples(path, shard)]


def check_samples(path: Path, shard: Shard) -> Iterator[str]:
    """Yield the damages within a shard whose bytes differ from the manifest. Samples are checked
    separately, so damage in one does not hide damage in the next."""
    count = frames = 0
    with path.open("rb") as file:
        for number, (start, stop) in enumerate(pairwise(shard.offsets)):
            try:
                file.seek(start)
                content = file.read(stop - start)
                sample = next(iterate_samples(io.BytesIO(content), path.name))
            except Exception as error:  # a failing disk; tarfile raises many kinds for damage
                reason = "nothing there" if isinstance(error, StopIteration) else reason_of(error)
                yield f"{path.name}, sample #{number}: not readable ({reason})"
                continue
            count += 1
            frames += sum(name.endswith(".jpg") for name in sample)
            for name, reason in check_sample(sample):
                yield f"{path.name}, sample {sample['__key__']}: {name} {reason}"
            if misplaced(sample, content):
                where = f"{path.name}, sample {sample['__key__']}"
                yield f"{where}: its frames do not lie where its json says"
    if (count, frames) != (shard.samples, shard.frames):
        actual = f"holds {count} samples and {frames} frames"
        yield f"{path.name}: {actual}, the manifest says {shard.samples} and {shard.frames}"


def mixed_sizes(path: Path) -> Iterator[str]:
    """Yield samples whose frames differ in size, as the JPEG headers say."""
    for sample in read_samples(path):
        sizes = [size_of(sample[name]) for name in sorted(sample) if name.endswith(".jpg")]
        if other := next((size for size in sizes if size != sizes[0]), None):
            (width, height), (other_width, other_height) = sizes[0], other
            yield (
                f"{path.name}, sample {sample['__key__']}: {sizes.index(other):03d}.jpg "
                f"is {other_width}x{other_height}, those before {width}x{height}"
            )


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return image.size


def misplaced(sample: dict[str, Any], content: bytes) -> bool:
    """Whether the offsets in the json are not those of the frames."""
    try:
        note, length = parse_note(content)
        jpegs = [content[length + start : length + start + size] for start, size in note["jpegs"]]
    except (ValueError, TypeError, tarfile.TarError, NeedMoreError):
        return True
    return any(sample.get(f"{number:03d}.jpg") != jpeg for number, jpeg in enumerate(jpegs))


def check_sample(sample: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (entry, what is wrong with it) for each damaged entry."""
    try:
        wanted = json.loads(sample["json"])["frames"]
    except (KeyError, ValueError, TypeError) as error:
        yield "json", f"is not readable ({error})" if "json" in sample else "is missing"
        wanted = sum(name.endswith(".jpg") for name in sample)
    expected: tuple[int, int] | None = None
    for number in range(wanted):
        name = f"{number:03d}.jpg"
        try:
            with Image.open(io.BytesIO(sample[name])) as image:
                image.load()
                size = image.size
        except KeyError:
            yield name, "is missing"
            continue
        # all that Pillow raises for damaged images
        except (OSError, ValueError, SyntaxError) as error:
            yield name, f"is not a readable JPEG ({reason_of(error)})"
            continue
        expected = expected or size
        if size != expected:
            width, height = expected
            yield name, f"is {size[0]}x{size[1]}, those before {width}x{height}"


def unlisted_files(folder: Path, manifest: Manifest) -> list[str]:
    """Tar files that are not in the manifest."""
    known = {shard.name for shard in manifest.shards}
    return [
        f"{path.name}: is not in the manifest"
        for path in sorted(folder.glob("*.tar"))
        if path.name not in known
    ]
