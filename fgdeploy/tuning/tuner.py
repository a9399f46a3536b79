"""`fgdeploy tune`: measure, search, evaluate, verify; a bundle that pays here, or a refusal."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.bundle.folder import check_new
from fgdeploy.core import atomic, machine
from fgdeploy.core.errors import FgdeployError, ParityError, TuningError, UsageError
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.core.text import counted
from fgdeploy.models import assembly as assemblies
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.proof.building import candidates as backends_of
from fgdeploy.tuning import advice, schedules, searching, stack_timing, tuning_file
from fgdeploy.tuning.planning import Planner
from fgdeploy.tuning.schedules import Candidate
from fgdeploy.tuning.staircase import Stair, Staircase, row_counts
from fgdeploy.tuning.trial_table import Trial, marked
from fgdeploy.tuning.trials import Trials, network_settings
from fgdeploy.tuning.tune_settings import TuneSettings
from fgdeploy.tuning.workshop import Workshop

_TRAINED = 3  # schedules that are trained
_VERIFIED = 6  # schedules that are built, at most
_DENSE = "dense"


@dataclass(frozen=True)
class Tuned:
    """What is recommended, and why: all rows by time, the staircase, milliseconds beside dense.

    run: the training that the bundle was exported from, None for the weights as they were given.
    """

    bundle: Bundle
    recommended: Trial
    trials: Sequence[Trial]
    staircase: Staircase | None
    dense_ms: float
    photos: int
    run: Path | None = None


def tune(
    settings: TuneSettings,
    target: Path,
    overwrite: bool = False,
    notify: Notify = silent,
    bars: Bars = no_bars,
) -> Tuned:
    """Write to `target` the bundle of the schedule that keeps to latency and drop on this device.

    Raises TuningError where no schedule does, with what was measured, and what choosing, exporting,
    building and evaluating raise. Nothing is left on any error.
    """
    check_new(target, overwrite)
    if settings.train and _run_of(target).exists():
        raise UsageError(f"{_run_of(target)} is there already, and a training goes there; move it")
    backend, _, precision = settings.engine.partition(":")
    backends_of(precision, backend)
    planner = Planner(assemblies.choose(network_settings(settings), notify))
    planner.texts(())  # a method without a schedule says so before anything is measured
    judged = Trials(settings, notify)
    with tempfile.TemporaryDirectory(prefix=".tune-", dir=target.parent) as folder:
        shop = Workshop(settings, Path(folder), notify, bars)
        return _Tuning(settings, planner, judged, shop, notify, bars, target).run(overwrite)


class _Tuning:
    """One tuning: what is known so far, and the next step."""

    def __init__(
        self,
        settings: TuneSettings,
        planner: Planner,
        judged: Trials,
        shop: Workshop,
        notify: Notify,
        bars: Bars,
        target: Path,
    ) -> None:
        self.settings, self.planner, self.judged, self.shop = settings, planner, judged, shop
        self.notify, self.bars, self.target = notify, bars, target
        self.shape = planner.assembly.geometry
        self.built: dict[tuple[Stage, ...], Bundle] = {}
        self.rows: dict[tuple[Stage, ...], Trial] = {}
        self.staircase: Staircase | None = None

    def run(self, overwrite: bool) -> Tuned:
        self.notify("the dense model: export, build, time")
        self.dense = self.shop.make(_DENSE, self.planner.texts(()))
        self.dense_ms = self.shop.alone(self.dense)
        self._row((), self.dense_ms)
        self._note((), measured_ms=self.dense_ms)
        self.built[()] = self.dense
        limit = min(self.settings.latency_ms, self.dense_ms)
        if self.settings.latency_ms >= self.dense_ms:
            self.notify(
                f"the dense model takes {self.dense_ms:.2f} ms, which keeps to "
                f"{self.settings.latency_ms:g} ms: nothing has to be pruned"
            )
            return self._finish((), overwrite)
        self.notify("measuring the staircase of this device")
        points = {self.settings.batch: row_counts(self.planner.backbone.rows)}
        stairs = self._stairs(points)
        self.staircase = Staircase(self.settings.engine, self.settings.batch, stairs).anchored(
            self.dense.manifest.blocks, self.dense_ms
        )
        self.extra = self.planner.extra()
        found = self._judged(self._candidates(limit))
        for stages in found:
            if self._keeps(stages):
                return self._finish(stages, overwrite)
        raise self._refusal(found)

    def _stairs(self, points: Mapping[int, Sequence[int]]) -> dict[int, Stair]:
        return stack_timing.measure(
            self.dense, self.settings.engine, self.planner.backbone, points, self.settings.threads
        )

    def _candidates(self, limit: float) -> list[Candidate]:
        """Return schedules within the limit by what their networks do, the most promising first."""
        assert self.staircase is not None
        known = (self.shape.depth, self.shape.patches, self.extra)
        first = schedules.promising(self.staircase, *known, limit)
        if not first:
            raise self._refusal(())
        self._learn_step(first[0])
        if not schedules.promising(self.staircase, *known, limit):
            # One schedule may be slow for reasons of its own: the fastest is the last to give up.
            bare = dataclasses.replace(self.staircase, step_ms=0.0)
            learnt, self.staircase = self.staircase, bare
            self._learn_step(schedules.fastest(bare, *known))
            if self.staircase.step_ms > learnt.step_ms:
                self.staircase = learnt
        wanted = searching.rounds(self.settings.images, self.settings.best)[0].tried
        found: list[Candidate] = []
        progress = self.bars("counting rows")
        again = schedules.promising(self.staircase, *known, limit)
        for number, one in enumerate(again[: 3 * wanted], start=1):
            row = self._row(one.stages)
            if row is not None and row.predicted_ms <= limit and len(found) < wanted:
                found.append(dataclasses.replace(one, predicted_ms=row.predicted_ms))
            progress(number, min(len(again), 3 * wanted))
        kept = {one.stages for one in found}
        self.rows = {
            stages: row
            for stages, row in self.rows.items()
            if stages in kept or row.measured_ms is not None
        }
        if not found:
            raise self._refusal(())
        return found

    def _row(self, stages: tuple[Stage, ...], known_ms: float | None = None) -> Trial | None:
        """Note a schedule, with its prediction; None for one that the method cannot run."""
        try:
            plan, options = self.planner.plan(stages), self.planner.texts(stages)
        except FgdeployError:
            return None
        took = known_ms
        if took is None:
            assert self.staircase is not None
            took = self.staircase.predict(plan.runs, len(stages))
        name = ",".join(map(str, stages)) or _DENSE
        old = self.rows.get(stages)
        measured = None if old is None else old.measured_ms
        self.rows[stages] = Trial(name, options, took, plan.macs, measured)
        return self.rows[stages]

    def _note(self, stages: tuple[Stage, ...], **changes: object) -> None:
        self.rows[stages] = dataclasses.replace(self.rows[stages], **changes)  # type: ignore[arg-type]

    def _learn_step(self, candidate: Candidate) -> None:
        """Build one schedule, to learn what a stage costs beside the blocks."""
        assert self.staircase is not None
        stages = candidate.stages
        if self._row(stages) is None or not self._built(stages):
            return
        self.staircase = self.staircase.with_step(
            self.planner.plan(stages).runs, len(stages), self.rows[stages].measured_ms or 0.0
        )
        self.notify(f"a stage costs {self.staircase.step_ms:.3f} ms beside the blocks")

    def _built(self, stages: tuple[Stage, ...], run: Path | None = None) -> bool:
        """Build and time a schedule once; tell whether it keeps to its own limits of parity."""
        if stages in self.built and run is None:
            return True
        name = self.rows[stages].schedule
        self.notify(f"{name}: export, build, time")
        try:
            where = f"{name.replace(':', '-').replace(',', '_')}{'-trained' if run else ''}"
            self.built[stages] = self.shop.make(where, self.rows[stages].options, run)
        except ParityError as error:
            self._note(stages, note=str(error))
            return False
        paced = self.shop.pace(self.built[stages], self.dense)
        # What else the machine does meanwhile slows both: dense says by how much.
        self._note(stages, measured_ms=paced.ms * self.dense_ms / paced.dense_ms)
        return True

    def _judged(self, found: Sequence[Candidate]) -> list[tuple[Stage, ...]]:
        """Return schedules by mAP, the best first, evaluated untrained or trained."""
        plan = searching.rounds(self.judged.judges.count, self.settings.best)
        self.notify(
            f"evaluating {counted(min(len(found), plan[0].tried), 'schedule')} on up to "
            f"{counted(self.judged.judges.count, 'photo')}"
        )
        scored = searching.halve(
            [one.stages for one in found],
            plan,
            lambda stages, photos: self.judged.score(self.planner.texts(stages), photos),
            self.bars("evaluating"),
        )
        best = self.judged.score(self.planner.texts(()), plan[-1].photos)
        if self.settings.train:
            scored = [(stages, self._trained(stages)[1]) for stages, _ in scored[:_TRAINED]]
            best = self._trained(())[1]
        for stages, score in [*scored, ((), best)]:
            self._note(stages, map=score, drop=100 * (best - score))
        return [stages for stages, _ in sorted(scored, key=lambda pair: -pair[1])]

    def _trained(self, stages: tuple[Stage, ...]) -> tuple[Path, float]:
        texts = self.planner.texts(stages)
        folder = self.shop.folder / f"run-{len(list(self.shop.folder.iterdir()))}"
        folder.mkdir()
        self.notify(f"{self.rows[stages].schedule}: training")
        return self.judged.train(texts, folder / _run_of(self.target).name)

    def _keeps(self, stages: tuple[Stage, ...]) -> bool:
        """Tell whether a schedule keeps to drop and latency, and is faster than dense."""
        drop = self.rows[stages].drop
        assert drop is not None
        if drop > self.settings.max_drop:
            self._note(stages, note=f"drops {drop:.2f} points")
            return False
        if sum(row.measured_ms is not None for row in self.rows.values()) > _VERIFIED:
            return False
        if not self._built(stages):
            return False
        took = self.rows[stages].measured_ms
        assert took is not None
        if took >= self.dense_ms:
            self._note(stages, note="slower than dense")
        elif took > self.settings.latency_ms:
            self._note(stages, note="misses the latency when measured")
        return took < self.dense_ms and took <= self.settings.latency_ms

    def _refusal(self, judged: Sequence[tuple[Stage, ...]]) -> TuningError:
        """Return why no schedule is recommended, with what was measured and what would help."""
        asked = self.settings
        first = f"no schedule of {self.planner.assembly.method.name} takes at most "
        first += f"{asked.latency_ms:g} ms at batch {asked.batch} here"
        fast = [self.rows[one] for one in judged if self.rows[one].ms <= asked.latency_ms]
        best = [row for row in fast if row.drop is not None and row.ms < self.dense_ms]
        if best and all((row.drop or 0.0) > asked.max_drop for row in best):
            one = max(best, key=lambda row: row.map or 0.0)
            ways = "raise --max-drop" if asked.train else "add --train, or raise --max-drop"
            return TuningError(
                f"{first} and loses at most {asked.max_drop:g} points of mAP: the best, "
                f"{one.schedule}, takes {one.ms:.2f} ms (dense {self.dense_ms:.2f} ms) and loses "
                f"{one.drop:.2f}; {ways}"
            )
        assert self.staircase is not None
        known = (self.shape.depth, self.shape.patches, self.extra)
        quick = schedules.fastest(self.staircase, *known)
        measured = [row for stages, row in self.rows.items() if stages and row.measured_ms]
        least = min(measured, key=lambda row: row.ms, default=None)
        took = f"{quick} is predicted at {quick.predicted_ms:.2f} ms"
        if least is not None and least.ms < quick.predicted_ms:
            took = f"{least.schedule} takes {least.ms:.2f} ms"
        return TuningError(
            f"{first} within {asked.max_drop:g} points: dense takes {self.dense_ms:.2f} ms, the "
            f"fastest, {took}; {self._advice(quick.stages)}"
        )

    def _advice(self, stages: tuple[Stage, ...]) -> str:
        """Measure a few points at other batches, and say where pruning pays."""
        assert self.staircase is not None
        self.notify("measuring at other batch sizes, to say where pruning pays")
        rows = self.planner.backbone.rows
        few = sorted({max(2, rows // part) for part in (16, 4, 2, 1)})
        batches = [batch for batch in advice.BATCHES if batch != self.settings.batch]
        stairs = {**self.staircase.stairs, **self._stairs(dict.fromkeys(batches, few))}
        reference = advice.Advised(
            stages,
            self.shape.depth,
            self.shape.patches,
            self.extra,
            self.planner.assembly.source.size,
            self.settings.batch,
            self.staircase.fixed_ms,
            self.staircase.step_ms,
        )
        return advice.words(advice.settings(stairs, reference), stages)

    def _finish(self, stages: tuple[Stage, ...], overwrite: bool) -> Tuned:
        """Write the recommended bundle, with the table behind it."""
        bundle, kept = self.built[stages], None
        if self.settings.train:
            run, _ = self._trained(stages)
            self.notify("export of the trained network")
            bundle = self.shop.make("recommended", self.rows[stages].options, run)
            kept = _run_of(self.target)
            run.rename(kept)
        rows = marked(list(self.rows.values()))
        schedule = self.rows[stages].schedule
        chosen = next(row for row in rows if row.schedule == schedule)
        entry = self._entry(chosen, rows)
        bundle = open_bundle(bundle.path)
        bundle.with_file(tuning_file.FILE, tuning_file.to_bytes(entry))
        with atomic.new_folder(self.target, replace=overwrite) as folder:
            for part in list(bundle.path.iterdir()):
                part.rename(folder / part.name)
        return Tuned(
            open_bundle(self.target),
            chosen,
            rows,
            self.staircase,
            self.dense_ms,
            self.judged.judges.count,
            kept,
        )

    def _entry(self, chosen: Trial, rows: Sequence[Trial]) -> dict[str, object]:
        return {
            "version": tuning_file.VERSION,
            "engine": self.settings.engine,
            "device": _device(),
            "batch": self.settings.batch,
            "latency_ms": self.settings.latency_ms,
            "max_drop": self.settings.max_drop,
            "photos": self.judged.judges.count,
            "trained": self.settings.train,
            "recommended": chosen.schedule,
            "dense_ms": round(self.dense_ms, 3),
            "measured_ms": round(chosen.ms, 3),
            "trials": [row.to_json() for row in rows],
            "staircase": None if self.staircase is None else self.staircase.to_json(),
        }


def _run_of(target: Path) -> Path:
    """Return where the training of a recommended bundle is kept, as its manifest names it."""
    return target.with_name(f"{target.stem}-run")


def _device() -> str:
    gpus = machine.gpus()
    return gpus[0].name if gpus else f"{machine.cpu().name}, {counted(machine.cores(), 'core')}"
