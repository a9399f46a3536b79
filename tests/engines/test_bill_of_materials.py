"""The bill of materials in `engine.json`: valid CycloneDX 1.6, each time the same."""

from __future__ import annotations

import getpass
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fgdeploy import __version__
from fgdeploy.engines import bill_of_materials, record
from tests.engines.test_record import a_record

CPU = {"kind": "cpu"}


def a_bill(name: str = "openvino:int8", digest: str = "ab" * 32) -> dict[str, Any]:
    return bill_of_materials.of_this_process(name, "2026.4.1", digest, CPU)


def check(bill: dict[str, Any]) -> None:
    """Hold a bill against the published schema, and its references against its parts."""
    validation = pytest.importorskip("cyclonedx.validation.json", reason="needs extra servers")
    from cyclonedx.schema import SchemaVersion

    errors = validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    assert errors is None, errors
    refs = [one["bom-ref"] for one in (bill["metadata"]["component"], *bill["components"])]
    assert len(refs) == len(set(refs))
    for one in bill["dependencies"]:
        assert {one["ref"], *one["dependsOn"]} <= set(refs)


def test_a_bill_says_what_was_loaded() -> None:
    bill = a_bill()
    check(bill)
    parts = {one["name"]: one for one in bill["components"]}
    assert parts["fgdeploy"]["version"] == __version__
    assert parts["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert parts["numpy"]["licenses"]
    assert parts["CPython"]["version"] == platform.python_version()
    assert {one["type"] for one in bill["components"]} == {
        *("device", "library", "operating-system", "platform")
    }
    assert "build" not in parts  # installed, and not loaded
    about = bill["metadata"]["component"]
    assert about["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]


def test_the_same_each_time_and_nobodys() -> None:
    text = json.dumps(a_bill())
    assert text == json.dumps(a_bill())
    assert len(text) < 1 << 17
    private = [os.path.expanduser("~"), os.getcwd(), platform.node(), "/home", "site-packages"]
    if getpass.getuser() not in ("root", "user"):
        private.append(getpass.getuser())
    for word in private:
        assert len(word) < 3 or word not in text, word


def test_a_damaged_distribution_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("half", ""), ("odd", "Name: odd\nVersion: 1\nLicense: " + "x" * 999)):
        home = tmp_path / f"{name}-1.dist-info"
        home.mkdir()
        (home / "METADATA").write_text(text)
        (home / "RECORD").write_text("odd.py,,\nnonsense\n")
    (tmp_path / "odd.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    bill_of_materials._installed.cache_clear()
    try:
        __import__("odd")
        (one,) = [part for part in a_bill()["components"] if part["name"] in ("odd", "half")]
    finally:
        bill_of_materials._installed.cache_clear()
    assert one["purl"] == "pkg:pypi/odd@1" and "licenses" not in one


def test_of_gpus_the_driver_and_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = bill_of_materials.machine.Gpu("NVIDIA Orin", "8.7", 7620, "R36.4")
    monkeypatch.setattr(bill_of_materials.machine, "gpus", lambda: [gpu])
    mapped = ["/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0", "/home/me/libme.so.1"]
    monkeypatch.setattr(bill_of_materials, "_mapped", lambda: mapped)
    bill = bill_of_materials.of_this_process("tensorrt:fp16", "10.3.0", "cd" * 32, {"kind": "cuda"})
    check(bill)
    found = {(one["type"], one["name"], one.get("version")) for one in bill["components"]}
    assert ("library", "libnvinfer", "10.3.0") in found
    assert ("device", "NVIDIA Orin", "8.7") in found
    assert ("device-driver", "NVIDIA driver", "R36.4") in found
    assert "libme" not in json.dumps(bill)


def test_one_bill_of_several_engines() -> None:
    bill = bill_of_materials.merged(
        "eet.fgd", "ef" * 32, [a_bill(), a_bill("openvino:fp32", "cd" * 32)]
    )
    check(bill)
    engines = [one for one in bill["components"] if one["type"] == "machine-learning-model"]
    assert [one["name"] for one in engines] == ["openvino:fp32", "openvino:int8"]
    assert bill["dependencies"][0]["ref"] == bill["metadata"]["component"]["bom-ref"]


@pytest.mark.parametrize(
    "harm",
    [
        {"components": [{}]},
        {"components": None},
        {"specVersion": "1.5"},
        {"bomFormat": "SPDX"},
        {"metadata": {}},
        {"components": [{"type": "library", "name": "x", "bom-ref": "x"}] * 1001},
    ],
    ids=str,
)
def test_what_is_no_bill(harm: dict[str, Any]) -> None:
    assert bill_of_materials.is_valid(a_bill())
    assert not bill_of_materials.is_valid({**a_bill(), **harm})
    assert not bill_of_materials.is_valid([])


def test_kept_in_the_record(tmp_path: Path) -> None:
    entry = a_record(sbom=a_bill())
    entry.write(tmp_path)
    assert record.read(tmp_path) == entry
    held = json.loads((tmp_path / "engine.json").read_text())
    del held["sbom"]  # as written before there was one
    (tmp_path / "engine.json").write_text(json.dumps(held))
    assert record.read(tmp_path).sbom is None
