"""A process of its own: its answer, its reason, and its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.core.errors import EngineError
from fgdeploy.proof.own_process import run_apart
from tests.checks import refused

MODULE = """
import os, sys
from fgdeploy.proof.own_process import answer

def work(wanted):
    print("a library says")
    if wanted == "kill":
        os.kill(os.getpid(), 9)
    return {"got": wanted["x"]}

sys.exit(answer(work))
"""


def test_answers_and_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker_of_a_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).resolve().parents[3]
    monkeypatch.setenv("PYTHONPATH", str(root))
    assert run_apart("worker_of_a_test", {"x": 3}) == {"got": 3}
    with refused(EngineError, "^KeyError: 'x'$"):
        run_apart("worker_of_a_test", {})
    with refused(EngineError, r"^the process was ended by signal 9 \(out of memory\?\)$"):
        run_apart("worker_of_a_test", "kill")  # type: ignore[arg-type]
