from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core import atomic
from tests.checks import refused

DISK_FULL = r"No space left on device"


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_folder_made_when_the_process_is_told_to_stop_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def stopped(self: Path) -> None:
        mkdir(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", stopped)
    with pytest.raises(KeyboardInterrupt), atomic.new_folder(tmp_path / "eet.fgd"):
        pass
    assert names(tmp_path) == []


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    target = tmp_path / "codes.npz"
    target.write_bytes(b"old")
    return target


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    target = tmp_path / "eet.fgd"
    target.mkdir()
    (target / "manifest.json").write_bytes(b"old")
    return target


def content(target: Path) -> bytes:
    return (target / "manifest.json").read_bytes()


# --- new_file


def test_new_file_appears_whole(tmp_path: Path) -> None:
    with atomic.new_file(tmp_path / "codes.npz") as stream:
        stream.write(b"new")
        assert "codes.npz" not in names(tmp_path)
    assert (tmp_path / "codes.npz").read_bytes() == b"new"
    assert names(tmp_path) == ["codes.npz"]


def test_new_file_replaces_the_old_one_only_at_the_end(old_file: Path) -> None:
    with atomic.new_file(old_file) as stream:
        stream.write(b"new")
        stream.flush()
        assert old_file.read_bytes() == b"old"
    assert old_file.read_bytes() == b"new"
    assert names(old_file.parent) == ["codes.npz"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_error_in_the_block_leaves_the_old_file(old_file: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind), atomic.new_file(old_file) as stream:
        stream.write(b"half")
        raise kind("stop")
    assert old_file.read_bytes() == b"old"
    assert names(old_file.parent) == ["codes.npz"]


def test_error_in_the_block_leaves_no_file_where_none_was(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), atomic.new_file(tmp_path / "a") as stream:
        stream.write(b"half")
        raise RuntimeError("stop")
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file(
    old_file: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, no_space)
    with refused(OSError, DISK_FULL), atomic.new_file(old_file) as stream:
        stream.write(b"new")
    assert old_file.read_bytes() == b"old"
    assert names(old_file.parent) == ["codes.npz"]


def test_full_disk_while_writing_leaves_the_old_file(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(OSError, DISK_FULL), atomic.new_file(old_file) as stream:
        stream.write(b"some")
        no_space()
    assert old_file.read_bytes() == b"old"
    assert names(old_file.parent) == ["codes.npz"]


def test_new_file_does_not_replace_a_folder(old_folder: Path) -> None:
    with refused(IsADirectoryError, r"Is a directory.*eet\.fgd"), atomic.new_file(old_folder) as s:
        s.write(b"new")
    assert content(old_folder) == b"old"
    assert names(old_folder.parent) == ["eet.fgd"]


def test_new_file_needs_its_folder(tmp_path: Path) -> None:
    with (
        refused(FileNotFoundError, r"No such file or directory.*missing"),
        atomic.new_file(tmp_path / "missing" / "a"),
    ):
        raise AssertionError("the block must not run")
    assert names(tmp_path) == []


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with atomic.new_file(target) as first, atomic.new_file(target) as second:
        first.write(b"first")
        second.write(b"second")
    assert target.read_bytes() == b"first"  # it ended last
    assert names(tmp_path) == ["a"]


def test_write_text_is_utf8_and_replaces(old_file: Path) -> None:
    atomic.write_text(old_file, "Grünspecht\n")
    assert old_file.read_bytes() == "Grünspecht\n".encode()
    assert names(old_file.parent) == ["codes.npz"]


def test_write_text_that_cannot_be_encoded_leaves_the_old_file(old_file: Path) -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        atomic.write_text(old_file, "\ud800")
    assert old_file.read_bytes() == b"old"
    assert names(old_file.parent) == ["codes.npz"]


def test_longest_legal_name(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / ("n" * 250), "x")
    assert names(tmp_path) == ["n" * 250]


def test_file_system_that_cannot_sync_folders(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse_folders(handle: int) -> None:  # as some FUSE and SMB mounts do
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    atomic.write_text(old_file, "new")
    assert old_file.read_bytes() == b"new"


# --- new_folder


def test_new_folder_appears_whole(tmp_path: Path) -> None:
    with atomic.new_folder(tmp_path / "eet.fgd") as folder:
        assert names(folder) == []
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"new")
        assert "eet.fgd" not in names(tmp_path)
    assert (tmp_path / "eet.fgd" / "sub" / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["eet.fgd"]


def test_new_folder_replaces_the_old_one_only_at_the_end(old_folder: Path) -> None:
    (old_folder / "stale").write_bytes(b"old")
    with atomic.new_folder(old_folder, replace=True) as folder:
        (folder / "manifest.json").write_bytes(b"new")
        assert content(old_folder) == b"old"
    assert content(old_folder) == b"new"
    assert names(old_folder) == ["manifest.json"]
    assert names(old_folder.parent) == ["eet.fgd"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_error_in_the_block_leaves_the_old_folder(
    old_folder: Path, kind: type[BaseException]
) -> None:
    with pytest.raises(kind), atomic.new_folder(old_folder, replace=True) as folder:
        (folder / "manifest.json").write_bytes(b"half")
        raise kind("stop")
    assert content(old_folder) == b"old"
    assert names(old_folder.parent) == ["eet.fgd"]


def test_error_in_the_block_leaves_no_folder_where_none_was(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), atomic.new_folder(tmp_path / "a") as folder:
        (folder / "half").write_bytes(b"half")
        raise RuntimeError("stop")
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_full_disk_leaves_the_old_folder(
    old_folder: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, no_space)
    with refused(OSError, DISK_FULL), atomic.new_folder(old_folder, replace=True) as folder:
        (folder / "manifest.json").write_bytes(b"new")
    assert content(old_folder) == b"old"
    assert names(old_folder.parent) == ["eet.fgd"]


def fail_second_rename(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    rename, calls = os.rename, iter(range(100))

    def fail(source: Path, target: Path) -> None:
        if next(calls) == 1:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)


def test_old_folder_comes_back_if_the_new_one_cannot_be_named(
    old_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_second_rename(monkeypatch, OSError(errno.EIO, os.strerror(errno.EIO)))
    with (
        refused(OSError, "Input/output error"),
        atomic.new_folder(old_folder, replace=True) as folder,
    ):
        (folder / "manifest.json").write_bytes(b"new")
    assert content(old_folder) == b"old"
    assert names(old_folder.parent) == ["eet.fgd"]


def test_old_folder_comes_back_after_ctrl_c_between_the_renames(
    old_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_second_rename(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), atomic.new_folder(old_folder, replace=True) as folder:
        (folder / "manifest.json").write_bytes(b"new")
    assert names(old_folder.parent) == ["eet.fgd"]
    assert content(old_folder) == b"old"


@pytest.mark.parametrize("what", ["file", "link"])
def test_new_folder_over_something_else_leaves_no_litter(tmp_path: Path, what: str) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "a"
    if what == "file":
        target.write_bytes(b"old")
    else:
        target.symlink_to(tmp_path / "real")
    with suppress(OSError), atomic.new_folder(target) as folder:
        (folder / "new").write_bytes(b"new")
    assert names(tmp_path) == ["a", "real"]


def test_new_folder_needs_its_parent(tmp_path: Path) -> None:
    with (
        refused(FileNotFoundError, r"No such file or directory.*missing"),
        atomic.new_folder(tmp_path / "missing" / "a"),
    ):
        raise AssertionError("the block must not run")
    assert names(tmp_path) == []


def test_new_folder_leaves_what_is_there_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("dear")
    with (
        pytest.raises(FileExistsError, match="is there already"),
        atomic.new_folder(tmp_path / "a"),
    ):
        pass
    assert (tmp_path / "a" / "mine.txt").read_text() == "dear"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
