"""Votes held to the threshold of the index of now, where a pair may change it."""

from __future__ import annotations

from collections.abc import Sequence

from fgdeploy.camera.voting import Verdict, Voter
from fgdeploy.gallery.threshold import of
from fgdeploy.live.pair import Pair
from fgdeploy.retrieval import Hit, Index


class PairVoter(Voter):
    """A voter whose threshold is that of a pair's index, None where none was measured.

    When the index is replaced it forgets the votes before: their distances are of another model.
    """

    def __init__(self, pair: Pair, frames: int) -> None:
        super().__init__(frames)
        self._pair = pair
        self._index: Index | None = None

    def vote(self, hits: Sequence[Hit], at: float | None = None) -> Verdict:
        """Vote as `Voter` does."""
        with self._pair.using() as both:
            if both.index is not self._index:
                self._index, found = both.index, of(both.index)
                self.threshold = None if found is None else found.bits
                self.reset()
        return super().vote(hits, at)
