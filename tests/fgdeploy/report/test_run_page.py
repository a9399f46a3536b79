"""The page of a run: from files alone, escaped, with pictures, and what is gone or damaged said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core.errors import CheckpointError, DataError
from fgdeploy.evaluation.worst_classes import WorstClass, WorstQuery, WrongAnswer, write_failures
from fgdeploy.photos import read
from fgdeploy.report.run_page import render_run
from fgdeploy.report.run_report import is_run, read_run
from tests.checks import refused
from tests.fgdeploy.report.conftest import LABELS

_REACHED = {"bits_equal": 0.9125, "codes_equal": 0.25, "gap": 0.18}


def _write_classes(folder: Path, rows: list[tuple[str, str, int, float]]) -> None:
    with (folder / "per_class.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("protocol", "class", "queries", "map", "tie_aware_map", "recall_at_1"))
        for protocol, name, queries, value in rows:
            writer.writerow((protocol, name, queries, value, value, value / 2))


@pytest.fixture
def run_folder(odd_photos: Path, tmp_path: Path) -> Path:
    """A folder as a training leaves it, of the odd photos."""
    folder = tmp_path / "my & run"
    folder.mkdir()
    paths = [str(photo.path) for photo in read(odd_photos)]
    found = {"map": 0.4321, "tie_aware_map": 0.43, "recall": {"1": 0.75}, "precision": {}}
    scores: dict[str, Any] = {"student": {"asym_sign": found}}
    scores |= {"training_photos": {"student": _REACHED}, "advice": "train <longer>"}
    (folder / "scores.json").write_text(json.dumps(scores))
    config = {"method": "eet", "backbone": "tiny", "bits": 32, "training": {"epochs": 7}}
    (folder / "model.json").write_text(json.dumps(config))
    (folder / "log.csv").write_text("epoch,loss,seconds\n1,2.5,3\n2,1.25,\n")
    _write_classes(folder, [("asym_sign", LABELS[0], 6, 0.2), ("asym_sign", LABELS[1], 6, 0.5)])
    gone = WrongAnswer("/moved/away.png", LABELS[1], 3)
    queries = (
        WorstQuery(paths[0], 0.1, (WrongAnswer(paths[1], LABELS[1], 2), gone)),
        WorstQuery(paths[3], 0.3, (WrongAnswer(paths[2], LABELS[2], 4),)),
    )
    worst = [WorstClass(LABELS[0], 0.2, 6, LABELS[1], 4, queries)]
    write_failures(folder / "failures.csv", "asym_sign", worst)
    return folder


def test_the_page_says_what_the_run_left(run_folder: Path) -> None:
    assert is_run(run_folder)
    page = render_run(read_run(run_folder))
    for words in ("0.4321", "0.7500", "91.2%", "25.0%", "18.0%", "train &lt;longer&gt;", "1.25"):
        assert words in page, words
    assert "Report of the training my &amp; run" in page
    assert "mAP 0.2000 over 6 queries; taken for owl&quot; onload=" in page
    assert page.count("<img ") == 4 and page.count('src="data:image/jpeg;base64,') == 4
    assert page.count("cannot be shown") == 1  # the photo that moved away
    assert "distance 3" in page and "query, AP 0.10" in page
    assert "<script" not in page and 'onload="alert' not in page
    assert page == render_run(read_run(run_folder))


def test_fewer_pictures(run_folder: Path) -> None:
    made = read_run(run_folder)
    assert render_run(made, 1).count('<figure class="query">') == 1
    assert '<section id="failures">' not in render_run(made, 0)
    assert json.loads(json.dumps(made.to_json()))["failures"][0]["taken_for"] == LABELS[1]


def test_folds_are_pooled_over_their_queries(run_folder: Path) -> None:
    entry = json.loads((run_folder / "scores.json").read_text())
    means = {"map": {"mean": 0.5, "spread": 0.125}}
    entry["student"] = {}
    entry["folds"] = {"count": 2, "protocols": {"asym_sign": means}, "each": []}
    (run_folder / "scores.json").write_text(json.dumps(entry))
    (run_folder / "per_class.csv").unlink()
    for number, (queries, value, times) in enumerate(((2, 0.1, 1), (6, 0.5, 3)), start=1):
        fold = run_folder / f"fold-{number}"
        fold.mkdir()
        _write_classes(
            fold,
            [("asym_sign", LABELS[0], queries, value), ("symmetric", LABELS[0], 9, 0.9)],
        )
        query = WorstQuery(f"/q{number}.png", value, (WrongAnswer("/a.png", LABELS[2], 1),))
        worst = [WorstClass(LABELS[0], value, queries, LABELS[2], times, (query,))]
        write_failures(fold / "failures.csv", "asym_sign", worst)
    (run_folder / "failures.csv").unlink()
    made = read_run(run_folder)
    (one,) = made.classes
    assert (one.queries, one.map) == (8, pytest.approx((2 * 0.1 + 6 * 0.5) / 8))
    (failed,) = made.failures
    assert (failed.times, failed.queries, failed.taken_for) == (4, 8, LABELS[2])
    assert failed.map == one.map and [query.path for query in failed.shown] == ["/q1.png"]
    page = render_run(made)
    assert "0.5000 ± 0.1250" in page and "Mean and spread over 2 folds" in page


@pytest.mark.parametrize(
    "name,text,kind,words",
    [
        ("scores.json", "{", CheckpointError, "scores.json cannot be read"),
        ("scores.json", '{"student": {"x": 1}}', CheckpointError, "is no whole run"),
        ("scores.json", '{"folds": {"count": 1}}', CheckpointError, "is no whole run"),
        ("model.json", "[]", CheckpointError, "is of no run"),
        ("model.json", "{}", CheckpointError, "is no whole run"),
        ("per_class.csv", "class,protocol\na,asym_sign\n", DataError, "no scores of classes"),
        ("failures.csv", "class\na\n", DataError, "holds no failures"),
    ],
)
def test_damaged_files_are_one_line(
    run_folder: Path, name: str, text: str, kind: type[Exception], words: str
) -> None:
    (run_folder / name).write_text(text)
    with refused(kind, words):
        render_run(read_run(run_folder))


def test_runs_of_before_have_a_page_without_failures(run_folder: Path) -> None:
    for name in ("failures.csv", "per_class.csv"):
        (run_folder / name).unlink()
    entry = json.loads((run_folder / "scores.json").read_text())
    (run_folder / "scores.json").write_text(json.dumps({"student": entry["student"]}))
    page = render_run(read_run(run_folder))
    assert "0.4321" in page
    assert '<section id="failures">' not in page and '<section id="classes">' not in page
