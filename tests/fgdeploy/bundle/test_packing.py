"""Packs: there and back unchanged, and everything that a forged or damaged one may try."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import stat
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdeploy.bundle import open_bundle, packing, seal
from fgdeploy.bundle.packing import pack, unpack
from fgdeploy.core.errors import BundleError, UsageError
from tests.checks import refused
from tests.fgdeploy.bundle.edits import signed


def contents(folder: Path) -> dict[str, bytes]:
    return {
        entry.relative_to(folder).as_posix(): entry.read_bytes()
        for entry in folder.rglob("*")
        if entry.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def add_engine(bundle: Path) -> None:
    home = bundle / "engines" / "openvino-int8-x86_64"
    home.mkdir(parents=True)
    (home / "engine.bin").write_bytes(bytes(range(256)))
    (home / "engine.json").write_text("{}")


def forge(target: Path, members: Mapping[str, bytes], **changes: Any) -> Path:
    """Write a zip as `pack` does, with changes to the ZipInfo of its last member."""
    with zipfile.ZipFile(target, "w") as archive:
        for position, (name, data) in enumerate(members.items(), 1):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            if position == len(members):
                for key, value in changes.items():
                    setattr(info, key, value)
            archive.writestr(info, data)
    return target


@pytest.fixture
def packed(toy_bundle: Path, tmp_path: Path) -> Path:
    """The toy bundle as one file, in a folder of its own."""
    (tmp_path / "there").mkdir()
    return pack(toy_bundle, tmp_path / "there" / "toy.fgdz").path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "toy.fgd"


# --- there and back


def test_there_and_back(toy_bundle: Path, packed: Path, target: Path) -> None:
    bundle = unpack(packed, target)
    assert contents(target) == contents(toy_bundle)
    assert bundle == open_bundle(target)
    assert names(target.parent) == ["toy.fgd"]
    assert names(packed.parent) == ["toy.fgdz"]


def test_what_pack_says_is_so(toy_bundle: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = pack(toy_bundle, tmp_path / "t.fgdz", progress=lambda *step: seen.append(step))
    assert made.path.stat().st_size == made.bytes
    assert packing.sha256(made.path) == made.sha256
    assert made.files == {name: len(data) for name, data in contents(toy_bundle).items()}
    assert next(iter(made.files)) == "manifest.json"
    assert seen[-1] == (sum(made.files.values()),) * 2
    with zipfile.ZipFile(made.path) as archive:
        assert archive.namelist() == list(made.files)
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_same_bundle_gives_the_same_bytes(toy_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_bundle, tmp_path / "copy.fgd")
    for entry in (tmp_path / "copy.fgd").iterdir():
        os.utime(entry, (0, 0))
        entry.chmod(0o755)
    first = pack(toy_bundle, tmp_path / "a.fgdz")
    second = pack(tmp_path / "copy.fgd", tmp_path / "b.fgdz")
    assert first.sha256 == second.sha256
    again = pack(unpack(first.path, tmp_path / "c.fgd").path, tmp_path / "c.fgdz")
    assert again.sha256 == first.sha256


def test_engines_stay_unless_asked_for(own_bundle: Path, tmp_path: Path, target: Path) -> None:
    add_engine(own_bundle)
    (own_bundle / "notes.txt").write_text("mine")
    (own_bundle / "engines" / ".half.tmp").mkdir()
    assert sorted(pack(own_bundle, tmp_path / "a.fgdz").files) == ["manifest.json", "model.onnx"]
    made = pack(own_bundle, tmp_path / "b.fgdz", engines=True)
    unpack(made.path, target)
    inside = contents(own_bundle)
    del inside["notes.txt"]
    assert contents(target) == inside
    assert "engines/openvino-int8-x86_64/engine.bin" in inside


def test_files_in_folders_and_names_beyond_ascii(own_bundle: Path, target: Path) -> None:
    (own_bundle / "notes").mkdir()
    (own_bundle / "notes" / "Grünspecht 1.txt").write_text("Vogel")
    (own_bundle / "empty.bin").touch()
    seal(own_bundle, open_bundle(own_bundle).manifest)
    unpack(pack(own_bundle, target.with_suffix(".fgdz")).path, target)
    assert contents(target) == contents(own_bundle)


def test_nothing_is_executable(packed: Path, toy_bundle: Path, target: Path) -> None:
    forge(packed, contents(toy_bundle), external_attr=(stat.S_IFREG | 0o6777) << 16)
    unpack(packed, target)
    modes = [entry.stat().st_mode for entry in target.rglob("*") if entry.is_file()]
    assert len(modes) == 2
    assert not any(mode & 0o7111 for mode in modes)


def test_memory_stays_bounded(own_bundle: Path, tmp_path: Path) -> None:
    with open(own_bundle / "big.bin", "wb") as stream:
        stream.truncate(48 << 20)
    seal(own_bundle, open_bundle(own_bundle).manifest)
    tracemalloc.start()
    try:
        unpack(pack(own_bundle, tmp_path / "a.fgdz").path, tmp_path / "a.fgd")
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


# --- pack refuses


def test_pack_targets(toy_bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.fgdz"
    there.write_bytes(b"old")
    with refused(BundleError, r"there\.fgdz is there already; pass --overwrite"):
        pack(toy_bundle, there)
    assert there.read_bytes() == b"old"
    assert pack(toy_bundle, there, overwrite=True).bytes == there.stat().st_size
    with refused(UsageError, r"a packed bundle's name ends in \.fgdz"):
        pack(toy_bundle, tmp_path / "toy.zip")
    with refused(BundleError, r"no folder .*missing to write a\.fgdz into; create it"):
        pack(toy_bundle, tmp_path / "missing" / "a.fgdz")
    (tmp_path / "folder.fgdz").mkdir()
    with refused(BundleError, r"folder\.fgdz is a folder; give another -o"):
        pack(toy_bundle, tmp_path / "folder.fgdz", overwrite=True)
    with refused(BundleError, r"lies in the bundle itself"):
        pack(toy_bundle, toy_bundle / "a.fgdz")
    assert names(tmp_path) == ["folder.fgdz", "there.fgdz"]


def test_pack_verifies_first(own_bundle: Path, tmp_path: Path) -> None:
    with refused(BundleError, "none.fgd does not exist"):
        pack(tmp_path / "none.fgd", tmp_path / "a.fgdz")
    with open(own_bundle / "model.onnx", "r+b") as stream:
        stream.seek(100)
        stream.write(b"X")
    with refused(BundleError, "its sha256 is not the one in manifest.json"):
        pack(own_bundle, tmp_path / "a.fgdz")
    assert names(tmp_path) == ["own.fgd"]


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "longer", "same size"])
def test_a_bundle_that_changes_while_it_is_packed(
    own_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    how: str,
) -> None:
    def change(*_: object) -> None:
        data = (own_bundle / name).read_bytes()
        changed = {"cut": data[:-9], "longer": data + b" ", "same size": data[:-2] + b" \n"}
        (own_bundle / name).write_bytes(changed[how])

    monkeypatch.setattr(packing, "_check_space", change)
    with refused(BundleError, rf"{name} changed while it was packed; pack it again"):
        pack(own_bundle, tmp_path / "a.fgdz")
    assert names(tmp_path) == ["own.fgd"]


def test_another_manifest_while_packing(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(own_bundle)
    bundle.record_parity({"photos": 1})
    monkeypatch.setattr(packing, "open_bundle", lambda path: bundle)
    with refused(BundleError, r"manifest\.json changed while it was packed"):
        pack(own_bundle, tmp_path / "a.fgdz")


def test_engines_that_are_not_engines(own_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.fgdz"
    with refused(BundleError, r"own\.fgd holds no engines; leave out --engines"):
        pack(own_bundle, target, engines=True)
    add_engine(own_bundle)
    home = own_bundle / "engines"
    stray = home / "timing.cache"
    stray.touch()
    with refused(BundleError, r"timing\.cache does not belong there.*no links; move it away"):
        pack(own_bundle, target, engines=True)
    stray.unlink()
    (home / "other").symlink_to(home / "openvino-int8-x86_64")
    with refused(BundleError, r"other does not belong there"):
        pack(own_bundle, target, engines=True)
    (home / "other").unlink()
    (home / "openvino-int8-x86_64" / "secret").symlink_to("/etc/passwd")
    with refused(BundleError, r"secret does not belong there"):
        pack(own_bundle, target, engines=True)
    shutil.rmtree(home)
    home.symlink_to(tmp_path)
    with refused(BundleError, r"engines is not a folder, or a link"):
        pack(own_bundle, target, engines=True)
    assert names(tmp_path) == ["own.fgd"]


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
        (lambda entry: entry["files"].update(a={}), r"toy\.fgdz lacks 'a'"),
        (lambda entry: entry["files"]["model.onnx"].update(bytes=1), r"lists 1 bytes for 'model"),
        (lambda entry: entry["files"].update({"model.onnx": 7}), r"lists None bytes for 'model"),
        (
            lambda entry: entry["files"]["model.onnx"].update(bytes="1\n"),
            r"json lists '1\\n' bytes for 'model\.onnx', got \d+; copy it again",
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
    monkeypatch.setattr(packing, "_LONGEST_MANIFEST", 100)
    with refused(BundleError, r"expected a manifest\.json of at most 100 bytes, got \d+"):
        unpack(packed, target)
    del members["manifest.json"]
    with refused(BundleError, r"holds no manifest\.json, so it is no packed bundle"):
        unpack(forge(packed, members), target)
    with refused(BundleError, r"holds no manifest\.json"):
        unpack(forge(packed, {}), target)


# --- the disk


def test_too_little_space_is_said_first(
    packed: Path,
    toy_bundle: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        packing.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000 if path else 0)
    )
    with refused(BundleError, r"toy\.fgd needs 0\.0 MB, .*here has 0\.0 MB free; free some space"):
        unpack(packed, target)
    with refused(BundleError, r"toy\.fgdz needs 0\.0 MB, .*free; free some space, or write else"):
        pack(toy_bundle, target.with_suffix(".fgdz"))
    assert names(target.parent) == []


class _Full(io.RawIOBase):
    def __init__(self, raw: Any, most: int) -> None:
        self.raw, self.most = raw, most

    def write(self, data: Any) -> int:
        self.most -= len(data)
        if self.most < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.raw.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def __exit__(self, *error: object) -> None:
        self.raw.close()


@pytest.mark.parametrize("room", [0, 10, 700, 2000, 3000])
def test_a_disk_that_fills_up_leaves_nothing(
    packed: Path,
    toy_bundle: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
) -> None:
    def full(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        stream = open(path, mode, *rest, **more)  # noqa: SIM115
        return _Full(stream, room) if "x" in mode else stream

    monkeypatch.setattr(packing, "open", full, raising=False)
    monkeypatch.setattr(packing.atomic, "open", full, raising=False)
    with refused(OSError, "No space left on device"):
        unpack(packed, target)
    with refused(OSError, "No space left on device"):
        pack(toy_bundle, target.with_suffix(".fgdz"))
    assert names(target.parent) == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_leaves_nothing(
    packed: Path, toy_bundle: Path, target: Path, kind: type[BaseException]
) -> None:
    def stop(done: int, total: int) -> None:
        raise kind("stop")

    with pytest.raises(kind, match="stop"):
        unpack(packed, target, progress=stop)
    with pytest.raises(kind, match="stop"):
        pack(toy_bundle, target.with_suffix(".fgdz"), progress=stop)
    assert names(target.parent) == []


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
