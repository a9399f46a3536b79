"""`fgdeploy train`: settings in; weights, config, log and scores in one folder out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy import photos
from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.core.text import counted
from fgdeploy.evaluation import report
from fgdeploy.evaluation.protocol import ASYM_SIGN
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets
from fgdeploy.evaluation.worst_classes import FAILURES_FILE, write_failures
from fgdeploy.models import assembly
from fgdeploy.models.embedder import Embedder
from fgdeploy.models.methods import registry
from fgdeploy.models.network import Network
from fgdeploy.models.weights import trained
from fgdeploy.models.weights.trained import TrainedConfig
from fgdeploy.training import (
    advising,
    data,
    division,
    estimate,
    objective,
    results,
    run_digest,
    schedule,
    sizing,
)
from fgdeploy.training import run_state as states
from fgdeploy.training.data import Views
from fgdeploy.training.division import Division
from fgdeploy.training.fold_scores import FoldScores
from fgdeploy.training.lookalikes import tell_lookalikes
from fgdeploy.training.loop import Hooks, Loop, Tick
from fgdeploy.training.object_views import boxes_of
from fgdeploy.training.objective import STUDENT, Objective, Setup
from fgdeploy.training.outcome import LookBack, look_back, quick_scores
from fgdeploy.training.precision import choose as choose_precision
from fgdeploy.training.results import Finished
from fgdeploy.training.run_state import RunState
from fgdeploy.training.target_codes import shared_codes
from fgdeploy.training.teacher import frozen_teacher
from fgdeploy.training.train_settings import TrainSettings

_CHOSEN = ("epochs", "passes", "batch", "optimizer", "lr", "warmup", "layer_decay", "least_area")


@dataclass(frozen=True)
class Reporter:
    """Where a training tells how it goes: words, progress bars by label, steps, epochs."""

    notify: Notify = silent
    progress: Bars = no_bars
    tick: Callable[[Tick], None] = lambda tick: None
    epoch: Callable[[dict[str, float]], None] = lambda row: None


@dataclass(frozen=True)
class Trained(Finished):
    """A finished training with its deployable weights, and why photos were left out."""

    weights: Path = Path(trained.WEIGHTS_FILE)
    skipped: tuple[str, ...] = ()


def train(
    settings: TrainSettings,
    folder: Path,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Trained:
    """Train what `settings` describe into `folder`, evaluate it, and return what came out.

    resume: go on where an interrupted run stopped; the outcome is the same to the bit. Raises
    FgdeployError of the kind that failed, OSError from the disk, KeyboardInterrupt on Ctrl-C with
    the state kept.
    """
    report.check_drawing()  # not after hours
    reporter = reporter or Reporter()
    results.check(folder, settings.data, resume, overwrite)
    if resume and results.is_finished(folder):
        asked = results.read_settings(folder)
        if any(asked.get(name) != value for name, value in settings.to_json().items()):
            raise CheckpointError(
                f"{folder} is finished, with other settings (see its {results.SETTINGS_FILE}); "
                "pass --overwrite to train anew, or another -o"
            )
        reporter.notify(f"{folder} is finished already; nothing left to train")
        return read_trained(folder)

    def divide() -> Division:
        return division.divide(
            settings.data,
            settings.val_fraction,
            settings.seed,
            settings.strict,
            reporter.notify,
            reporter.progress("checking photos"),
            settings.columns,
            settings.allow_leaks,
        )

    return train_on(divide, settings, folder, resume, reporter, lambda: results.clear_folds(folder))


def read_trained(folder: Path) -> Trained:
    """Return what a finished training left. Raises CheckpointError."""
    held = results.read_finished(folder)
    return Trained(**vars(held), weights=folder / trained.WEIGHTS_FILE)


def train_on(
    divide: Callable[[], Division],
    settings: TrainSettings,
    folder: Path,
    resume: bool,
    reporter: Reporter,
    begin: Callable[[], None] | None = None,
    folds: FoldScores | None = None,
) -> Trained:
    """Train on photos as `divide` gives them, asked once the settings are right; else as `train`.

    begin: called before a new run writes anything, once all is known to be right. folds: the scores
    of folds, for a training on all their photos.
    """
    run = _Run(divide, settings, folder, resume, reporter)
    if not resume:
        if begin is not None:
            begin()
        results.begin(folder, settings.to_json(), run.state.digest)
    results.write_split(folder, run.division)
    return run.finish(run.fit(), folds)


class _Run:
    """One training: everything chosen and made, then fitted, then written."""

    def __init__(
        self,
        divide: Callable[[], Division],
        settings: TrainSettings,
        folder: Path,
        resume: bool,
        reporter: Reporter,
    ) -> None:
        self.settings, self.folder, self.reporter = settings, folder, reporter
        published = registry.get(settings.method).recipe(settings.recipe)
        if unknown := sorted(settings.without - set(published.parts)):
            raise UsageError(
                f"--without {','.join(unknown)}: recipe {settings.recipe} has "
                f"{'the parts ' + ', '.join(published.parts) if published.parts else 'no parts'}"
            )
        self.precision = choose_precision(settings.precision)
        self.assembly = assembly.choose(settings.network(), reporter.notify, as_trained=False)
        if settings.teacher is not None and not trained.locate(settings.teacher).is_file():
            raise CheckpointError(f"no checkpoint at {settings.teacher}; check --teacher")
        self.division = divide()
        self.labels = self.division.labels(self.division.train)
        self.recipe = schedule.fitted(published, settings, self.labels, reporter.notify)
        self.boxes = boxes_of(self.division, settings, self.recipe, reporter.notify)
        digest = run_digest.of(
            settings, self.recipe, self.assembly, self.precision, self.division, self.boxes
        )
        self.state = RunState(digest)
        if resume:
            if results.read_settings(folder).get("digest") != digest:
                raise CheckpointError(
                    f"{folder} is of a run with other settings or other photos; give the same ones "
                    "to --resume, or start anew with another -o"
                )
            if (folder / states.STATE_FILE).is_file():
                self.state = states.load(folder, digest)
        self.embedder = Embedder(
            self.assembly.preprocess, self.precision.device, self.precision.autocast
        )
        self.objective = self._objective()
        facts, width = self.objective.facts, self.assembly.geometry.width
        if facts is None:
            self.recipe = schedule.warmed(self.recipe, settings, self.labels, reporter.notify)
        else:
            self.recipe = sizing.sized(self.recipe, facts, settings, width)
            self.reporter.notify(facts.said())
        states.check_space(folder, sum(p.numel() for p in self.objective.parameters()))

    def _objective(self) -> Objective:
        settings, division, chosen = self.settings, self.division, self.assembly

        def embed(net: Network) -> npt.NDArray[np.float32]:
            progress = self.reporter.progress("looking at the photos")
            rows = self.embedder.embeddings(net, division.train, progress)
            tell_lookalikes(rows, self.labels, division.train, self.reporter.notify)
            return rows

        def make(pruned: bool) -> Network:
            return chosen.trainable(len(division.classes), settings.bits, dense=not pruned)

        teacher, targets = frozen_teacher(
            settings, chosen, division, self.labels, self.reporter.notify
        )
        made = objective.build(
            self.recipe,
            Setup(
                make=make,
                embed=embed,
                labels=self.labels,
                classes=len(division.classes),
                bits=settings.bits,
                patch=chosen.geometry.patch_size,
                seed=settings.seed,
                without=settings.without,
                options=chosen.options,
                teacher=teacher,
                teacher_targets=targets,
                boxes=self.boxes or (),
            ),
        )
        drawn_to = made.targets
        if drawn_to is not None and (shared := shared_codes(drawn_to, self.labels)):
            self.reporter.notify(
                f"warning: {shared} of {counted(len(division.classes), 'class')} share a "
                "target code with "
                f"another class, as {settings.bits} bits hold too few codes that far apart; "
                "retrieval cannot tell these classes apart: take more --bits"
            )
        return made

    def fit(self) -> RunState:
        """Run the loop to its end."""
        division, settings = self.division, self.settings
        size = self.assembly.source.size
        shortest = round(size / self.recipe.least_area**0.5)
        make_views = objective.found(self.recipe.augment or data.crop_and_flip)
        augment = make_views(size, self.recipe.least_area)
        shortest *= 2 if self.boxes else 1  # an object has some of the pixels alone
        views = Views(division.train, self.labels, augment, shortest, settings.seed, self.boxes)
        on_gpu = self.precision.device.type == "cuda"
        workers = settings.workers
        if workers is None:
            workers = min(8, os.cpu_count() or 1) if on_gpu else 0
        loop = Loop(
            self.objective,
            self.recipe,
            views,
            self.assembly.norm,
            self.precision,
            settings.seed,
            workers,
        )
        self.reporter.notify(
            f"{self.assembly.method.name}, recipe {settings.recipe}: "
            f"{counted(len(division.train), 'photo')} of "
            f"{counted(len(division.classes), 'class')}, {settings.bits} bits, "
            f"{schedule.said(self.recipe, loop.steps)}, {self.precision}"
        )
        asked = photos.spread(division.test, self._asked_often(), settings.seed)
        told = estimate.before(
            loop,
            self.state.step,
            self.embedder,
            self.objective,
            division,
            len(asked),
            self.reporter.notify,
        )
        start = time.monotonic()

        def score(epoch: int) -> dict[str, float]:
            net, bar = self.objective.networks()[STUDENT], self.reporter.progress("evaluating")
            row = quick_scores(self.embedder, net, asked, self._targets(), bar) if asked else {}
            return {**row, "seconds": round(time.monotonic() - start, 1)}

        def save(state: RunState) -> None:
            states.save(self.folder, state)
            if state.history and not state.sums:
                results.write_log(self.folder, state.history)
                self.reporter.epoch(state.history[-1])
                loop.waiting.advise(workers, self.reporter.notify)
                if told is not None:
                    told.epoch_done()

        loop.run(self.state, Hooks(self.reporter.tick, save, score))
        return self.state

    def _asked_often(self) -> int:
        """Return how many test photos an epoch ends with: few beside those that it trains on."""
        trained_on = len(self.division.train) * self.recipe.passes
        asked = self.settings.eval_photos
        return min(1000, max(100, trained_on // 4)) if asked is None else asked

    def _targets(self) -> Targets | None:
        drawn_to = self.objective.targets
        if drawn_to is None:
            return None
        return Targets(
            classes=np.array(self.division.classes, dtype=np.str_),
            labels=self.labels,
            codes=np.packbits(drawn_to > 0, axis=1),
            bits=self.settings.bits,
        )

    def finish(self, state: RunState, folds: FoldScores | None) -> Trained:
        """Evaluate in full and write weights, targets, scores and curves."""
        targets = self._targets()
        if targets is not None:
            targets.save(self.folder / TARGETS_FILE)
        outcomes = {
            name: look_back(
                self.embedder,
                net,
                name,
                self.division,
                targets,
                self.settings.bits,
                self.reporter.progress,
                folds if name == STUDENT else None,
            )
            for name, net in self.objective.networks().items()
        }
        if outcomes[STUDENT].protocols:
            report.write_report(self.folder, outcomes[STUDENT].protocols)
            write_failures(self.folder / FAILURES_FILE, ASYM_SIGN, outcomes[STUDENT].worst)
        weights = self.folder / trained.WEIGHTS_FILE
        for name, net in self.objective.networks().items():
            path = weights if name == STUDENT else self.folder / f"{name}.safetensors"
            asked = folds if name == STUDENT else None
            trained.save(path, net.state(), self._config(name, net, outcomes[name], asked))
        facts = advising.gather(
            self.division, targets, state.history, outcomes[STUDENT], folds, self.recipe.passes
        )
        done = Finished(
            {name: found.scores() for name, found in outcomes.items()},
            state.history,
            {name: one.reached for name, one in outcomes.items() if one.reached is not None},
            advising.advise(facts),
            folds,
        )
        results.write_scores(self.folder, done)
        (self.folder / states.STATE_FILE).unlink(missing_ok=True)
        return Trained(**vars(done), weights=weights, skipped=self.division.skipped)

    def _config(
        self, name: str, net: Network, found: LookBack, folds: FoldScores | None
    ) -> TrainedConfig:
        settings, recipe = self.settings, self.recipe
        facts = {
            "network": name,
            "recipe": settings.recipe,
            "without": sorted(settings.without),
            **{name: getattr(recipe, name) for name in _CHOSEN},
            "steps": self.state.step,
            "set": None if self.objective.facts is None else self.objective.facts.to_json(),
            "seed": settings.seed,
            "precision": self.precision.name,
            "start": settings.weights if settings.weights in ("pretrained", "random") else "file",
            "photos": len(self.division.train),
            "scores": {kind: detail.scores.map for kind, detail in found.protocols.items()},
        }
        if folds is not None:
            facts["folds"] = len(folds.each)
            facts["scores"] = {kind: folds.mean(kind) for kind in folds.protocols}
        if found.reached is not None:
            facts[results.REACHED] = found.reached.to_json()
        return TrainedConfig(
            method=self.assembly.method.name,
            backbone=self.assembly.source.backbone,
            image_size=self.assembly.source.size,
            bits=settings.bits,
            options=net.options,
            preprocess=self.assembly.preprocess,
            classes=self.division.classes,
            training=facts,
        )
