"""Fixtures and paths for all tests: small generated videos, packed once, a cluster, a browser, and
folders with larger data that may be missing."""

import os
from pathlib import Path

# without a GPU, kernels run in the interpreter; triton decides when it is first imported
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# tests compute so little that threads would mostly wait for each other, especially while other
# programs use the cores, too
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fcntl
import importlib
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from launch.common.command import run
from shards.packing.config import PackConfig
from shards.packing.pack import pack
from shards.synthetic import SceneConfig, write_tree

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
SHARED = ROOT.parent / "shared"
# seconds that a test waits for a process: long enough that only a hanging one reaches it, even on a
# busy machine
TIMEOUT_SECONDS = 600

TINY_SCENE = SceneConfig(frames=8, height=48, width=64, objects=(1, 2), speed=2.0, points=3)
# a model and a batch so small that a step takes hundredths of a second
TINY = [
    "--recipe", "released",
    "--model.encoder", "resnet10-tiny", "--model.radius", "2", "--clip.size", "32",
    "--clip.fit", "crop",
    "--trainer.batch", "4", "--trainer.log-every", "1", "--trainer.pictures-every", "0",
    "--stream.workers", "0", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAVIS-2017 tree of four generated videos, all of them `val`."""
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, "val", 4, TINY_SCENE, seed=1)
    return root


@pytest.fixture(scope="session")
def packed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same videos as shards: eight segments of four frames."""
    out = tmp_path_factory.mktemp("packed")
    pack(tree / "JPEGImages" / "480p", out, PackConfig(fps=25.0, segment=4), processes=1)
    return out


SLURM_DAEMONS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")


def why_no_cluster() -> str:
    """Why no cluster can run here; an empty string if one can."""
    if "SLURM_CONF" in os.environ and shutil.which("sbatch"):
        return ""
    missing = [name for name in SLURM_DAEMONS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        lacks = ", ".join(missing) or "root"
        return (
            'needs SLURM (as root: eval "$(tests/cluster/up)" installs and starts it; missing: '
            f"{lacks})"
        )
    return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster that answers, for one test file at a time, because some tests kill its daemons.
    Skips if no cluster can run here."""
    if reason := why_no_cluster():
        pytest.skip(reason)
    if "SLURM_CONF" not in os.environ:
        done = subprocess.run(
            [ROOT / "tests/cluster/up"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"needs SLURM (tests/cluster/up: {done.stderr.strip()})")
        os.environ["SLURM_CONF"] = done.stdout.strip().removeprefix("export SLURM_CONF=")
        Path(os.environ["SLURM_CONF"]).parents[1].joinpath(".of-tests").write_text(
            str(controller())
        )
    with Path(tempfile.gettempdir(), "corrflow-cluster-tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def controller() -> int:
    """The process id of pytest, or with xdist of the process that started the workers."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the cluster that the tests started, once all processes of pytest are done."""
    root = Path(os.environ.get("CORRFLOW_CLUSTER_ROOT", "/tmp/corrflow-cluster"))
    mark = root / ".of-tests"
    if mark.exists() and mark.read_text() == str(os.getpid()):
        subprocess.run([ROOT / "tests/cluster/down"], check=True)
        mark.unlink()


NO_CONFIG = (  # errors of SLURM's client if it is installed without a configuration
    "error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host",
    "error: fetch_config: DNS SRV lookup failed",
    "error: _establish_config_source: failed to fetch config",
    "fatal: Could not establish a configuration source",
)


@pytest.fixture
def slurm_client(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Makes shell scripts for SLURM's commands the only programs on the PATH; `sbatch` fails by
    default."""

    def install(**scripts: str) -> None:
        folder = tmp_path_factory.mktemp("client")
        for name, script in {"sbatch": "exit 1", **scripts}.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return install


@pytest.fixture
def silent_slurm(slurm_client: Callable[..., None]) -> None:
    """SLURM's client without a configuration: each command fails with the same chain of errors."""
    names = ("sbatch", "scontrol", "sinfo", "squeue", "sacct", "srun")
    chains = {name: "".join(f"echo '{name}: {line}' >&2\n" for line in NO_CONFIG) for name in names}
    slurm_client(**{name: f"{chain}exit 1" for name, chain in chains.items()})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each reason with the number of tests that were skipped for it."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(" ".join(report.longrepr[2].split()) for report in skipped)
    for reason, count in sorted(reasons.items()):
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.write_line(f"{reason.removeprefix('Skipped: ')}: {tests} skipped")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; skips if it is not installed."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs a browser (as root: apt-get install chromium)")
    with sync_playwright() as playwright:
        # CI runs as root, for which Chromium's sandbox does not work
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command() -> Command:
    """Runs `python launch/NAME.py FLAG ...` as a user would."""

    def call(name: str, *flags: object) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, str(ROOT / "launch" / f"{name}.py"), *map(str, flags)]
        return subprocess.run(
            line, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )

    return call


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command, in this process, that must end with exit code 2 and one line; returns the
    line."""

    def call(name: str, *flags: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, flags)])
        monkeypatch.setenv("CORRFLOW_CLUSTER", "")
        code = run(importlib.import_module(f"launch.{name}").main)
        output = capfd.readouterr().err.strip()
        assert code == 2, output
        lines = [line for line in output.splitlines() if line.startswith(f"{name}.py: ")]
        assert len(lines) == 1, output
        assert output.endswith(lines[0])
        return lines[0]

    return call
