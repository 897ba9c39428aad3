import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from scripts.check_newest import USE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built without a network."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--wheel-dir", out, ROOT], check=True)
    [path] = out.glob("corrflow-*.whl")
    return path


def test_a_wheel_contains_only_corrflow_with_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"corrflow"}
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "corrflow"], capture_output=True, text=True, check=True
    )
    assert set(tracked.stdout.split()) <= set(names)
    assert {"corrflow/weights/base/model.safetensors", "corrflow/palettes/lab64.csv"} <= set(names)


def test_a_wheel_in_a_fresh_environment_propagates_and_tracks(wheel, tmp_path):
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    venv.create(environment)
    [packages] = environment.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    # adds the folder of the dependencies; the .pth file in it, which adds this checkout, is not
    # read, because that happens only in an environment's own site-packages
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere.mkdir()
    code = f"import corrflow; print(corrflow.__file__)\n{USE}"
    command = [environment / "bin" / "python", "-I", "-c", code]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(packages)

    video, label = ROOT / "docs/example/bunny.mp4", ROOT / "docs/example/bunny.json"
    track = [environment / "bin" / "python", "-I", "-m", "corrflow", video, "--labels", label]
    track += ["--size", "64", "--protocol", "identity"]
    done = subprocess.run(track, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bunny-tracked.mp4" in done.stdout
    assert len(list((elsewhere / "bunny-tracked-masks").glob("*.png"))) > 1

    done = subprocess.run(
        [*track, "--sise", "64"], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("corrflow: error: unknown --sise, did you mean --size?")

    done = subprocess.run(
        [*track[:4], "--help"], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python -m corrflow VIDEO [flags] is track.py --video VIDEO")


def test_an_editable_install_is_a_path_to_the_checkout_without_copies(tmp_path):
    built = "from hatchling.build import build_editable; import sys; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", built, tmp_path], cwd=ROOT, check=True)
    [path] = tmp_path.glob("corrflow-*.whl")
    names = [name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name]
    assert names == ["_corrflow.pth"]
