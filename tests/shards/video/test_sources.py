import csv
import io
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from test_pack import SMALL, write_folder, write_video

from shards.errors import DataError
from shards.packing.pack import pack
from shards.video.sources import VideoSource, counted, find_videos, survey


def touch(root, *names):
    """Create empty files; the names are enough for them to be found."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_list(path, *lines, end="\n"):
    path.write_bytes(b"".join(os.fsencode(line + end) for line in lines))
    return path


def keys(source):
    return [video.key for video in find_videos(source)]


def keys_and_counts(source):
    return [(video.key, video.listed) for video in find_videos(source)]


def failures(out):
    with (out / "failures.csv").open() as file:
        return {row["video"]: row["reason"] for row in csv.DictReader(file)}


def test_video_files_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path):
    touch(
        tmp_path,
        "z.mp4",
        "a/b/c/d/deep.webm",
        "a/UPPER.MKV",
        "a/notes.txt",
        "a/._z.mp4",
        "b/poster.jpg",
    )
    assert keys(tmp_path) == ["a/UPPER", "a/b/c/d/deep", "z"]


def test_frame_folders_of_kinetics_and_of_oxuva_are_videos(tmp_path):
    touch(tmp_path, *(f"riding a bike/abc_000001/image_{n:05d}.jpg" for n in (1, 2, 3)))
    touch(tmp_path, *(f"vid0000/{n:06d}.jpeg" for n in (0, 30)))
    assert keys(tmp_path) == ["riding a bike/abc_000001", "vid0000"]


@pytest.mark.parametrize("source", [".", "../x.y", "clip/..", "/here"])
def test_the_key_of_a_single_frame_folder_is_its_name(tmp_path, monkeypatch, source):
    folder = touch(tmp_path / "x.y", "0.jpg", "1.jpg", "clip/note.md")
    monkeypatch.chdir(folder)
    assert keys(folder if source == "/here" else Path(source)) == ["x.y"]


def test_hidden_and_system_files_are_skipped(tmp_path):
    touch(tmp_path, "a.mp4", ".Trash-1000/files/gone.mp4", ".thumbnails/0.jpg", ".thumbnails/1.jpg")
    touch(
        tmp_path,
        ".AppleDouble/a.mp4",
        "@eaDir/a.mp4",
        "b/@eaDir/b.mp4",
        "__MACOSX/a.mp4",
        "b/._b.mp4",
    )
    assert survey(tmp_path) == ([VideoSource("a", tmp_path / "a.mp4")], {})


def test_a_hidden_folder_can_be_the_source(tmp_path):
    touch(tmp_path, ".cache/clips/a.mp4")
    assert keys(tmp_path / ".cache") == ["clips/a"]


def test_files_that_a_decoder_opens_are_videos_whatever_their_suffix(tmp_path):
    whole = write_video(tmp_path / "made.mkv").rename(tmp_path / "noext")
    shutil.copy(whole, tmp_path / "film.bin")
    write_video(tmp_path / "00001.MTS")
    write_video(tmp_path / "b.mpg").rename(tmp_path / "b.ts")
    (tmp_path / "code.ts").write_text("const answer: number = 42;\n" * 100)
    (tmp_path / "notes.txt").write_text("a line\n" * 1000)
    Image.new("RGB", (64, 48)).save(tmp_path / "cover.jpg")
    result = survey(tmp_path)
    assert [video.key for video in result.videos] == ["00001", "b.ts", "film.bin", "noext"]
    assert result.skipped == {".ts": 1, ".txt": 1, ".jpg": 1}
    assert keys(tmp_path / "film.bin") == ["film.bin"]


def test_skipped_files_are_counted_by_suffix(tmp_path):
    touch(
        tmp_path,
        "a.mp4",
        "poster.JPG",
        "b/1.jpg",
        "b/2.jpg",
        "b/readme",
        "c/1.png",
        "c/x.png",
        "c/y.png",
    )
    assert survey(tmp_path).skipped == {".png": 3, ".jpg": 1, "": 1}
    assert counted({".png": 3, "": 1}) == "3 .png, 1 without suffix"
    with pytest.raises(DataError, match=r"no videos there: .*; skipped: 3 \.png"):
        find_videos(tmp_path / "c")


def test_frame_numbers_may_be_in_parentheses_as_in_windows(tmp_path):
    touch(tmp_path, *(f"paren/frame ({n}).jpg" for n in (1, 2)), *(f"web/{n}.webp" for n in (1, 2)))
    assert keys(tmp_path) == ["paren", "web"]


def test_a_named_pipe_does_not_block_the_search(tmp_path):
    touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "pipe")
    assert survey(tmp_path).skipped == {"": 1}


def test_the_key_of_a_single_file_is_its_name(tmp_path):
    touch(tmp_path, "v1.2 final.mp4", "other.mp4", "text.pdf")
    assert keys(tmp_path / "v1.2 final.mp4") == ["v1.2 final"]
    with pytest.raises(DataError, match="no videos there"):
        find_videos(tmp_path / "text.pdf")


def test_a_frame_folder_named_like_a_file_keeps_its_whole_name(tmp_path):
    touch(tmp_path, "clip.mp4/1.jpg", "clip.mp4/2.jpg", "clip.avi")
    assert keys(tmp_path) == ["clip", "clip.mp4"]


def test_spaces_dots_and_non_ascii_letters_in_names_are_kept(tmp_path):
    touch(tmp_path, "Grüße aus/Køge v1.2.mp4", "日本/語.webm", "two  spaces.mkv")
    assert keys(tmp_path) == ["Grüße aus/Køge v1.2", "two  spaces", "日本/語"]


def test_names_that_are_not_utf8_get_distinct_utf8_keys(tmp_path):
    odd = os.fsdecode(b"caf\xe9.mp4")
    touch(tmp_path, odd, "caf\\xe9.mp4")
    write_list(tmp_path / "list.csv", odd, "caf\\xe9.mp4")
    for source in (tmp_path, tmp_path / "list.csv"):
        videos = find_videos(source)
        assert sorted(video.key for video in videos) == ["caf\\xe9", "caf\\xe9.mp4"]
        assert all(video.path.exists() for video in videos)


def test_a_video_whose_name_is_not_utf8_is_packed(tmp_path):
    write_video(tmp_path / "source" / "good.mp4").rename(
        tmp_path / "source" / os.fsdecode(b"\xff\xfe.mp4")
    )
    assert pack(tmp_path / "source", tmp_path / "out", SMALL, processes=1).counts.failures == 0


def test_files_that_differ_only_in_suffix_get_different_keys(tmp_path):
    touch(tmp_path, "a.mp4", "a.webm", "a.MP4")
    assert keys(tmp_path) == ["a", "a.mp4", "a.webm"]


def test_a_folder_with_several_links_to_it_is_searched_once(tmp_path):
    touch(tmp_path / "source", "a.mp4", "real/b.mp4")
    for name in ("one", "two"):
        (tmp_path / "source" / name).symlink_to(tmp_path / "source" / "real")
        (tmp_path / "source" / "real" / name).symlink_to(tmp_path / "source")
    assert keys(tmp_path / "source") == ["a", "one/b"]


def test_a_list_may_have_a_header_and_frame_counts(tmp_path):
    expected = [("a", 10), ("b/c", None)]
    assert (
        keys_and_counts(write_list(tmp_path / "1.csv", "path,frames", "a.mp4,10", "b/c.mp4"))
        == expected
    )
    assert keys_and_counts(write_list(tmp_path / "2.csv", "a.mp4,10", "b/c.mp4")) == expected
    assert (
        keys_and_counts(
            write_list(tmp_path / "3.csv", "Path, Frames", "a.mp4 , 10", "", "b/c.mp4", end="\r\n")
        )
        == expected
    )
    assert (
        keys_and_counts(
            write_list(tmp_path / "4.csv", "\ufeffpath,frames", '"a.mp4","10"', "b/c.mp4")
        )
        == expected
    )
    assert keys_and_counts(
        write_list(tmp_path / "5.lst", "path", "a.mp4", "b/c.mp4", end="\r")
    ) == [
        ("a", None),
        ("b/c", None),
    ]


def test_a_path_in_a_list_may_contain_commas(tmp_path):
    lines = ("one, two.mp4", '"three, four.mp4",7', '"five, six.mp4"', "seven,eight/nine")
    assert keys_and_counts(write_list(tmp_path / "list.csv", *lines)) == [
        ("one, two", None), ("three, four", 7), ("five, six", None), ("seven,eight/nine", None),
    ]  # fmt: skip


def test_unusual_line_separators_are_part_of_a_name(tmp_path):
    assert keys(write_list(tmp_path / "list.txt", "a\u2028b\x85c\x0cd.mp4")) == [
        "a\u2028b\x85c\x0cd"
    ]


def test_paths_in_a_list_are_relative_to_its_folder(tmp_path, monkeypatch):
    touch(tmp_path, "here/sub/a.mp4", "b.mp4")
    write_list(tmp_path / "here/list.csv", "sub/a.mp4", "../b.mp4")
    monkeypatch.chdir(tmp_path / "here")
    for source in (tmp_path / "here/list.csv", Path("list.csv")):
        videos = find_videos(source)
        assert [video.key for video in videos] == ["sub/a", "b"]
        assert all(video.path.exists() for video in videos)


def test_keys_of_paths_outside_the_folder_have_no_leading_slash_or_dots(tmp_path):
    touch(tmp_path, "far/a.mp4", "here/0.jpg", "here/1.jpg")
    write_list(
        tmp_path / "here/list.csv",
        str(tmp_path / "far/a.mp4"),
        "x/../../far/../b.mp4",
        "./c.mp4",
        ".",
        "..",
    )
    assert keys(tmp_path / "here/list.csv") == [
        f"{tmp_path}/far/a"[1:],
        "b",
        "c",
        "here",
        tmp_path.name,
    ]


def test_a_list_can_be_read_from_standard_input(tmp_path, monkeypatch):
    touch(tmp_path, "sub/a.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"path,frames\nsub/a.mp4,3\n"))
    )
    (video,) = find_videos(Path("-"))
    assert (video.key, video.path.exists(), video.listed) == ("sub/a", True, 3)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    with pytest.raises(DataError, match="standard input: lists no videos"):
        find_videos(Path("-"))


def test_a_list_of_a_folders_videos_gives_the_same_keys_and_shards(tmp_path):
    root = tmp_path / "source"
    write_video(root / "jump" / "one v1.2.mp4")
    write_video(root / "jump" / "one v1.2.mkv")
    write_folder(root / "run" / "two")
    paths = [str(video.path.relative_to(root)) for video in find_videos(root)]
    listed = write_list(root / "list.csv", "path", *paths)
    assert keys(listed) == keys(root) == ["jump/one v1.2", "jump/one v1.2.mp4", "run/two"]
    one, two = (
        pack(source, tmp_path / name, SMALL, processes=1)
        for name, source in (("a", root), ("b", listed))
    )
    assert one.shards == two.shards


def test_listed_videos_that_are_missing_or_miscounted_are_failures(tmp_path):
    write_video(tmp_path / "good.mp4")
    write_video(tmp_path / "more.mp4")
    write_folder(tmp_path / "folder")
    write_list(
        tmp_path / "list.csv",
        "path,frames",
        "gone.mp4,10",
        "good.mp4,10",
        "more.mp4,12",
        "folder,9",
        "good.mp4/inside.mp4",
    )
    assert pack(tmp_path / "list.csv", tmp_path / "out", SMALL, processes=1).counts.failures == 4
    assert failures(tmp_path / "out") == {
        "gone": "no such file or folder",
        "more": "has 10 frames, the list says 12",
        "folder": "has 10 frames, the list says 9",
        "good.mp4/inside": "no such file or folder",
    }


def test_listed_frame_counts_are_compared_before_sampling(tmp_path):
    write_video(tmp_path / "a.mp4", count=20)
    write_list(tmp_path / "list.csv", "a.mp4,20")
    assert (
        pack(
            tmp_path / "list.csv", tmp_path / "out", replace(SMALL, fps=6.25), processes=1
        ).counts.failures
        == 0
    )


def test_a_video_that_is_listed_twice_is_refused(tmp_path):
    with pytest.raises(
        DataError,
        match=r"list\.csv, line 4: '\./a\.mp4' was named in line 2: expected each video once",
    ):
        find_videos(write_list(tmp_path / "list.csv", "path", "a.mp4", "b.mp4", "./a.mp4"))


@pytest.mark.parametrize("content", [b"", b"path,frames\n", b"\n\n\n"])
def test_an_empty_list_is_refused(tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.csv: lists no videos"):
        find_videos(tmp_path / "list.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_may_be_in_utf8_or_utf16(tmp_path, encoding):
    text = "path,frames\r\nø.mp4,10\r\n"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "list.csv").write_bytes((mark + text).encode(encoding))
    assert keys_and_counts(tmp_path / "list.csv") == [("ø", 10)]


def test_a_list_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a.mp4\0b.mp4\0")
    with pytest.raises(DataError, match="is not text"):
        find_videos(tmp_path / "list.txt")


NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process with fewer rights")


def as_nobody(folder, function):
    """Run `function` in a process without root's rights, with `folder` as the working directory;
    returns its result, or the error that it raises, as text."""
    folder.chmod(0o755)
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.chdir(folder)
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            text = str(function())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.wait()
    return text


@NEEDS_FORK
def test_sources_without_read_permission_are_refused_in_one_line(tmp_path):
    touch(tmp_path, "source/open/a.mp4", "source/closed/b.mp4")
    write_list(tmp_path / "list.csv", "source/closed/b.mp4")
    write_list(tmp_path / "secret.csv", "a.mp4").chmod(0)
    (tmp_path / "source/closed").chmod(0)
    messages = {
        name: as_nobody(tmp_path, lambda name=name: find_videos(Path(name)))
        for name in ("source", "source/closed/b.mp4", "secret.csv")
    }
    listed = as_nobody(tmp_path, lambda: keys(Path("list.csv")))
    (tmp_path / "source/closed").chmod(0o755)
    assert messages.pop("source") == "DataError: source source/closed: Permission denied"
    assert messages == {name: f"DataError: source {name}: Permission denied" for name in messages}
    assert listed == "['source/closed/b']"
