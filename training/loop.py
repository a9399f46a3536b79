"""The training loop. It knows an objective and a recipe, and no method by name."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

import timm.optim
import torch
from torch import Tensor

from fgdeploy.core.errors import TrainingError
from fgdeploy.core.text import counted
from fgdeploy.models.backbone.embedding import Normalisation, Pixels
from fgdeploy.models.methods.base import Recipe
from fgdeploy.training import data, losses, schedule
from fgdeploy.training.data import Loaded, Views
from fgdeploy.training.objective import Batch, Objective
from fgdeploy.training.precision import Precision
from fgdeploy.training.run_state import RunState
from fgdeploy.training.waiting import Waiting

SAVE_SECONDS = 600  # within long epochs
REACHED = "bits_reached"  # a column of the log


@dataclass(frozen=True)
class Tick:
    """One step done. epoch counts from 1; step and steps are within the epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    lr: float
    images: int


@dataclass(frozen=True)
class StepCost:
    """Seconds of a step's arithmetic, and of its views: the first time, and photos kept since."""

    step_s: float
    first_views_s: float
    views_s: float


@dataclass(frozen=True)
class Hooks:
    """What the loop tells and asks: each step, states to keep, and the scores of an epoch."""

    tick: Callable[[Tick], None]
    save: Callable[[RunState], None]
    evaluate: Callable[[int], dict[str, float]]


