"""Several processes that make one index and fill it at once; one that is killed half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fgdeploy import gallery
from fgdeploy.core.errors import DataError, IndexStoreError
from fgdeploy.gallery import add_photos, adding, fill
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Added, Index, Item
from fgdeploy.retrieval.store import index as store
from fgdeploy.retrieval.store.making import Taken
from tests.checks import refused
from tests.fgdeploy.gallery.conftest import BITS, MODEL

CODE = bytes(BITS // 8)
AT_ONCE = 6

CHILD = """
import sys
from pathlib import Path
from fgdeploy.core.codes import CodeFile
from fgdeploy.gallery import fill
from fgdeploy.retrieval import Item
import numpy as np

path, name = Path(sys.argv[1]), sys.argv[2]
model = CodeFile(np.zeros((0, 3), np.uint8), [], [], 24, "ab" * 32)
items = [Item("/same", bytes(3)), Item(f"/{name}", bytes(3))] if name != "nothing" else []
sys.stdin.readline()
for _ in range(5):
    fill(path, model, lambda index: index.add(items))
"""

KILLED = """
import os, signal, sys
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store import schema

schema.create = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Index.open_or_create(sys.argv[1], "ab" * 32, 24)
"""


def start(path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(path), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_many_processes_make_and_fill_one_index_at_once(tmp_path: Path) -> None:
    """Half of them have nothing to add, and remove the index again if it was they who made it."""
    path = tmp_path / "new.fgi"
    names = [str(n) if n % 2 else "nothing" for n in range(AT_ONCE)]
    children = [start(path, name) for name in names]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate()[1] for child in children]
    assert (said, [child.returncode for child in children]) == ([""] * AT_ONCE, [0] * AT_ONCE)
    with Index.open(path) as index:
        found = {item.path for item in index.items()}
    assert found == {"/same", *(f"/{name}" for name in names if name != "nothing")}
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_is_killed_while_it_makes_the_index_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "new.fgi"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    index, made = Index.open_or_create(path, MODEL, BITS)
    with index:
        assert (made, index.add([Item("/a", CODE)])) == (True, Added(new=1))


def test_filling_starts_again_when_the_index_goes_before_anything_is_in_it(
    hasher: Hasher, tmp_path: Path
) -> None:
    path = tmp_path / "new.fgi"
    with Index.create(path, MODEL, BITS) as rival:

        def work(index: Index) -> Added:
            if index.path.exists() and rival.is_current():
                assert rival.delete_if_empty()  # it had nothing to add
            return index.add([Item("/a", CODE)])

        assert fill(path, hasher, work) == (Added(new=1), 1)
    assert list(tmp_path.iterdir()) == [path]


def test_filling_does_not_start_again_over_what_was_added(hasher: Hasher, tmp_path: Path) -> None:
    path = tmp_path / "new.fgi"

    def work(index: Index) -> None:
        index.add([Item("/a", CODE)])
        os.rename(path, tmp_path / "elsewhere.fgi")
        index.add([Item("/b", CODE)])

    with refused(IndexStoreError, "was removed by another process"):
        fill(path, hasher, work)
    assert not path.exists()


def test_an_index_that_got_nothing_is_not_left_behind(hasher: Hasher, tmp_path: Path) -> None:
    def fail(index: Index) -> None:
        raise DataError("no photos")

    assert fill(tmp_path / "new.fgi", hasher, lambda index: index.add([])) == (Added(), 0)
    with refused(DataError, "no photos"):
        fill(tmp_path / "new.fgi", hasher, fail)
    assert list(tmp_path.iterdir()) == []
    Index.create(tmp_path / "old.fgi", MODEL, BITS).close()
    with refused(DataError, "no photos"):
        fill(tmp_path / "old.fgi", hasher, fail)
    assert (tmp_path / "old.fgi").exists()


def test_what_another_process_added_meanwhile_is_known_and_no_copy(
    index: Index, hasher: Hasher, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    sort_out = adding._sort_out

    def overtaken(*arguments: object) -> list[Item]:
        fresh = sort_out(*arguments)  # type: ignore[arg-type]
        monkeypatch.undo()
        with Index.open(index.path) as rival:
            add_photos(rival, hasher, photos)
        return fresh

    monkeypatch.setattr(adding, "_sort_out", overtaken)
    assert add_photos(index, hasher, photos) == gallery.AddReport(known=len(photos))
    assert len(index) == len(photos)


def test_an_added_copy_is_told_from_an_item_that_is_known(index: Index) -> None:
    first = Item("/a", CODE, None, "s")
    assert index.add([first]).copies == 0
    added = index.add([first, Item("/copy", CODE, None, "s"), Item("/b", CODE)])
    assert (added.new, added.known, added.copies, added.total) == (1, 2, 1, 3)


def test_an_index_that_comes_and_goes_is_made_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, make = tmp_path / "new.fgi", store.make

    def taken(*arguments: object) -> None:
        monkeypatch.setattr(store, "make", make)
        raise Taken("made by another process, which has removed it again")

    monkeypatch.setattr(store, "make", taken)
    index, made = Index.open_or_create(path, MODEL, BITS)
    index.close()
    assert made


@pytest.mark.parametrize(("failures", "opened"), [(1, True), (4, True), (5, False)])
def test_an_index_that_is_made_anew_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, opened: bool
) -> None:
    Index.create(tmp_path / "a.fgi", MODEL, BITS).close()
    session, left = store.Session, [IndexStoreError("it was another folder")] * failures

    def replaced(path: Path) -> object:
        if left:
            raise left.pop()
        return session(path)

    monkeypatch.setattr(store, "Session", replaced)
    if opened:
        index, made = Index.open_or_create(tmp_path / "a.fgi", MODEL, BITS)
        index.close()
        assert not made
    else:
        with refused(IndexStoreError, "it was another folder"):
            Index.open_or_create(tmp_path / "a.fgi", MODEL, BITS)
