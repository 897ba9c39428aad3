"""Copies code, git state and environment into the run's folder. The job runs from that copy."""

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from slurm.errors import ClusterError

FOLDER = "snapshots"


def take_snapshot(
    run: Path, source: Path, packages: tuple[str, ...], facts: dict[str, Any]
) -> Path:
    """Copy the code; returns the new folder, `RUN/snapshots/001`, with `code/`, `git.txt`,
    `environment.txt` and `job.json`.

    Args:
        run: the run's folder.
        source: folder that has the `packages`.
        packages: folders of Python code.
        facts: content of `job.json`: the command and its configuration.

    Raises:
        ClusterError: the snapshot can't be written.
    """
    names = [path.name for path in (run / FOLDER).glob("*")]
    taken = [int(name) for name in names if name.isdecimal()]  # others belong to the user
    snapshot = run / FOLDER / f"{max(taken, default=0) + 1:03d}"
    try:
        for package in packages:
            shutil.copytree(
                source / package,
                snapshot / "code" / package,
                ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
            )
        (snapshot / "git.txt").write_bytes(git_state(source))
        (snapshot / "environment.txt").write_text(environment())
        (snapshot / "job.json").write_text(json.dumps(facts, indent=1, default=str) + "\n")
    except (OSError, shutil.Error) as error:
        raise ClusterError(f"snapshot {snapshot}: can't be written ({error})") from None
    return snapshot


def git_state(source: Path) -> bytes:
    """Commit, changed files and their diff, which may be in any encoding; or a line that says that
    there is no git repository."""

    def git(*words: str) -> bytes:
        line = ["git", "-C", str(source), *words]
        return subprocess.run(line, capture_output=True, check=True).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        status, changes = git("status", "--short", "--branch"), git("diff", "HEAD")
        return b"commit %s\n\n%s\n%s" % (commit, status, changes)
    except (OSError, subprocess.CalledProcessError):
        return b"not a git repository\n"


def environment() -> str:
    """The versions of Python, the system and every package."""
    packages = sorted(
        {
            f"{distribution.metadata['Name']}=={distribution.version}"
            for distribution in distributions()
        },
        key=str.lower,
    )
    return "\n".join(
        [
            f"python {sys.version.split()[0]} {sys.executable}",
            platform.platform(),
            "",
            *packages,
            "",
        ]
    )
