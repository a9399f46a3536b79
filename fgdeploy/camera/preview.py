"""What the camera sees, for people: drawn and sent in a thread of its own, beside the pipeline."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from fgdeploy.camera.annotating import Note, annotated
from fgdeploy.camera.capture_source import Captured
from fgdeploy.camera.preview_server import PreviewServer
from fgdeploy.camera.preview_video import PreviewVideo
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import FgdeployError
from fgdeploy.live.events import tell
from fgdeploy.live.handover import Ended, Handover

_WAITING = 2  # frames that wait to be drawn


class Sink(Protocol):
    """Where pictures go. where: as people are told; wanted: whether drawing one pays."""

    @property
    def where(self) -> str: ...
    @property
    def wanted(self) -> bool: ...
    def write(self, picture: Image.Image, at: float) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class _Shown:
    captured: Captured
    note: Note
    at: float


class Preview(Closing):
    """Draws frames and gives them to a sink. every: no frame is left out, the sender waits.

    Else the newest are drawn, and the sender never waits. failed: the error that ended the preview;
    the camera goes on. Closing it draws what waits and closes the sink.
    """

    def __init__(self, sink: Sink, every: bool = False) -> None:
        self.sink = sink
        self.failed: FgdeployError | None = None
        self._waiting: Handover[_Shown] = Handover(_WAITING, newest=not every)
        self._thread = threading.Thread(target=self._work, name="preview", daemon=True)
        self._thread.start()

    @property
    def where(self) -> str:
        """Return where people can look."""
        return self.sink.where

    def show(self, captured: Captured, note: Note, at: float | None = None) -> None:
        """Show a frame, whole where a region of it is hashed.

        at: seconds, where not its time of capture.
        """
        if self.failed is None and self.sink.wanted:
            self._waiting.put(_Shown(captured, note, captured.at if at is None else at))

    def close(self) -> None:
        """Draw what waits and close the sink; what goes wrong there is in `failed`."""
        self._waiting.close()
        self._thread.join()

    def _work(self) -> None:
        try:
            try:
                while True:
                    if (shown := self._waiting.take()) is not None:
                        self._draw(shown)
            except Ended:
                pass
            finally:
                self.sink.close()
        except FgdeployError as error:
            self.failed = error
            tell("preview_failed", logging.WARNING, error=str(error))
        finally:
            self._waiting.close()  # or a sender would wait for ever

    def _draw(self, shown: _Shown) -> None:
        captured = shown.captured
        pixels = captured.pixels if captured.whole is None else captured.whole
        self.sink.write(annotated(pixels, captured.color, shown.note), shown.at)


def open_preview(target: str, every: bool = False) -> Preview:
    """Return the preview that a text means: `out.mp4`, or `http://127.0.0.1:8090`.

    Raises UsageError, DataError, MissingDependency.
    """
    if "://" in target:
        return Preview(PreviewServer(target), every=False)
    return Preview(PreviewVideo(target), every)
