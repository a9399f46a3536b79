"""What a bundle has on record: parity and speed of its engines, its calibration, its last proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import FgdeployError
from fgdeploy.engines import record
from fgdeploy.tuning import tuning_file

_SHARES = {
    "bits equal": "bit_agreement",
    "codes equal": "identical_codes",
    "top-10 kept": "top10_overlap",
}


@dataclass(frozen=True)
class Recorded:
    """Records in words. parity: rows (what, photos, shares, mAP difference, kept its limits).

    speed: rows (engine, batch, median, 95th percentile, images per second, device). problems: why
    a record cannot be shown.
    """

    parity: list[list[str]]
    speed: list[list[str]]
    notes: list[str]
    problems: list[str]


def records_of(bundle: Bundle) -> Recorded:
    """Return what lies in a bundle; damaged records are named, not shown."""
    manifest = bundle.manifest
    found = Recorded([], [], [], [])
    if (proof := manifest.parity) is not None:
        name = str(proof.get("candidate", "an engine"))
        against = str(proof.get("reference", "fp32"))
        found.parity.append(_parity(f"{name} against {against}", proof))
    if (summary := manifest.calibration) is not None:
        found.parity.append(_parity("int8 graph, as calibrated", summary))
    for built in record.find(bundle):
        entry = built.record
        if entry is None:
            found.problems.append(f"{built.folder.name}: {built.problem}")
            continue
        if entry.parity is not None:
            found.parity.append(_parity(f"engine {entry.name}, as built", entry.parity))
        device = str(entry.device.get("name") or "built for another machine")
        for batch, times in (entry.speed or {}).items():
            if isinstance(times, Mapping):
                values = (times[name] for name in ("p50_ms", "p95_ms", "images_per_s"))
                found.speed.append([entry.name, batch, *(f"{v:.2f}" for v in values), device])
    try:
        if (tuned := tuning_file.read(bundle)) is not None:
            found.notes.append(tuning_file.line(tuned))
    except FgdeployError as error:
        found.problems.append(str(error))
    return found


def _parity(name: str, entry: Mapping[str, Any]) -> list[str]:
    drop = _number(entry.get("map_drop"))
    passed = entry.get("passed")
    count = entry.get("photos")
    return [
        name,
        f"{count:,}" if type(count) is int else "-",
        *(_share(entry.get(key)) for key in _SHARES.values()),
        "-" if drop is None else f"{-drop:+.2f}",
        "-" if passed is None else ("yes" if passed else "no"),
    ]


PARITY_HEADER = ("record", "photos", *_SHARES, "mAP difference", "kept limits")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _share(value: Any) -> str:
    known = _number(value)
    return "-" if known is None else f"{known:.2%}"
