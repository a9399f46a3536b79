"""What every model that explains itself is."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import numpy.typing as npt

from fgdeploy.core.closing import Closing
from fgdeploy.explaining.explanation import Seen
from fgdeploy.photos import Preprocess


class Looker(Closing):
    """A model that says what it sees in frames; closing it frees the model.

    preprocess: how photos become its frames.
    """

    preprocess: Preprocess

    @abstractmethod
    def look(self, frames: npt.NDArray[np.uint8]) -> list[Seen]:
        """Return what is seen in frames, uint8 (B, S, S, 3).

        Raises UsageError where there is nothing of the kind that was asked for, EngineError.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return in one line what looks."""
