"""`track.py --jobs` for a folder of videos on a real SLURM cluster."""

import shutil
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("cluster")
JOBS = ("--jobs", 2, "--cluster.cpus", 1, "--cluster.memory-gb", 1, "--cluster.minutes", 5)


def test_the_jobs_of_an_array_give_the_same_masks_as_one_process(command, tree, tmp_path):
    frames, masks = tree / "JPEGImages/480p", tree / "Annotations/480p"
    (tmp_path / "labels").mkdir()
    for sequence in sorted(frames.iterdir()):
        mask = masks / sequence.name / "00000.png"
        shutil.copy(mask, tmp_path / "labels" / f"{sequence.name}.png")
    flags = ("--video", frames, "--labels", tmp_path / "labels", "--protocol", "identity")
    alone = command("track", *flags, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    done = command("track", *flags, "--out", tmp_path / "array", *JOBS, "--follow")
    assert done.returncode == 0, done.stderr
    names = [sequence.name for sequence in sorted(frames.iterdir())]
    assert f"tracked {len(names)} of {len(names)} videos" in done.stdout
    for name in names:
        for mask in (tmp_path / "alone" / f"{name}-masks").iterdir():
            other = tmp_path / "array" / f"{name}-masks" / mask.name
            assert Image.open(other).tobytes() == Image.open(mask).tobytes()


def test_jobs_run_in_the_configured_container_image(command, tree, tmp_path):
    """A stand-in for apptainer logs the name of the image, and runs the command without it."""
    (tmp_path / "labels").mkdir()
    mask = tree / "Annotations/480p/val-000/00000.png"
    shutil.copy(mask, tmp_path / "labels" / "val-000.png")
    stand_in = tmp_path / "bin" / "apptainer"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "exec --nv" ] || exit 9\nshift 2\n[ "$1" != --bind ] || shift 2\n'
        f'echo "$1" >> {tmp_path}/images\nshift 2\nexec {sys.executable} "$@"\n'
    )
    stand_in.chmod(0o755)
    flags = ("--video", tree / "JPEGImages/480p", "--labels", tmp_path / "labels")
    flags += ("--protocol", "identity", "--out", tmp_path / "out", *JOBS, "--follow")
    image = ("--cluster.container", "/images/corrflow.sif", "--cluster.container-mounts", tmp_path)
    setup = ("--cluster.setup", f"export PATH={stand_in.parent}:$PATH")
    done = command("track", *flags, *image, *setup)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "val-000.mp4").exists()
    images = (tmp_path / "images").read_text().split()
    assert set(images) == {"/images/corrflow.sif"}
