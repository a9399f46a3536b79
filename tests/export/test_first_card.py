"""The card that an export writes: what is known by itself, without paths; notes in the graph."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

from fgdeploy.bundle import card, onnx_scan
from fgdeploy.bundle.card import Card, Stated
from fgdeploy.bundle.folder import sha256
from fgdeploy.export import first_card
from fgdeploy.export.exporter import Exported, export_bundle
from fgdeploy.models import assembly
from fgdeploy.models.methods import registry
from fgdeploy.models.weights import trained
from fgdeploy.photos.images import Preprocess
from tests.export.small import MINI, RANDOM


def test_random_weights_have_an_empty_card_of_this_model(random_export: Exported) -> None:
    bundle = random_export.bundle
    assert card.read(bundle) == Card(bundle.manifest.fingerprint)


def test_the_graph_says_what_it_is_and_equal_exports_are_equal_bytes(
    random_export: Exported, tmp_path: Path
) -> None:
    manifest = random_export.bundle.manifest
    notes = onnx_scan.check(random_export.bundle.path / "model.onnx")
    assert notes["fgdeploy.method"] == manifest.method
    assert json.loads(notes["fgdeploy.options"]) == manifest.options
    assert (notes["fgdeploy.bits"], notes["fgdeploy.backbone"]) == ("12", MINI)
    assert notes["fgdeploy.weights_sha256"] == manifest.weights["sha256"]
    assert "fgdeploy.weights_license" not in notes
    again = export_bundle(RANDOM, tmp_path / "another name.fgd").bundle
    assert again.manifest.files == manifest.files


def test_timm_says_the_licence_of_its_weights() -> None:
    settings = dataclasses.replace(RANDOM, weights="pretrained")
    found = first_card.first_card(settings, assembly.choose(RANDOM.network()), "ab" * 32)
    assert found.weights.license == "apache-2.0"
    assert found.weights.name is not None and found.weights.name.startswith(f"{MINI}.")
    assert found.weights.url is not None and "/timm/" in found.weights.url
    unknown = dataclasses.replace(
        assembly.choose(RANDOM.network()),
        source=dataclasses.replace(assembly.choose(RANDOM.network()).source, backbone="nobodys"),
    )
    assert first_card.first_card(settings, unknown, "ab" * 32) == Card("ab" * 32)


def test_a_training_brings_its_list_and_facts_but_no_paths(tmp_path: Path) -> None:
    run = tmp_path / "secret-home" / "run"
    run.mkdir(parents=True)
    with (run / "split.csv").open("w", newline="") as stream:
        rows = [(run / f"{i}.jpg", f"kind {i % 3}", ("train", "test")[i % 2]) for i in range(9)]
        csv.writer(stream).writerows([("path", "class", "split"), *rows])
    for index in range(9):
        (run / f"{index}.jpg").write_bytes(b"x")
    method = registry.get("eet")
    config = trained.TrainedConfig(
        *(
            "eet",
            MINI,
            64,
            12,
            method.options(),
            Preprocess(64, 73, "bicubic", (0.5,) * 3, (0.5,) * 3),
        ),
        ("kind 0",),
        {"recipe": "fast", "epochs": 2, "start": "pretrained", "scores": {"symmetric": 0.25}},
    )
    trained.save(run / "model.safetensors", {}, config)
    settings = dataclasses.replace(RANDOM, checkpoint=run)
    found = first_card.first_card(settings, assembly.choose(RANDOM.network()), "ab" * 32)
    assert found.training == config.training
    assert found.weights.license == "apache-2.0"
    listed = found.listed
    assert listed is not None
    assert (listed.photos, listed.classes) == ({"train": 5, "test": 4}, 3)
    assert (listed.sha256, listed.bytes) == (
        sha256(run / "split.csv"),
        (run / "split.csv").stat().st_size,
    )
    assert b"secret-home" not in found.to_bytes()
    assert card.parse(found.to_bytes(), "x") == found
    (run / "split.csv").write_text("nothing")
    assert first_card.first_card(settings, assembly.choose(RANDOM.network()), "ab" * 32) == (
        dataclasses.replace(found, listed=None)
    )


def test_an_export_over_a_bundle_keeps_what_was_stated_of_the_same_model(tmp_path: Path) -> None:
    target = tmp_path / "x.fgd"
    bundle = export_bundle(RANDOM, target).bundle
    stated = dataclasses.replace(card.read(bundle), model=Stated(license="MIT"))
    bundle.with_file(card.FILE, stated.to_bytes())
    told: list[str] = []
    fresh = Card(bundle.manifest.fingerprint)
    assert first_card.carried(fresh, target, told.append) == stated and told == []
    again = export_bundle(RANDOM, target, overwrite=True).bundle
    assert card.read(again) == stated
    other = Card("ab" * 32)
    assert first_card.carried(other, target, told.append) == other
    assert "was of another model and is not brought along" in told.pop()
    (target / card.FILE).write_bytes(b"{")
    assert first_card.carried(fresh, target, told.append) == fresh
    assert "is not brought along: " in told.pop()
