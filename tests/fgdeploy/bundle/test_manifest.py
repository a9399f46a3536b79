"""What a manifest must hold, and how each thing that is wrong with one is said."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import BlockRows, Manifest, Output, open_bundle
from fgdeploy.bundle.manifest import digest
from fgdeploy.core.errors import BundleError
from tests.checks import refused
from tests.conftest import toy_manifest
from tests.fgdeploy.bundle.edits import edit, put

AGAIN = r"; (copy or )?export the bundle again$"
ROWS = {"block": 1, "tokens": 5, "query": 5, "keyval": 5, "proj": 3, "mlp": 3}


def test_manifest_survives_json(toy_bundle: Path) -> None:
    manifest = open_bundle(toy_bundle).manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    assert next(iter(manifest.to_json())) == "schema_version"
    assert manifest.to_json()["grid"] == [2, 2]


def test_unknown_entries_are_ignored(own_bundle: Path) -> None:
    put(own_bundle, "comment", "written by hand")
    assert open_bundle(own_bundle).manifest.method == "toy"


def test_manifest_never_holds_nan(own_bundle: Path) -> None:
    opened = open_bundle(own_bundle)
    with pytest.raises((ValueError, BundleError)):
        opened.record_parity({"mean_cosine": float("nan")})


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"{", b"{'a': 1}", b"\xff\xfe{}", b"\xef\xbb\xbf{}", "{}".encode("utf-16")],
)
def test_manifest_that_is_not_json(own_bundle: Path, content: bytes) -> None:
    (own_bundle / "manifest.json").write_bytes(content)
    with refused(BundleError, rf"own\.fgd/manifest\.json is not JSON \(.*\){AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"schema_version": ' + b"1" * 5000 + b"}"],
    ids=["nested", "long number"],
)
def test_manifest_made_to_break_the_json_reader(own_bundle: Path, content: bytes) -> None:
    (own_bundle / "manifest.json").write_bytes(content)
    with refused(BundleError, rf"own\.fgd/manifest\.json is not JSON \(.*\){AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    ("content", "words"), [("[]", "a list"), ('"a"', '"a"'), ("1", "1"), ("null", "null")]
)
def test_manifest_that_is_no_object(own_bundle: Path, content: str, words: str) -> None:
    (own_bundle / "manifest.json").write_text(content)
    with refused(
        BundleError, rf"own\.fgd/manifest\.json is damaged: it is {words}, expected an object"
    ):
        open_bundle(own_bundle)


@pytest.mark.parametrize("version", [0, 3, 99, -1, "1", None, [1], {}])
def test_unknown_schema_version(own_bundle: Path, version: Any) -> None:
    put(own_bundle, "schema_version", version)
    with refused(
        BundleError, r"schema version .* is not known here \(expected 2\); export again, or install"
    ):
        open_bundle(own_bundle)


def test_no_schema_version(own_bundle: Path) -> None:
    (own_bundle / "manifest.json").write_text("{}")
    with refused(BundleError, r"schema version null is not known .*; export again, or install"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(Manifest)])
def test_missing_entry(own_bundle: Path, name: str) -> None:
    edit(own_bundle, lambda entry: entry.pop(name))
    words = "its fingerprint is not .*" if name == "deciding" else f"no entry '{name}'"
    with refused(BundleError, rf"manifest\.json is damaged: {words}{AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("method", 1, "method is 1, expected some text"),
        ("method", "", 'method is "", expected some text'),
        ("backbone", None, "backbone is null, expected some text"),
        ("fingerprint", ["x"], "fingerprint is a list, expected a sha256 .*"),
        ("fingerprint", "", 'fingerprint is "", expected a sha256 .*'),
        ("created_by", {}, "created_by is an object, expected some text"),
        ("image_size", "32", 'image_size is "32", expected a whole number from 1 to 16384'),
        ("image_size", 32.0, "image_size is 32.0, expected a whole number .*"),
        ("image_size", 10**30, "image_size is 10+, expected a number"),
        ("patch_size", None, "patch_size is null, expected .*"),
        ("depth", [2], "depth is a list, expected .*"),
        ("width", "8", 'width is "8", expected .*'),
        ("prefix_tokens", True, "prefix_tokens is true, expected a whole number .*"),
        ("bits", "12", 'bits is "12", expected a whole number from 8 to 512'),
        ("bits", True, "bits is true, expected .*"),
        ("head", "lsh", 'head is "lsh", expected an object'),
        ("head", {}, "no entry 'head.kind'"),
        ("preprocess", [], "preprocess is a list, expected an object"),
        ("graph", None, "graph is null, expected an object"),
        ("graph", {}, "no entry 'graph.opset'"),
        ("macs", 3, "macs is 3, expected an object"),
        ("macs", {}, "no entry 'macs.dense'"),
        ("macs", {"dense": 0, "published": 1, "exported": 1}, "macs.dense is 0, expected .*"),
        ("weights", [], "weights is a list, expected an object"),
        ("weights", {}, "no entry 'weights.source'"),
        ("limits", None, "limits is null, expected an object"),
        ("options", [], "options is a list, expected an object"),
        ("outputs", None, "outputs is null, expected an object"),
        ("files", ["model.onnx"], "files is a list, expected an object"),
        ("blocks", {}, "blocks is an object, expected a list"),
        ("blocks", [None], "blocks.0 is null, expected an object"),
        ("blocks", ["1:2"], 'blocks.0 is "1:2", expected an object'),
        ("blocks", [{}], "no entry 'blocks.0.block'"),
        ("blocks", [ROWS, {**ROWS, "mlp": "x"}], 'blocks.1.mlp is "x", expected .*'),
        ("grid", 4, "grid is 4, expected a list"),
        ("grid", [4], "grid is a list of 1, expected one of 2"),
        ("grid", [1, 2, 2], "grid is a list of 3, expected one of 2"),
        ("grid", [2, "2"], 'grid.1 is "2", expected a whole number .*'),
        ("grid", [True, 4], "grid.0 is true, expected .*"),
        ("grid", [4, 0], "grid.1 is 0, expected a whole number from 1 .*"),
        ("classes", "abc", 'classes is "abc", expected a list'),
        ("classes", ["a", "\ud800"], ".*expected text"),
        ("outputs", {"code": None}, "outputs.code is null, expected an object"),
        ("outputs", {"code": {"type": "uint8"}}, "no entry 'outputs.code.shape'"),
        ("outputs", {"code": {"type": 2, "shape": [2]}}, "outputs.code.type is 2, expected .*"),
        ("outputs", {"code": {"type": "uint8", "shape": 2}}, ".* is 2, expected a list"),
        ("outputs", {"code": {"type": "uint8", "shape": ["x"]}}, '.*shape.0 is "x", expected .*'),
        ("preprocess", {}, "no entry 'preprocess.size'"),
        ("parity", {"photos": "many"}, 'parity.photos is "many", expected a whole number .*'),
        ("parity", {"bit_agreement": 2}, "parity.bit_agreement is 2, expected .* from 0 to 1"),
        ("calibration", {"in_float": 3}, "calibration.in_float is 3, expected a list"),
    ],
)
def test_wrong_type(own_bundle: Path, name: str, value: Any, reason: str) -> None:
    put(own_bundle, name, value)
    with refused(BundleError, rf"manifest\.json is damaged: {reason}{AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    "changes", [{"size": 0}, {"size": 50}, {"interpolation": "nearest"}, {"std": [1, 1, 0]}]
)
def test_wrong_preprocess(own_bundle: Path, changes: dict[str, Any]) -> None:
    edit(own_bundle, lambda entry: entry["preprocess"].update(changes))
    with refused(BundleError, rf"manifest\.json is damaged: .*{AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("number", ["Infinity", "1e999"])
@pytest.mark.parametrize("where", ["block", "preprocess", "file"])
def test_infinite_number(own_bundle: Path, where: str, number: str) -> None:
    def spoil(entry: dict[str, Any]) -> None:
        places = {
            "block": (entry["blocks"][0], "mlp"),
            "preprocess": (entry["preprocess"], "size"),
            "file": (entry["files"]["model.onnx"], "bytes"),
        }
        place, key = places[where]
        place[key] = "HERE"

    edit(own_bundle, spoil)
    path = own_bundle / "manifest.json"
    path.write_text(path.read_text().replace('"HERE"', number))
    with refused(BundleError, r"manifest\.json is (damaged|not JSON).*again$"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bits", 0),
        ("bits", -5),
        ("bits", 10**9),
        ("image_size", 0),
        ("image_size", 64),
        ("patch_size", 0),
        ("patch_size", -16),
        ("depth", 0),
        ("parity", "passed"),
        ("calibration", []),
        ("limits", {"max_map_drop": "small"}),
        ("macs", {"dense": "many"}),
        ("schema_version", True),
    ],
)
def test_value_that_cannot_be(own_bundle: Path, name: str, value: Any) -> None:
    put(own_bundle, name, value)
    with refused(BundleError, rf"manifest\.json.*{name.split('_')[0]}.*again"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(("name", "shape"), [("code", [3]), ("code", []), ("hash", [16])])
def test_outputs_that_are_not_of_these_bits(own_bundle: Path, name: str, shape: list[int]) -> None:
    edit(own_bundle, lambda entry: entry["outputs"][name].update(shape=shape))
    with refused(BundleError, rf"damaged: output {name} has the shape .*of 12 bits{AGAIN}"):
        open_bundle(own_bundle)


def test_preprocess_of_another_size_than_the_graph(own_bundle: Path) -> None:
    edit(own_bundle, lambda entry: entry["preprocess"].update(size=16, resize=16))
    with refused(BundleError, rf"manifest\.json is damaged: .*16.*32.*{AGAIN}"):
        open_bundle(own_bundle)


def test_manifest_that_may_not_be_read(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(path: Path, *_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_text", forbid)
    monkeypatch.setattr(Path, "read_bytes", forbid)
    with refused(BundleError, r"manifest\.json.*([Pp]ermission denied|not readable)"):
        open_bundle(own_bundle)


# --- the digest, which vouches for every entry


def _other(value: Any) -> Any:
    """Return a value of the same kind that is not the same."""
    if isinstance(value, str):
        return f"{value[:-1]}{'a' if value[-1:] != 'a' else 'b'}"
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, "more"]
    if isinstance(value, dict):
        return {**value, "more": 1}
    return {"more": 1}  # for what is null


@pytest.mark.parametrize("name", [*toy_manifest().to_json(), "comment"])
def test_any_single_entry_that_was_changed_is_noticed(own_bundle: Path, name: str) -> None:
    whole = json.loads((own_bundle / "manifest.json").read_text())
    changed = _other(whole.get(name))
    put(own_bundle, name, changed, sign=False)
    assert json.loads((own_bundle / "manifest.json").read_text()) != whole
    words = "schema version 3" if name == "schema_version" else "its digest is not that of its ent"
    with refused(BundleError, rf"manifest\.json.*{words}.*again"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("name", [*toy_manifest().to_json()])
def test_any_single_entry_that_was_taken_out_is_noticed(own_bundle: Path, name: str) -> None:
    edit(own_bundle, lambda entry: entry.pop(name), sign=False)
    words = "schema version null|no entry 'digest'|its digest is not that of its entries"
    with refused(BundleError, rf"manifest\.json.*({words}).*again"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("value", [None, "", 3, ["x"], {}])
def test_a_digest_that_is_none(own_bundle: Path, value: Any) -> None:
    put(own_bundle, "digest", value, sign=False)
    with refused(BundleError, "its digest is not that of its entries, so it was changed or cut"):
        open_bundle(own_bundle)


def test_the_digest_is_of_values_not_of_their_order_or_layout(own_bundle: Path) -> None:
    path = own_bundle / "manifest.json"
    before = open_bundle(own_bundle)
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(entry.items()))))
    assert open_bundle(own_bundle) == before
    assert digest(entry) == digest(dict(reversed(entry.items()))) == entry["digest"]
    assert list(toy_manifest().to_json())[-1] == "digest"


def test_an_entry_nested_too_deeply_for_a_digest() -> None:
    """JSON's reader takes a few levels more than its writer, wherever the stack now stands."""
    whole = json.dumps(toy_manifest().to_json())
    for depth in range(700, 1000):
        try:
            entry = json.loads(f'{whole[:-1]}, "more": {"[" * depth}{"]" * depth}}}')
        except RecursionError:
            break
        with refused(BundleError, r"manifest\.json is damaged: .*; export the bundle again$"):
            Manifest.from_json(entry)


