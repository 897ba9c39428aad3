"""Runs the notebooks from the first cell to the last in a headless kernel."""

import pytest
from conftest import ROOT

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat")

CELLS = 20  # the most cells of a notebook, so that it can be read in one go
# smaller than the notebooks' defaults, to save time
SETTINGS = {"quickstart": {"HEIGHT": "64"}, "train": {"STEPS": "6", "VIDEOS": "4"}}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    for variable, value in SETTINGS[name].items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # its results are removed with the test's folder
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert len(notebook.cells) <= CELLS
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "notebooks")}}
    )
    client.execute()
    drawn = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(drawn) >= 3


def test_every_notebook_is_run():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(SETTINGS)
