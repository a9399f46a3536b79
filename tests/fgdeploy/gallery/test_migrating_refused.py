"""What stands in the way of a migration."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.gallery import migrate, migrating
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import lock, succession
from tests.checks import refused
from tests.fgdeploy.gallery.conftest import frames_run
from tests.fgdeploy.gallery.succession_samples import filled, is_whole, new_hasher
from tests.fgdeploy.gallery.test_migrating import run, small_steps

__all__ = ["small_steps"]


def test_two_migrations_of_one_index_do_not_meet(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    place = tmp_path / ".g.fgi.migrating"
    place.mkdir()
    with lock.held(place, 0), refused(IndexStoreError, "migrating: another process is writing"):
        run(tmp_path / "g.fgi")


def test_a_file_system_without_exchange_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 2)
    monkeypatch.setattr(migrating, "can_exchange", lambda folder: False)
    with new_hasher() as hasher:
        with refused(IndexStoreError, "cannot exchange two folders at once .*such as ext4$"):
            migrate(tmp_path / "g.fgi", hasher)
        assert frames_run(hasher) == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.fgi", "photos"]


def test_an_exchange_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 3)
    path = tmp_path / "g.fgi"

    def fails(one: Path, other: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(succession, "exchange", fails)
    with refused(IndexStoreError, "cannot change places .Invalid cross-device link.; both are as"):
        run(path)
    with Index.open(path) as index:
        assert not is_whole(index)
    monkeypatch.undo()
    report = run(path)
    assert (report.switched, report.before, report.rehashed.hashed) == (True, 3, 0)


def test_what_lies_where_the_old_index_is_to_be_kept_is_not_touched(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    (tmp_path / "g.fgi.old").write_text("mine")
    with refused(IndexStoreError, "g.fgi.old is in the way, .*move or remove it$"):
        run(tmp_path / "g.fgi")
    assert (tmp_path / "g.fgi.old").read_text() == "mine"


def test_a_full_disk_stops_it_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 10)
    path, add, calls = tmp_path / "g.fgi", Index.add, []

    def full(self: Index, *arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            self._session.connection.execute("PRAGMA max_page_count = 1")
            arguments = ([Item(f"{n}" * 500, bytes(3)) for n in range(500)],)
            options = {}
        return add(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Index, "add", full)
    with refused(IndexStoreError, "next.fgi: the disk is full; nothing was lost, free some space"):
        run(path)
    monkeypatch.undo()
    report = run(path)
    assert (report.switched, report.before, report.rehashed.hashed) == (True, 4, 6)


def test_a_locked_index_is_told_after_all_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 3)
    path = tmp_path / "g.fgi"
    monkeypatch.setattr(migrating, "_PATIENCE_S", 0.02)
    with lock.held(path, 0), refused(IndexStoreError, "another process is writing to it"):
        run(path)
    assert run(path).before == 3
