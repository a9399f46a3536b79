"""`fgdeploy boxes`: parsed, run, told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgdeploy.training import detecting
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


class _Middle:
    """In place of a detector: the object is in the middle of every photo."""

    def __init__(self, wanted: Any) -> None:
        assert wanted == detecting.Wanted("a-detector", "moth", 0.5)

    def surest(self, images: list[Any]) -> list[Any]:
        """Return the same box for all."""
        return [([0.25, 0.25, 0.75, 0.75], 0.9) for _ in images]


def test_boxes_of_all_photos(run: Run, moths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detecting, "Detector", _Middle)
    words = ["boxes", moths, "--detector", "a-detector", "--prompt", "moth", "--threshold", 0.5]
    done = run(*words, "-o", "found.csv")
    assert done.exit_code == 0, done.stderr
    assert "wrote found.csv: 18 photos with a box, 0 without; next: fgdeploy train" in done.stderr
    lines = Path("found.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 19 and lines[0] == "path,x0,y0,x1,y1,score"
    fails(run(*words, "-o", "found.csv"), 1, "found.csv is there already; pass --overwrite")
    fails(run(*words, "-o", "found"), 2, "expected a name ending in .csv")
