"""Export a checkpoint to a small model that can be shipped:
`python launch/export.py --checkpoint PT --out FOLDER`.

It holds only the weights, in half precision. Every command and `corrflow.load_model` accept it.
"""

import hashlib
import sys

from corrflow.model import WEIGHTS_FILE
from corrflow.pretrained import export_model
from launch.common.command import parse, run
from launch.configs.train import ExportJob


def main(argv: list[str]) -> int:
    """Write the model, and print the size and SHA-256 of its weights."""
    job = parse(ExportJob, argv, "export.py")
    changed = job.inverse_temperature, job.input_scale
    export_model(job.checkpoint, job.out, job.weights, *changed)
    path = job.out / WEIGHTS_FILE
    content = path.read_bytes()
    print(f"{path}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
