"""`fgdeploy index threshold`, and what `index stats` says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fgdeploy.retrieval import Index
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails
from tests.fgdeploy.gallery.test_threshold import BITS, MODEL, clustered


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make g.fgi in the working folder: 4 labels of 20 items."""
    monkeypatch.chdir(tmp_path)
    with Index.create("g.fgi", MODEL, BITS) as index:
        index.add(clustered(4, 20))


@pytest.mark.usefixtures("clusters")
def test_it_is_found_noted_and_shown(run: Run) -> None:
    assert "threshold   none; `index threshold` finds one" in run("index", "stats").stdout
    result = run("index", "threshold")
    assert result.exit_code == 0, result.output
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert rows["threshold"].endswith(" bits: an answer that is farther is unknown")
    assert "80 items of 4 labels, 80 scenes" in result.stdout
    bits = int(rows["threshold"].split()[0])
    shown = run("index", "stats", "g.fgi").stdout
    shares = "100% of known photos and 0% of unknown classes"
    assert f"{bits} bits, within which {shares} are; measured on 80 items\n" in shown
    found = json.loads(run("index", "threshold", "--json").stdout)
    assert (found["bits"], found["asked"], found["stale"]) == (bits, 80, False)
    assert json.loads(run("index", "stats", "--json").stdout)["threshold"] == found
    fewer = json.loads(run("index", "threshold", "--accept", "0.5", "--json").stdout)
    assert fewer["bits"] < bits and fewer["accept"] == 0.5


@pytest.mark.usefixtures("clusters")
def test_a_gallery_that_grew_is_said(run: Run) -> None:
    run("index", "threshold")
    with Index.open("g.fgi") as index:
        index.add(clustered(4, 11, seed=5))
    assert "80 items; stale: the index has 124 now, measure again" in run("index", "stats").stdout
    assert json.loads(run("index", "stats", "--json").stdout)["threshold"]["stale"] is True


@pytest.mark.usefixtures("clusters")
def test_what_is_refused(run: Run) -> None:
    fails(run("index", "threshold", "--accept", "1.5"), 2, "accept 1.5: expected a share")
    fails(run("index", "threshold", "--sample", "5"), 2, "--sample 5: expected .* of 30 or more")
    fails(run("index", "threshold", "--apart", "-1"), 2, "apart -1.0: expected seconds")
    with Index.open("g.fgi") as index:
        index.remove([item.id or 0 for item in index.items() if item.label != "label 0"])
    fails(run("index", "threshold"), 1, "all 20 labelled items have one label, which proves noth")


@pytest.mark.usefixtures("clusters")
def test_doubts_are_said(run: Run) -> None:
    with Index.open("g.fgi") as index:
        index.add(clustered(4, 60, flips=0, seed=9))
    result = run("index", "threshold", "--accept", "0.99")
    assert "of the items have another of their label with the same code" in result.stderr
