"""The notebooks: what is stored is whole and speaks of no machine; they run from their first cell to their last."""

import ast
import importlib.util
import re

import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs the extra notebook")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES, MOST_LINES = 1_500_000, 15
_PATH = re.compile(r"(?<![\w.~/])/(?:root|home|tmp|work|usr|opt|content|Users|mnt|var)/")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    return "".join(out.text for cell in code_cells(notebook) for out in cell.outputs if out.get("name") == "stdout")


def python(source):
    """A cell without IPython's commands."""
    return re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.M)


def test_both_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["quickstart", "your_video"]


@each_notebook
def test_stored_whole(path):
    """Every cell ran, in order and without an error; pictures and numbers are there; small enough to be read online."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [out for cell in cells for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 3
    assert path.stat().st_size < MOST_BYTES


@each_notebook
def test_stored_without_paths(path):
    assert not _PATH.findall(path.read_text())


@each_notebook
def test_what_cells_import_is_there(path):
    """Cells run in the slow tests alone; a name that moved shows here."""
    for cell in code_cells(nbformat.read(path, as_version=4)):
        for node in ast.walk(ast.parse(python(cell.source))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("cion_jax", "data_prep"):
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")


@each_notebook
def test_cells_can_be_read(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        ast.parse(python(cell.source))
        assert len(cell.source.splitlines()) <= MOST_LINES


@each_notebook
@pytest.mark.parametrize("kind", ["checkout", "elsewhere", "told"])
def test_where_it_installs_from(path, kind, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "setup.py").touch() if kind == "checkout" else None
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cell = python(code_cells(nbformat.read(path, as_version=4))[0].source)
    names: dict = {}
    if kind == "elsewhere":
        with pytest.raises(SystemExit, match="set REPOSITORY to the address"):
            exec(cell, names)
        return
    exec(cell.replace('REPOSITORY = ""', 'REPOSITORY = "https://b/c"') if kind == "told" else cell, names)
    assert names["source"] == (tmp_path.as_uri() if kind == "checkout" else "git+https://b/c")


def mean_ap(notebook):
    """What was printed as mAP, in percent, in its order."""
    return [float(found) for found in re.findall(r"mAP (\d+\.\d)%", printed(notebook))]


def test_stored_gain():
    untrained, *_, trained = mean_ap(nbformat.read(ROOT / "notebooks/quickstart.ipynb", as_version=4))
    assert trained > untrained


@pytest.mark.slow
@each_notebook
def test_executes(path, tmp_path, monkeypatch):
    """In an empty folder, with this checkout's packages."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra notebook")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as a notebook has
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # and its speed
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()  # raises where a cell does
    found = mean_ap(notebook)
    assert not found or found[-1] > found[0]
    assert bool(found) == (path.stem == "quickstart")
    assert (tmp_path / ("reid.onnx" if path.stem == "quickstart" else "reid/model.onnx")).is_file()
