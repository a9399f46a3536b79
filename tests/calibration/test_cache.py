"""`calibration.json`: what it keeps, and what of it is not believed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.bundle import Bundle, open_bundle, seal
from fgdeploy.calibration import cache
from fgdeploy.calibration.calibrator import Calibrated, calibrate
from fgdeploy.core.errors import BundleError
from fgdeploy.photos import Photo
from fgdeploy.proof.parity import Limits
from tests.calibration.conftest import LOOSE, SETTINGS
from tests.checks import refused
from tests.mutants import PYTHON_WORDS, mutants


def _held(calibrated: Calibrated) -> cache.Calibration:
    found = cache.read(calibrated.bundle)
    assert found is not None
    return found


def test_none_without_the_file(own: Bundle) -> None:
    assert cache.read(own) is None


def test_read_as_written(calibrated: Calibrated) -> None:
    found = _held(calibrated)
    assert found == calibrated.record
    assert found.to_bytes() == (calibrated.bundle.path / cache.FILE).read_bytes()


def test_what_it_says(calibrated: Calibrated) -> None:
    found, files = _held(calibrated), calibrated.bundle.manifest.files
    assert found.graph_sha256 == files["model.onnx"]["sha256"]
    assert found.int8_sha256 == files["model.int8.onnx"]["sha256"]
    assert found.settings == {
        "range": "mse",
        "images": 16,
        "balance": True,
        "compensate": True,
        "seed": 0,
        "limits": {"min_bit_agreement": 0.5},
    }
    assert found.photos["count"] == 16
    assert len(found.photos["sha256"]) == 64
    assert {"fgdeploy", "numpy", "onnx", "onnxruntime"} <= set(found.tools)
    assert found.parity["photos"] == 16
    assert found.summary() == {
        "range": "mse",
        "photos": 16,
        "in_float": [],
        "bit_agreement": found.parity["bit_agreement"],
        "map_drop": found.parity["map_drop"],
    }


def as_version_1(content: bytes) -> bytes:
    """Return a calibration in the words of before: `method` for range and `gate` for limits."""
    entry = json.loads(content)
    settings = entry["settings"]
    settings["method"], settings["gate"] = settings.pop("range"), settings.pop("limits")
    return json.dumps({**entry, "schema_version": 1}).encode()


def test_one_of_version_1_is_read(own_calibrated: Path, calibrated: Calibrated) -> None:
    old = as_version_1((own_calibrated / cache.FILE).read_bytes())
    assert b'"method": "mse"' in old and b'"gate": {' in old
    assert cache.read(_seal(own_calibrated, old)) == calibrated.record


def test_one_of_version_1_is_recognised(own_calibrated: Path, moths: list[Photo]) -> None:
    old = as_version_1((own_calibrated / cache.FILE).read_bytes())
    bundle = _seal(own_calibrated, old)
    assert calibrate(bundle, moths, SETTINGS, LOOSE).reused
    assert (own_calibrated / cache.FILE).read_bytes() == old


def test_balances_are_exact(calibrated: Calibrated) -> None:
    balances = _held(calibrated).balances()
    assert len(balances) == 21
    for one in balances.values():
        assert one.shift.dtype == one.scale.dtype == np.float64
        assert one.shift.shape == one.scale.shape
        assert (one.scale.astype(np.float32) == one.scale).all()


def _seal(folder: Path, content: bytes) -> Bundle:
    (folder / cache.FILE).write_bytes(content)
    return seal(folder, open_manifest(folder))


def open_manifest(folder: Path) -> Any:
    """Return the manifest, whatever its files are now."""
    from fgdeploy.bundle import MANIFEST, Manifest

    return Manifest.from_json(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "a\\nb": 2}',
    ],
    ids=lambda content: content[:12].decode("latin-1"),
)
def test_no_calibration_at_all(own_calibrated: Path, content: bytes) -> None:
    with refused(BundleError, r"calibration\.json is damaged \(.*\); run: fgdeploy calibrate --a"):
        cache.read(_seal(own_calibrated, content))


Change = Callable[[dict[str, Any]], None]


def _set(**values: Any) -> Change:
    return lambda entry: entry.update(values)


def _first(**values: Any) -> Change:
    return lambda entry: next(iter(entry["ranges"].values())).update(values)


def _drop(name: str) -> Change:
    return lambda entry: entry.pop(name)


@pytest.mark.parametrize(
    "change",
    [
        *(_set(schema_version=version) for version in (0, 3, "1", None)),
        *(_drop(name) for name in ("schema_version", "settings", "ranges", "in_float", "tools")),
        _set(in_float=3),
        _set(tools={"numpy": 2}),
        _set(photos={"count": "many"}),
        _set(ranges=[]),
        _set(ranges={"gelu": {}}),
        _set(ranges={"gelu": None}),
        _set(settings=None),
        _set(settings={}),
        _set(photos=[]),
        _set(photos={}),
        _set(parity=None),
        _first(shift="text"),
        _first(shift=[[1.0], [1.0, 2.0]]),
        _first(scale={}),
        _first(step=None),
        _first(step="a\nb"),
        _first(snr_db=[]),
    ],
)
def test_parts_that_are_wrong(own_calibrated: Path, change: Change) -> None:
    entry = json.loads((own_calibrated / cache.FILE).read_text(encoding="utf-8"))
    change(entry)
    with refused(BundleError, r"calibration\.json is damaged \(.*\); run: fgdeploy calibrate --a"):
        cache.read(_seal(own_calibrated, json.dumps(entry).encode()))


def test_every_value_replaced_by_every_other_kind(calibrated: Calibrated) -> None:
    entry = json.loads(calibrated.record.to_bytes())
    name, first = next(iter(entry["ranges"].items()))
    entry["ranges"] = {name: {**first, "shift": [0.0], "scale": [1.0]}}
    read = 0
    for changed in mutants(entry):
        try:
            found = cache._parse(changed)
        except ValueError as error:
            assert not re.search(PYTHON_WORDS, str(error)), error
            continue
        found.balances(), found.summary(), Limits.from_json(found.settings["limits"])
        read += 1
    assert read > 20


@pytest.mark.parametrize("key", ["graph_sha256", "int8_sha256"])
def test_of_other_graphs(calibrated: Calibrated, own_calibrated: Path, key: str) -> None:
    record = dataclasses.replace(calibrated.record, **{key: "ab" * 32})
    name = {"graph_sha256": r"model\.onnx", "int8_sha256": r"model\.int8\.onnx"}[key]
    with refused(BundleError, rf"is stale: it was made for a {name} of .*; run: fgdeploy calib"):
        cache.read(_seal(own_calibrated, record.to_bytes()))


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_graphs_that_were_replaced(own_calibrated: Path, name: str) -> None:
    graph = (own_calibrated / "model.fp16.onnx").read_bytes()
    (own_calibrated / name).write_bytes(graph)
    bundle = seal(own_calibrated, open_manifest(own_calibrated))
    assert open_bundle(own_calibrated) == bundle
    with refused(BundleError, rf"is stale: .*{name}.* of sha256 \w{{12}}, here lies \w{{12}}; run"):
        cache.read(bundle)


def test_not_a_number_is_not_written() -> None:
    record = cache.Calibration("", {}, {}, {"x": {"step": float("nan")}}, [], "", {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.to_bytes()
