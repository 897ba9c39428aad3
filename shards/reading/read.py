"""Reads clips from shards, still as JPEGs: either only a clip's frames, by their offsets in a local
file, or whole samples through webdataset.

Both give the same clips, as a test checks. The first reads a tenth of the bytes; the second works
with any store.
"""

import io
import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from shards.errors import DataError
from shards.manifest import Shard
from shards.reading.clip import ClipSample
from shards.reading.corpus import Corpus
from shards.reading.order import ClipOrder, ShuffleBuffer, Visit
from shards.reading.stores import FolderStore
from shards.samples import JSON_BYTES, NeedMoreError, iterate_samples, parse_note

OPEN_FILES = 32  # shards that a reader keeps open, since it will probably read them again

Choose = Callable[[str, int, int], ClipSample]
"""Chooses the clip of a sample from (key, number of frames, visit)."""


class Undecoded(NamedTuple):
    """A clip whose frames are still JPEGs."""

    jpegs: list[bytes]
    cut: ClipSample
    location: str
    """The shard's full name: a path, URL or command."""
    shard: str
    """The shard's name in the manifest."""
    key: str
    """The segment's key."""

    @property
    def name(self) -> str:
        """The clip's name: `sample key:frame,frame,...`."""
        return f"{self.key}:{','.join(map(str, self.cut.frames))}"

    def damaged(self, index: int, reason: str) -> DataError:
        """The error for the damaged frame number `index` of the clip; `reason` says what is wrong
        with it."""
        return DataError(
            f"shard {self.location}, sample {self.key}: frame {self.cut.frames[index]} {reason} "
            f"(to train without the sample: `{self.shard} {self.key}` in a file, --quarantine FILE)"
        )


class Reader:
    """Reads the visits of shuffle buffers, in the order in which they are yielded."""

    def __init__(self, corpus: Corpus, order: ClipOrder) -> None:
        self.corpus, self.order = corpus, order
        self.files: OrderedDict[str, IO[bytes]] = OrderedDict()
        self.numbers: dict[int, list[int]] = {
            shard: corpus.numbers(shard) for shard in corpus.quarantined
        }

    def read(self, buffer: ShuffleBuffer, choose: Choose) -> Iterator[Undecoded]:
        """Yield the clips of a buffer, except those that it skips."""
        visits = self.order.visits_of(buffer)
        wanted = [visits[index] for index in buffer.permutation[buffer.skip :]]
        if isinstance(self.corpus.store, FolderStore):
            yield from (self.fetch(visit, choose) for visit in wanted)
        else:
            held = self.read_in_order(sorted(wanted), choose)
            yield from (held[visit] for visit in wanted)

    def number_of(self, visit: Visit) -> int:
        """The index, within its shard, of a visit's sample."""
        return (
            self.numbers[visit.shard][visit.sample] if visit.shard in self.numbers else visit.sample
        )

    def fetch(self, visit: Visit, choose: Choose) -> Undecoded:
        """Read one clip of a local shard: its json, then the run of bytes from its first frame to
        its last."""
        shard, number = self.corpus.manifest.shards[visit.shard], self.number_of(visit)
        start, stop = shard.offsets[number], shard.offsets[number + 1]
        with self.naming(shard, number):
            file = self.opened(shard)
            try:
                note, length = parse_note(
                    os.pread(file.fileno(), min(JSON_BYTES, stop - start), start)
                )
            except NeedMoreError as more:
                note, length = parse_note(os.pread(file.fileno(), more.args[0], start))
            cut = choose(note["key"], note["frames"], visit.number)
            spans = [note["jpegs"][frame] for frame in cut.frames]
            first, last = spans[0][0], sum(spans[-1])
            content = os.pread(file.fileno(), last - first, start + length + first)
            if len(content) < last - first:
                raise ValueError(
                    "the file ends within the sample, at byte "
                    f"{start + length + first + len(content)}"
                )
            jpegs = [content[begin - first : begin - first + size] for begin, size in spans]
        return Undecoded(
            jpegs, cut, self.corpus.store.location(shard.name), shard.name, note["key"]
        )

    def opened(self, shard: Shard) -> IO[bytes]:
        """A shard's file, which is kept open for a while."""
        if shard.name not in self.files:
            self.files[shard.name] = self.corpus.store.open(shard.name, 0, shard.bytes, shard.bytes)
            if len(self.files) > OPEN_FILES:
                self.files.popitem(last=False)[1].close()
        self.files.move_to_end(shard.name)
        return self.files[shard.name]

    def read_in_order(self, visits: list[Visit], choose: Choose) -> dict[Visit, Undecoded]:
        """Read clips of neighbouring samples through webdataset; only the clips' own frames are
        kept."""
        held = {}
        for shard_number in dict.fromkeys(visit.shard for visit in visits):
            shard = self.corpus.manifest.shards[shard_number]
            wanted: dict[int, list[Visit]] = {}
            for visit in visits:
                if visit.shard == shard_number:
                    wanted.setdefault(self.number_of(visit), []).append(visit)
            location = self.corpus.store.location(shard.name)
            for number, sample in self.samples(shard, sorted(wanted)):
                for visit in wanted[number]:
                    with self.naming(shard, number):
                        key, frames = sample["__key__"], json.loads(sample["json"])["frames"]
                        cut = choose(key, frames, visit.number)
                        jpegs = [sample[f"{frame:03d}.jpg"] for frame in cut.frames]
                        held[visit] = Undecoded(jpegs, cut, location, shard.name, key)
        return held

    def samples(self, shard: Shard, numbers: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield samples of a shard, read in one pass. Each is parsed separately, so that damage
        does not affect the others; samples between them are not parsed."""
        store, (low, high) = self.corpus.store, (numbers[0], numbers[-1] + 1)
        with (
            self.naming(shard, low),
            store.open(shard.name, shard.offsets[low], shard.offsets[high], shard.bytes) as file,
        ):
            for number in range(low, high):
                with self.naming(shard, number):
                    content = file.read(shard.offsets[number + 1] - shard.offsets[number])
                    if number in numbers:
                        samples = list(
                            iterate_samples(io.BytesIO(content), store.location(shard.name))
                        )
                        if len(samples) != 1:
                            raise ValueError(f"{len(samples)} samples lie there")
                        yield number, samples[0]

    @contextmanager
    def naming(self, shard: Shard, number: int) -> Iterator[None]:
        """Make errors of reading a sample name it, and say how to leave it out."""
        location = self.corpus.store.location(shard.name)
        try:
            yield
        except (DataError, GeneratorExit):
            raise
        except OSError as error:
            raise DataError(
                f"shard {location}: sample #{number}: {error.strerror or error}"
            ) from None
        # all that damaged data may raise
        except (
            tarfile.TarError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            NeedMoreError,
        ) as error:
            line = f"{shard.name} #{number}"
            raise DataError(
                f"shard {location}: not readable at sample #{number} ({error}) (to train without "
                f"it: `{line}` in a file, --quarantine FILE)"
            ) from error
