"""`track.py --jobs` over a folder of videos on a real SLURM."""

import shutil

import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("cluster")
JOBS = ("--jobs", 2, "--cluster.cpus", 1, "--cluster.memory-gb", 1, "--cluster.minutes", 5)


def test_the_jobs_of_an_array_track_a_folder_as_one_process_does(command, tree, tmp_path):
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
