"""What `unpack` refuses: targets, sources that are no packs, manifests that do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import packing
from fgdeploy.bundle.packing import pack, unpack
from fgdeploy.core.errors import BundleError, UsageError
from tests.checks import refused
from tests.fgdeploy.bundle.edits import signed
from tests.fgdeploy.bundle.packs import add_engine, contents, forge, names

# --- unpack refuses


def test_unpack_targets(packed: Path, target: Path, tmp_path: Path) -> None:
    with refused(UsageError, r"a bundle's name ends in \.fgd"):
        unpack(packed, target.with_suffix(".fgdz"))
    with refused(BundleError, r"no folder .*missing to write a\.fgd into; create it"):
        unpack(packed, tmp_path / "missing" / "a.fgd")
    target.mkdir()
    (target / "dear.txt").write_text("mine")
    with refused(BundleError, r"toy\.fgd is there already; pass --overwrite"):
        unpack(packed, target)
    with refused(BundleError, r"is no bundle, so it is not overwritten"):
        unpack(packed, target, overwrite=True)
    assert names(target) == ["dear.txt"]
    link = target.with_name("link.fgd")
    link.symlink_to(target)
    with refused(BundleError, r"link\.fgd is a symbolic link, which is not replaced"):
        unpack(packed, link, overwrite=True)
    file = target.with_name("file.fgd")
    file.touch()
    with refused(BundleError, r"file\.fgd is no bundle"):
        unpack(packed, file, overwrite=True)


def test_overwrite_replaces_all_or_nothing(
    packed: Path, own_bundle: Path, toy_bundle: Path
) -> None:
    add_engine(own_bundle)
    before = contents(own_bundle)
    broken = packed.with_name("broken.fgdz")
    broken.write_bytes(packed.read_bytes()[:-30])
    with refused(BundleError, "cut short"):
        unpack(broken, own_bundle, overwrite=True)
    assert contents(own_bundle) == before
    unpack(packed, own_bundle, overwrite=True)
    assert contents(own_bundle) == contents(toy_bundle)


def test_sources_that_are_no_pack(toy_bundle: Path, packed: Path, target: Path) -> None:
    with refused(BundleError, r"none\.fgdz does not exist; expected a packed bundle"):
        unpack(packed.with_name("none.fgdz"), target)
    with refused(BundleError, r"toy\.fgd is not a file; expected a packed bundle"):
        unpack(toy_bundle, target)
    os.mkfifo(packed.with_name("pipe"))
    with refused(BundleError, r"pipe is not a file"):
        unpack(packed.with_name("pipe"), target)
    whole = packed.read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2], whole[:-1], whole[50:]):
        packed.write_bytes(data)
        with refused(BundleError, r"toy\.fgdz is cut short, damaged or no pack .*copy it again"):
            unpack(packed, target)
    assert names(target.parent) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_source_without_read_permission(packed: Path, target: Path) -> None:
    packed.chmod(0)
    with refused(BundleError, r"cannot be read \(Permission denied\); check its rights"):
        unpack(packed, target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folders_without_write_permission(toy_bundle: Path, packed: Path, target: Path) -> None:
    target.parent.chmod(0o555)
    with refused(PermissionError, r"Permission denied.*toy\.fgd"):
        unpack(packed, target)
    with refused(PermissionError, r"Permission denied.*toy\.fgdz"):
        pack(toy_bundle, target.with_suffix(".fgdz"))


def test_a_flipped_bit_shows(packed: Path, target: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    with refused(BundleError, r"damaged .*Bad CRC-32 for file 'model\.onnx'"):
        unpack(packed, target)


def test_a_right_crc_is_not_enough(packed: Path, toy_bundle: Path, target: Path) -> None:
    members = contents(toy_bundle)
    members["model.onnx"] = members["model.onnx"][:-1] + b"X"
    with refused(BundleError, r"toy\.fgdz/model\.onnx: its sha256 is not the one in manifest"):
        unpack(forge(packed, members), target)
    assert names(target.parent) == []


def _without(entry: dict[str, Any]) -> None:
    del entry["files"]


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (
            lambda entry: entry.update(schema_version=3),
            r"toy\.fgdz: manifest\.json: schema version",
        ),
        (lambda entry: entry.update(bits=5000), r"toy\.fgdz: manifest\.json is damaged: bits"),
        (_without, r"toy\.fgdz: manifest\.json is damaged: no entry 'files'"),
        (
            lambda entry: entry["files"].update(a={"bytes": 1, "sha256": "ab" * 32}),
            r"toy\.fgdz lacks 'a'",
        ),
        (lambda entry: entry["files"].update(a={}), r"toy\.fgdz: .* no entry 'files.a.sha256'"),
        (lambda entry: entry["files"]["model.onnx"].update(bytes=1), r"lists 1 bytes for 'model"),
        (
            lambda entry: entry["files"].update({"model.onnx": 7}),
            r"model.onnx is 7, expected an",
        ),
        (
            lambda entry: entry["files"]["model.onnx"].update(bytes="1\n"),
            r'model\.onnx\.bytes is "1\\n", expected a whole number',
        ),
        (lambda entry: entry["files"].clear(), r"'model\.onnx', which its manifest\.json does not"),
    ],
)
def test_manifests_that_do_not_fit(
    packed: Path,
    toy_bundle: Path,
    target: Path,
    change: Callable[[dict[str, Any]], None],
    pattern: str,
) -> None:
    members = contents(toy_bundle)
    entry = json.loads(members["manifest.json"])
    change(entry)
    with refused(BundleError, pattern):
        unpack(forge(packed, {**members, "manifest.json": signed(entry).encode()}), target)


@pytest.mark.parametrize("data", [b"", b"[", b"\xff", b"[" * 100_000, b"[]", b"9" * 5000])
def test_manifests_that_are_none(packed: Path, toy_bundle: Path, target: Path, data: bytes) -> None:
    with refused(BundleError, r"toy\.fgdz: manifest\.json"):
        unpack(forge(packed, {**contents(toy_bundle), "manifest.json": data}), target)


def test_no_manifest_or_a_huge_one(
    packed: Path,
    toy_bundle: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = contents(toy_bundle)
    monkeypatch.setattr(packing, "LONGEST_MANIFEST", 100)
    with refused(BundleError, r"expected a manifest\.json of at most 100 bytes, got \d+"):
        unpack(packed, target)
    del members["manifest.json"]
    with refused(BundleError, r"holds no manifest\.json, so it is no packed bundle"):
        unpack(forge(packed, members), target)
    with refused(BundleError, r"holds no manifest\.json"):
        unpack(forge(packed, {}), target)
