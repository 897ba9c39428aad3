import subprocess
import sys

from conftest import ROOT, TIMEOUT_SECONDS


def test_packing_resumed_after_a_kill_writes_the_same_bytes():
    """A short version of the trials in `scripts/kill_trials.py`."""
    command = [sys.executable, str(ROOT / "scripts/kill_trials.py"), "--trials", "8"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout
