"""Starts another process that holds the lock of a folder."""

import subprocess
import sys
from contextlib import contextmanager

HOLDER = """
import sys
from pathlib import Path
from launch.common import run_config
with getattr(run_config, sys.argv[2])(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(out, lock="evaluation_lock"):
    """A process that holds the folder's lock."""
    line = [sys.executable, "-c", HOLDER, str(out), lock]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()
