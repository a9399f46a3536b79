"""An index that another one took the place of, or nothing, while it was open."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store import index_state
from fgdeploy.retrieval.store.making import DATABASE
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, OTHER, ZERO, names, photo

REPLACED = r"gallery\.fgi was replaced by another index since it was opened; open it anew$"
REMOVED = r"gallery\.fgi was removed by another process; run the command again$"

USES: dict[str, Callable[[Index], object]] = {
    "len": len,
    "search": lambda index: index.search(ZERO),
    "filter": lambda index: index.search(ZERO, where="label = 'owl'"),
    "radius": lambda index: index.search_radius(ZERO[0], 3),
    "items": lambda index: next(index.items()),
    "get": lambda index: index.get([1]),
    "by_path": lambda index: index.by_path(["/photos/a"]),
    "stats": Index.stats,
    "verify": Index.verify,
    "compact": Index.compact,
    "add": lambda index: index.add([photo("new")]),
    "add_codes": lambda index: index.add_codes(ZERO),
    "relabel": lambda index: index.relabel({"/photos/a": "new"}),
    "remove": lambda index: index.remove([1]),
    "delete": Index.delete_if_empty,
}


def made_again(path: Path) -> None:
    shutil.rmtree(path)
    with Index.create(path, MODEL, BITS) as fresh:
        fresh.add([photo("fresh")])


def of_another_model(path: Path) -> None:
    Index.create(path.with_name("other.fgi"), OTHER, 64).close()
    os.rename(path, path.with_name("old.fgi"))
    os.rename(path.with_name("other.fgi"), path)


def a_copy_of_itself(path: Path) -> None:
    shutil.copytree(path, path.with_name("copy.fgi"))
    shutil.rmtree(path)
    os.rename(path.with_name("copy.fgi"), path)


def moved_away(path: Path) -> None:
    os.rename(path, path.with_name("elsewhere.fgi"))


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("mine")


def emptied(path: Path) -> None:
    (path / DATABASE).unlink()


CHANGES = [
    (made_again, REPLACED),
    (of_another_model, REPLACED),
    (a_copy_of_itself, REPLACED),
    (moved_away, REMOVED),
    (shutil.rmtree, REMOVED),
    (a_file, REMOVED),
    (emptied, REMOVED),
]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[c.__name__ for c, _ in CHANGES])
def test_nothing_is_answered_from_an_index_that_is_not_at_its_path(
    change: Callable[[Path], None],
    words: str,
    use: Callable[[Index], object],
    three: Index,
    path: Path,
) -> None:
    three.search(ZERO, where="label = 'owl'")  # what it would go on answering from
    assert three.is_current()
    change(path)
    assert not three.is_current()
    with refused(IndexStoreError, words):
        use(three)


def test_who_opens_it_anew_gets_the_new_one(three: Index, path: Path) -> None:
    made_again(path)
    with Index.open(path) as again:
        assert names(again) == ["fresh"]
    with refused(IndexStoreError, REPLACED):
        three.add([photo("d")])
    with Index.open(path) as again:
        assert names(again) == ["fresh"]


def test_a_thread_that_comes_later_is_told_too(three: Index, path: Path) -> None:
    made_again(path)
    said: list[str] = []

    def look() -> None:
        try:
            three.search(ZERO)
        except IndexStoreError as error:
            said.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert len(said) == 1
    assert "was replaced by another index" in said[0]


def test_the_first_thread_may_be_gone(path: Path) -> None:
    opened: list[Index] = []
    Index.create(path, MODEL, BITS).close()
    thread = threading.Thread(target=lambda: opened.append(Index.open(path)))
    thread.start()
    thread.join()
    with opened[0] as index:
        for _ in range(20):  # the inode of a file that nobody holds is soon given again
            made_again(path)
            with refused(IndexStoreError, REPLACED):
                len(index)


def test_a_link_that_points_elsewhere_now(three: Index, path: Path) -> None:
    link = path.with_name("current.fgi")
    link.symlink_to(path)
    with Index.open(link) as linked, Index.create(path.with_name("b.fgi"), MODEL, BITS):
        assert len(linked) == 3
        link.unlink()
        link.symlink_to(path.with_name("b.fgi"))
        with refused(IndexStoreError, r"current\.fgi was replaced by another index"):
            len(linked)
    assert len(three) == 3


def test_a_change_that_went_into_a_lost_file_is_not_acknowledged(
    three: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = index_state.seal

    def late(connection: sqlite3.Connection) -> None:  # the last before the commit
        seal(connection)
        monkeypatch.undo()
        made_again(path)

    monkeypatch.setattr(index_state, "seal", late)
    with refused(IndexStoreError, REPLACED):
        three.add([photo("d")])
    with Index.open(path) as again:
        assert names(again) == ["fresh"]


def test_a_relative_path_means_the_same_after_a_change_of_folder(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: None
) -> None:
    monkeypatch.chdir(path.parent)
    with Index.create("gallery.fgi", MODEL, BITS) as index:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        index.add([photo(str(number), number) for number in range(40)])
        index.add_codes(np.zeros((40, BITS // 8), np.uint8))
        index.compact()
        assert len(index.search(ZERO, 100)[0]) == 80
        assert index.stats().database_bytes > 0
        assert not [one for one in index.verify() if one.fatal]
    assert list(Path().iterdir()) == []
    with Index.open(path) as again:
        assert len(again) == 80
