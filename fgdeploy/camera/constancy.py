"""Does the model still see anything? Codes that stay the same while the picture changes."""

from __future__ import annotations

from fgdeploy.camera.gate import ChangeGate
from fgdeploy.photos.images import Frame

_FRAMES = 100  # that looked different and had one code
_CHANGED = 0.25  # of the picture, from one of them to the next


class Constancy:
    """Notices, once, that a hundred frames in a row have one code though each looks different.

    Frames of a scene that stands still, with its noise and slow changes of light, do not count,
    nor does anything before the code last changed.
    """

    def __init__(self, frames: int = _FRAMES) -> None:
        self._frames = frames
        self._code = b""
        self._last: Frame | None = None  # the first frame of that code, until it comes again
        self._gate: ChangeGate | None = None
        self._different = 1
        self._told = False

    def noticed(self, code: bytes, frame: Frame) -> bool:
        """Take the next frame, uint8 (S, S, 3), and its code; True where it has become certain."""
        if self._told:
            return False
        if code != self._code:
            self._code, self._last, self._gate, self._different = code, frame, None, 1
            return False
        if self._gate is None and self._last is not None:
            self._gate = ChangeGate(_CHANGED)
            self._gate.passes(self._last)
            self._last = None
        assert self._gate is not None
        self._different += self._gate.passes(frame)
        self._told = self._different >= self._frames
        return self._told
