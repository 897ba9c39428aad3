"""What `tests/conftest.py` adds to the output of pytest."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, TIMEOUT_SECONDS

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(20))
def test_of_jobs(number):
    pytest.skip("needs SLURM\\n(missing: slurmctld)")

@pytest.mark.skipif(True, reason="needs a browser")
def test_of_a_page():
    pass

def test_of_nothing():
    assert 0
"""


@pytest.mark.parametrize("flags", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_skips_are_summed_up_for_each_reason_and_failures_are_named(tmp_path, flags):
    path = tmp_path / "test_one.py"
    path.write_text(TESTS)
    # pytest-xdist does not run in a process that it has started, which these variables tell it
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "conftest",
            "-c",
            os.devnull,
            "--rootdir",
            tmp_path,
            *flags,
            path,
        ],
        env={**env, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if "needs" in line] == [
        "needs SLURM (missing: slurmctld): 20 tests skipped",
        "needs a browser: 1 test skipped",
    ], done.stdout
    assert any(line.startswith("FAILED") and "test_of_nothing" in line for line in lines)
