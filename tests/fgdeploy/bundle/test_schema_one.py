"""Manifests of schema 1, written out as the first versions wrote them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import BlockRows, Manifest, Output, open_bundle, sha256
from fgdeploy.bundle.manifest import digest
from fgdeploy.core.errors import BundleError
from tests.checks import refused

AGAIN = r"; export the bundle again$"

OLD: dict[str, Any] = {
    "schema_version": 1,
    "method": "eet",
    "backbone": "test_vit",
    "image_size": 32,
    "patch_size": 8,
    "depth": 6,
    "width": 64,
    "prefix_tokens": 1,
    "bits": 12,
    "stages": [
        {"block": 2, "tokens_in": 16, "keep": 8},
        {"block": 4, "tokens_in": 8, "keep": 4},
    ],
    "head": {"kind": "lsh", "seed": 0},
    "preprocess": {
        "size": 32,
        "resize": 37,
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop": "center",
        "colour": "RGB",
        "folded_into_graph": True,
    },
    "graph": {
        "opset": 18,
        "inputs": {"frames": ["batch", 32, 32, 3]},
        "outputs": {
            "code": ["batch", 2],
            "hash": ["batch", 12],
            "embedding": ["batch", 64],
            "logits": ["batch", 5],
        },
        "simplifications": [
            "early-gather",
            "cls-last",
            "cls-row",
            "fold-normalisation",
            "fold-hash-head",
        ],
    },
    "macs": {"dense": 3, "published": 2, "exported": 1},
    "weights": {"source": "random", "sha256": "ab" * 32, "seed": 0},
    "fingerprint": "",  # set below
    "created_by": "fgdeploy 0.1.0",
    "thresholds": {"min_bit_agreement": 0.999, "min_top10": 0.99, "max_map_drop": 0.1},
    "parity": {"reference": "pytorch:fp32", "candidate": "onnxruntime:fp32", "photos": 8},
    "calibration": None,
    "files": {},
    "grid": [4, 4],
}


def fingerprint(entry: dict[str, Any]) -> str:
    """Return the fingerprint that the first versions gave a model."""
    names = ("method", "backbone", "stages", "preprocess")
    facts = {**{name: entry[name] for name in names}, "weights": entry["weights"]["sha256"]}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


OLD["fingerprint"] = fingerprint(OLD)


def old(**changes: Any) -> dict[str, Any]:
    """Return a copy of the manifest with some entries replaced."""
    return {**copy.deepcopy(OLD), **changes}


def old_of(**changes: Any) -> dict[str, Any]:
    """Return the manifest of another model of that time."""
    entry = old(**changes)
    return {**entry, "fingerprint": fingerprint(entry)}


@pytest.fixture
def old_bundle(own_bundle: Path) -> Path:
    """A bundle as the first versions left it."""
    graph = own_bundle / "model.onnx"
    files = {"model.onnx": {"sha256": sha256(graph), "bytes": graph.stat().st_size}}
    (own_bundle / "manifest.json").write_text(json.dumps(old(files=files), indent=2))
    return own_bundle


def _rows(*numbers: tuple[int, int, int, int, int]) -> tuple[BlockRows, ...]:
    return tuple(BlockRows(block, *rows) for block, rows in enumerate(numbers, start=1))


def test_all_that_it_says_is_kept() -> None:
    manifest = Manifest.from_json(old())
    for name in ("method", "backbone", "bits", "depth", "width", "fingerprint", "created_by"):
        assert getattr(manifest, name) == OLD[name]
    for name in ("head", "macs", "weights", "parity", "calibration"):
        assert getattr(manifest, name) == OLD[name]
    assert manifest.options == {"stages": [[2, 8], [4, 4]], "transposed_mask": False}
    assert manifest.grid == (4, 4) and manifest.patches == 16
    assert manifest.limits == OLD["thresholds"]
    assert manifest.classes == ()
    assert not manifest.preprocess.square
    assert manifest.outputs == {
        "code": Output("uint8", (2,)),
        "hash": Output("float32", (12,)),
        "embedding": Output("float32", (64,)),
        "logits": Output("float32", (5,)),
    }
    assert manifest.graph == {
        name: value for name, value in OLD["graph"].items() if name != "outputs"
    }


@pytest.mark.parametrize(
    ("done", "rows"),
    [
        (
            ["early-gather", "cls-last"],
            [(17, 17, 17, 17, 17), (17, 17, 17, 9, 9), (9, 9, 9, 9, 9), (9, 9, 9, 5, 5)],
        ),
        (
            ["cls-last"],
            [(17, 17, 17, 17, 17), (17, 17, 17, 17, 17), (9, 9, 9, 9, 9), (9, 9, 9, 9, 9)],
        ),
        (
            ["early-gather"],
            [(17, 17, 17, 17, 17), (17, 17, 17, 9, 9), (9, 9, 9, 9, 9), (9, 9, 9, 5, 5)],
        ),
    ],
)
def test_rows_follow_from_stages_and_simplifications(
    done: list[str], rows: list[tuple[int, int, int, int, int]]
) -> None:
    manifest = Manifest.from_json(old(graph={**OLD["graph"], "simplifications": done}))
    last = (5, 1, 5, 1, 1) if "cls-last" in done else (5, 5, 5, 5, 5)
    assert manifest.blocks == _rows(*rows, (5, 5, 5, 5, 5), last)


def test_the_graph_of_a_dense_model_with_registers() -> None:
    graph = {"opset": 18, "simplifications": []}
    manifest = Manifest.from_json(old_of(stages=[], prefix_tokens=5, graph=graph))
    assert manifest.blocks == _rows(*[(21, 21, 21, 21, 21)] * 6)
    assert manifest.options["stages"] == []
    assert manifest.outputs == {}


def test_it_opens_and_is_of_schema_2_when_it_is_written_again(old_bundle: Path) -> None:
    opened = open_bundle(old_bundle)
    assert opened.manifest.options["stages"] == [[2, 8], [4, 4]]
    opened.record_parity({"photos": 3})
    entry = json.loads((old_bundle / "manifest.json").read_text())
    assert entry["schema_version"] == 2
    assert "thresholds" not in entry and "stages" not in entry
    again = open_bundle(old_bundle).manifest
    assert again.fingerprint == OLD["fingerprint"]
    assert again.blocks == opened.manifest.blocks
    assert again.parity == {"photos": 3}
    assert Manifest.from_json(json.loads(json.dumps(again.to_json()))) == again


def test_its_method_reads_its_options(old_bundle: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from fgdeploy.models.methods import registry
    from fgdeploy.models.methods.eet import EETOptions
    from fgdeploy.models.reduce.stages import Stage

    manifest = open_bundle(old_bundle).manifest
    options = registry.get(manifest.method).options.from_json(manifest.options)
    assert options == EETOptions(stages=(Stage(2, 8), Stage(4, 4)))


@pytest.mark.parametrize("name", [name for name in OLD if name not in ("schema_version", "grid")])
def test_missing_entry(name: str) -> None:
    entry = old()
    del entry[name]
    with refused(BundleError, rf"manifest\.json is damaged: no entry '{name}'{AGAIN}"):
        Manifest.from_json(entry)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("stages", {}, "stages is an object, expected a list"),
        ("stages", None, "stages is null, expected a list"),
        ("stages", [None], "stages.0 is null, expected an object"),
        ("stages", ["1:2"], 'stages.0 is "1:2", expected an object'),
        ("stages", [{}], "no entry 'stages.0.block'"),
        ("stages", [{"block": 1, "tokens_in": 4}], "no entry 'stages.0.keep'"),
        ("stages", [{"block": "x", "tokens_in": 4, "keep": 2}], 'stages.0.block is "x", .*'),
        ("stages", [{"block": 1, "tokens_in": 4, "keep": float("inf")}], ".* expected a number"),
        ("stages", [{"block": 1, "tokens_in": 4, "keep": -4}], ".*keep is -4, .* from 1 .*"),
        ("image_size", "32", 'image_size is "32", expected .*'),
        ("image_size", 64, "preprocess gives 32 pixels, image_size is 64"),
        ("patch_size", 0, "patch_size is 0, expected a whole number from 1 .*"),
        ("patch_size", 64, "grid.0 is 0, .*"),
        ("depth", 0, "depth is 0, expected .*"),
        ("depth", 10**9, "depth is 1000000000, expected .*"),
        ("depth", [6], "depth is a list, expected .*"),
        ("prefix_tokens", "x", 'prefix_tokens is "x", expected .*'),
        ("prefix_tokens", True, "prefix_tokens is true, expected .*"),
        ("graph", None, "graph is null, expected an object"),
        ("graph", {**OLD["graph"], "outputs": {"code": 3}}, "graph.outputs.code is 3, .*"),
        ("graph", {**OLD["graph"], "outputs": {"code": []}}, "graph.outputs.code is a list of 0.*"),
        (
            "graph",
            {**OLD["graph"], "outputs": {"code": ["batch", 99]}},
            "output code has the shape .*",
        ),
        (
            "graph",
            {**OLD["graph"], "outputs": {"hash": ["batch", "x"]}},
            'outputs.hash.shape.*"x".*',
        ),
        ("thresholds", None, "limits is null, expected an object"),
        ("thresholds", {"max_map_drop": "small"}, 'limits.max_map_drop is "small", expected .*'),
    ],
)
def test_damaged(name: str, value: Any, reason: str) -> None:
    with refused(BundleError, rf"manifest\.json is damaged: {reason}{AGAIN}"):
        Manifest.from_json(old(**{name: value}))


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["preprocess"].update(interpolation="bicubic"),
        lambda entry: entry["preprocess"].update(mean=[0.4, 0.5, 0.5]),
        lambda entry: entry["preprocess"].update(resize=36),
        lambda entry: entry["preprocess"].update(square=True),
        lambda entry: entry["weights"].update(sha256="cd" * 32),
        lambda entry: entry["stages"].pop(),
        lambda entry: entry.update(method="eetx"),
        lambda entry: entry.update(backbone="test_vit2"),
        lambda entry: entry.update(fingerprint="cd" * 32),
    ],
)
def test_what_decides_a_code_cannot_be_changed_without_a_digest_either(
    change: Callable[[dict[str, Any]], Any],
) -> None:
    entry = old()
    change(entry)
    with refused(BundleError, rf"damaged: its fingerprint is not that of its method.*{AGAIN}"):
        Manifest.from_json(entry)


def test_a_manifest_of_schema_2_before_it_said_what_decides() -> None:
    """As exports wrote them between the two: EET's stages follow from its options and grid."""
    entry = Manifest.from_json(old()).to_json()
    assert entry.pop("deciding") == {"stages": OLD["stages"]}
    entry["digest"] = digest(entry)
    assert Manifest.from_json(entry).fingerprint == OLD["fingerprint"]
    entry["options"]["stages"][0][1] = 9
    entry["digest"] = digest(entry)
    with refused(BundleError, "its fingerprint is not that of its method"):
        Manifest.from_json(entry)
    entry["options"]["stages"] = None
    entry["digest"] = digest(entry)
    with refused(BundleError, "options.stages is null, expected a list"):
        Manifest.from_json(entry)
