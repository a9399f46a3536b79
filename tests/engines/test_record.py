from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import Record, find, record
from tests.checks import refused
from tests.mutants import mutants

CPU = {"kind": "cpu", "name": "Some CPU", "arch": "x86_64", "features": ["avx2"]}
CUDA = {"kind": "cuda", "name": "NVIDIA Orin", "compute_capability": "8.7", "driver": "R36"}
AHEAD = {"kind": "cuda", "name": None, "compute_capabilities": ["8.6", "8.9"]}
SPEED = {"1": {"p50_ms": 5.9, "p95_ms": 7, "images_per_s": 160.0}, "peak_mib": 900.5}


def a_record(**changes: Any) -> Record:
    entry = Record(
        backend="openvino",
        precision="int8",
        file="engine.blob",
        sha256="ab" * 32,
        bytes=10,
        graph="int8",
        graph_sha256="cd" * 32,
        backend_version="2026.4.1",
        device=CPU,
        batches=(1, 8),
        flags={"arithmetic": "f32"},
        build_s=1.5,
        peak_host_mib=300.0,
        created_by="fgdeploy 0.1.0",
    )
    return dataclasses.replace(entry, **changes)


@pytest.mark.parametrize("device", [CPU, CUDA, AHEAD])
def test_what_is_written_is_read(device: dict[str, Any], tmp_path: Path) -> None:
    entry = a_record(device=device, speed=SPEED, parity={"passed": True})
    entry.write(tmp_path)
    assert record.read(tmp_path) == entry
    assert json.loads((tmp_path / "engine.json").read_text())["schema_version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["engine.json"]


def test_what_was_measured() -> None:
    assert (a_record().p50_ms, a_record(speed=SPEED).p50_ms) == (None, 5.9)
    assert a_record(speed={"8": SPEED["1"]}).p50_ms is None
    assert not a_record().failed and not a_record(parity={"passed": True}).failed
    assert a_record(parity={"passed": False}).failed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "schema version 2 is not known"),
        ({"schema_version": True}, "schema version true is not known"),
        ({"backend": 3}, "backend is 3"),
        ({"backend": "a\x1b[2J"}, "backend is"),
        ({"file": "../model.onnx"}, 'file is "../model.onnx"'),
        ({"file": ".."}, "file is"),
        ({"sha256": "AB" * 32}, "sha256 is"),
        ({"graph_sha256": "ab"}, 'graph_sha256 is "ab"'),
        ({"bytes": True}, "bytes is true"),
        ({"bytes": 10**400}, "not JSON|bytes is"),
        ({"bytes": -1}, "bytes is"),
        ({"build_s": float("inf")}, "not JSON|build_s is"),
        ({"build_s": "1"}, 'build_s is "1"'),
        ({"batches": []}, "batches is"),
        ({"batches": [8, 1]}, "batches is"),
        ({"batches": [1, 1 << 40]}, "batches is"),
        ({"batches": 8}, "batches is"),
        ({"flags": []}, "flags is"),
        ({"device": []}, "device is"),
        ({"device": {"kind": "tpu"}}, "device is"),
        ({"device": {**CPU, "features": "avx2"}}, "device is"),
        ({"device": {**CUDA, "compute_capability": 8.7}}, "device is"),
        ({"device": {**CUDA, "compute_capability": "8.x"}}, "device is"),
        ({"device": {**AHEAD, "compute_capabilities": []}}, "device is"),
        ({"device": {**AHEAD, "kind": "cpu", "name": 1}}, "device is"),
        ({"parity": {}}, "parity is"),
        ({"compared": {"threads": None, "ms": {}}}, "compared is"),
        ({"layers": {"products": {"int8": -1}, "fused": {}}}, "layers is"),
        ({"layers": {"products": {"int3": 1}, "fused": {}}}, "layers is"),
        ({"speed": {"1": {"p50_ms": 1}}}, "speed is"),
        ({"speed": {"1": {**SPEED["1"], "p50_ms": None}}}, "speed is"),  # type: ignore[dict-item]
    ],
)
def test_a_damaged_record(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    text = json.dumps({**a_record().to_json(), **change})
    (tmp_path / "engine.json").write_text(text)
    with refused(EngineError, rf"{tmp_path.name}: engine\.json.*({words}).*build the engine again"):
        record.read(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        one.name
        for one in dataclasses.fields(Record)
        if one.name not in ("compared", "layers", "sbom")
    ],
)
def test_a_record_without_an_entry(name: str) -> None:
    entry = a_record().to_json()
    del entry[name]
    with refused(EngineError, rf"no entry '{name}'"):
        Record.from_json(entry)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema_version": NaN}',
        "1" * 5000,
        "[" * 100_000,
        "\udcff",
        " " * (1 << 20) + "{}",
    ],
    ids=lambda text: text[:10],
)
def test_a_file_that_is_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text(text, errors="surrogateescape")
    with refused(EngineError, r"engine\.json"):
        record.read(tmp_path)


