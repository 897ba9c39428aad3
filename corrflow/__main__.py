"""`python -m corrflow VIDEO --mask PNG`: tracks from an installed wheel, without a checkout.

It is `launch/track.py` with all of its flags. A wheel holds the commands in a folder that nothing
imports by name, since `launch` and `shards` are names that other packages have; in a checkout they
are where they always are.
"""

import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the command as if its file had been called; VIDEO stands for `--video VIDEO`."""
    commands = HERE / "commands"
    root = str(commands if commands.is_dir() else HERE.parent)
    sys.path.insert(0, root)
    # processes and jobs that it starts find them, too
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
