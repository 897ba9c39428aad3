"""Kills packing at random moments, starts it again, and compares the results:
`python scripts/kill_trials.py --trials 50`.

Each trial begins a new packing, and kills and restarts it up to six times. SIGKILL goes at random
to the whole process group or only to the parent. The packing must end with exactly the bytes of an
undisturbed one, and with nothing else in the folder.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from shards.files import sha256_of  # noqa: E402
from shards.packing.config import PackConfig  # noqa: E402
from shards.packing.pack import pack  # noqa: E402
from shards.synthetic import SceneConfig, write_tree  # noqa: E402

MOST_KILLS = 6  # of one packing, which may then finish


def main(argv: list[str]) -> int:
    """Run the trials; 1 if a trial ended with other bytes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--trials", type=int, default=50, help="number of kills")
    flags.add_argument("--source", type=Path, help="videos; generated ones by default")
    flags.add_argument("--seed", type=int, default=0)
    asked = flags.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return try_often(Path(folder), asked.source, asked.trials, random.Random(asked.seed))


def try_often(folder: Path, source: Path | None, trials: int, draw: random.Random) -> int:
    """Kill `trials` times, over as many packings as needed; returns 1 if a result differs."""
    if source is None:
        write_tree(folder / "tree", "train", 8, SceneConfig(frames=40, height=48, width=64), seed=1)
        source = folder / "tree" / "JPEGImages" / "480p"
    begun = time.monotonic()
    assert end(start(source, folder / "calm")) == 0
    length, calm = time.monotonic() - begun, content(folder / "calm")
    kills = packings = 0
    while kills < trials:
        shutil.rmtree(folder / "out", ignore_errors=True)
        killed = [
            kill_once(source, folder / "out", length, draw)
            for _ in range(min(MOST_KILLS, trials - kills))
        ]
        kills, packings = kills + sum(killed), packings + 1
        if end(start(source, folder / "out")) != 0 or content(folder / "out") != calm:
            print(
                f"packing {packings}, after {sum(killed)} kills: "
                f"{sorted(set(content(folder / 'out').items()) ^ set(calm.items()))}"
            )
            return 1
    print(
        f"killed {kills} times in {packings} packings of {length:.2f} s: each ended with the same "
        f"{len(calm)} files, byte for byte"
    )
    return 0


def start(source: Path, out: Path) -> int:
    """Pack with two processes, in a fork that leads its own process group; returns its process
    id."""
    if child := os.fork():
        return child
    os.setsid()
    try:
        pack(source, out, PackConfig(fps=25, segment=4, size="32"), processes=2)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end(child: int) -> int:
    """Wait for a process; returns its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_once(source: Path, out: Path, length: float, draw: random.Random) -> bool:
    """Pack, and kill it at a random moment; returns whether it was still running then."""
    child = start(source, out)
    time.sleep(draw.uniform(0, length))
    if working := os.waitpid(child, os.WNOHANG)[0] == 0:
        alone = draw.random() < 0.5
        with contextlib.suppress(ProcessLookupError):  # its process group may not exist yet
            os.kill(child, signal.SIGKILL) if alone else os.killpg(child, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return working


def content(folder: Path) -> dict[str, str]:
    """Paths and hashes of all files."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
