"""Lists and labels in any encoding that text editors save."""

import json
import shutil

import pytest
from miniatures import badja, davis_test, jhmdb, vip, youtube_vos

from corrflow import InputError
from corrflow.benchmarks.registry import BENCHMARKS
from corrflow.benchmarks.texts import read_text

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom"]
# by benchmark: the function that writes its data, and a text file that it reads
TEXTS = {
    "davis2017-test": (davis_test, "ImageSets/2017/test-dev.txt"),
    "youtube-vos": (youtube_vos, "meta.json"),
    "jhmdb": (jhmdb, "splits/wave_test_split1.txt"),
    "vip": (vip, "VIP_Fine/lists/val_videos.txt"),
    "badja": (badja, "joint_annotations/horse.json"),
}


def encoded(text, encoding):
    """Encode a text as an editor on Windows saves it."""
    text = text.replace("\n", "\r\n")
    return (
        ("\ufeff" + text).encode("utf-16-be")
        if encoding == "utf-16-be-bom"
        else text.encode(encoding)
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_read_the_same_in_each_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(encoded("bär 2\nwelle\n", encoding))
    assert read_text(tmp_path / "a.txt").splitlines() == ["bär 2", "welle"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", TEXTS)
def test_each_benchmark_reads_its_texts_in_each_encoding(tmp_path, name, encoding):
    build, text = TEXTS[name]
    build(tmp_path)
    before = BENCHMARKS[name].read(tmp_path)
    (tmp_path / text).write_bytes(encoded((tmp_path / text).read_text(), encoding))
    assert BENCHMARKS[name].read(tmp_path) == before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_davis_lists_and_vip_classes_are_read_in_each_encoding(tree, tmp_path, encoding):
    copy = shutil.copytree(tree, tmp_path / "tree")
    (copy / "ImageSets/2017/val.txt").write_bytes(encoded("val-002\n", encoding))
    assert [s.name for s in BENCHMARKS["davis2017"].read(copy)] == ["val-002"]
    vip(tmp_path)
    instances = BENCHMARKS["vip-instances"]
    (sequence,) = instances.read(tmp_path)
    classes = sequence.labels[0].with_suffix(".txt")
    classes.write_bytes(encoded(classes.read_text(), encoding))
    assert instances.initial_labels(sequence)[0].max() == 3


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-32"])
def test_another_encoding_is_refused_with_the_file_and_what_is_expected(tmp_path, name, encoding):
    build, text = TEXTS[name]
    build(tmp_path)
    path = tmp_path / text
    path.write_bytes(f"é{path.read_text()}".encode(encoding))
    with pytest.raises(InputError) as error:
        BENCHMARKS[name].read(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("expected text in UTF-8, or in UTF-16 with a byte order mark")
    assert "\n" not in message


def test_a_text_that_is_not_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a.txt: no such file$"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r": can't be read \(Is a directory\)$"):
        read_text(tmp_path)


def test_json_labels_of_another_structure_are_refused(tmp_path):
    badja(tmp_path)
    (tmp_path / "joint_annotations/horse.json").write_text(json.dumps({"no": "list"}))
    with pytest.raises(InputError, match="expected a list of image_path"):
        BENCHMARKS["badja"].read(tmp_path)
