"""A training's run as values for its page: what `fgdeploy train` left in its folder, no model."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy.core import json_schema
from fgdeploy.core.errors import CheckpointError, DataError
from fgdeploy.core.json_schema import anything, map_of, maybe, number, table
from fgdeploy.evaluation.metrics import ClassScores
from fgdeploy.evaluation.report import CLASSES_FILE
from fgdeploy.evaluation.worst_classes import FAILURES_FILE, WorstClass, read_failures
from fgdeploy.report import surroundings

_SCORES, _CONFIG, _LOG = "scores.json", "model.json", "log.csv"
_BESIDE = ("training_photos", "advice", "folds")  # entries of scores.json that are no network
_AGAIN = "train again with --overwrite"
_FOLDS = "fold-*"
_MEANS = ("map", "tie_aware_map", "recall_at_1")  # columns of per_class.csv

_STATISTIC = table({"mean": number(0, 1), "spread": number(0)})
_SCHEMA = map_of(map_of(table({"map": number(0, 1), "recall": map_of(number(0, 1))})))
_EXTRA = table(
    {},
    {
        "training_photos": map_of(map_of(maybe(number()))),
        "advice": maybe(json_schema.TEXT),
        "folds": table(
            {
                "count": json_schema.whole(2),
                "protocols": map_of(map_of(_STATISTIC)),
                "each": json_schema.list_of(map_of(map_of(number(0, 1)))),
            }
        ),
    },
)
_TRAINED = table({"method": json_schema.NAME, "backbone": json_schema.NAME, "training": anything})


@dataclass(frozen=True)
class RunReport:
    """What a run left. config: of its model; scores: by network and protocol; log: by epoch.

    reached: by network, the shares of the training photos; folds: statistics over folds, None for
    a run without. classes: of `headline`, over all folds where there are any; failures: the worst
    classes with their queries.
    """

    folder: str
    config: Mapping[str, Any]
    scores: Mapping[str, Any]
    reached: Mapping[str, Any]
    advice: str | None
    folds: Mapping[str, Any] | None
    log: Sequence[Mapping[str, str]]
    headline: str
    classes: Sequence[ClassScores]
    failures: Sequence[WorstClass]
    day: str

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON-ready values; pictures are paths."""
        return dataclasses.asdict(self)


def is_run(path: Path) -> bool:
    """Tell whether a path is the folder of a training that came to its end."""
    return all((path / name).is_file() for name in (_SCORES, _CONFIG))


def read_run(folder: Path) -> RunReport:
    """Read what a finished training left in `folder`. Raises CheckpointError, DataError."""
    entry, config = (_read(folder / name) for name in (_SCORES, _CONFIG))
    try:
        _EXTRA(entry, "")
        scores = {name: found for name, found in entry.items() if name not in _BESIDE}
        _SCHEMA(scores, "")
        _TRAINED(config, "")
        with (folder / _LOG).open(encoding="utf-8", newline="") as stream:
            log = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{folder} is no whole run ({error}); {_AGAIN}") from None
    places = [folder, *sorted(folder.glob(_FOLDS), key=lambda path: (len(path.name), path.name))]
    found = [read_failures(path) for one in places if (path := one / FAILURES_FILE).is_file()]
    headline = next((name for name, _ in found if name), "asym_sign")
    classes = _pooled([path for one in places if (path := one / CLASSES_FILE).is_file()], headline)
    return RunReport(
        folder.resolve().name,
        config,
        scores,
        entry.get("training_photos", {}),
        entry.get("advice"),
        entry.get("folds"),
        log,
        headline,
        classes,
        _worst(classes, [one for _, several in found for one in several]),
        surroundings.day(),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        entry = json_schema.parse(path.read_bytes())
        json_schema.sane(entry)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {_AGAIN}") from None
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path} is of no run; {_AGAIN}")
    return entry


def _pooled(files: Sequence[Path], headline: str) -> list[ClassScores]:
    """Return the classes of several evaluations as of one: means over the queries of all."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for path in files:
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    if row["protocol"] == headline:
                        kept = (int(row["queries"]), *(float(row[key]) for key in _MEANS))
                        rows.setdefault(row["class"], []).append(kept)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(f"{path} holds no scores of classes ({error}); {_AGAIN}") from None
    pooled = []
    for name, parts in sorted(rows.items()):
        total = int(sum(part[0] for part in parts))
        means = [sum(part[0] * part[i] for part in parts) / max(total, 1) for i in (1, 2, 3)]
        pooled.append(ClassScores(name, total, *means))
    return pooled


def _worst(classes: Sequence[ClassScores], found: Sequence[WorstClass]) -> list[WorstClass]:
    """Return the classes that failures are known of, as pooled, the worst first."""
    scores = {one.name: one for one in classes}
    by_name: dict[str, list[WorstClass]] = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    made = []
    for name, parts in by_name.items():
        lead = max(parts, key=lambda one: one.times)
        queries = [query for part in parts for query in part.shown]
        queries.sort(key=lambda one: one.average_precision)
        pooled = scores.get(name)
        made.append(
            dataclasses.replace(
                lead,
                map=lead.map if pooled is None else pooled.map,
                queries=lead.queries if pooled is None else pooled.queries,
                times=sum(one.times for one in parts if one.taken_for == lead.taken_for),
                shown=tuple(queries[: max(len(part.shown) for part in parts)]),
            )
        )
    return sorted(made, key=lambda one: (one.map, one.name))
