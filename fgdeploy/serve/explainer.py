"""What the model looked at, for clients: one thread asks, a few may wait."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import EngineError
from fgdeploy.explaining import Explanation, Looker, Opening, open_looker
from fgdeploy.explaining.panels import draw, shown_ways
from fgdeploy.hasher import Hasher
from fgdeploy.photos.data_uri import jpeg_uri
from fgdeploy.serve.refusals import Refusal

WAITING = 4  # that may wait or run; then 429


class Explainer(Closing):
    """A model that explains itself, for any number of threads. fingerprint: of its bundle."""

    def __init__(self, looker: Looker, fingerprint: str) -> None:
        self.fingerprint, self._looker = fingerprint, looker
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._under_way: set[Future[dict[str, Any]]] = set()

    @classmethod
    def open(cls, hasher: Hasher, checkpoint: Path | None = None) -> Explainer:
        """Open what explains a hasher's bundle: its graph, or the PyTorch model.

        checkpoint: what the bundle was exported from, where its graph does not say which patches
        stay. Raises what `open_looker` raises.
        """
        looker = open_looker(hasher.bundle.path, Opening(checkpoint=checkpoint))
        return cls(looker, hasher.fingerprint)

    def frame(self, image: bytes) -> npt.NDArray[np.uint8]:
        """Return an image as the model sees it, uint8 (S, S, 3). Raises ImageError."""
        return self._looker.preprocess.frame(image)

    def explain(self, frame: npt.NDArray[np.uint8]) -> Future[dict[str, Any]]:
        """Return what is seen in a frame, as `as_json` gives it.

        Raises Refusal while too many wait, EngineError.
        """
        if len(self._under_way) >= WAITING:
            words = "other explanations are under way; send it again later"
            raise Refusal(429, "busy", words, {"retry-after": "1"})
        try:
            found = self._pool.submit(self._look, frame)
        except RuntimeError as error:  # closed, or the process is ending
            raise EngineError("the service is ending; send it again later") from error
        self._under_way.add(found)
        found.add_done_callback(self._under_way.discard)
        return found

    def _look(self, frame: npt.NDArray[np.uint8]) -> dict[str, Any]:
        (seen,) = self._looker.look(frame[None])
        return as_json(Explanation("the image", frame, seen))

    def close(self) -> None:
        """End the thread and free the model."""
        self._pool.shutdown(cancel_futures=True)
        self._looker.close()


def as_json(found: Explanation) -> dict[str, Any]:
    """Return the pictures of an explanation with their captions, and what they mean."""
    panels = [{"caption": panel.caption, "picture": jpeg_uri(panel.image)} for panel in draw(found)]
    return {"panels": panels, "legend": " ".join(shown_ways(found))}
