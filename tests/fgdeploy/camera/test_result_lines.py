"""Results as JSON: the object of each frame is what LINE says."""

from __future__ import annotations

import json

import pytest

from fgdeploy.camera.result_lines import LINE, line_of
from fgdeploy.camera.voting import Verdict
from fgdeploy.retrieval import Hit
from tests.fgdeploy.camera.results import result

HITS = [
    Hit(1, 3, 17, "camera://north/2026-11-28T01:14:00.123456Z", "owl"),
    Hit(2, 9, 4, None, None),
]


def test_all_that_a_line_says() -> None:
    found = json.loads(json.dumps(line_of(result(b"\xa5\x01", hits=HITS, number=7, dropped=2),
                                          Verdict("owl", 0.8, 5), "camera://x/y")))  # fmt: skip
    LINE(found, "")
    assert found == {
        "frame": 7,
        "time": "2026-11-28T01:14:00+00:00",
        "code": "a501",
        "hits": [
            {"rank": 1, "distance": 3, "id": 17, "label": "owl", "path": HITS[0].path},
            {"rank": 2, "distance": 9, "id": 4, "label": None, "path": None},
        ],
        "verdict": {"label": "owl", "share": 0.8, "frames": 5},
        "latency_ms": {"total": 12.3},
        "dropped": 2,
        "enrolled": "camera://x/y",
    }


def test_without_an_index_and_unknown() -> None:
    found = line_of(result(b"\1"))
    LINE(found, "")
    assert (found["hits"], found["verdict"], found["enrolled"]) == ([], None, None)
    LINE(line_of(result(b"\1"), Verdict(None, 1.0, 1)), "")


def test_the_schema_refuses_other_things() -> None:
    found = line_of(result(b"\1"), Verdict("owl", 1.5, 1))
    with pytest.raises(ValueError, match=r"verdict.share is 1.5"):
        LINE(found, "")
