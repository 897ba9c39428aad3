"""`python -m corrflow VIDEO --mask PNG`: tracks from an installed wheel, without a checkout.

This runs `launch/track.py` and takes all of its flags. A wheel keeps the commands in the folder
`corrflow/commands`, which is not importable by name, because other packages may also be called
`launch` or `shards`. In a checkout, the commands are at the root.
"""

import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run `launch/track.py` as a script; a leading VIDEO is short for `--video VIDEO`."""
    commands = HERE / "commands"
    root = str(commands if commands.is_dir() else HERE.parent)
    sys.path.insert(0, root)
    # child processes and jobs must find the commands, too
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    words = sys.argv[1:]
    if words and not words[0].startswith("-"):
        words = ["--video", *words]
    sys.argv = ["corrflow", *words]
    command = runpy.run_path(str(Path(root) / "launch" / "track.py"))

    def track(argv: list[str]) -> int:
        if {"-h", "--help", "--help-all"} & set(argv):
            print("python -m corrflow VIDEO [flags] is track.py --video VIDEO [flags].\n")
        return int(command["main"](argv))

    sys.exit(command["run"](track))


if __name__ == "__main__":
    main()
