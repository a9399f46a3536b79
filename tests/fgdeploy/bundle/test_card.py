"""The card of a bundle: what is written is read, and what is no card, or another's, is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import MANIFEST, Bundle, card, open_bundle, seal
from fgdeploy.bundle.card import Card, Stated, TrainingList
from fgdeploy.core import atomic
from fgdeploy.core.errors import BundleError
from tests.checks import refused

FINGERPRINT = "0f" * 32
FULL = Card(
    FINGERPRINT,
    Stated("Moths", "Two lines\nof words", "MIT", "https://x.test/", "1.0", "Ada", "@misc{a}"),
    Stated(name="moth photos", license="CC-BY-4.0"),
    Stated(name="vit", license="apache-2.0"),
    TrainingList({"train": 4, "test": 2}, 3, "ab" * 32, 120),
    {"recipe": "fast", "epochs": 2, "scores": {"symmetric": 0.5}},
)


@pytest.fixture
def toy(toy_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_bundle, tmp_path / "toy.fgd"))


@pytest.mark.parametrize("one", [FULL, Card(FINGERPRINT)])
def test_what_is_written_is_read(one: Card) -> None:
    content = one.to_bytes()
    assert card.parse(content, "x") == one
    assert one.to_bytes() == content


def test_it_is_json_ld_with_the_terms_of_croissant() -> None:
    entry = json.loads(FULL.to_bytes())
    assert (entry["@type"], entry["identifier"]) == ("CreativeWork", FINGERPRINT)
    data = entry["trainingData"]
    (file,), (records,) = data["distribution"], data["recordSet"]
    assert (data["@type"], file["@type"], records["@type"]) == (
        "sc:Dataset",
        "cr:FileObject",
        "cr:RecordSet",
    )
    assert (file["sha256"], file["contentSize"]) == ("ab" * 32, "120 B")
    for field in records["field"]:
        assert field["@id"] == f"photos/{field['name']}"
        assert field["source"]["fileObject"] == {"@id": file["@id"]}
        assert field["source"]["extract"] == {"column": field["name"]}
    prefixes = {"sc", "cr"}
    known = set(entry["@context"])
    assert {"citeAs", "recordSet", "field", "source", "extract", "column"} | prefixes <= known


def test_a_bundle_without_one_has_an_empty_card(toy: Path) -> None:
    bundle = open_bundle(toy)
    assert card.read(bundle) == Card(bundle.manifest.fingerprint)


def _with(toy: Path, entry: Any) -> Bundle:
    raw = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    return open_bundle(toy).with_file(card.FILE, raw)


def _odd(**change: Any) -> dict[str, Any]:
    return {**json.loads(FULL.to_bytes()), **change}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (b"{", "card.json is damaged"),
        (b"\xff", "card.json is damaged"),
        ([], "expected an object"),
        (_odd(schema_version=2), "schema_version is 2, expected 1"),
        (_odd(license=["MIT"]), "license is a list, expected some text"),
        (_odd(name="x\x1b[2J"), "name: expected printable text"),
        (_odd(name="x" * 5000), "name: expected printable text of up to 4000"),
        (_odd(trainingData=3), "trainingData is 3"),
        (_odd(isBasedOn="x"), "isBasedOn is"),
        (_odd(trainingData={"distribution": []}), "no entry 'trainingData.photos'"),
        (_odd(training={"a": float(10**300)}), ""),
    ],
)
def test_a_damaged_card_is_refused(toy: Path, entry: Any, words: str) -> None:
    if words:
        bundle = _with(toy, entry)
        with refused(BundleError, words):
            card.read(bundle)


def test_a_changed_card_is_refused_by_its_sum(toy: Path) -> None:
    bundle = _with(toy, _odd())
    (bundle.path / card.FILE).write_bytes(FULL.to_bytes().replace(b"MIT", b"BSD"))
    with refused(BundleError, r"card\.json: (its sha256 is not|expected \d+ bytes)"):
        open_bundle(toy)


def test_the_card_of_another_model_is_refused(toy: Path) -> None:
    with refused(BundleError, "card of another model .fingerprint 0f0f0f0f0f0f, the manifest has"):
        card.read(_with(toy, _odd()))


def test_a_link_is_no_card(toy: Path) -> None:
    (toy / "other").write_bytes(FULL.to_bytes())
    (toy / card.FILE).symlink_to("other")
    with refused(BundleError, "no regular file"):
        card.read(open_bundle(toy))


def test_a_file_of_no_calibration_leaves_it_as_it_is(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_bundle(toy).manifest
    summary = {"range": "mse", "photos": 3}
    bundle = seal(toy, dataclasses.replace(manifest, calibration=summary))
    own = dataclasses.replace(FULL, fingerprint=manifest.fingerprint)
    assert bundle.with_file(card.FILE, own.to_bytes()).manifest.calibration == summary
    bundle = open_bundle(toy)
    assert (card.read(bundle), bundle.manifest.calibration) == (own, summary)
    # The power fails before the manifest lists the new card: the bundle opens, and has it.
    texts: list[Path] = []
    real = atomic.write_text

    def once(target: Path, text: str) -> None:
        texts.append(target)
        if len(texts) > 1:
            raise OSError(28, "no space", str(target))
        real(target, text)

    monkeypatch.setattr(atomic, "write_text", once)
    other = dataclasses.replace(own, model=Stated("Other"))
    with pytest.raises(OSError, match="no space"):
        bundle.with_file(card.FILE, other.to_bytes())
    found = open_bundle(toy)
    assert card.FILE not in found.manifest.files and texts[0].name == MANIFEST
    assert (card.read(found), found.manifest.calibration) == (other, summary)
