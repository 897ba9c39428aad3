"""Atomic writing of files in `corrflow` and in `shards`, which do not import each other."""

import errno
import os

import pytest

import corrflow.files
import shards.files


@pytest.fixture(params=[corrflow.files, shards.files], ids=["corrflow", "shards"])
def atomic_file(request):
    return request.param.atomic_file


def test_a_file_appears_once_it_is_complete_without_temporary_files(atomic_file, tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_unchanged(atomic_file, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_error_names_the_file(atomic_file, tmp_path):
    with pytest.raises(OSError, match="No space") as raised, atomic_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "file"))


def test_an_error_of_the_temporary_file_names_the_final_file(atomic_file, tmp_path):
    path = tmp_path / ("x" * 250)  # too long once the process id is added
    with pytest.raises(OSError, match="too long") as raised, atomic_file(path):
        pass
    assert raised.value.filename == str(path)


def test_an_error_of_another_file_names_that_file(atomic_file, tmp_path):
    with pytest.raises(FileNotFoundError) as raised, atomic_file(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert raised.value.filename == str(tmp_path / "other")
