"""What a training leaves in its folder: log, scores, target codes, deployable weights."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgdeploy import atomic
from fgdeploy.errors import CheckpointError
from fgdeploy.training.state import STATE_FILE

LOG_FILE = "log.csv"
SCORES_FILE = "scores.json"
SETTINGS_FILE = "settings.json"


def prepare(folder: Path, resume: bool, overwrite: bool) -> None:
    """Make the run's folder, or check that it is one to go on in. Raises CheckpointError."""
    if resume:
        if not folder.is_dir():
            raise CheckpointError(f"no run in {folder} to resume; start it without --resume")
        return
    if not folder.parent.is_dir():
        raise CheckpointError(f"no folder {folder.parent} to make {folder.name} in; create it")
    if folder.exists():
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is a file; choose another -o")
        if any(folder.iterdir()):
            if not (folder / SETTINGS_FILE).is_file():
                raise CheckpointError(f"{folder} holds something else; choose another -o")
            if not overwrite:
                raise CheckpointError(
                    f"{folder} holds a run already; pass --resume to go on with it, --overwrite to "
                    "start anew, or another -o"
                )
            for entry in folder.iterdir():
                if entry.is_file():
                    entry.unlink()
    folder.mkdir(exist_ok=True)


def is_finished(folder: Path) -> bool:
    """Tell whether a run in `folder` came to its end; the state goes last."""
    return (folder / SCORES_FILE).is_file() and not (folder / STATE_FILE).is_file()


def read_finished(folder: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Return the scores and the log of a finished run. Raises CheckpointError."""
    try:
        scores = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
        with (folder / LOG_FILE).open(encoding="utf-8", newline="") as stream:
            history = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} is finished, but its results cannot be read ({error}); pass --overwrite to "
            "train anew"
        ) from None
    for protocols in scores.values():
        for values in protocols.values():
            for name in ("recall", "precision"):  # JSON knows keys as strings only
                values[name] = {int(k): v for k, v in values[name].items()}
    return scores, history


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