def test_every_value_replaced_by_every_other_kind() -> None:
    held = a_record(speed=SPEED, parity={"passed": True}).to_json()
    read = 0
    for changed in mutants(held):
        try:
            found = Record.from_json(changed)
        except EngineError as error:
            assert "\n" not in str(error)
            continue
        assert (found.p50_ms is None) or found.p50_ms >= 0
        assert isinstance(found.failed, bool) and found.to_json()
        read += 1
    assert read > 20


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        a_record(build_s=float("nan")).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps(a_record().to_json()))
    (tmp_path / "engine.json").symlink_to("elsewhere")
    with refused(EngineError, r"engine\.json is a link"):
        record.read(tmp_path)


# --- the engine file


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: os.truncate(path, 100), r"expected \d+ bytes, got 100"),
        (flip, r"its sha256 is not the one in engine\.json"),
        (link, r"is a link"),
        (folder, r"no regular file"),
        (Path.unlink, r"No such file or directory"),
    ],
)
def test_a_damaged_engine_file(
    damage: Callable[[Path], Any], words: str, built_bundle: Path
) -> None:
    built = find(open_bundle(built_bundle))[0]
    assert built.record is not None
    assert record.verify(built.folder, built.record).is_file()
    damage(built.folder / built.record.file)
    with refused(
        EngineError,
        rf"engine\.onnx is a corrupt or cut engine: .*{words}.*; rebuild with: fgdeploy "
        r"build-engine --backend onnxruntime$",
    ):
        record.verify(built.folder, built.record)


def test_finding(built_bundle: Path, toy_bundle: Path) -> None:
    assert find(open_bundle(toy_bundle)) == []
    bundle = open_bundle(built_bundle)
    whole = find(bundle)
    assert [built.record and built.record.backend for built in whole] == ["onnxruntime", "openvino"]
    engines = built_bundle / "engines"
    (engines / "note.txt").write_text("mine")
    (engines / ".half.tmp").mkdir()
    (engines / "tensorrt-fp16-sm87").mkdir()
    (engines / "zlink").symlink_to(whole[0].folder)
    found = find(bundle)
    assert [built.folder.name for built in found if built.record] == [
        built.folder.name for built in whole
    ]
    problems = {built.folder.name: built.problem for built in found if not built.record}
    assert "no engine's folder" in problems["note.txt"] and "no engine's" in problems["zlink"]
    assert "engine.json is not readable" in problems["tensorrt-fp16-sm87"]


def test_engines_behind_a_link(built_bundle: Path, tmp_path: Path) -> None:
    (built_bundle / "engines").rename(tmp_path / "elsewhere")
    (built_bundle / "engines").symlink_to(tmp_path / "elsewhere")
    (built,) = find(open_bundle(built_bundle))
    assert built.record is None and "symbolic link" in built.problem


def test_a_record_of_before_engines_were_compared_and_looked_into() -> None:
    entry = a_record().to_json()
    del entry["compared"], entry["layers"]
    assert Record.from_json(entry) == a_record()
