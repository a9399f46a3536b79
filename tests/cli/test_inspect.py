"""`fgdeploy inspect` as a user types it, and bundles that are damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.cli.outcome import fails

Run = Callable[..., Result]


def test_inspect(run: Run, bundle: Path) -> None:
    shown = run("inspect", bundle)
    assert shown.exit_code == 0
    for text in ("test_vit (6 blocks, width 64)", "16 + 1", "1-2", "3-4", "5-6", "published"):
        assert text in shown.stdout
    assert json.loads(run("inspect", bundle, "--json").stdout)["bits"] == 32


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda b: (b / "model.onnx").write_bytes(b""), r"model.onnx: expected \d+ bytes, got 0"),
        (lambda b: (b / "manifest.json").unlink(), "lacks manifest.json"),
        (lambda b: (b / "manifest.json").write_text("{"), "manifest.json is not JSON"),
        (lambda b: (b / "model.onnx").unlink(), "lacks model.onnx"),
    ],
)
def test_damaged_bundles(run: Run, bundle: Path, damage: Any, pattern: str) -> None:
    shutil.copytree(bundle, "bad.fgd")
    damage(Path("bad.fgd"))
    fails(run("inspect"), 1, pattern)
    Path("a.png").write_bytes(b"")
    fails(run("hash", "."), 1, pattern)
