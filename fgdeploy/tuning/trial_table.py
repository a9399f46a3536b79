"""The schedules that were tried, as rows: what was promised, measured, and lost in mAP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One schedule. map and drop (in points, of the dense model's) are None where not evaluated.

    options: those that hold it. measured_ms: None where it was not built. pareto: none other is as
    fast and ranks as well. note: why it was not taken.
    """

    schedule: str
    options: Mapping[str, str]
    predicted_ms: float
    macs: int
    measured_ms: float | None = None
    map: float | None = None
    drop: float | None = None
    pareto: bool = False
    note: str = ""

    @property
    def ms(self) -> float:
        """Return the time that is known best."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON-ready values."""
        entry = dataclasses.asdict(self)
        digits = {"predicted_ms": 3, "measured_ms": 3, "map": 5, "drop": 3}
        for name, count in digits.items():
            if entry[name] is not None:
                entry[name] = round(entry[name], count)
        return {**entry, "options": dict(self.options)}


def marked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the rows with the Pareto front of time and mAP marked, by time."""
    known = [one for one in trials if one.map is not None]

    def beaten(one: Trial) -> bool:
        assert one.map is not None
        return any(
            other.map is not None
            and other.ms <= one.ms
            and other.map >= one.map
            and (other.ms, -other.map) != (one.ms, -one.map)
            for other in known
        )

    return sorted(
        (
            dataclasses.replace(one, pareto=one.map is not None and not beaten(one))
            for one in trials
        ),
        key=lambda one: one.ms,
    )
