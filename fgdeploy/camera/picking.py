"""Which frames are hashed, and what of them: every n-th, those that changed, a region."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from fgdeploy.camera.capture_source import Captured
from fgdeploy.camera.gate import ChangeGate
from fgdeploy.camera.region import Region
from fgdeploy.core.errors import UsageError


@dataclass
class Picker:
    """Called with each frame in the order of capture: returns what of it is hashed, or None.

    region: only that part, a view, counts. every: the first frame and each n-th after it, of those
    that the camera did not drop before. gate: only frames that changed. For `Camera(select=...)`;
    one Picker serves one camera. Raises UsageError where the region does not lie within the frame.
    """

    region: Region | None = None
    every: int = 1
    gate: ChangeGate | None = None
    _seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"every {self.every}: expected 1 for each frame, 2 for each second")

    def __call__(self, captured: Captured) -> Captured | None:
        """Return the frame, or its region with the frame as `whole`, or None to leave it out."""
        number, self._seen = self._seen, self._seen + 1
        if number % self.every:
            return None
        pixels = captured.pixels if self.region is None else self.region.of(captured.pixels)
        if self.gate is not None and not self.gate.passes(pixels):
            return None
        if self.region is None:
            return captured
        return dataclasses.replace(captured, pixels=pixels, whole=captured.pixels)
