"""Results of a camera as tests need them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from fgdeploy.camera.camera_result import CameraResult
from fgdeploy.camera.capture_source import Captured
from fgdeploy.retrieval import Hit

START = datetime(2026, 11, 28, 1, 14, tzinfo=timezone.utc)


def result(
    code: bytes,
    when: datetime = START,
    hits: Sequence[Hit] = (),
    number: int = 0,
    dropped: int = 0,
) -> CameraResult:
    """Return the result of a black frame."""
    captured = Captured(np.zeros((4, 6, 3), np.uint8), "rgb", when, at=float(number))
    return CameraResult(number, captured, code, hits, {"total": 0.0123}, dropped)
