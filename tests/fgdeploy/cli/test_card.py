"""`fgdeploy card`: shown, stated, taken back, and what cannot be stated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fgdeploy.bundle import open_bundle
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_a_card_is_shown_stated_and_taken_back(run: Run, bundle: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "eet.fgd"))
    before = open_bundle(own).manifest
    assert "licence              unknown\n" in run("card").stdout
    result = run(
        "card", own, "--license", "MIT", "--name", "Owls <b>", "--data-license", "CC-BY-4.0",
        "--release", "2.0",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for line in ("licence              MIT\n", "licence of the data  CC-BY-4.0\n", "Owls <b>\n"):
        assert line in result.stdout
    after = open_bundle(own).manifest
    assert after.fingerprint == before.fingerprint
    assert {**after.files, "card.json": 0} == {**before.files, "card.json": 0}
    shown = run("inspect", own).stdout
    assert shown.startswith("name        Owls <b>\nlicence     MIT\n")
    entry = json.loads(run("card", own, "--license", "", "--json").stdout)
    assert "license" not in entry and entry["version"] == "2.0"
    assert entry["trainingData"]["license"] == "CC-BY-4.0"
    sums = {file["name"]: file["sha256"] for file in entry["distribution"]}
    assert sums == {
        name: facts["sha256"] for name, facts in open_bundle(own).manifest.files.items()
    }


def test_a_signature_of_the_card_before_is_told(run: Run, bundle: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "eet.fgd"))
    assert "sign it again" not in run("card", own, "--license", "MIT").output
    (own / "model.sig").write_text("{}")
    assert "is of the card before; sign it again" in run("card", own, "--license", "BSD").output


def test_what_cannot_be_stated(run: Run, bundle: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "eet.fgd"))
    before = (own / "card.json").read_bytes()
    fails(run("card", own, "--license", "x\x1b[2J"), 2, "license .*: expected printable text")
    fails(run("card", own, "--data-name", "x" * 5000), 2, "data name .*: expected printable text")
    fails(run("card", "none.fgd", "--license", "MIT"), 1, "none.fgd does not exist")
    assert (own / "card.json").read_bytes() == before
