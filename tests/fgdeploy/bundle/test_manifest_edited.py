"""Any edit of `manifest.json`: refused, or a manifest that says the same, never another answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import MANIFEST, Manifest, open_bundle
from fgdeploy.bundle.fingerprint import GRAPH_NOTE, fingerprint
from fgdeploy.bundle.manifest import digest
from fgdeploy.core import json_schema
from fgdeploy.core.errors import BundleError
from fgdeploy.report.describing import proof_line, sections
from tests.checks import refused
from tests.conftest import toy_manifest
from tests.fgdeploy.bundle.edits import edit, put, relist
from tests.mutants import PYTHON_WORDS, mutants

PARITY = {
    **{"reference": "pytorch:fp32", "candidate": "onnxruntime:fp32", "photos": 8},
    **{"max_hash_diff": 1e-05, "bit_agreement": 1.0, "map_drop": None},
    "output_errors": {"embedding": 1e-07},
}
CALIBRATION = {"range": "mse", "photos": 8, "in_float": ["a"], "bit_agreement": 0.99}


@pytest.fixture(scope="module")
def entry(toy_bundle: Path) -> dict[str, Any]:
    """A manifest that says something of everything."""
    found = json.loads((toy_bundle / MANIFEST).read_text())
    found.update(parity=PARITY, calibration=CALIBRATION, limits={"min_bit_agreement": 0.999})
    found.update(classes=["crow", "größer"], deciding={"options": found["options"]})
    found["graph"].update(pins=["*.scores"], simplifications=["cls-last"])
    manifest = toy_manifest()
    found["fingerprint"] = fingerprint(
        manifest.method,
        manifest.backbone,
        found["deciding"],
        manifest.preprocess,
        manifest.weights["sha256"],
    )
    return {**found, "digest": digest(found)}


def test_every_flipped_bit_is_refused(entry: dict[str, Any]) -> None:
    """In every byte; but where it writes the same number in another way, such as 1E-05."""
    whole = json.dumps(entry, ensure_ascii=False, indent=1).encode()
    before, same = Manifest.from_json(entry), []
    for place, byte in enumerate(whole):
        for bit in {place % 8, (place // 3 + 4) % 8, 5}:
            raw = whole[:place] + bytes([byte ^ 1 << bit]) + whole[place + 1 :]
            try:
                found = Manifest.from_json(json_schema.parse(raw))
            except (ValueError, BundleError):
                continue
            assert found == before
            same.append(whole[place - 1 : place + 2])
    assert same == [b"1e-", b"1e-"]


def test_every_value_replaced_by_every_other_kind(entry: dict[str, Any]) -> None:
    """With a digest that agrees: only a BundleError in one line, or all of `inspect`."""
    opened = tried = 0
    for changed in mutants(entry):
        try:
            changed["digest"] = digest(changed)
        except (ValueError, RecursionError):
            changed["digest"] = ""
        tried += 1
        try:
            manifest = Manifest.from_json(changed)
        except BundleError as error:
            assert "\n" not in str(error) and len(str(error)) < 400
            assert not re.search(PYTHON_WORDS, str(error)), error
            continue
        opened += 1
        assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
        assert sections(manifest) and proof_line(manifest.parity or {}) is not None
    assert tried > 1000 and opened > 50


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preprocess", {"interpolation": "bilinear"}),
        ("preprocess", {"mean": [0.4, 0.5, 0.5]}),
        ("preprocess", {"resize": 37}),
        ("preprocess", {"square": True}),
        ("weights", {"sha256": "cd" * 32}),
    ],
)
def test_what_decides_a_code_changes_the_fingerprint(
    own_bundle: Path, name: str, value: Any
) -> None:
    before = open_bundle(own_bundle).manifest
    edit(own_bundle, lambda entry: entry[name].update(value))
    with refused(BundleError, "its fingerprint is not that of its method, .*, so one of them was"):
        open_bundle(own_bundle)

    def follow(entry: dict[str, Any]) -> None:
        made = {**before.to_json()[name], **value}
        weights = made["sha256"] if name == "weights" else before.weights["sha256"]
        changed = {**entry, name: made}
        preprocess = type(before.preprocess).from_json(changed["preprocess"])
        entry["fingerprint"] = fingerprint(
            before.method, before.backbone, before.deciding, preprocess, weights
        )

    edit(own_bundle, follow)
    assert open_bundle(own_bundle).manifest.fingerprint != before.fingerprint


@pytest.mark.parametrize("name", ["method", "backbone", "deciding", "fingerprint"])
def test_other_entries_that_decide_a_code(own_bundle: Path, name: str) -> None:
    put(own_bundle, name, {"deciding": {"a": 1}, "fingerprint": "cd" * 32}.get(name, "other"))
    with refused(BundleError, "its fingerprint is not that of its method"):
        open_bundle(own_bundle)


def test_the_graph_of_another_model_under_this_name(own_bundle: Path) -> None:
    import onnx

    path = own_bundle / "model.onnx"
    model = onnx.load(path)
    model.metadata_props.add(key=GRAPH_NOTE, value=toy_manifest().fingerprint)
    path.write_bytes(model.SerializeToString())
    relist(own_bundle, "model.onnx")
    open_bundle(own_bundle)
    model.metadata_props[0].value = toy_manifest("cd" * 32).fingerprint
    path.write_bytes(model.SerializeToString())
    relist(own_bundle, "model.onnx")
    with refused(BundleError, r"model\.onnx is the graph of another model \(fingerprint \w{12}, "):
        open_bundle(own_bundle)
