"""Schedules as they ship: exported with proof, built for this machine, timed beside dense."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.engines import BuildSettings
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.proof import bench
from fgdeploy.proof.preparing import build_engine
from fgdeploy.tuning.tune_settings import TuneSettings

_ROUNDS = 3


@dataclass(frozen=True)
class Paced:
    """Medians in ms of a call of the bundle and of the dense one, taken in turn."""

    ms: float
    dense_ms: float


class Workshop:
    """Makes and times bundles in a folder of its own.

    folder: exists, beside where the bundle will lie, so that moving it there is one rename.
    """

    def __init__(
        self,
        settings: TuneSettings,
        folder: Path,
        notify: Notify = silent,
        bars: Bars = no_bars,
    ) -> None:
        self.settings, self.folder, self.notify, self.bars = settings, folder, notify, bars

    def make(self, name: str, options: Mapping[str, str], run: Path | None = None) -> Bundle:
        """Export and build; run: a training to take in place of the weights. Raises what they do.

        An engine that breaks its limits raises ParityError.
        """
        given = self.settings
        named = given.weights in ("pretrained", "random")
        exported = export_bundle(
            ExportSettings(
                method=given.method,
                options=options,
                backbone=given.backbone if run is None else None,
                checkpoint=run or (None if named else Path(given.weights)),
                weights=given.weights if named else "pretrained",
                bits=given.bits,
                image_size=given.image_size,
                fit_data=given.data,
                columns=given.columns,
                seed=given.seed,
            ),
            self.folder / f"{name}.fgd",
            notify=self.notify,
            progress=self.bars("fitting the head"),
        ).bundle
        backend, _, precision = given.engine.partition(":")
        build_engine(
            exported.path,
            precision,
            given.data,
            backend,
            BuildSettings((given.batch,), threads=given.threads),
            timed=False,
            notify=self.notify,
            bars=self.bars,
            columns=given.columns,
        )
        return open_bundle(exported.path)

    def pace(self, bundle: Bundle, dense: Bundle) -> Paced:
        """Time a bundle beside the dense one, in turn, each in a process of its own."""
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(_ROUNDS):
            for one, found in zip((bundle, dense), times, strict=True):
                found.append(self._once(one))
        return Paced(*map(statistics.median, times))

    def alone(self, bundle: Bundle) -> float:
        """Time a bundle by itself: the median in ms of a call."""
        return statistics.median(self._once(bundle) for _ in range(_ROUNDS))

    def _once(self, bundle: Bundle) -> float:
        given = self.settings
        found = bench.compare(bundle.path, [given.engine], [given.batch], given.threads, rounds=1)
        return found[0].at(given.batch).p50_ms
