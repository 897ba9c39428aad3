import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from test_read import as_remote, write_set

from shards.errors import DataError
from shards.manifest import read_manifest
from shards.packing.config import PackConfig
from shards.packing.pack import pack
from shards.reading.clip import ClipConfig
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stream import ClipDataset, StreamConfig, list_batches, read_batches
from shards.samples import parse_note, read_samples

CLIP = ClipConfig(size=32)
SHARD = "shard-000001.tar"


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Five shards of three samples each."""
    root = tmp_path_factory.mktemp("several")
    write_set(root / "source")
    pack(
        root / "source",
        root / "out",
        PackConfig(fps=25, size="32", segment=4, spread=5),
        processes=1,
    )
    assert [shard.samples for shard in read_manifest(root / "out").shards] == [3] * 5
    return root / "out"


@pytest.fixture
def copy(several, tmp_path):
    return shutil.copytree(several, tmp_path / "copy")


@pytest.fixture
def quarantine(tmp_path):
    """A function that writes a quarantine list with the given lines."""

    def write(*lines):
        (tmp_path / "quarantine").write_text("\n".join(lines), "utf-8")
        return tmp_path / "quarantine"

    return write


def keys_of(folder, shard=SHARD):
    return [sample["__key__"] for sample in read_samples(folder / shard)]


def all_keys(folder):
    return {key for shard in read_manifest(folder).shards for key in keys_of(folder, shard.name)}


def overwrite(folder, number, content, shard=SHARD, position=0):
    """Overwrite bytes of the sample with this number from a position on; the file keeps its
    size."""
    start = (
        next(entry for entry in read_manifest(folder).shards if entry.name == shard).offsets[number]
        + position
    )
    with (folder / shard).open("r+b") as file:
        file.seek(start)
        file.write(content)


def destroy_frames(folder, number, shard=SHARD):
    """Overwrite the beginning of each of a sample's JPEGs with zeros."""
    offsets = next(entry for entry in read_manifest(folder).shards if entry.name == shard).offsets
    note, length = parse_note((folder / shard).read_bytes()[offsets[number] : offsets[number + 1]])
    for position, _ in note["jpegs"]:
        overwrite(folder, number, bytes(32), shard, length + position)


def batches(corpus, ranks=1, count=8, workers=1):
    """Keys of the samples in the first global batches, of four clips each."""
    order = ClipOrder(corpus.samples, 0, 4, shuffle_buffer=3)
    datasets = [ClipDataset(corpus, order, CLIP, rank, ranks, 0) for rank in range(ranks)]
    return [
        [name.rpartition(":")[0] for name in batch]
        for batch in islice(list_batches(datasets, workers), count)
    ]


def train(corpus, workers=0, count=8):
    """Read batches as training does; returns the keys of their samples."""
    dataset = ClipDataset(corpus, ClipOrder(corpus.samples, 0, 4, shuffle_buffer=3), CLIP, 0, 1, 0)
    found = islice(read_batches(dataset, StreamConfig(workers=workers)), count)
    return {key.rpartition(":")[0] for batch in found for key in batch.keys}


def stores_of(folder):
    """The ways in which the folder can be read; the last command does not end with the file's
    name."""
    return [str(folder), f"pipe:cat {folder}/{{}}", f"pipe:cat {folder}/{{}} -"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("way", [0, 1, 2])
def test_a_damaged_frame_is_reported_with_its_quarantine_line(copy, quarantine, workers, way):
    destroy_frames(copy, 1)
    key, data = keys_of(copy)[1], stores_of(copy)[way]
    with pytest.raises(DataError) as caught:
        train(open_corpus(data), workers)
    match = re.fullmatch(
        rf"shard (.*), sample {re.escape(key)}: frame \d is not a readable JPEG "
        r"\(to train without the sample: `(.*)` in a file, --quarantine FILE\)",
        str(caught.value),
    )
    assert match
    assert match[1] == open_corpus(data).store.location(SHARD)
    assert match[2] == f"{SHARD} {key}"
    assert train(open_corpus(data, quarantine(match[2])), workers) == all_keys(copy) - {key}


@pytest.mark.parametrize("way", [0, 1, 2])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    "damage", [b"x" * 512, bytes(512), bytes(4096)], ids=["letters", "zeros", "long"]
)
def test_a_destroyed_header_is_reported_with_its_quarantine_line(
    copy, several, quarantine, way, number, damage
):
    overwrite(copy, number, damage)
    data = stores_of(copy)[way]
    with pytest.raises(DataError) as caught:
        train(open_corpus(data))
    match = re.fullmatch(
        rf"shard .*: not readable at sample #{number} \(.+\) \(to train without it: `(.*)` in a "
        rf"file, --quarantine FILE\)",
        str(caught.value),
    )
    assert match
    assert match[1] == f"{SHARD} #{number}"
    assert train(open_corpus(data, quarantine(match[1]))) == all_keys(several) - {
        keys_of(several)[number]
    }


