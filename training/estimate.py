"""How long a training will take: measured on a few real batches before its first step.

Nothing of the training changes by it. An epoch that takes a third more or less corrects it, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fgdeploy.core.progress import Notify, no_progress
from fgdeploy.core.text import counted
from fgdeploy.models.embedder import Embedder
from fgdeploy.training.division import Division
from fgdeploy.training.loop import Loop, StepCost
from fgdeploy.training.objective import STUDENT, Objective

FEWEST_STEPS = 20  # below which a training is over before an estimate is worth its time
_LONG = 200  # steps from which two are measured
_SAMPLE = 32  # photos that are evaluated to see how long one takes
_WRONG = 4 / 3


@dataclass(frozen=True)
class Work:
    """What is left of a training: whole epochs of `steps`, steps of an epoch begun before.

    batch: photos of a step; asked: photos evaluated after each epoch, at_end: after the last.
    overlapped: other processes make views while steps are taken.
    """

    epochs: int
    steps: int
    begun: int
    batch: int
    asked: int
    at_end: int
    overlapped: bool

    @property
    def total(self) -> int:
        """Return the steps that are left."""
        return self.epochs * self.steps + self.begun

    def seconds(self, cost: StepCost, photo_s: float) -> float:
        """Return how long it takes; photo_s: to evaluate a photo."""
        epochs = self.epochs + (self.begun > 0)
        evaluated = epochs * self.asked + self.at_end
        first = min(self.total, self.begun or self.steps)  # photos are decoded in the first epoch
        views = first * cost.first_views_s + (self.total - first) * cost.views_s
        steps = self.total * cost.step_s
        return (max(views, steps) if self.overlapped else views + steps) + evaluated * photo_s

    def line(self, cost: StepCost, photo_s: float) -> str:
        """Return the estimate in words."""
        each = cost.step_s if self.overlapped else cost.step_s + cost.views_s
        return (
            f"about {about(self.seconds(cost, photo_s))} on this machine "
            f"({counted(self.total, 'step')} of {counted(self.batch, 'photo')}, {each:.2g} s each, "
            "and evaluations)"
        )


class Estimate:
    """An estimate that was told, corrected once if the first epoch takes a third more or less.

    expected_s: of the epoch that comes; left_s: of all epochs and the end.
    """

    def __init__(
        self,
        expected_s: float,
        left_s: float,
        notify: Notify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected, self._left, self._notify, self._clock = expected_s, left_s, notify, clock
        self._start: float | None = clock()

    def epoch_done(self) -> None:
        """Hear that an epoch and its evaluation are done; only the first matters."""
        if self._start is None:
            return
        took, self._start = self._clock() - self._start, None
        ratio = took / max(self._expected, 1e-9)
        rest = max(self._left - self._expected, 0.0) * ratio
        if rest > 0 and not 1 / _WRONG <= ratio <= _WRONG:
            how = "longer" if ratio > 1 else "less"
            self._notify(
                f"the first epoch took {how} than estimated ({about(took)}, not "
                f"{about(self._expected)}); about {about(rest)} are left"
            )


def before(
    loop: Loop,
    done: int,
    embedder: Embedder,
    objective: Objective,
    division: Division,
    asked: int,
    notify: Notify,
) -> Estimate | None:
    """Measure, tell the estimate, and return it; None for a training of few steps.

    done: steps taken before, of a resumed run. asked: photos evaluated after each epoch; after the
    last one all networks run over all photos, where some are held out.
    """
    nets = objective.networks()
    at_end = len(nets) * (len(division.test) + len(division.train)) if division.test else 0
    epochs, begun = divmod(max(0, loop.steps * loop.epochs - done), loop.steps)
    work = Work(epochs, loop.steps, begun, loop.batch, asked, at_end, loop.workers > 0)
    if work.total < FEWEST_STEPS:
        return None
    cost = loop.rehearse(2 if work.total >= _LONG else 1)
    start = time.monotonic()
    some = division.train[:_SAMPLE]
    embedder.codes(nets[STUDENT], some, no_progress)
    photo_s = (time.monotonic() - start) / len(some)
    notify(work.line(cost, photo_s))
    coming = Work(0, loop.steps, begun or loop.steps, loop.batch, asked, 0, work.overlapped)
    return Estimate(coming.seconds(cost, photo_s), work.seconds(cost, photo_s), notify)


def about(seconds: float) -> str:
    """Return seconds in words, as exact as an estimate is: 40 seconds, 6 minutes, 2.5 hours."""
    if seconds < 90:
        return counted(max(1, round(seconds)), "second")
    if seconds < 90 * 60:
        return counted(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"
