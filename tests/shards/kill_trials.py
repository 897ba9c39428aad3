"""Kills packing at random moments, begins it again, and compares what comes of it: `python tests/shards/kill_trials.py --trials 50`.

Each trial packs anew, is killed by SIGKILL (the whole process group, or by turns the parent alone) at a random moment up to as often as
it takes, and must end with the very bytes of a packing that nobody disturbed, and nothing else in the folder.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from shards.files import sha256_of  # noqa: E402
from shards.pack import PARTS, PLAN  # noqa: E402
from shards.synthetic import SceneConfig, write_tree  # noqa: E402

MOST_KILLS = 6  # of one packing, which is then left alone


def main(argv: list[str]) -> int:
    """Run the trials; 1 if a trial ended with other bytes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--trials", type=int, default=50, help="kills in all, at least")
    flags.add_argument("--source", type=Path, help="videos; generated ones unless given")
    flags.add_argument("--seed", type=int, default=0)
    asked = flags.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return try_often(Path(folder), asked.source, asked.trials, random.Random(asked.seed))


def try_often(folder: Path, source: Path | None, trials: int, draw: random.Random) -> int:
    """Kill `trials` times, over as many packings as that takes."""
    if source is None:
        write_tree(folder / "tree", "train", 8, SceneConfig(frames=40, height=48, width=64), seed=1)
        source = folder / "tree" / "JPEGImages" / "480p"
    process = run(source, folder / "calm")
    begun = wait_for_plan(process, folder / "calm")
    process.wait()
    length, calm = time.monotonic() - begun, content(folder / "calm")
    kills = packings = 0
    while kills < trials:
        shutil.rmtree(folder / "out", ignore_errors=True)
        killed = [kill_once(source, folder / "out", length, draw) for _ in range(min(MOST_KILLS, trials - kills))]
        kills, packings = kills + sum(killed), packings + 1
        if run(source, folder / "out").wait() != 0 or content(folder / "out") != calm:
            print(f"packing {packings}, after {sum(killed)} kills: {sorted(set(content(folder / 'out').items()) ^ set(calm.items()))}")
            return 1
    print(f"killed {kills} times in {packings} packings of {length:.2f} s: each ended with the same {len(calm)} files, byte for byte")
    return 0


def run(source: Path, out: Path) -> "subprocess.Popen[bytes]":
    """Start packing with two processes, in a group of its own."""
    flags = ["--source", str(source), "--out", str(out), "--fps", "25", "--segment", "4", "--size", "32", "--procs", "2"]
    command = [sys.executable, str(ROOT / "launch" / "shard.py"), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def kill_once(source: Path, out: Path, length: float, draw: random.Random) -> bool:
    """Pack until a random moment after the plan was made, before it by way of exception; whether it was still at work then."""
    process = run(source, out)
    moment = time.monotonic() + draw.uniform(0, 3) if draw.random() < 0.1 else wait_for_plan(process, out) + draw.uniform(0, length)
    while time.monotonic() < moment and process.poll() is None:
        time.sleep(0.002)
    working = process.poll() is None
    if working:
        alone = draw.random() < 0.5
        os.kill(process.pid, signal.SIGKILL) if alone else os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return working


def wait_for_plan(process: "subprocess.Popen[bytes]", out: Path) -> float:
    """When the packing proper begins, or goes on."""
    begun = time.time_ns()
    while process.poll() is None:
        try:
            if (out / PARTS / PLAN).stat().st_mtime_ns >= begun:
                break
        except FileNotFoundError:
            pass
        time.sleep(0.002)
    return time.monotonic()


def content(folder: Path) -> dict[str, str]:
    """All files and their hashes."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
