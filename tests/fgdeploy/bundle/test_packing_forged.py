"""Packs that were forged or damaged: refused in words, with nothing left behind."""

from __future__ import annotations

import json
import random
import shutil
import stat
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdeploy.bundle.packing import pack, unpack
from fgdeploy.core.errors import BundleError
from tests.checks import refused
from tests.fgdeploy.bundle.edits import signed
from tests.fgdeploy.bundle.packs import add_engine, contents, forge, names


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a\\..\\evil",
        "C:evil",
        "a//b",
        "./model.onnx",
        "bell\x07",
        "\x1b[31mred",
        "line\nbreak",
        "\u202egnp.exe",
        "engines/../../evil",
        "engines//evil",
        "engines/x/..",
    ],
)
def test_names_that_leave_the_bundle(
    packed: Path, toy_bundle: Path, target: Path, name: str
) -> None:
    with refused(BundleError, r"toy\.fgdz holds '.*', which leaves the bundle"):
        unpack(forge(packed, {**contents(toy_bundle), name: b"x"}), target)
    assert names(target.parent) == []
    assert names(packed.parent) == ["toy.fgdz"]


def test_a_manifest_that_lists_names_outside(packed: Path, toy_bundle: Path, target: Path) -> None:
    members = contents(toy_bundle)
    entry = json.loads(members["manifest.json"])
    entry["files"]["../evil"] = entry["files"]["model.onnx"]
    members["manifest.json"] = signed(entry).encode()
    with refused(BundleError, r"lacks '\.\./evil'"):
        unpack(forge(packed, members), target)
    with refused(BundleError, "which leaves the bundle"):
        unpack(forge(packed, {**members, "../evil": members["model.onnx"]}), target)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"external_attr": (stat.S_IFLNK | 0o777) << 16}, "is a link, a folder or another spec"),
        ({"external_attr": (stat.S_IFIFO | 0o644) << 16}, "is a link, a folder or another spec"),
        ({"external_attr": (stat.S_IFCHR | 0o644) << 16}, "is a link, a folder or another spec"),
        ({"external_attr": 0x10}, "is a link, a folder or another special entry"),
        ({"filename": "engines/x/"}, "'engines/x/' is a link, a folder or another special entry"),
        ({"compress_type": zipfile.ZIP_DEFLATED}, "is compressed; expected plain, stored files"),
        ({"compress_type": zipfile.ZIP_LZMA}, "is compressed; expected plain, stored files"),
        ({"filename": "notes.txt"}, r"'notes\.txt', which its manifest\.json does not list"),
        ({"filename": "engines/x"}, r"'engines/x', which its manifest\.json does not list"),
        ({"filename": "engines/x/y/z"}, r"'engines/x/y/z', which its manifest\.json does not"),
        ({"filename": "MODEL.onnx"}, r"'MODEL\.onnx' twice, or as file and folder"),
        ({"filename": "model.onnx/x"}, r"twice, or as file and folder"),
        ({"filename": "engines/x/" + "n" * 300}, r"n\.\.\.: expected names of at most 255"),
    ],
)
def test_entries_that_are_no_plain_files(
    packed: Path,
    toy_bundle: Path,
    target: Path,
    changes: dict[str, Any],
    pattern: str,
) -> None:
    members = {**contents(toy_bundle), "engines/x/y": b"x" * 99}
    with refused(BundleError, pattern):
        unpack(forge(packed, members, **changes), target)
    assert names(target.parent) == []


def test_the_same_name_twice(packed: Path, toy_bundle: Path, target: Path) -> None:
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.onnx", b"other")
    with refused(BundleError, r"'model\.onnx' twice"):
        unpack(packed, target)


def directory(data: bytes, name: bytes) -> int:
    """Return where the entry of `name` in the zip's own list of members begins."""
    at = data.rindex(name) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    return at


@pytest.mark.parametrize(
    ("offset", "form", "value", "pattern"),
    [
        (8, "<H", 1, "is encrypted"),
        (8, "<H", 0x41, "is encrypted"),
        (8, "<H", 0x20, "compressed patched data"),
        (10, "<H", 99, "is compressed"),
        (20, "<I", 10, "has two sizes"),
        (24, "<I", 10, "has two sizes"),
        (20, "<I", 1 << 31, "has two sizes"),
        (42, "<I", 7, "is cut short, damaged or no pack"),
        (42, "<I", 1 << 30, "is cut short, damaged or no pack"),
        (28, "<H", 5, "is cut short, damaged or no pack"),
    ],
)
def test_forged_entries(
    packed: Path,
    target: Path,
    offset: int,
    form: str,
    value: int,
    pattern: str,
) -> None:
    data = bytearray(packed.read_bytes())
    struct.pack_into(form, data, directory(data, b"model.onnx") + offset, value)
    packed.write_bytes(data)
    with refused(BundleError, pattern):
        unpack(packed, target)
    assert names(target.parent) == []


