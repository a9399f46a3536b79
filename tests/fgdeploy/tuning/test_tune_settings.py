"""What a tuning refuses before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.tuning.tune_settings import TuneSettings, milliseconds
from tests.checks import refused


@pytest.mark.parametrize("text", ["8", "8ms", " 8 ms", "0.008s", "8e0ms", "8.0"])
def test_times(text: str) -> None:
    assert milliseconds(text) == pytest.approx(8)


@pytest.mark.parametrize("text", ["0", "0ms", "-8", "8 m", "ms", "", "nan", "1e99", "8us", "s"])
def test_what_is_no_time(text: str) -> None:
    with refused(UsageError, "expected a time above zero such as 8ms or 0.008s"):
        milliseconds(text)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_drop": -1}, "--max-drop -1: expected points of mAP from 0 to 100"),
        ({"engine": "openvino"}, "--engine openvino: expected BACKEND:PRECISION"),
        ({"engine": ":int8"}, "--engine :int8: expected BACKEND:PRECISION"),
        ({"images": 7}, "--images 7: expected 8 or more"),
        ({"epochs": 3}, "--epochs is of --train; give both"),
        ({"latency_ms": 0.0}, "expected more than 0"),
    ],
)
def test_settings_that_can_never_be_right(wrong: dict[str, Any], words: str) -> None:
    with refused(UsageError, words):
        TuneSettings(**{"data": Path("x"), "latency_ms": 8.0, **wrong})
