"""Each notebook runs from a clean kernel, holds no programs of its own, and ends by asserting what it claims."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

pytestmark = pytest.mark.long
FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 300  # a cell: the longest takes ten where nothing else runs
STRICT = """
import gc
import warnings

gc.set_threshold(50_000, 20, 20)
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "For consistency", PendingDeprecationWarning)  # the kernel's own, as it ends
"""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_one_for_each_subject_in_the_order_in_which_they_are_read():
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == [*range(1, 8)]


def test_it_is_stored_without_what_a_run_left(notebook):
    assert nbformat.validate(notebook) is None
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


def test_it_is_short_and_defines_nothing(notebook):
    trees = [ast.parse(cell.source) for cell in code(notebook)]
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for tree in trees for node in ast.walk(tree) if isinstance(node, defined)]
    assert 8 <= len(notebook.cells) <= 15


def test_it_runs_and_its_claim_holds(notebook, tmp_path):
    assert any(isinstance(node, ast.Assert) for node in ast.parse(notebook.cells[-1].source).body)
    notebook.cells.insert(0, new_code_cell(STRICT))
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")})
    pictures = [o for cell in code(notebook) for o in cell.outputs if "image/png" in o.get("data", {})]
    assert 2 <= len(pictures) <= 4
