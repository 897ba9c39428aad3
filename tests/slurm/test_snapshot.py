import json
import subprocess

import pytest

from slurm import ClusterError
from slurm.snapshot import take_snapshot


def test_each_snapshot_keeps_code_git_state_and_environment(tmp_path):
    source = tmp_path / "source"
    (source / "package" / "__pycache__").mkdir(parents=True)
    (source / "package" / "a.py").write_text("one = 1\n")
    (source / "package" / "b.csv").write_text("Anna\n")
    (source / "package" / "__pycache__" / "a.pyc").write_bytes(b"")
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (source / "package" / "a.py").write_text("one = 2\n")
    (source / "package" / "b.csv").write_bytes("Jürgen\n".encode("latin-1"))
    snapshot = take_snapshot(tmp_path / "run", source, ("package",), {"command": ["train.py"]})
    assert snapshot == tmp_path / "run/snapshots/001"
    assert sorted(path.name for path in (snapshot / "code/package").iterdir()) == ["a.py", "b.csv"]
    assert (snapshot / "code/package/a.py").read_text() == "one = 2\n"
    state = (snapshot / "git.txt").read_bytes()
    assert state.startswith(b"commit ")
    assert b"+one = 2" in state
    assert "+Jürgen\n".encode("latin-1") in state, "changes in any encoding"
    assert "torch==" in (snapshot / "environment.txt").read_text()
    assert json.loads((snapshot / "job.json").read_text()) == {"command": ["train.py"]}
    assert take_snapshot(tmp_path / "run", source, ("package",), {}).name == "002"


def test_a_users_folder_beside_snapshots_does_not_count_as_one(tmp_path):
    (tmp_path / "snapshots/001").mkdir(parents=True)
    (tmp_path / "snapshots/007-kept").mkdir()
    (tmp_path / "package").mkdir()
    assert take_snapshot(tmp_path, tmp_path, ("package",), {}).name == "002"


def test_code_outside_of_git_is_kept_as_well(tmp_path):
    (tmp_path / "source/package").mkdir(parents=True)
    snapshot = take_snapshot(tmp_path / "run", tmp_path / "source", ("package",), {})
    assert (snapshot / "git.txt").read_text() == "not a git repository\n"


def test_a_run_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ClusterError, match="snapshots/001: can't be written"):
        take_snapshot(tmp_path / "run", tmp_path, (), {})