class Loop:
    """Trains an objective for a number of epochs, from the start or from a state."""

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        views: Views,
        norm: Normalisation,
        precision: Precision,
        seed: int,
        workers: int,
    ) -> None:
        device = precision.device
        self._objective = objective.to(device)
        self._recipe, self._views, self._precision = recipe, views, precision
        self._seed, self.workers = seed, workers
        self.epochs, self.batch = recipe.epochs, recipe.batch
        self.waiting = Waiting()
        self.steps = len(self._order(0))
        self._optimizer = timm.optim.create_optimizer_v2(
            objective.parameter_groups(recipe),
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            **({} if recipe.eps is None else {"eps": recipe.eps}),
            **_fused(recipe, device),
        )
        self._scheduler = schedule.make(self._optimizer, recipe, self.steps)
        self._scaler = precision.scaler()
        self._pixels = Pixels(norm).to(device)

    def _order(self, epoch: int) -> list[list[tuple[int, int]]]:
        recipe, labels = self._recipe, self._views.labels
        even = self._objective.compares_photos
        first = epoch * recipe.passes
        return [
            batch
            for number in range(first, first + recipe.passes)
            for batch in data.plan(
                labels, recipe.batch, recipe.per_class, number, self._seed, even, recipe.drop_last
            )
        ]

    def _ahead(self, done: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of the whole training behind the first `done`, epoch by epoch."""
        for epoch in range(done // self.steps, self._recipe.epochs):
            yield from self._order(epoch)[max(0, done - epoch * self.steps) :]

    def run(self, state: RunState, hooks: Hooks) -> None:
        """Train from `state` on (step 0: from the start) and keep it up to date.

        Raises TrainingError when the loss is no number any more, KeyboardInterrupt on Ctrl-C;
        the last state kept is good then.
        """
        if state.step:
            self._objective.load_state_dict(state.weights)
            self._optimizer.load_state_dict(state.optimizer)
            self._scaler.load_state_dict(state.scaler)
        total = self.steps * self._recipe.epochs
        feed = data.batches(self._views, self._ahead(state.step), self.workers)
        with (
            _deterministic(self._precision.device),
            _interruption() as interrupted,
            contextlib.closing(feed),
        ):
            while not self._ended(state, total):
                epoch = len(state.history)
                if state.step < (epoch + 1) * self.steps:
                    self._epoch(epoch, feed, state, hooks, interrupted)
                    self._keep(state, hooks)  # before the evaluation, which may be interrupted
                means = {name: value / self.steps for name, value in state.sums.items()}
                lr = self._rate()
                row = {"epoch": epoch + 1, "step": state.step, "lr": lr, **means}
                if self.waiting.share is not None:
                    row["data_wait"] = round(self.waiting.share, 3)
                state.history.append({**row, **hooks.evaluate(epoch + 1)})
                state.sums = {}
                self._keep(state, hooks)
                interrupted.stop()

    def _ended(self, state: RunState, total: int) -> bool:
        """Tell whether all epochs are done, or two in a row left no bit to learn."""
        if state.step >= total and len(state.history) >= self._recipe.epochs:
            return True
        last = [row.get(REACHED, 0.0) for row in state.history[-2:]]
        settled = self._recipe.settled
        return settled > 0 and len(last) == 2 and min(last) >= settled

    def _epoch(
        self,
        epoch: int,
        feed: Iterator[Loaded],
        state: RunState,
        hooks: Hooks,
        interrupted: _Interruption,
    ) -> None:
        done = state.step - epoch * self.steps
        saved = time.monotonic()
        self._objective.train()
        self._scheduler.step(epoch)
        for batch in self.waiting.over(itertools.islice(feed, self.steps - done)):
            try:
                terms = self._step(batch, state.step)
            except torch.OutOfMemoryError:
                raise TrainingError(
                    "the GPU's memory does not hold a step of "
                    f"{counted(len(batch[1]), 'photo')}; start anew "
                    "with --overwrite and a smaller --batch"
                ) from None
            for name, value in terms.items():
                state.sums[name] = state.sums.get(name, 0.0) + value
            state.step += 1
            done += 1
            lr = self._rate()
            hooks.tick(Tick(epoch + 1, done, self.steps, terms["loss"], lr, len(batch[1])))
            late = time.monotonic() - saved > SAVE_SECONDS
            if interrupted.by or (late and done < self.steps):
                self._keep(state, hooks)
                saved = time.monotonic()
            interrupted.stop()

    def _step(self, batch: Loaded, number: int) -> dict[str, float]:
        """Take one step and return the loss and its terms."""
        self._scheduler.step_update(number + 1)
        terms = self._terms(batch, number)
        loss = losses.total(terms)
        values = {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}
        reached = self._objective.reached
        if not math.isfinite(values["loss"]):
            broken = [name for name, value in values.items() if not math.isfinite(value)]
            raise TrainingError(
                f"step {number + 1}: the loss is {values['loss']} (terms {', '.join(broken[1:])}); "
                "start anew with --overwrite and a lower --lr, a longer --warmup or --precision "
                "fp32"
            )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self._recipe.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            for group in self._objective.clipped():
                torch.nn.utils.clip_grad_norm_(group, self._recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return values if reached is None else {**values, REACHED: reached.item()}

    def _terms(self, batch: Loaded, number: int) -> dict[str, Tensor]:
        """Run the forward pass of a step."""
        device = self._precision.device
        given, labels, rows = batch
        labels, rows = (part.to(device, non_blocking=True) for part in (labels, rows))
        frames = {name: view.to(device, non_blocking=True) for name, view in given.items()}
        torch.manual_seed(data.derive(self._seed, 2, number))  # drop path and the like
        with self._precision.autocast():
            views = {name: self._pixels(view) for name, view in frames.items()}
            found: dict[str, Tensor] = self._objective(Batch(views, labels, rows))
        return found

    def rehearse(self, count: int) -> StepCost:
        """Return what a step costs, measured on `count` batches after one to warm up.

        Forward and backward passes of the first batches, the optimiser's step left out. Weights,
        buffers, gradients, modes and random generators are left as they were.
        """
        device, objective = self._precision.device, self._objective
        buffers = [(held, held.clone()) for held in objective.buffers()]
        modes = [(part, part.training) for part in objective.modules()]
        on_gpu = device.type == "cuda"
        planned = self._order(0)
        times: list[tuple[float, float]] = []
        objective.train()
        with torch.random.fork_rng(devices=[device] if on_gpu else []), _deterministic(device):
            for number in range(count + 1):
                items = planned[number % len(planned)]
                start = time.monotonic()
                batch = torch.utils.data.default_collate([self._views[item] for item in items])
                made = time.monotonic()
                loss = losses.total(self._terms(batch, number))
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                if on_gpu:
                    torch.cuda.synchronize(device)
                times.append((made - start, time.monotonic() - made))
        again = time.monotonic()
        for item in planned[0]:
            self._views[item]
        again = time.monotonic() - again
        with torch.no_grad():
            for held, before in buffers:
                held.copy_(before)
        self._optimizer.zero_grad(set_to_none=True)
        for part, mode in modes:
            part.training = mode
        share = 1 / max(self.workers, 1)
        views, steps = (sum(one) / count for one in zip(*times[1:], strict=True))
        return StepCost(steps, views * share, again * share)

    def _rate(self) -> float:
        """Return the learning rate before the factors of single groups."""
        group = self._optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("lr_scale", 1.0))

    def _keep(self, state: RunState, hooks: Hooks) -> None:
        state.weights = self._objective.state_dict()
        state.optimizer = self._optimizer.state_dict()
        state.scaler = self._scaler.state_dict()
        hooks.save(state)


def _fused(recipe: Recipe, device: torch.device) -> dict[str, bool]:
    """Ask AdamW on a CPU for one pass over each tensor in place of ten."""
    return {"fused": True} if recipe.optimizer == "adamw" and device.type == "cpu" else {}


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Ask CUDA for reproducible kernels while the loop runs; on a CPU they are already."""
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


class _Interruption:
    """What asked the loop to stop, if anything did: SIGINT (Ctrl-C), SIGTERM or nothing."""

    by: int | None = None

    def stop(self) -> None:
        """Leave the loop as the signal would have: KeyboardInterrupt, or exit code 143."""
        if self.by == signal.SIGINT:
            raise KeyboardInterrupt
        if self.by is not None:
            raise SystemExit(128 + self.by)


@contextlib.contextmanager
def _interruption() -> Iterator[_Interruption]:
    """Turn Ctrl-C and SIGTERM into a question, so that no step is cut in two.

    A second one interrupts at once.
    """
    asked = _Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked.by is not None:
            asked.stop()
        asked.by = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