def test_samples_after_a_destroyed_header_are_found_by_key(copy, several, quarantine):
    overwrite(copy, 0, b"x" * 512)
    key = keys_of(several)[2]
    assert open_corpus(copy, quarantine(f"{SHARD} {key}", f"{SHARD} #0")).quarantined == {1: (0, 2)}


@pytest.mark.parametrize("replacement", [{}, {"jpegs": []}, {"jpegs": [], "key": ["a"]}, []])
def test_a_sample_with_a_wrong_json_entry_is_not_found_by_key(
    copy, several, quarantine, replacement
):
    note, length = parse_note((copy / SHARD).read_bytes())
    text = json.dumps(replacement).encode()
    size = len(json.dumps(note).encode())
    overwrite(copy, 0, text.ljust(size), position=length - size - -size % 512)
    keys = keys_of(several)
    assert open_corpus(copy, quarantine(f"{SHARD} {keys[1]}")).quarantined == {1: (1,)}
    with pytest.raises(DataError, match="no such sample"):
        open_corpus(copy, quarantine(f"{SHARD} {keys[0]}"))
    with pytest.raises(DataError, match="not readable at sample #0"):
        train(open_corpus(copy))


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("by_number", [False, True])
def test_quarantined_samples_are_never_read_and_others_once_per_epoch(
    several, quarantine, way, by_number
):
    key = keys_of(several)[1]
    corpus = open_corpus(
        stores_of(several)[way], quarantine(f"{SHARD} {'#1' if by_number else key}")
    )
    assert corpus.samples == (3, 2, 3, 3, 3)
    assert corpus.numbers(1) == [0, 2]
    expected = batches(corpus, count=7)  # two epochs
    assert Counter(found for batch in expected for found in batch) == dict.fromkeys(
        all_keys(several) - {key}, 2
    )
    for ranks, workers in [(2, 1), (2, 2), (4, 1)]:
        assert batches(corpus, ranks, 7, workers) == expected


def test_every_key_can_be_quarantined(several, quarantine):
    for shard in read_manifest(several).shards:
        for number, key in enumerate(keys_of(several, shard.name)):
            assert list(
                open_corpus(several, quarantine(f"{shard.name} {key}")).quarantined.values()
            ) == [(number,)]


def test_a_sample_listed_twice_is_quarantined_once(several, quarantine):
    key = keys_of(several)[1]
    corpus = open_corpus(
        several, quarantine(f"{SHARD} {key}", f"{SHARD} #1", "", f"  {SHARD}   {key}  ", "")
    )
    assert corpus.quarantined == {1: (1,)}
    assert corpus.samples == (3, 2, 3, 3, 3)


@pytest.mark.parametrize("convert", [lambda corpus: corpus, as_remote])
def test_a_fully_quarantined_shard_is_left_out(several, quarantine, convert):
    corpus = convert(
        open_corpus(several, quarantine(*(f"{SHARD} #{number}" for number in range(3))))
    )
    assert corpus.samples == (3, 0, 3, 3, 3)
    found = Counter(key for batch in batches(corpus, count=3) for key in batch)
    assert found == dict.fromkeys(all_keys(several) - set(keys_of(several)), 1)


def test_a_corpus_without_samples_is_refused(several, quarantine):
    lines = [
        f"{shard.name} #{number}" for shard in read_manifest(several).shards for number in range(3)
    ]
    with pytest.raises(DataError, match="0 samples"):
        train(open_corpus(several, quarantine(*lines)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shard-000009.tar a/000000", r"shard-000009\.tar: no such shard in .*out"),
        (f"{SHARD} no/such/000000", rf"{SHARD} no/such/000000: no such sample in that shard"),
        (f"{SHARD} #3", rf"{SHARD} #3: no such sample in that shard"),
        (f"{SHARD} #-1", rf"{SHARD} #-1: no such sample in that shard"),
        (SHARD, rf", line 2: '{SHARD}': expected SHARD KEY, as in shard-000012\.tar"),
    ],
)
def test_a_line_that_names_no_sample_is_refused(several, quarantine, line, message):
    path = quarantine(f"{SHARD} #0", line)
    with pytest.raises(DataError, match=rf"^quarantine {path}(: )?{message}"):
        open_corpus(several, path)


