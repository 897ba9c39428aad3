import subprocess
import sys

from conftest import ROOT, TIMEOUT_SECONDS


def test_packing_that_is_killed_ends_with_the_same_bytes():
    """The short version of what `kill_trials.py` does."""
    command = [sys.executable, str(ROOT / "scripts/kill_trials.py"), "--trials", "8"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout
