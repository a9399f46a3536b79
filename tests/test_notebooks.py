"""The notebooks: committed without outputs, and run from the first cell to the last."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_as_it_was_written(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert text == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert set(notebook["metadata"]["kernelspec"].values()) == {"Python 3", "python", "python3"}
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert kinds[0] == "markdown" and set(kinds) == {"markdown", "code"}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert not re.search(r"/(home|root|Users|tmp|work)/|[A-Z]:\\\\", text)
    assert text.count("assert ") >= 5


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    """In a kernel of this very interpreter; nothing is left behind."""
    for name in ("nbclient", "ipykernel", "torch", "openvino"):
        pytest.importorskip(name)
    room, output = tmp_path / "room", tmp_path / "run.ipynb"
    room.mkdir()
    homes = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    elsewhere = {name: str(tmp_path / name.lower()) for name in homes}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "run_notebook.py"), path, room, output],
        env=os.environ | elsewhere | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert list(room.iterdir()) == []
    cells = json.loads(output.read_text(encoding="utf-8"))["cells"]
    outputs = [each for cell in cells for each in cell.get("outputs", [])]
    assert not [each for each in outputs if each["output_type"] == "error"]
    pictures = sum("image/png" in each.get("data", {}) for each in outputs)
    assert pictures == (3 if path.stem == "search-and-look" else 0)
