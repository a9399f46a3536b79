"""What the last frames together say is seen: one label, or nothing that the gallery knows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from fgdeploy.core.errors import UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.retrieval import Hit

_DIGITS = 9  # of a share; what rounding adds in sums must not decide a tie


@dataclass(frozen=True)
class Verdict:
    """The label that the last frames vote for, None where it is unknown.

    share: of all votes, 0 to 1. frames: how many voted.
    """

    label: str | None
    share: float
    frames: int


@dataclass(frozen=True)
class _Vote:
    """A part of one frame's vote. distance: of the label's nearest hit; unknown is the farthest."""

    label: str | None
    weight: float
    distance: float


class Voter:
    """Votes over the last `frames` frames, each of which has one vote.

    A frame shares its vote among the labels of its hits: a hit counts 1 / (1 + the hits that are
    nearer), so hits at one distance count alike and the first most. threshold: bits beyond which a
    hit is none (see `gallery.threshold`); where no hit is left the frame votes for unknown, as it
    does for hits that have no label. Equal shares go to the label with the nearest hit, then to the
    first by name, last to unknown. forget_s: seconds without a frame, after which those before no
    longer count; None for never. Not for several threads.
    """

    def __init__(
        self, frames: int = 5, threshold: int | None = None, forget_s: float | None = 2.0
    ) -> None:
        if (as_whole(frames) or 0) < 1:
            raise UsageError(f"expected votes of at least one frame, got {shown(frames)}; give 1")
        if threshold is not None and (as_whole(threshold) is None or threshold < 0):
            raise UsageError(f"threshold {shown(threshold)}: expected bits, 0 or more, or None")
        if forget_s is not None and not forget_s > 0:
            raise UsageError(f"forget_s {shown(forget_s)}: expected seconds above 0, or None")
        self.threshold, self.forget_s = threshold, forget_s
        self._votes: deque[list[_Vote]] = deque(maxlen=frames)
        self._last: float | None = None

    def reset(self) -> None:
        """Forget all frames, as where the scene has changed."""
        self._votes.clear()
        self._last = None

    def vote(self, hits: Sequence[Hit], at: float | None = None) -> Verdict:
        """Count the hits of a frame, in any order, and return what the last frames say.

        at: when it was captured, in seconds of a clock that runs on (`time.monotonic`); without it
        no gap is seen. A time before the last one is one of another clock, and a gap too.
        """
        if at is not None:
            gap = 0.0 if self._last is None else at - self._last
            if self.forget_s is not None and not 0 <= gap <= self.forget_s:
                self.reset()
            self._last = at
        self._votes.append(_votes(hits, self.threshold))
        return self._verdict()

    def _verdict(self) -> Verdict:
        found: dict[str | None, list[_Vote]] = {}
        for votes in self._votes:
            for vote in votes:
                found.setdefault(vote.label, []).append(vote)
        count = len(self._votes)
        ranked = sorted(
            (
                -round(math.fsum(vote.weight for vote in votes) / count, _DIGITS),
                min(vote.distance for vote in votes),
                label is None,
                label or "",
            )
            for label, votes in found.items()
        )
        share, _, unknown, label = ranked[0]
        return Verdict(None if unknown else label, -share, count)


def _votes(hits: Sequence[Hit], threshold: int | None) -> list[_Vote]:
    """Return the vote of one frame in parts, which together are 1."""
    near = [hit for hit in hits if threshold is None or hit.distance <= threshold]
    if not near:
        return [_Vote(None, 1.0, math.inf)]
    distances = sorted(hit.distance for hit in near)
    weights = [1 / (1 + distances.index(hit.distance)) for hit in near]
    whole = math.fsum(weights)
    return [
        _Vote(hit.label, weight / whole, math.inf if hit.label is None else hit.distance)
        for hit, weight in zip(near, weights, strict=True)
    ]
