"""Scores over folds: the mean and the spread of each protocol, where each photo asked once."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgdeploy.core.json_schema import list_of, map_of, number, table, whole

MEASURES = ("map", "tie_aware_map", "recall_at_1")
SCORES_OF_FOLDS = table(
    {
        "count": whole(2),
        "protocols": map_of(map_of(table({"mean": number(0, 1), "spread": number(0)}))),
        "each": list_of(map_of(map_of(number(0, 1)))),
    }
)


@dataclass(frozen=True)
class FoldScores:
    """each: of every fold, its protocols by name with the measures of MEASURES, 0..1."""

    each: tuple[Mapping[str, Mapping[str, float]], ...]

    @property
    def protocols(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return mean and spread of each measure by protocol, of the folds that have it.

        The spread is the sample standard deviation between folds, 0 for one.
        """
        names = dict.fromkeys(name for fold in self.each for name in fold)
        return {
            name: {
                measure: _statistic([fold[name][measure] for fold in self.each if name in fold])
                for measure in MEASURES
            }
            for name in names
        }

    def mean(self, protocol: str, measure: str = "map") -> float | None:
        """Return a mean over folds, None for a protocol that none has."""
        found = self.protocols.get(protocol)
        return None if found is None else found[measure]["mean"]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON-ready values."""
        each = [{name: dict(found) for name, found in fold.items()} for fold in self.each]
        return {"count": len(self.each), "protocols": self.protocols, "each": each}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> FoldScores:
        """Return what `to_json` gave."""
        return cls(tuple(entry["each"]))


def measures_of(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what of a run's scores by protocol is averaged over folds."""
    return {
        name: {
            "map": found["map"],
            "tie_aware_map": found["tie_aware_map"],
            "recall_at_1": found["recall"][1],
        }
        for name, found in scores.items()
    }


def _statistic(values: Sequence[float]) -> dict[str, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "spread": spread}
