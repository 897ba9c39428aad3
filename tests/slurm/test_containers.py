"""Jobs in containers: the script that is submitted, and what the recipes install."""

import os
import subprocess
import sys
import venv

import pytest
from conftest import ROOT

from slurm import ClusterError
from slurm.cluster import ClusterConfig, find_profile
from slurm.submission import executor_of, script_of

RECIPES = ROOT / "slurm" / "containers"


@pytest.fixture(autouse=True)
def srun(tmp_path, monkeypatch):
    """A stand-in for srun, because submitit makes no script if srun is not installed."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tools / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")


def script(tmp_path, **settings):
    return script_of(executor_of(tmp_path, "test", ClusterConfig(**settings)))


def test_without_a_container_jobs_run_the_current_interpreter(tmp_path):
    assert sys.executable in script(tmp_path)


def test_apptainer_runs_python_in_the_image_with_its_mounts(tmp_path):
    mounts = ("/data", "/scratch/my shards:/shards")
    text = script(tmp_path, container="/images/corrflow.sif", container_mounts=mounts)
    command = (
        "apptainer exec --nv --bind /data:/data --bind '/scratch/my shards:/shards' "
        "/images/corrflow.sif python -u -m submitit.core._submit"
    )
    assert command in text
    assert sys.executable not in text
    assert "--container-image" not in text


def test_pyxis_gets_the_image_and_its_mounts_and_runs_its_python(tmp_path):
    text = script(
        tmp_path,
        container="registry/corrflow",
        container_runtime="pyxis",
        container_mounts=("/data",),
    )
    assert "--container-image=registry/corrflow --container-mounts=/data:/data" in text
    assert " python -u -m submitit.core._submit" in text
    assert "apptainer" not in text


def test_an_unknown_container_runtime_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "profile.toml"
    path.write_text('container_runtime = "docker"\n')
    monkeypatch.setenv("CORRFLOW_CLUSTER", str(path))
    with pytest.raises(ClusterError, match="container_runtime = 'docker': expected apptainer or"):
        find_profile()


def test_both_recipes_use_the_same_base_image_and_install_script():
    for name in ("Dockerfile", "corrflow.def"):
        text = (RECIPES / name).read_text()
        assert "/opt/corrflow/slurm/containers/install.sh" in text
        assert "python:3.12-slim-bookworm" in text


def test_the_packages_of_the_recipes_resolve_in_a_fresh_environment(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    # the packages are only resolved, because installing them would take gigabytes; hatchling is
    # needed to build the metadata
    build = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*build, "hatchling"], check=True)
    done = subprocess.run(
        [RECIPES / "install.sh"],
        env={**os.environ, "PYTHON": str(python), "PIP_DRY_RUN": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    resolved = done.stdout.splitlines()[-1]
    for package in ("torch-", "webdataset-", "shapely-", "matplotlib-", "corrflow-"):
        assert package in resolved
