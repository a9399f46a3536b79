"""A report as values: what the page shows and `--json` prints."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy.bundle import GRAPHS, Bundle, card
from fgdeploy.bundle.card import Card
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.engines import find
from fgdeploy.photos import Photo
from fgdeploy.report import recorded, stating, surroundings
from fgdeploy.report.measuring import Measurement, ReportSettings, measure_bundle
from fgdeploy.report.recorded import Recorded


@dataclass(frozen=True)
class BundleReport:
    """All that a report says. digest: of the manifest; day: in UTC; command: that made the page.

    measured: None without photos.
    """

    bundle: Bundle
    card: Card
    records: Recorded
    measured: Measurement | None
    digest: str
    day: str
    command: str

    @property
    def commands(self) -> list[str]:
        """Return the commands behind bundle and report, as far as they are known."""
        return [*_commands(self.bundle), self.command]

    def engine_names(self) -> list[str]:
        """Return the engines that were measured, or else those built, or ONNX Runtime."""
        if self.measured is not None:
            return [one.name for one in self.measured.engines]
        built = [one.record.name for one in find(self.bundle) if one.record is not None]
        return built or ["onnxruntime:fp32"]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON-ready values; pictures are paths."""
        found = self.measured
        return {
            "card": stating.whole_card(self.bundle, self.card),
            "manifest_digest": self.digest,
            "day": self.day,
            "commands": self.commands,
            "environment": dict(surroundings.environment()),
            "licences": [
                dict(zip(("package", "version", "licence"), one, strict=True))
                for one in surroundings.package_licences(self.engine_names())
            ],
            "recorded": dataclasses.asdict(self.records),
            "measured": None if found is None else _measured_json(found),
        }


def make_report(
    bundle: Bundle,
    photos: Sequence[Photo] | None,
    settings: ReportSettings,
    command: str,
    notify: Notify = silent,
    bars: Bars = no_bars,
) -> BundleReport:
    """Gather what a bundle says of itself and measure it where there are photos.

    Raises BundleError for a damaged card, and what `measure_bundle` raises.
    """
    day = surroundings.day()
    found = card.read(bundle)
    return BundleReport(
        bundle,
        found,
        recorded.records_of(bundle),
        None if photos is None else measure_bundle(bundle, photos, settings, notify, bars),
        bundle.manifest.to_json()["digest"],
        day,
        command,
    )


def _measured_json(found: Measurement) -> dict[str, Any]:
    lead = found.engines[0]
    return {
        "photos": found.photos,
        "headline": found.headline,
        "protocol": lead.evaluation.protocol,
        "absent": dict(lead.evaluation.absent),
        "protocols": {name: dataclasses.asdict(one) for name, one in lead.protocols.items()},
        "engines": [
            {
                "name": one.name,
                "default": one.name == found.default,
                "reference": one.name == found.reference,
                "map": {name: detail.scores.map for name, detail in one.protocols.items()},
                "parity": None if one.parity is None else dataclasses.asdict(one.parity),
            }
            for one in found.engines
        ],
        "failing": dataclasses.asdict(found.failing),
        "bench": None if found.board is None else found.board.to_json(),
        "failed": dict(found.failed),
        "skipped": list(found.skipped),
    }


def _commands(bundle: Bundle) -> list[str]:
    """Return what made a bundle, with words in capitals for what it does not know."""
    manifest, weights, name = bundle.manifest, bundle.manifest.weights, bundle.path.name
    named = weights["source"] in ("pretrained", "random")
    run = weights.get("run")
    made = ["fgdeploy", "export"]
    made += [] if named else [str(run or weights["source"])]
    made += ["--method", manifest.method, "--backbone", manifest.backbone]
    made += ["--weights", weights["source"]] if named else []
    made += ["--bits", str(manifest.bits), "--image-size", str(manifest.image_size), "-o", name]
    found = []
    if run:
        found.append(f"fgdeploy train PHOTOS --method {manifest.method} -o {shlex.quote(run)}")
    found.append(shlex.join(made))
    if GRAPHS["int8"] in manifest.files:
        found.append(f"fgdeploy calibrate {shlex.quote(name)} --data PHOTOS")
    for built in find(bundle):
        if (entry := built.record) is not None:
            flag = "" if entry.precision == "fp32" else f" --{entry.precision}"
            backend = shlex.quote(entry.backend)
            found.append(f"fgdeploy build-engine {shlex.quote(name)} --backend {backend}{flag}")
    return found


def command_of(bundle: Path, data: Path | None, settings: ReportSettings) -> str:
    """Return the command that makes a report; of paths the names alone."""
    words = ["fgdeploy", "report", bundle.name]
    words += [] if data is None else ["--data", data.name]
    words += [] if settings.index is None else ["--index", settings.index.name]
    words += [part for name in settings.backends for part in ("--backend", name)]
    words += [] if settings.timed or data is None else ["--no-timing"]
    return shlex.join(words)