# --- blocks and outputs


@pytest.mark.parametrize("value", [0, -1, 1 << 31, 1.0, True, "1", None])
@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(BlockRows)])
def test_rows_are_numbers_above_zero(name: str, value: Any) -> None:
    rows = dict.fromkeys((entry.name for entry in dataclasses.fields(BlockRows)), 1)
    with pytest.raises(ValueError, match=rf"^{name} of a block is .*, not a number above zero$"):
        BlockRows(**{**rows, name: value})


@pytest.mark.parametrize("side", [0, -1, 1 << 31, 1.0, True, "1", None])
def test_the_sides_of_an_output_are_numbers_above_zero(side: Any) -> None:
    with pytest.raises(ValueError, match=r"^the shape of an output is "):
        Output("float32", (2, side))
    with pytest.raises(TypeError, match=r"^the type of an output is int, not str$"):
        Output(1, (2,))  # type: ignore[arg-type]
    assert Output("float32", ()).shape == ()


def test_blocks_that_run_twice_and_outputs_of_a_method_s_own_survive_json() -> None:
    manifest = dataclasses.replace(
        toy_manifest(),
        blocks=(*toy_manifest().blocks, BlockRows(1, 5, 5, 5, 5, 5)),
        outputs={**toy_manifest().outputs, "box": Output("float32", (2, 4))},
        classes=("crow", "Rabe, gro\u00dfer", "\u9e26"),
        grid=(2, 3),
    )
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    assert again == manifest
    assert again.patches == 6
