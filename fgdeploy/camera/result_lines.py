"""Results as JSON: one object for each frame that was hashed, for `fgdeploy camera --json`.

`LINE` is what each holds: frame counts all captured frames from 0, time is UTC in ISO 8601, code is
in hex digits, latency_ms has the stages of `camera_result.STAGES`, dropped counts frames since the
line before. verdict is null where nothing is searched; its label is null for "unknown", share is of
all votes, frames says how many voted. enrolled is the path of the item that the frame became, on
the disk when the line is written, or null.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fgdeploy.camera.camera_result import CameraResult
from fgdeploy.camera.voting import Verdict
from fgdeploy.core.json_schema import (
    LARGEST,
    NAME,
    TEXT,
    list_of,
    map_of,
    maybe,
    number,
    table,
    whole,
)

HIT = table(
    {
        "rank": whole(1),
        "distance": whole(0),
        "id": whole(0, LARGEST),
        "label": maybe(TEXT),
        "path": maybe(TEXT),
    }
)
LINE = table(
    {
        "frame": whole(0),
        "time": NAME,
        "code": NAME,
        "hits": list_of(HIT),
        "verdict": maybe(table({"label": maybe(TEXT), "share": number(0, 1), "frames": whole(1)})),
        "latency_ms": map_of(number(0)),
        "dropped": whole(0),
        "enrolled": maybe(NAME),
    }
)


def line_of(
    result: CameraResult, verdict: Verdict | None = None, enrolled: str | None = None
) -> dict[str, Any]:
    """Return the object for a frame."""
    hits = [
        {name: getattr(hit, name) for name in ("rank", "distance", "id", "label", "path")}
        for hit in result.hits
    ]
    return {
        "frame": result.number,
        "time": result.time.isoformat(),
        "code": result.code.hex(),
        "hits": hits,
        "verdict": None if verdict is None else dataclasses.asdict(verdict),
        "latency_ms": {
            stage: round(1000 * seconds, 3) for stage, seconds in result.latency.items()
        },
        "dropped": result.dropped,
        "enrolled": enrolled,
    }
