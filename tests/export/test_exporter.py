"""Whole exports: settings in, a proven bundle out, or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fgdeploy.bundle import Output, onnx_scan, open_bundle
from fgdeploy.bundle.fingerprint import GRAPH_NOTE
from fgdeploy.core.errors import (
    BundleError,
    CheckpointError,
    DataError,
    ExportError,
    FgdeployError,
    StageError,
    UsageError,
)
from fgdeploy.engines import open_engine
from fgdeploy.export import exporter, verify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import Exported, export_bundle, rebuild
from fgdeploy.export.reference import PyTorchEngine
from fgdeploy.models import assembly
from fgdeploy.models.backbone import hub
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.stages import Stage
from tests.checks import refused
from tests.export.small import MINI, NAMES, RANDOM, TINY, frames_of


def test_manifest_says_what_was_made(random_export: Exported) -> None:
    manifest = random_export.bundle.manifest
    assert manifest.options == {"stages": [[2, 8], [4, 4], [5, 2]], "transposed_mask": False}
    assert [dataclasses.astuple(rows) for rows in manifest.blocks] == [
        (1, 17, 17, 17, 17, 17),
        (2, 17, 17, 17, 9, 9),
        (3, 9, 9, 9, 9, 9),
        (4, 9, 9, 9, 5, 5),
        (5, 5, 5, 5, 3, 3),
        (6, 3, 1, 3, 1, 1),
    ]
    assert manifest.outputs == {
        "code": Output("uint8", (2,)),
        "hash": Output("float32", (12,)),
        "embedding": Output("float32", (64,)),
    }
    assert (manifest.grid, manifest.classes) == ((4, 4), ())
    assert manifest.graph["pins"] == ["steps.*.select/*"]
    assert manifest.graph["simplifications"] == list(NAMES)
    assert (manifest.bits, manifest.code_bytes, manifest.patches) == (12, 2, 16)
    assert manifest.macs["exported"] < manifest.macs["published"] < manifest.macs["dense"]
    assert manifest.parity is not None
    assert manifest.parity["photos"] == 8
    assert manifest.preprocess.mean == (0.5, 0.5, 0.5)
    assert set(manifest.files) == {"model.onnx", "head.npz", "card.json"}


def test_the_same_settings_give_the_same_codes(random_export: Exported, tmp_path: Path) -> None:
    again = export_bundle(RANDOM, tmp_path / "again.fgd")
    assert again.bundle.manifest.fingerprint == random_export.bundle.manifest.fingerprint
    other = export_bundle(dataclasses.replace(RANDOM, seed=1), tmp_path / "other.fgd")
    assert other.bundle.manifest.fingerprint != random_export.bundle.manifest.fingerprint


def test_opset_20_and_other_backbones(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        RANDOM, backbone="vit_small_patch14_reg4_dinov2", image_size=56, options={}, opset=20
    )
    done = export_bundle(settings, tmp_path / "dino.fgd")
    assert done.bundle.manifest.graph["opset"] == 20
    assert done.bundle.manifest.prefix_tokens == 5
    assert [keep for _, keep in done.bundle.manifest.options["stages"]] == [8, 4, 1]


def test_authors_checkpoint_brings_everything(authors_checkpoint: Path, tmp_path: Path) -> None:
    told: list[str] = []
    done = export_bundle(
        ExportSettings(checkpoint=authors_checkpoint), tmp_path / "eet.fgd", notify=told.append
    )
    manifest = done.bundle.manifest
    assert (manifest.backbone, manifest.bits, manifest.image_size) == (TINY, 24, 224)
    assert [keep for _, keep in manifest.options["stages"]] == [98, 49, 12]
    assert manifest.head == {"kind": "trained", "classes": 5}
    assert any(TINY in line for line in told)
    # The hash by hand: class head, then hash head, on the published network's CLS token.
    encoder = assembly.choose(ExportSettings(checkpoint=authors_checkpoint).network()).encoder()
    network = Network(encoder, NoHead())
    frames = frames_of(3, 224)
    state = torch.load(authors_checkpoint, weights_only=True)["model"]
    pixels = network.pixels(torch.tensor(frames).permute(0, 3, 1, 2))
    embedding = network.published()(pixels).embedding
    logits = embedding @ state["module.head.weight"].T + state["module.head.bias"]
    hashes = logits @ state["module.head_hash.weight"].T + state["module.head_hash.bias"]
    with open_engine(done.bundle, "onnxruntime") as engine:
        assert np.abs(engine.run(frames).hash - hashes.detach().numpy()).max() < 1e-4
    assert isinstance(rebuild(done.bundle, authors_checkpoint), PyTorchEngine)


def test_the_fingerprint_covers_what_no_weight_shows(random_export: Exported) -> None:
    chosen = assembly.choose(RANDOM.network())
    weights = random_export.bundle.manifest.weights["sha256"]
    same = exporter._fingerprint(chosen, weights)
    assert same == random_export.bundle.manifest.fingerprint
    for other in (
        dataclasses.replace(
            chosen, source=dataclasses.replace(chosen.source, backbone="one_of_more_heads")
        ),
        dataclasses.replace(
            chosen, preprocess=dataclasses.replace(chosen.preprocess, interpolation="bicubic")
        ),
        dataclasses.replace(chosen, preprocess=dataclasses.replace(chosen.preprocess, square=True)),
        dataclasses.replace(chosen, options=EETOptions((Stage(2, 8), Stage(4, 4)))),
    ):
        assert exporter._fingerprint(other, weights) != same
    assert exporter._fingerprint(chosen, "ab" * 32) != same
    notes = onnx_scan.check(random_export.bundle.path / "model.onnx")
    assert notes[GRAPH_NOTE] == same and set(notes) >= {"fgdeploy.pins", "fgdeploy.half"}


def test_the_key_of_a_checkpoint_is_kept_for_its_reference() -> None:
    settings = dataclasses.replace(RANDOM, checkpoint=Path("c.pth"), weights_key="teacher")
    kept = exporter._weights(settings, assembly.choose(RANDOM.network()), "ab" * 32)
    assert kept["key"] == "teacher" and kept["sha256"] == "ab" * 32


def test_the_fingerprint_is_that_of_all_bundles_so_far(random_export: Exported) -> None:
    """Indexes of the first versions go on: these facts, in this form, are what they hold."""
    manifest = random_export.bundle.manifest
    facts = {
        "method": "eet",
        "backbone": MINI,
        "stages": [
            {"block": 2, "tokens_in": 16, "keep": 8},
            {"block": 4, "tokens_in": 8, "keep": 4},
            {"block": 5, "tokens_in": 4, "keep": 2},
        ],
        "preprocess": {
            "size": 64,
            "resize": 73,
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "crop": "center",
            "colour": "RGB",
            "folded_into_graph": True,
        },
        "weights": manifest.weights["sha256"],
    }
    text = json.dumps(facts, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == manifest.fingerprint


@pytest.mark.parametrize(
    ("change", "kind", "pattern"),
    [
        ({"bits": 4}, UsageError, "8 to 512 bits, not 4"),
        ({"bits": 513}, UsageError, "8 to 512 bits, not 513"),
        ({"method": "nope"}, UsageError, "there is no method 'nope'; choose one of eet"),
        ({"head": "magic"}, UsageError, "--head 'magic': choose"),
        ({"weights": "hope"}, UsageError, "--weights 'hope': choose pretrained or random"),
        ({"opset": 21}, UsageError, "--opset 21: choose 18 to 20"),
        ({"crop": 0.0}, UsageError, "--crop 0.0: expected"),
        ({"seed": -1}, UsageError, "--seed -1"),
        ({"head": "itq"}, UsageError, "--head itq is fitted on photos.*--fit-data"),
        ({"head": "trained"}, CheckpointError, "trained head needs a --checkpoint"),
        ({"without": frozenset({"speed"})}, UsageError, "--without speed: choose from fold-"),
        ({"logits": True}, CheckpointError, "--logits needs a class head, and random has none on"),
        ({"options": {"stages": "2:17"}}, StageError, "keeps 17 patch tokens, but 16 arrive"),
        ({"options": {"stages": "6:3"}}, StageError, "below 6"),
        ({"fit_data": Path("nowhere")}, DataError, "no folder, image or CSV at nowhere"),
        ({"checkpoint": Path("none.pth")}, CheckpointError, "no checkpoint at none.pth"),
    ],
)
def test_bad_settings(
    tmp_path: Path, change: dict[str, object], kind: type[FgdeployError], pattern: str
) -> None:
    with pytest.raises(kind, match=pattern) as caught:
        export_bundle(dataclasses.replace(RANDOM, **change), tmp_path / "x.fgd")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_targets(random_export: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name ends in \.fgd"):
        export_bundle(RANDOM, tmp_path / "model")
    with pytest.raises(BundleError, match=r"no folder .*gone.* create it"):
        export_bundle(RANDOM, tmp_path / "gone" / "x.fgd")
    (tmp_path / "mine.fgd").mkdir()
    (tmp_path / "mine.fgd" / "thesis.txt").write_text("dear")
    with pytest.raises(BundleError, match="there already; pass --overwrite"):
        export_bundle(RANDOM, tmp_path / "mine.fgd")
    with pytest.raises(BundleError, match="is no bundle, so it is not overwritten"):
        export_bundle(RANDOM, tmp_path / "mine.fgd", overwrite=True)
    assert (tmp_path / "mine.fgd" / "thesis.txt").read_text() == "dear"


def test_overwriting_replaces_only_when_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.fgd"
    export_bundle(RANDOM, target)
    before = (target / "manifest.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(verify, "MAX_HASH_DIFF", 0.0)
        with pytest.raises(ExportError):
            export_bundle(RANDOM, target, overwrite=True)
    assert (target / "manifest.json").read_text() == before
    export_bundle(dataclasses.replace(RANDOM, bits=16), target, overwrite=True)
    assert open_bundle(target).manifest.bits == 16
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.fgd"]


def test_rebuilding_from_other_weights_is_refused(authors_checkpoint: Path, tmp_path: Path) -> None:
    done = export_bundle(
        ExportSettings(checkpoint=authors_checkpoint, image_size=64), tmp_path / "x.fgd"
    )
    with pytest.raises(UsageError, match=r"--checkpoint eet_authors.pth"):
        rebuild(done.bundle, None)
    content = torch.load(authors_checkpoint, weights_only=True)
    content["model"]["module.norm.bias"] += 0.1
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ExportError, match=r"other weights than x\.fgd was exported from"):
        rebuild(done.bundle, tmp_path / "other.pth")


def test_offline_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        CheckpointError, match=r"network.*--checkpoint FILE.*--weights random"
    ) as caught:
        export_bundle(dataclasses.replace(RANDOM, weights="pretrained"), tmp_path / "x.fgd")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.fgd").exists()


def test_manifest_is_plain_json(random_export: Exported) -> None:
    text = (random_export.bundle.path / "manifest.json").read_text(encoding="utf-8")
    entry = json.loads(text)
    assert entry["schema_version"] == 2
    assert entry["grid"] == [4, 4]


def test_a_dense_export_has_nothing_to_pin(tmp_path: Path) -> None:
    settings = dataclasses.replace(RANDOM, options={"stages": "none"})
    manifest = export_bundle(settings, tmp_path / "dense.fgd").bundle.manifest
    assert manifest.options["stages"] == []
    assert [rows.tokens for rows in manifest.blocks] == [17] * 6


def test_a_pin_that_no_node_has_the_name_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in ({"pins": ("steps.*.selects/*",)}, {"half": ("router/*",)}):
        method = dataclasses.replace(registry.get("eet"), **changes)  # type: ignore[arg-type]
        monkeypatch.setattr(registry, "METHODS", {"eet": method})
        with refused(
            ExportError, r"no node of the graph is called .*, which eet pins; name the mo"
        ):
            export_bundle(RANDOM, tmp_path / "x.fgd")
        assert list(tmp_path.iterdir()) == []
