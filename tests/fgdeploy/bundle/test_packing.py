"""Packs there and back unchanged, what `pack` refuses, and disks that fill up."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fgdeploy.bundle import open_bundle, packing, seal
from fgdeploy.bundle.packing import pack, unpack
from fgdeploy.core.errors import BundleError, UsageError
from tests.checks import refused
from tests.fgdeploy.bundle.packs import add_engine, contents, forge, names

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
