"""Manifests of schema 1, written out as the first versions wrote them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import BlockRows, Manifest, Output, open_bundle, sha256
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
    "fingerprint": "cd" * 32,
    "created_by": "fgdeploy 0.1.0",
    "thresholds": {"min_bit_agreement": 0.999, "min_top10": 0.99, "max_map_drop": 0.1},
    "parity": {"reference": "pytorch:fp32", "candidate": "onnxruntime:fp32", "photos": 8},
    "calibration": None,
    "files": {},
    "grid": [4, 4],
}


def old(**changes: Any) -> dict[str, Any]:
    """Return a copy of the manifest with some entries replaced."""
    return {**copy.deepcopy(OLD), **changes}


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
    manifest = Manifest.from_json(old(stages=[], prefix_tokens=5, graph=graph))
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
        ("stages", {}, "stages is dict, not list"),
        ("stages", None, "stages is NoneType, not list"),
        ("stages", [None], ".*"),
        ("stages", [3], ".*"),
        ("stages", ["1:2"], ".*"),
        ("stages", [{}], "no entry 'block'"),
        ("stages", [{"block": 1, "tokens_in": 4}], "no entry 'keep'"),
        ("stages", [{"block": "x", "tokens_in": 4, "keep": 2}], ".*'x'.*"),
        ("stages", [{"block": 1, "tokens_in": 4, "keep": float("inf")}], ".*"),
        ("stages", [{"block": 1, "tokens_in": 4, "keep": -4}], ".*not a number above zero"),
        ("image_size", "32", "image_size is str, not int"),
        ("image_size", 64, "preprocess gives 32 pixels, image_size is 64"),
        ("patch_size", 0, "patch_size is 0, not above zero"),
        ("patch_size", 64, ".*"),
        ("depth", 0, "depth is 0"),
        ("depth", 10**9, "depth is 1000000000"),
        ("depth", [6], ".*"),
        ("prefix_tokens", "x", ".*"),
        ("prefix_tokens", True, "prefix_tokens is bool, not int"),
        ("graph", None, ".*"),
        ("graph", {"outputs": {"code": 3}}, ".*"),
        ("graph", {"outputs": {"code": ["batch", 99]}}, "output code has the shape .*"),
        ("graph", {"outputs": {"hash": ["batch", "x"]}}, "the shape of an output is .*"),
        ("thresholds", None, "limits is NoneType, not dict"),
        ("thresholds", {"max_map_drop": "small"}, "limits.*'max_map_drop'.* is str, not a number"),
    ],
)
def test_damaged(name: str, value: Any, reason: str) -> None:
    with refused(BundleError, rf"manifest\.json is damaged: {reason}{AGAIN}"):
        Manifest.from_json(old(**{name: value}))
