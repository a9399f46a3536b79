"""Two folders that change places."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path

import pytest

from fgdeploy.core import exchange as module
from fgdeploy.core.exchange import can_exchange, exchange


def test_two_folders_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "below" / "ötherß"
    for folder in (one, other):
        folder.mkdir(parents=True)
        (folder / "what").write_text(folder.name)
    exchange(one, other)
    assert (one / "what").read_text() == "ötherß"
    assert (other / "what").read_text() == "one"


def test_one_that_is_not_there_leaves_the_other(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        exchange(tmp_path / "one", tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "one")
    assert [entry.name for entry in tmp_path.iterdir()] == ["one"]


def test_it_is_tried_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_exchange(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def refuses(one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(module, "exchange", refuses)
    assert not can_exchange(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_system_without_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(OSError, match="no renameat2"):
        exchange(tmp_path, tmp_path)
    assert not can_exchange(tmp_path)