def test_a_missing_or_undecodable_quarantine_list_is_refused(several, tmp_path):
    with pytest.raises(DataError, match=r"^quarantine .*none: No such file or directory$"):
        open_corpus(several, tmp_path / "none")
    (tmp_path / "latin").write_bytes("shard-000001.tar Äpfel/000000".encode("latin-1"))
    with pytest.raises(DataError, match=r"^quarantine .*latin: .*decode"):
        open_corpus(several, tmp_path / "latin")


def change_manifest(folder, change):
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(format=1), "format 1: expected 2"),
        (lambda found: found.update(shards=[]), "names no shards"),
        (lambda found: found.pop("counts"), "not readable as a manifest"),
        (lambda found: found["shards"][1].pop("bytes"), "not readable as a manifest"),
        (lambda found: found.update(short_sides=[40]), "not readable as a manifest"),
        (lambda found: found.update(short_sides={"small": 15}), "not readable as a manifest"),
        (
            lambda found: found.update(short_sides={"40": 14}),
            "short_sides of 14 segments: expected those of 15",
        ),
        (
            lambda found: found["shards"][1]["offsets"].pop(),
            rf"{SHARD}: 3 offsets up to .* for 3 samples",
        ),
        (
            lambda found: found["shards"][1].update(bytes=1000),
            rf"{SHARD}: 4 offsets up to .* for 3 samples",
        ),
    ],
)
def test_an_inconsistent_manifest_is_refused(copy, way, change, message):
    change_manifest(copy, change)
    with pytest.raises(DataError, match=rf"manifest\.json: {message}"):
        open_corpus(stores_of(copy)[way])


def test_a_manifest_without_counts_of_frame_sizes_is_read(copy):
    change_manifest(copy, lambda found: found.pop("short_sides"))
    assert open_corpus(copy).manifest.short_sides == {}


def test_shards_that_do_not_match_the_manifest_are_refused(copy):
    size = (copy / SHARD).stat().st_size
    change_manifest(copy, lambda found: found["shards"][1].update(bytes=size + 512))
    with pytest.raises(
        DataError, match=rf"{SHARD}: {size} bytes: the manifest says {size + 512} bytes"
    ):
        open_corpus(copy)
    (copy / SHARD).unlink()
    with pytest.raises(DataError, match=rf"{SHARD}: missing: the manifest says"):
        open_corpus(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": 2, "shards": '])
@pytest.mark.parametrize("way", [0, 1])
def test_a_file_that_is_not_a_manifest_is_refused(copy, way, content):
    (copy / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json: (not readable as a manifest|format)"):
        open_corpus(stores_of(copy)[way])


def test_a_shard_that_disappears_during_reading_is_reported(several, copy):
    corpus = open_corpus(copy)
    for path in copy.glob("*.tar"):
        path.unlink()
    for variant in (corpus, as_remote(corpus)):
        with pytest.raises(
            DataError, match=r"^shard .*shard-00000\d\.tar: sample #\d: No such file or directory"
        ):
            train(variant)


def test_a_shard_that_is_truncated_during_reading_is_reported(copy):
    corpus = open_corpus(copy)
    shards = {shard.name: shard for shard in corpus.manifest.shards}
    with (copy / SHARD).open("r+b") as file:
        file.truncate(shards[SHARD].offsets[1] + 2048)
    for variant in (corpus, as_remote(corpus)):
        with pytest.raises(DataError, match=rf"^shard .*{SHARD}: not readable at sample #[12] "):
            train(variant)


def test_offsets_that_are_wrong_by_one_block_are_reported(copy):
    corpus = open_corpus(copy)
    shards = tuple(
        replace(
            shard,
            offsets=tuple(
                offset + 512 if 0 < index < 3 else offset
                for index, offset in enumerate(shard.offsets)
            ),
        )
        for shard in corpus.manifest.shards
    )
    wrong = replace(corpus, manifest=replace(corpus.manifest, shards=shards))
    for variant in (wrong, as_remote(wrong)):
        with pytest.raises(DataError, match=r"not readable at sample #\d"):
            train(variant)
