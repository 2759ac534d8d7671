"""The notebooks run from top to bottom and are kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from helpers import TIMEOUT
from nbclient import NotebookClient

pytestmark = pytest.mark.float64

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = [
    "1_the_bound_in_five_minutes",
    "2_which_inequality_loses_the_most",
    "3_from_the_theorem_to_relu",
    "4_your_own_data",
    "5_any_network_ten_classes",
]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def execute(name, preset, folder, monkeypatch):
    """All outputs, of a kernel that is told the preset and runs in an empty folder."""
    monkeypatch.setenv("NLBOUND_PRESET", preset)
    notebook = read(name)
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute()
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def check_outputs(name, outputs, folder):
    """Pictures are drawn, nothing is complained about, no file is left."""
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 3
    complaints = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not complaints
    assert not list(folder.iterdir())


def test_no_notebook_is_forgotten():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stripped_and_has_a_preset(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert cell.execution_count is None
        assert cell.outputs == []
        assert cell.metadata == {}
    assert 'PRESET = os.environ.get("NLBOUND_PRESET", "small")' in code[0].source
    assert 'jax.config.update("jax_enable_x64", True)' in code[0].source
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n[0] in "2345" else ()) for n in NAMES]
)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    check_outputs(name, execute(name, "smallest", tmp_path, monkeypatch), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_as_a_reader_runs_it(name, tmp_path, monkeypatch):
    check_outputs(name, execute(name, "small", tmp_path, monkeypatch), tmp_path)
