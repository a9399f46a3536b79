"""`fgdeploy doctor` as a user types it."""

from __future__ import annotations

import json

import pytest

from tests.fgdeploy.cli.conftest import Run


def test_doctor(run: Run) -> None:
    shown = run("doctor")
    assert shown.exit_code == 0
    assert "engines that run  onnxruntime, openvino\n" in shown.stdout
    assert 'pip install "fgdeploy[tensorrt-rtx]"' in shown.stdout or "tensorrt-rtx" in shown.stdout
    machine = json.loads(run("doctor", "--json").stdout)
    assert machine["cores"] >= 1


def test_doctor_without_engines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("doctor")
    assert result.exit_code == 1
    assert 'run: pip install "fgdeploy[cpu]"' in result.stderr
