"""`fgdeploy parity` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_parity(run: Run, moths: Path, bundle: Path) -> None:
    good = run("parity", moths, "--bundle", bundle, "--json")
    assert good.exit_code == 0, good.output
    entry = json.loads(good.stdout)
    assert (entry["reference"], entry["candidate"]) == ("onnxruntime:fp32", "openvino:fp32")
    assert entry["bit_agreement"] == 1.0
    assert entry["map_drop"] == 0
    against = run(
        "parity", moths, "-b", bundle, "--reference", "pytorch", "--candidate", "openvino"
    )
    assert against.exit_code == 0, against.output
    assert "openvino against pytorch on 18 photos" in against.stdout
    one = sorted(moths.rglob("*.jpg"))[0]
    few = run("parity", one, "--bundle", bundle)
    assert few.exit_code == 0
    assert "not measured (too few photos, or no labels): top-10 overlap, mAP drop" in few.stderr
    unanswered = run("parity", one, "--bundle", bundle, "--min-top10", "0.5")
    assert unanswered.exit_code == 1
    assert "top-10 overlap cannot be measured here" in unanswered.stderr
    breach = run("parity", moths, "--bundle", bundle, "--max-hash-diff", "0")
    assert breach.exit_code == 1
    assert "does not keep to onnxruntime:fp32: max |hash difference| is" in breach.stderr
    fails(
        run("parity", moths, "-b", bundle, "--candidate", "onnxruntime:int8"),
        1,
        "holds no int8 graph, only fp32",
    )
    fails(run("parity", moths, "-b", bundle, "--candidate", "abacus"), 2, "no backend 'abacus'")


def test_parity_is_recorded_on_request(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "own.fgd")
    assert run("parity", moths, "--record").exit_code == 0
    entry = json.loads((tmp_path / "own.fgd" / "manifest.json").read_text())["parity"]
    assert (entry["candidate"], entry["photos"]) == ("openvino:fp32", 18)
    assert run("inspect").exit_code == 0


def test_bundle_and_photos_in_any_order(run: Run, moths: Path, bundle: Path) -> None:
    few = ("--images", "4", "--json")
    first = run("parity", bundle, moths, *few)
    assert first.exit_code == 0, first.output
    for words in ([moths, bundle], [moths, "-b", bundle], [bundle, "--data", moths]):
        assert run("parity", *words, *few).stdout == first.stdout
    shutil.copytree(bundle, "own.fgd")
    Path("moths").symlink_to(moths)
    assert run("parity", "moths", *few).exit_code == 0
    alone = run("parity", *few)
    assert alone.exit_code == 0
    assert "photos to compare on: moths/split.csv, the only ones here" in alone.stderr
    Path("moths").unlink()
    fails(run("parity"), 2, "there are no photos here to compare on; name real ones with --data")
