"""What a deployed graph shows by its own outputs: its maps and boxes. Needs no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle, Manifest
from fgdeploy.core.progress import Notify, silent
from fgdeploy.engines import open_engine
from fgdeploy.explaining.explanation import Seen, seen_in, shapes_of_interest
from fgdeploy.explaining.looker import Looker


def shows(manifest: Manifest) -> bool:
    """Return whether the graph has a map or a box among its outputs."""
    shapes = {name: one.shape for name, one in manifest.outputs.items()}
    return any(shapes_of_interest(shapes, manifest.grid))


class GraphLooker(Looker):
    """An engine on a bundle's graph; its outputs are what is seen."""

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "auto",
        threads: int | None = None,
        fallback: bool = False,
        notify: Notify = silent,
    ) -> None:
        self.preprocess = bundle.manifest.preprocess
        self._grid = bundle.manifest.grid
        self._engine = open_engine(bundle, backend, "auto", threads, fallback, notify)

    def describe(self) -> str:
        """Return in one line what looks."""
        return f"outputs of the graph, {self._engine.describe()}"

    def look(self, frames: npt.NDArray[np.uint8]) -> list[Seen]:
        """Return what is seen in frames, uint8 (B, S, S, 3). Raises EngineError."""
        extras = self._engine.run_all(frames).extras
        return [
            seen_in({name: value[image] for name, value in extras.items()}, self._grid)
            for image in range(len(frames))
        ]

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()
