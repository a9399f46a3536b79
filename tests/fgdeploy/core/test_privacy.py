"""What is left in the home, temporary and working folders, and what is told: nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core import privacy
from tests.test_house import ROOT

BACKENDS = ("onnxruntime", "openvino")
FOLDERS = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")

# A camera's whole day: codes, an index, an answer by the compiled scan.
DAY = """
import importlib.util, sys
from pathlib import Path
import fgdeploy
bundle, photo, backend, work = sys.argv[1:]
with fgdeploy.load(bundle, backend=backend) as hasher:
    codes = hasher.encode([photo] * 3)
    with fgdeploy.Index.create(Path(work) / "g.fgi", hasher.fingerprint, hasher.bits) as index:
        index.add([fgdeploy.retrieval.Item(photo, codes[0].tobytes())])
        index.search(codes[:1], 1)
kernel = "numba" if importlib.util.find_spec("numba") else "numpy"
assert len(fgdeploy.retrieval.search_codes(codes, codes, 1, kernel=kernel)[0]) == 3
"""
# What a user may have said himself.
SAID = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "TORCHINDUCTOR_CACHE_DIR")


def _run(
    code: str, *arguments: object, home: str | None, folder: Path, **said: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in an empty folder, with no more environment than a service of a camera has."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    for name in FOLDERS[1:]:
        (folder / name).mkdir()
        environment[name] = str(folder / name)
    if home is not None:
        environment["HOME"] = home
    (folder / "cwd").mkdir()
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment | said,
        cwd=folder / "cwd",
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found


def _left(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for name in (*FOLDERS, "cwd")
        for path in (folder / name).rglob("*")
    )


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "bird.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_left_outside(
    backend: str, toy_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "HOME").mkdir()
    (tmp_path / "work").mkdir()
    home = str(tmp_path / "HOME")
    found = _run(DAY, toy_bundle, photo, backend, tmp_path / "work", home=home, folder=tmp_path)
    assert _left(tmp_path) == []
    assert (found.stdout, found.stderr) == ("", "")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("home", ["/proc", None])
def test_a_home_that_cannot_be_written_draws_no_warning(
    backend: str, home: str | None, toy_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    """Root may write anywhere but there."""
    (tmp_path / "work").mkdir()
    found = _run(DAY, toy_bundle, photo, backend, tmp_path / "work", home=home, folder=tmp_path)
    assert (found.stdout, found.stderr) == ("", "")
    assert _left(tmp_path) == []


def test_training_and_drawing_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "HOME").mkdir()
    code = (
        "import fgdeploy, timm\n"
        "from pathlib import Path\n"
        "from fgdeploy.evaluation import report\n"
        "report.draw_curves(Path('curve.png'), {})\n"
    )
    _run(code, home=str(tmp_path / "HOME"), folder=tmp_path)
    assert _left(tmp_path) == ["cwd/curve.png"]


def test_what_the_user_said_stays(tmp_path: Path) -> None:
    code = f"import fgdeploy, os; print(*(os.environ.get(name) for name in {SAID}))"
    assert _run(code, home=None, folder=tmp_path).stdout.split() == ["1", "1", "None"]
    (tmp_path / "said").mkdir()
    said = dict.fromkeys(SAID, "0")
    assert _run(code, home=None, folder=tmp_path / "said", **said).stdout.split() == ["0"] * 3


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(("consent", "reports"), [(None, False), ("0", False), ("1", True)])
def test_openvino_reports_for_those_who_opted_in_only(
    consent: str | None,
    reports: bool,
    loaded: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, module = "openvino_telemetry", ModuleType("openvino_telemetry")
    (tmp_path / "intel").mkdir()
    if consent is not None:
        (tmp_path / "intel" / name).write_text(f"{consent}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, name, module)
    with privacy.no_openvino_telemetry():
        hidden = name in sys.modules and sys.modules[name] is None
    assert hidden != reports
    assert sys.modules.get(name) is (module if loaded else None)
    assert (name in sys.modules) == loaded  # so that others may import it


def test_openvino_is_imported_in_one_place() -> None:
    """Elsewhere it would come with its telemetry."""
    rooms = ("fgdeploy", "engines", "calibration", "export", "models", "training")
    found = set()
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.partition(".")[0] == "openvino" for name in names):
                found.add(path.resolve())
    assert found == {ROOT / "engines" / "ov_core.py"}
