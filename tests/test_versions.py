import re
import sys
import tomllib

from conftest import ROOT

from scripts.check_newest import find_pythons

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def supported():
    """The versions of Python that the package's classifiers name."""
    return re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))


def test_the_supported_python_versions_are_stated_consistently():
    versions = supported()
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / "README.md").read_text()


def test_the_constraints_pin_every_dependency_and_contain_no_url():
    text = (ROOT / "constraints.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    names = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - {"corrflow"} <= pinned
    assert "://" not in text


def test_only_interpreters_that_work_are_found(tmp_path):
    broken, missing = tmp_path / "python3.99", tmp_path / "gone"
    broken.write_text("#!/bin/sh\necho 'python3.99: not chosen' >&2\nexit 127\n")
    broken.chmod(0o755)
    early = tmp_path / "python3.98"
    early.write_text("#!/bin/sh\necho 3 98 beta\n")
    early.chmod(0o755)
    found = find_pythons([broken, early, missing, sys.executable])
    assert found == [(sys.version_info[:2], sys.executable)]
