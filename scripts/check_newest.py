"""Runs the commands on the newest Python of this machine, with today's newest releases:
`make newest`.

Everything else runs with the releases of constraints.txt; this script shows whether a newer release
breaks a command. It builds the wheel, installs it into a fresh environment with the releases that
pip finds, uses it from another folder, and then packs, trains, evaluates and tracks from the
checkout. It needs only the standard library.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT.parent / "shared" / "data" / "train_clips"  # real clips, if they are available
TELL = "import sys, ensurepip, venv; v = sys.version_info; print(v.major, v.minor, v.releaselevel)"
USE = """
import importlib.util, torch, corrflow
for name in ("launch", "shards", "slurm"):
    assert importlib.util.find_spec(name) is None, f"the wheel installs {name}"
frames, labels = torch.rand(3, 3, 64, 96), torch.zeros(64, 96, dtype=torch.uint8)
labels[16:48, 16:48] = 1
masks = corrflow.propagate(corrflow.load_model(), frames, labels)
assert masks.shape == (3, 64, 96) and masks[0].equal(labels), masks.shape
"""


def main() -> int:
    """Run the checks, unless no Python here is newer than the one that runs this script."""
    version, python = max(find_pythons(candidates()))
    if version <= sys.version_info[:2]:
        print(f"check_newest: no Python newer than {sys.version.split()[0]} here: nothing to check")
        return 0
    with tempfile.TemporaryDirectory(prefix="corrflow-newest-") as folder:
        check(python, Path(folder))
    print(f"check_newest: all commands work on Python {version[0]}.{version[1]}")
    return 0


def candidates() -> Iterator[Path]:
    """Yield paths that may be a Python: on the PATH, and among pyenv's versions."""
    yield Path(sys.executable)
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield from Path(folder or ".").glob("python3.[0-9]*")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from pyenv.glob("versions/*/bin/python")


def find_pythons(paths: Iterable[Path]) -> list[tuple[tuple[int, int], Path]]:
    """Versions and paths of those Pythons that run, can make environments, and are final
    releases."""
    found = []
    for path in paths:
        try:
            # pyenv's shims run only if their version is selected
            done = subprocess.run(
                [path, "-c", TELL], capture_output=True, text=True, timeout=60, check=True
            )
            major, minor, level = done.stdout.split()
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
        if level == "final":
            found.append(((int(major), int(minor)), path))
    return found


def check(python: Path, folder: Path) -> None:
    """Install and try everything; CalledProcessError for the first command that fails."""
    environment, elsewhere = folder / "environment", folder / "elsewhere"
    elsewhere.mkdir()
    binary = environment / "bin" / "python"
    run(python, "-m", "venv", environment)
    pip = (binary, "-m", "pip", "--disable-pip-version-check")
    run(
        *pip,
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        folder,
        ROOT,
        env=without_pip_settings(),
    )
    [wheel] = folder.glob("corrflow-*.whl")
    run(*pip, "install", "--quiet", wheel, env=without_pip_settings())
    run(*pip, "list", "--format=freeze")
    run(binary, "-I", "-c", USE, cwd=elsewhere)  # -I: only the environment's packages
    try_commands(binary, folder)


def without_pip_settings() -> dict[str, str]:
    """The environment variables without pip settings that may hold back releases."""
    kept = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


def try_commands(python: Path, folder: Path) -> None:
    """Pack, train, evaluate and track, as a user does from a checkout."""
    videos, tree, shards, trained = (
        folder / name for name in ("videos", "tree", "shards", "trained")
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run(python, ROOT / "scripts" / "newest_inputs.py", videos, tree, env=env)
    for clip in sorted(CLIPS.glob("*.mp4"))[:8]:
        shutil.copy(clip, videos)
    run(
        python,
        "launch/shard.py",
        "--source",
        videos,
        "--out",
        shards,
        "--size",
        "96",
        "--strict",
        env=env,
    )
    run(python, "launch/shard.py", "verify", "--data", shards, env=env)
    training = ("--recipe", "smoke", "--trainer.steps", "4", "--device", "cpu")
    run(python, "launch/train.py", *training, "--data", shards, "--run", trained, env=env)
    checkpoint = trained / "checkpoints" / "step-00000004.pt"
    data = ("--benchmark", "davis2017", "--root", tree)
    for number, model in enumerate(([], ["--checkpoint", checkpoint])):
        out = folder / f"results-{number}"
        run(python, "launch/eval.py", *data, *model, "--out", out, "--device", "cpu", env=env)
    marked = ("--mask", tree / "Annotations" / "480p" / "val-000" / "00000.png")
    for number, video in enumerate(
        [tree / "JPEGImages" / "480p" / "val-000", *sorted(videos.glob("val-*"))]
    ):
        given = marked if video.is_dir() else ("--points", "30,20")
        out = folder / f"tracked-{number}.mp4"
        run(
            python,
            "launch/track.py",
            "--video",
            video,
            *given,
            "--size",
            "128",
            "--out",
            out,
            "--device",
            "cpu",
            env=env,
        )
        assert out.stat().st_size, out


def run(*command: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Print a command and run it."""
    words = [str(word) for word in command]
    print("check_newest:", " ".join(words) if len(" ".join(words)) < 300 else words[0], flush=True)
    subprocess.run(words, cwd=cwd, env=env, check=True, timeout=1200)


if __name__ == "__main__":
    sys.exit(main())
