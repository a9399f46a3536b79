"""What one timing says of an engine, and what a record may hold of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fgdeploy.engines.contest import Contest, is_valid

MS = {
    "openvino:int8": {"1": 5.0, "8": 40.0},
    "openvino:fp32": {"1": 10.0, "8": 45.0},
    "onnxruntime:fp32": {"1": 8.0, "8": 72.0},
}


def test_the_fastest_fp32_over_all_batch_sizes() -> None:
    contest = Contest(MS)
    assert contest.fp32(["onnxruntime", "openvino"]) == "openvino:fp32"
    assert contest.fp32(["onnxruntime"]) == "onnxruntime:fp32"
    assert contest.fp32(["tensorrt"]) is None
    assert contest.gain("openvino:int8", "openvino:fp32") == pytest.approx(math.sqrt(450 / 200))


@pytest.mark.parametrize(
    ("own", "other", "words"),
    [
        ({"1": 52.1}, {"1": 42.0}, "slower: 52.1 against 42.0 ms"),
        ({"1": 41.0}, {"1": 42.0}, "not faster by 5 %: 41.0 against 42.0 ms"),
        (
            {"1": 40.0, "8": 500.0},
            {"1": 42.0, "8": 300.0},
            "slower: 500.0 against 300.0 ms at batch 8",
        ),
    ],
)
def test_in_words(own: dict[str, float], other: dict[str, float], words: str) -> None:
    assert Contest({"a:int8": own, "a:fp32": other}).words("a:int8", "a:fp32") == words


def test_what_is_written_is_read() -> None:
    contest = Contest(MS, 4)
    assert is_valid(contest.to_json())
    assert Contest.read(contest.to_json()) == contest


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {},
        {"ms": MS},
        {"threads": 0, "ms": MS},
        {"threads": True, "ms": MS},
        {"threads": "2", "ms": MS},
        {"threads": None, "ms": {}},
        {"threads": None, "ms": []},
        {"threads": None, "ms": {"a": {}}},
        {"threads": None, "ms": {"a": {"one": 1.0}}},
        {"threads": None, "ms": {"a": {"1": 0.0}}},
        {"threads": None, "ms": {"a": {"1": "1"}}},
        {"threads": None, "ms": {"a": {"1": True}}},
        {"threads": None, "ms": {"a": {"1": float("nan")}}},
        {"threads": None, "ms": {"a": {"1": 1.0}, "b": {"8": 1.0}}},
        {"threads": None, "ms": MS, "more": 1},
    ],
)
def test_what_is_no_timing(entry: Any) -> None:
    assert not is_valid(entry)