def test_sizes_that_are_declared_wrong_alike(packed: Path, toy_bundle: Path, target: Path) -> None:
    whole = packed.read_bytes()
    size = (toy_bundle / "model.onnx").stat().st_size
    for wrong in (size - 1, size + 1, 0, (1 << 32) - 2):
        data = bytearray(whole)
        struct.pack_into("<II", data, directory(data, b"model.onnx") + 20, wrong, wrong)
        packed.write_bytes(data)
        with refused(BundleError, "members are longer or shorter than declared"):
            unpack(packed, target)


def test_hidden_bytes_between_members(packed: Path, target: Path) -> None:
    packed.write_bytes(b"#!/bin/sh\n" + packed.read_bytes())
    with refused(BundleError, "does not begin where the one before ends"):
        unpack(packed, target)


def test_a_name_with_a_hidden_end(packed: Path, toy_bundle: Path, target: Path) -> None:
    members = {**contents(toy_bundle), "engines/x/yQevil": b"x"}
    data = forge(packed, members).read_bytes().replace(b"yQevil", b"y\0evil")
    packed.write_bytes(data)
    with refused(BundleError, r"'engines/x/y\\x00evil' goes by two names"):
        unpack(packed, target)


def test_a_zip_with_an_endless_list(packed: Path, target: Path) -> None:
    count = 30_000
    entry = b"PK\x01\x02" + bytes(42)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, count * 46, 0, 0)
    packed.write_bytes(entry * count + end)
    with refused(BundleError, r"a list of members of 1380000 bytes"):
        unpack(packed, target)


def test_members_that_share_their_bytes(packed: Path, toy_bundle: Path, target: Path) -> None:
    members = {**contents(toy_bundle), "engines/x/y": b"x" * 50, "engines/x/z": b"x" * 50}
    data = bytearray(forge(packed, members).read_bytes())
    first = struct.unpack_from("<I", data, directory(data, b"engines/x/y") + 42)[0]
    struct.pack_into("<I", data, directory(data, b"engines/x/z") + 42, first)
    packed.write_bytes(data)
    with refused(BundleError, "does not begin where the one before ends"):
        unpack(packed, target)


# --- whatever happens to a pack


@pytest.fixture(scope="module")
def whole(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Any]:
    """The bytes of a pack with an engine, and what it holds."""
    folder = tmp_path_factory.mktemp("whole")
    bundle = Path(shutil.copytree(toy_bundle, folder / "toy.fgd"))
    add_engine(bundle)
    return pack(bundle, folder / "toy.fgdz", engines=True).path.read_bytes(), contents(bundle)


def damaged_or_equal(data: bytes, expected: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "toy.fgdz").write_bytes(data)
        try:
            unpack(folder / "toy.fgdz", folder / "toy.fgd")
        except BundleError as error:
            assert "\n" not in str(error)
            assert names(folder) == ["toy.fgdz"]
        else:
            assert contents(folder / "toy.fgd") == expected


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_found_or_does_no_harm(whole: tuple[bytes, Any], data: st.DataObject) -> None:
    pack_bytes, expected = whole
    changed = bytearray(pack_bytes)
    tail = data.draw(st.booleans(), "in the list of members")
    low = len(changed) - 700 if tail else 0
    for _ in range(data.draw(st.integers(0, 4), "flips")):
        at = data.draw(st.integers(low, len(changed) - 1), "at")
        changed[at] ^= data.draw(st.integers(1, 255), "by")
    if data.draw(st.booleans(), "cut"):
        start = data.draw(st.integers(0, len(changed)), "from")
        del changed[start : start + data.draw(st.integers(1, len(changed)), "length")]
    damaged_or_equal(bytes(changed), expected)


def test_every_byte_of_the_headers(whole: tuple[bytes, Any]) -> None:
    pack_bytes, expected = whole
    chooser = random.Random(0)
    listed = pack_bytes.index(b"PK\x01\x02")
    for at in range(listed, len(pack_bytes)):
        changed = bytearray(pack_bytes)
        changed[at] ^= 1 << chooser.randrange(8)
        damaged_or_equal(bytes(changed), expected)
