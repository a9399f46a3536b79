"""What a training leaves in its folder: log, scores, target codes, deployable weights."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgdeploy.core import atomic, json_schema
from fgdeploy.core.errors import CheckpointError
from fgdeploy.core.json_schema import TEXT, map_of, maybe, number, table
from fgdeploy.evaluation.targets import TARGETS_FILE
from fgdeploy.evaluation.worst_classes import FAILURES_FILE
from fgdeploy.photos import SPLIT_FILE
from fgdeploy.training.division import Division
from fgdeploy.training.fold_scores import SCORES_OF_FOLDS, FoldScores
from fgdeploy.training.reached import SHARES, Reached
from fgdeploy.training.run_state import STATE_FILE

LOG_FILE = "log.csv"
SCORES_FILE = "scores.json"
SETTINGS_FILE = "settings.json"
FOLDS_FILE, FOLD_PREFIX = "folds.json", "fold-"  # of a training of folds: progress, and each


# All that a run writes; --overwrite removes these and nothing else.
_WRITTEN = (
    *(LOG_FILE, SCORES_FILE, SETTINGS_FILE, SPLIT_FILE, STATE_FILE, TARGETS_FILE),
    *("*.safetensors", "model.json", "teacher.json", "curve_*.csv", "per_class.csv"),
    *("pr_curve.png", FAILURES_FILE, ".*.tmp"),
)
_MADE_BY = "fgdeploy train"

_RATES = map_of(number(0, 1))
_SHOWN = table(dict.fromkeys(("1", "2", "4", "8"), number(0, 1)))
_PROTOCOL = table(
    {
        **dict.fromkeys(("map", "tie_aware_map"), number(0, 1)),
        **{"recall": _SHOWN, "precision": _RATES},
    }
)
_SCORES = map_of(map_of(_PROTOCOL))
# Beside the networks in scores.json; runs of before have neither.
REACHED, ADVICE, FOLDS = "training_photos", "advice", "folds"
_BESIDE = table({}, {REACHED: map_of(SHARES), ADVICE: maybe(TEXT), FOLDS: SCORES_OF_FOLDS})


def check(folder: Path, data: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that a run cannot be written to, changing nothing. Raises CheckpointError."""
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise CheckpointError(
            f"{folder} lies within the photos of {data}, where its pictures would be taken for "
            "photos; choose another -o"
        )
    if resume:
        if not folder.is_dir() or not _is_run(folder):
            raise CheckpointError(f"no run in {folder} to resume; check -o, or leave --resume out")
        return
    if not folder.parent.is_dir():
        raise CheckpointError(f"no folder {folder.parent} to make {folder.name} in; create it")
    if folder.is_symlink() and not folder.exists():
        raise CheckpointError(f"{folder} is a link to nothing; choose another -o")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; choose another -o")
    if folder.exists() and any(folder.iterdir()):
        if not _is_run(folder):
            raise CheckpointError(f"{folder} holds something else; choose another -o")
        if not overwrite:
            raise CheckpointError(
                f"{folder} holds a run already; pass --resume to go on with it, --overwrite to "
                "start anew, or another -o"
            )


def _is_run(folder: Path) -> bool:
    try:
        return read_settings(folder).get("made_by") == _MADE_BY
    except CheckpointError:
        return False


def clear_folds(folder: Path) -> None:
    """Remove what a training of folds left beside the files of its last run."""
    for path in folder.glob(f"{FOLD_PREFIX}*"):
        if path.is_dir() and not path.is_symlink() and _is_run(path):
            _clear(path)
            if not any(path.iterdir()):
                path.rmdir()
    (folder / FOLDS_FILE).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    for pattern in _WRITTEN:
        for path in folder.glob(pattern):
            path.unlink()


def begin(folder: Path, settings: Mapping[str, Any], digest: str) -> None:
    """Make the folder, remove what an earlier run left, and write what was asked for."""
    folder.mkdir(exist_ok=True)
    _clear(folder)
    write_json(folder / SETTINGS_FILE, {"made_by": _MADE_BY, "digest": digest, **settings})


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what a run was asked for. Raises CheckpointError."""
    try:
        entry = json_schema.parse((folder / SETTINGS_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / SETTINGS_FILE} cannot be read ({error}); start anew with another -o"
        ) from None
    if not isinstance(entry, dict):
        raise CheckpointError(f"{folder / SETTINGS_FILE} is of no run; start anew with another -o")
    return entry


def write_split(folder: Path, division: Division) -> None:
    """Write split.csv: which photos were trained on and which asked, for a later `eval`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "class", "split"))
    for split, which in (("train", division.train), ("test", division.test)):
        writer.writerows((photo.path.resolve(), photo.label, split) for photo in which)
    atomic.write_text(folder / SPLIT_FILE, text.getvalue())


def is_finished(folder: Path) -> bool:
    """Tell whether a run in `folder` came to its end; the state goes last."""
    return (folder / SCORES_FILE).is_file() and not (folder / STATE_FILE).is_file()


@dataclass(frozen=True)
class Finished:
    """What came out of a training.

    scores[network][protocol] holds map, tie_aware_map, recall, ...; history: a row for each epoch;
    reached: by network; advice: what to try next, None where nothing stands out. folds: the scores
    of folds, whose photos the model learned from too; then it has no others.
    """

    scores: dict[str, dict[str, dict[str, Any]]]
    history: list[dict[str, float]]
    reached: dict[str, Reached] = field(default_factory=dict)
    advice: str | None = None
    folds: FoldScores | None = None


def write_scores(folder: Path, done: Finished) -> None:
    """Write scores.json; the log is written as the training goes."""
    reached = {name: found.to_json() for name, found in done.reached.items()}
    entry = {**done.scores, REACHED: reached, ADVICE: done.advice}
    if done.folds is not None:
        entry[FOLDS] = done.folds.to_json()
    write_json(folder / SCORES_FILE, entry)


def read_finished(folder: Path) -> Finished:
    """Return what a finished run left. Raises CheckpointError."""
    try:
        entry = json_schema.parse((folder / SCORES_FILE).read_bytes())
        _BESIDE(entry, "")
        shares, advice = entry.pop(REACHED, {}), entry.pop(ADVICE, None)
        folds = FoldScores.from_json(entry.pop(FOLDS)) if FOLDS in entry else None
        _SCORES(entry, "")
        for protocols in entry.values():
            for values in protocols.values():
                for name in ("recall", "precision"):  # JSON knows keys as strings only
                    values[name] = {int(k): v for k, v in values[name].items()}
        reached = {name: Reached.from_json(found) for name, found in shares.items()}
        with (folder / LOG_FILE).open(encoding="utf-8", newline="") as stream:
            history = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
    except (OSError, ValueError, TypeError) as error:  # a row of a log may be too long
        raise CheckpointError(
            f"{folder} is finished, but its results cannot be read ({error}); pass --overwrite to "
            "train anew"
        ) from None
    return Finished(entry, history, reached, advice, folds)


def write_json(path: Path, entry: Mapping[str, Any]) -> None:
    """Write a JSON file, atomically."""
    atomic.write_text(path, json.dumps(entry, indent=2, ensure_ascii=False) + "\n")


def write_log(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write log.csv, one row per epoch; written whole each time, so a resumed log has no seam."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: _short(value) for name, value in row.items()})
    atomic.write_text(folder / LOG_FILE, text.getvalue())


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
