"""Licences of packages, the machine, and the day."""

from __future__ import annotations

from importlib import metadata

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.report import surroundings
from tests.checks import refused


def test_licences_are_those_that_packages_state() -> None:
    found = {
        name: rest
        for name, *rest in surroundings.package_licences(["onnxruntime:fp32", "tensorrt:fp16"])
    }
    assert found["numpy"][0] == metadata.version("numpy")
    assert "BSD" in found["numpy"][1] and "MIT" in found["onnxruntime"][1]
    assert found["tensorrt"] == ["-", "not installed"]
    assert found["fgdeploy"] == ["0.1.0", "Apache-2.0"]
    assert "openvino" not in found


def test_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert surroundings.day() == "1970-01-01"
    for odd in ("soon", "9" * 30, ""):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", odd)
        with refused(UsageError, "SOURCE_DATE_EPOCH is .*; expected seconds since 1970"):
            surroundings.day()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert len(surroundings.day()) == 10
