"""Plot the J&F of each validation and the loss over the clips seen:
`python launch/curve.py RUN ... --out curve.png`."""

import sys

from corrflow.training.curves import draw_curves, read_curves
from launch.common.command import parse, run
from launch.configs.train import CurveJob
from shards.video.sources import as_text


def main(argv: list[str]) -> int:
    """Draw the curves, and print each run's validations as a table."""
    job = parse(CurveJob, argv, "curve.py")
    curves = {as_text(folder.absolute().name): read_curves(folder) for folder in job.runs}
    draw_curves(curves, job.out)
    for name, (validated, loss) in curves.items():
        print(f"{name}: {loss[-1][0]} clips, recent loss {loss[-1][1]:.3f}")
        print("".join(f"{clips:>9} clips  J&F {jf:.4f}\n" for clips, jf in validated), end="")
    print(f"picture: {job.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
