"""The notebook runs from top to bottom, and what is committed of it is small."""

import os

import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

NOTEBOOK = ROOT / "docs/flows.ipynb"


def test_the_notebook_is_small_runs_and_speaks(monkeypatch):
    assert NOTEBOOK.stat().st_size < 500_000
    # The kernel is a process of its own and must find the same package.
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]), prepend=os.pathsep)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for long, short in (("STEPS = 300", "STEPS = 3"), ("A flow turns noise into speech.", "Yes.")):
        assert long in settings.source
        settings.source = settings.source.replace(long, short)
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    shown = [kind for output in last.outputs for kind in output.get("data", ())]
    assert {"image/png", "text/html"} <= set(shown)  # the player is HTML
