"""`fgdeploy report` as a user types it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.engines import build
from fgdeploy.evaluation.protocol import evaluate_photos
from fgdeploy.hasher import load
from fgdeploy.photos import read
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_a_page_without_photos_and_its_json(run: Run, bundle: Path, tmp_path: Path) -> None:
    done = run("report", bundle)
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert "wrote report.html" in done.stderr
    assert "eet on test_vit, 32 bits" in (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "report.html").unlink()
    entry = json.loads(run("report", bundle, "--json").stdout)
    assert entry["measured"] is None and entry["recorded"]["parity"]
    assert entry["commands"][-1] == f"fgdeploy report {bundle.name}"
    assert not (tmp_path / "report.html").exists()
    assert str(tmp_path.parent) not in json.dumps(entry)


def test_engines_that_were_built_are_measured_and_timed(
    run: Run, bundle: Path, moths: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "eet.fgd"))
    build(open_bundle(own), "openvino", "fp32")
    (own / "engines" / "torn").mkdir()
    words = ("--data", moths / "split.csv", "--rounds", 1, "--seconds", 0.01, "--json")
    done = run("report", own, *words, "-o", "new.html")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["measured"]
    assert [one["name"] for one in found["engines"]] == ["openvino:fp32", "onnxruntime:fp32"]
    with load(own, "openvino:fp32") as hasher:
        wanted = evaluate_photos(hasher, read(moths / "split.csv"))
    assert found["protocols"]["asym_sign"]["scores"]["map"] == wanted.scores.map
    assert found["engines"][0]["parity"]["bit_agreement"] > 0.99
    assert {one["engine"] for one in found["bench"]["contenders"]} == {
        "openvino:fp32",
        "onnxruntime:fp32",
    }
    assert "engine.json" in found["failed"]["eet torn"]
    page = Path("new.html").read_text(encoding="utf-8")
    assert "Latency of a call" in page and "openvino:fp32 (runs by default)" in page


def test_a_gallery_is_searched_too(
    run: Run, bundle: Path, moths: Path, tmp_path: Path, gallery: Path
) -> None:
    words = ("report", bundle, "--data", moths / "split.csv", "--no-timing", "--index", gallery)
    words += ("--backend", "onnxruntime")
    fails(run(*words), 1, "queries of these photos, such as .* would find themselves in")
    done = run(*words, "--allow-leaks", "--json")
    found = json.loads(done.stdout)["measured"]
    assert (found["headline"], next(iter(found["protocols"]))) == ("index", "index")
    scores = found["protocols"]["index"]["scores"]
    assert scores["gallery"] == 18 and scores["recall"]["1"] == 1.0  # each finds itself
    assert found["failing"]["wrong"] == 0


@pytest.mark.parametrize(
    ("words", "code", "pattern"),
    [
        (("-o", "page.pdf"), 2, "expected a name that ends in .html"),
        (("-o", "none/page.html"), 2, "expected a file name in a folder that exists"),
        (("--index", "g.fgi"), 2, "--index g.fgi is searched by photos; name them with --data"),
        (("--pictures", "101"), 2, "--pictures 101"),
        (("--data", "none.csv"), 1, "none.csv"),
    ],
)
def test_what_cannot_be(
    run: Run, bundle: Path, words: tuple[str, ...], code: int, pattern: str
) -> None:
    fails(run("report", bundle, *words), code, pattern)
    assert list(Path().iterdir()) == []


def test_without_matplotlib(
    run: Run, bundle: Path, moths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    need = r'the report with its plots needs the package matplotlib.*"fgdeploy\[report\]"'
    fails(run("report", bundle, "--data", moths / "split.csv"), 1, need)
    assert list(Path().iterdir()) == []
    assert run("report", bundle).exit_code == 0  # card and records need no plots


def test_an_engine_that_was_named_and_is_not_there(run: Run, bundle: Path, moths: Path) -> None:
    words = ("--data", moths / "split.csv", "--no-timing", "--backend", "onnxruntime:int8")
    result = run("report", bundle, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds no int8 graph" in result.stderr.splitlines()[-1]
    assert list(Path().iterdir()) == []
