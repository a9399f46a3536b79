"""What the camera gives for one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fgdeploy.camera.capture_source import Captured
from fgdeploy.engines import Outputs
from fgdeploy.retrieval import Hit

# The stages of a frame's way, in order; `total` is from its capture to its hits.
STAGES = ("capture", "wait", "preprocess", "queue", "inference", "search", "total")


@dataclass(frozen=True)
class CameraResult:
    """One frame that was hashed.

    number: of the frame among all captured, from 0; captured: its pixels and when they came; code:
    packed bytes; hits: the k nearest items, by (distance, id), none without an index. latency:
    seconds by stage (STAGES). dropped: frames that were dropped since the result before. outputs:
    all that the graph gave for it, each of one row.
    """

    number: int
    captured: Captured
    code: bytes
    hits: Sequence[Hit]
    latency: Mapping[str, float]
    dropped: int = 0
    outputs: Outputs | None = None

    @property
    def time(self) -> datetime:
        """When the frame was captured, UTC."""
        return self.captured.when
