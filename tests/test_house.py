"""The house itself: rooms, links, arrows, names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import tomllib

import fgdeploy

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "training", "export", "calibration", "engines")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_declared_packages_are_those_on_disk() -> None:
    declared = set(PROJECT["tool"]["setuptools"]["packages"])
    inside = {
        ".".join(("fgdeploy", *init.parent.relative_to(ROOT / "fgdeploy").parts))
        for init in (ROOT / "fgdeploy").rglob("__init__.py")
        if not init.parent.is_symlink()
    }
    rooms = {
        ".".join(("fgdeploy", *init.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert declared == inside | rooms
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    assert {f"fgdeploy.{room}": room for room in ROOMS}.items() <= mapped.items()


@pytest.mark.parametrize("room", ROOMS)
def test_links_lead_to_the_rooms(room: str) -> None:
    link = ROOT / "fgdeploy" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room


# A room may import from these (beside itself); every room may use the shared `_COMMON`.
_COMMON = {
    "errors",
    "codes",
    "images",
    "photos",
    "atomic",
    "bundle",
    "onnx_scan",
    "parity",
    "closing",
    "checks",
    "machine",
}
_ARROWS = {
    "models": set(),
    # Training and export evaluate what they made.
    "training": {"models", "evaluation"},
    # Export proves its own graph, so it runs one: the only step ahead in the line.
    "export": {"models", "training", "engines", "evaluation"},
    # Calibration measures what it made, as export does.
    "calibration": {"engines"},
    "engines": set(),
}


def _modules_imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "fgdeploy":
                names = [f"fgdeploy.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("fgdeploy.")}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_follow_the_arrows(room: str) -> None:
    allowed = _ARROWS[room] | _COMMON | {room, "__version__"}
    for path in (ROOT / room).rglob("*.py"):
        assert _modules_imported(path) <= allowed, path


def test_only_the_demo_and_parity_reach_back_to_torch() -> None:
    back = {"models", "training", "export"}
    for path in (ROOT / "fgdeploy").rglob("*.py"):
        inside = path.relative_to(ROOT / "fgdeploy")
        if inside.parts[0] in (*ROOMS, "cli"):
            continue
        if _modules_imported(path) & back:
            assert inside.name in ("demo.py", "parity_run.py"), path
        assert "cli" not in _modules_imported(path) or inside.name == "__main__.py", path


def test_public_names_resolve() -> None:
    for name in fgdeploy.__all__:
        assert getattr(fgdeploy, name) is not None
    assert PROJECT["project"]["version"] == fgdeploy.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fgdeploy.nothing


def test_extras_are_those_that_errors_name() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert extras == {
        "cpu",
        "gpu",
        "tensorrt",
        "tensorrt-rtx",
        "search",
        "calibrate",
        "export",
        "train",
        "dev",
    }
    from fgdeploy.doctor import _PACKAGES
    from fgdeploy.engines import BACKENDS

    assert {extra for extra, _ in _PACKAGES.values()} <= extras
    assert {backend.extra for backend in BACKENDS.values()} <= extras


def test_no_file_grows_beyond_its_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("fgdeploy", *ROOMS)
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
