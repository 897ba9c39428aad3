"""Files that operating systems and network drives leave in folders beside the data."""

import shutil
import zipfile

import pytest
from miniatures import badja, davis_test, jhmdb, tapvid, vip, youtube_vos

from corrflow import InputError
from corrflow.benchmarks.evaluation import evaluate
from corrflow.benchmarks.folders import find, folders_in, listed, looks_like
from corrflow.benchmarks.jhmdb import listed_test_videos
from corrflow.benchmarks.registry import BENCHMARKS
from corrflow.propagation import PROTOCOLS

BUILT = {
    "davis2016": None,
    "davis2017": None,
    "davis2017-test": davis_test,
    "youtube-vos": youtube_vos,
    "jhmdb": jhmdb,
    "vip": vip,
    "vip-instances": vip,
    "badja": badja,
    "tapvid": lambda root: tapvid(root / "tapvid_davis.pkl"),
}
FINDER = b"\0\5\x16\7\0\2\0\0Mac OS X\xe2\xff"  # the start of a ._ file of macOS


def add_leftovers(root):
    """Add to each folder what macOS, network drives, Windows and desktops leave: files, and hidden
    folders with copies of the data."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        paths = sorted(folder.iterdir())
        for path in paths:
            (folder / f"._{path.name}").write_bytes(FINDER)
        for hidden in ("__MACOSX", "@eaDir", ".thumbnails"):
            (folder / hidden).mkdir()
            for path in paths:
                if path.is_file():
                    shutil.copy(path, folder / hidden)
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(FINDER)


@pytest.mark.parametrize("name", BUILT)
def test_each_benchmark_ignores_files_that_other_systems_leave(tree, tmp_path, name):
    root = tmp_path / "root"
    if build := BUILT[name]:
        root.mkdir()
        build(root)
    else:
        shutil.copytree(tree, root)
    benchmark = BENCHMARKS[name]
    before, kind = benchmark.read(root), looks_like(root)
    add_leftovers(root)
    assert benchmark.read(root) == before
    assert looks_like(root) == kind


@pytest.mark.parametrize("year", [2016, 2017])
def test_davis_without_a_list_ignores_files_that_other_systems_leave(tree, tmp_path, year):
    root = shutil.copytree(tree, tmp_path / "tree")
    add_leftovers(root)
    shutil.rmtree(root / "ImageSets")
    found = [sequence.name for sequence in BENCHMARKS[f"davis{year}"].read(root)]
    assert found == ["val-000", "val-001", "val-002", "val-003"]


@pytest.mark.parametrize("name", ["davis2017-test", "youtube-vos"])
def test_a_submission_leaves_out_files_that_other_systems_leave(tmp_path, name):
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    BUILT[name](root)
    result = evaluate(name, root, None, PROTOCOLS["identity"], out, "identity")
    before = (out / "submission.zip").read_bytes()
    add_leftovers(out / "masks")
    BENCHMARKS[name].write_tables(BENCHMARKS[name].read(root), result.scores, out)
    assert (out / "submission.zip").read_bytes() == before
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.namelist()


@pytest.mark.parametrize("name", ["davis2017-test", "youtube-vos"])
def test_a_submission_with_a_missing_mask_is_refused(tmp_path, name):
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    BUILT[name](root)
    flags = (name, root, None, PROTOCOLS["identity"], out, "identity")
    evaluate(*flags)
    submission = out / "submission.zip"
    whole = submission.read_bytes()
    last = max((out / "masks").glob("*/*.png"))
    last.unlink()
    submission.unlink()
    record = out / f"sequences/{last.parent.name}.json"
    words = rf"1 of \d masks are missing \({last.parent.name}/{last.name}\): remove {record} and"
    with pytest.raises(InputError, match=words):
        evaluate(*flags)
    assert not submission.exists()
    record.unlink()
    evaluate(*flags)
    assert submission.read_bytes() == whole


def test_hidden_names_in_a_list_are_left_out(tmp_path):
    (tmp_path / "val.txt").write_text("bear\n._bear\nJPEGImages/480p/.DS_Store\ncamel\n")
    assert listed(tmp_path / "val.txt") == ["bear", "camel"]
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 2\n._a.avi 2\n")
    assert listed_test_videos(tmp_path / "wave_test_split1.txt") == ["wave/a"]


def test_a_folder_below_a_hidden_one_is_read(tmp_path):
    folder = tmp_path / ".cache/data"
    (folder / "bear").mkdir(parents=True)
    assert find(folder) == [folder / "bear"]
    assert folders_in(folder) == ["bear"]
    assert folders_in(tmp_path / "nowhere") == []
