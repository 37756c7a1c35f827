"""The notebooks: what is stored is valid and clean, and each runs from top to bottom, offline."""

from __future__ import annotations

import re

import nbclient
import nbformat
import pytest

from helpers import ROOT

NAMES = (
    "convert_an_official_checkpoint",
    "fine_tune_on_your_images",
    "inference_and_post_processing",
    "look_inside",
)
NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in NAMES]
LARGEST = 600_000  # bytes
MACHINE_PATH = re.compile(r"/(?:tmp|root|home|work|Users|var/folders|private)/|site-packages|[A-Z]:\\\\")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook) -> list:
    """The cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_these_are_all_notebooks():
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == NOTEBOOKS


@each_notebook
def test_notebooks_are_valid_and_begin_with_a_title(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


@each_notebook
def test_stored_outputs_are_of_one_run_without_errors_or_warnings(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


@each_notebook
def test_stored_notebooks_are_small_and_say_nothing_of_the_machine(path):
    assert path.stat().st_size <= LARGEST
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert "execution" not in cell.metadata  # when each cell ran
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if "image/" not in k)]
            assert not MACHINE_PATH.search("\n".join(texts)), texts


@each_notebook
def test_links_lead_somewhere(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.slow
@each_notebook
def test_notebooks_run_from_any_folder(path, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    runner = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    runner.execute()  # raises where a cell does
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert outputs and not any(output.output_type == "error" for output in outputs)
