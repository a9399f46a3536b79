"""A migration that is killed, and others that read and write while it goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.gallery import migrate, migrating, old_of
from fgdeploy.retrieval import Index, Item
from tests.fgdeploy.gallery.conftest import MODEL, paint
from tests.fgdeploy.gallery.succession_samples import (
    NEW,
    at_once,
    code_of,
    filled,
    is_whole,
    new_hasher,
)

ROOT = Path(__file__).parents[3]
PHOTOS = 24

# Migrates, and dies at the given call of the given function, before or after it.
KILLED = """
import os, signal, sys
from pathlib import Path
from fgdeploy.gallery import migrate, migrating, rehashing
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store import succession
from tests.fgdeploy.gallery.succession_samples import at_once, new_hasher

migrating.AT_ONCE = 4
where, call, after = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "after"
holders = {"bring": rehashing.Rehasher, "add": Index, "rename": os}
holder = holders.get(where, migrating if hasattr(migrating, where) else succession)
work, calls = getattr(holder, where), [0]

def dying(*arguments, **options):
    calls[0] += 1
    if calls[0] == call and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    result = work(*arguments, **options)
    if calls[0] == call and after:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(holder, where, dying)
print("ready", flush=True)
with new_hasher() as hasher:
    migrate(Path(sys.argv[1]), hasher, throttle=at_once())
"""

POINTS = [
    ("bring", 3, "before", False),
    ("add", 2, "before", False),
    ("add", 3, "after", False),
    ("switch", 1, "before", False),
    ("exchange", 1, "before", False),
    ("exchange", 1, "after", True),
    ("switch", 1, "after", True),
    ("put_aside", 1, "after", True),
    ("can_exchange", 1, "after", False),
]


def started(path: Path, where: str, call: int, when: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, str(path), where, str(call), when]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def finish(path: Path) -> None:
    """Run once more: the new index is in place, the old one kept, nothing left beside them."""
    with new_hasher() as hasher:
        report = migrate(path, hasher, throttle=at_once())
    assert report.switched or report.needless
    with Index.open(path) as index, Index.open(old_of(path)) as old:
        assert is_whole(index) and len(index) == PHOTOS
        assert not is_whole(old) and len(old) == PHOTOS
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == ["g.fgi", "g.fgi.old", "photos"]


@pytest.mark.parametrize(("where", "call", "when", "new"), POINTS)
def test_killed_anywhere_it_leaves_old_or_new_and_goes_on(
    tmp_path: Path, where: str, call: int, when: str, new: bool
) -> None:
    filled(tmp_path, PHOTOS)
    path = tmp_path / "g.fgi"
    with started(path, where, call, when) as child:
        assert child.wait(60) == -signal.SIGKILL
    with Index.open(path) as index:
        assert (is_whole(index), len(index)) == (new, PHOTOS)
    finish(path)


def test_killed_at_any_time(tmp_path: Path) -> None:
    chooser, outcomes = random.Random(8), set[bool]()
    filled(tmp_path, PHOTOS)
    path = tmp_path / "g.fgi"
    for _ in range(5):
        with started(path, "bring", 10_000, "after") as child:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            try:
                child.wait(chooser.random() * 0.3)
            except subprocess.TimeoutExpired:
                child.kill()
        with Index.open(path) as index:
            outcomes.add(is_whole(index))
            assert len(index) == PHOTOS
    finish(path)


READER = """
import sys
from pathlib import Path
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index
from tests.fgdeploy.gallery.succession_samples import is_whole

seen = []
print("ready", flush=True)
while len(seen) < 2 or not seen[-1]:
    with Index.open(sys.argv[1]) as index:
        try:
            new = is_whole(index)
            assert len(index) == 24
        except IndexStoreError:
            assert not index.is_current()  # told so, and never given a mixture
            continue
    if not seen or seen[-1] != new:
        seen.append(new)
print(seen, flush=True)
"""


def test_readers_see_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process opens the index again and again, one thread searches in an opened one."""
    filled(tmp_path, PHOTOS)
    path, answers, wrong = tmp_path / "g.fgi", list[bytes](), list[BaseException]()
    monkeypatch.setattr(migrating, "AT_ONCE", 4)
    begun = threading.Event()

    def read() -> None:
        index = Index.open(path)
        try:
            for _ in range(100_000):
                query = np.frombuffer(code_of(5, index.fingerprint == NEW), np.uint8)[None]
                try:
                    (hits,) = index.search(query, 1)
                except IndexStoreError:
                    assert not index.is_current()
                    index.close()
                    index = Index.open(path)
                    continue
                assert hits[0].distance == 0 and hits[0].id == 6
                answers.append(bytes.fromhex(index.fingerprint[:2]))
                begun.set()
                if index.fingerprint == NEW:
                    return
        except BaseException as error:
            wrong.append(error)
        finally:
            begun.set()
            index.close()

    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
        thread = threading.Thread(target=read)
        thread.start()
        assert begun.wait(30)
        with new_hasher() as hasher:
            assert migrate(path, hasher, throttle=at_once()).switched
        thread.join(30)
        assert reader.stdout.readline() == "[False, True]\n"
        assert reader.wait(30) == 0
    assert wrong == [] and not thread.is_alive()
    assert set(answers) == {b"\xab", b"\xcd"}
    assert answers == sorted(answers)


def test_writers_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread adds and removes all the while, each time in the index that lies there."""
    filled(tmp_path, PHOTOS)
    path = tmp_path / "g.fgi"
    monkeypatch.setattr(migrating, "AT_ONCE", 4)
    more = [paint(tmp_path / "photos" / f"{n}.png", (n, 9, 7)) for n in range(100, 180)]
    acknowledged, models, wrong = set[str](), set[str](), list[BaseException]()
    begun, switched = threading.Event(), threading.Event()

    def write() -> None:
        index, after = Index.open(path), 0
        try:
            for photo in more:
                number = int(photo.path.stem)
                for _ in range(50):
                    try:
                        code = code_of(number, index.fingerprint == NEW)
                        index.add([Item(str(photo.path), code)])
                        if number in (109, 119):  # an item of the beginning
                            index.remove(
                                [item.id for item in index.items() if item.id == number - 99]
                            )
                        break
                    except IndexStoreError:
                        assert not index.is_current()
                        index.close()
                        index = Index.open(path)
                acknowledged.add(str(photo.path))
                models.add(index.fingerprint)
                begun.set()
                after += switched.is_set()
                if after > 3:
                    return
                if len(acknowledged) > 40:
                    switched.wait(30)
        except BaseException as error:
            wrong.append(error)
        finally:
            begun.set()
            index.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(30)
    with new_hasher() as hasher:
        assert migrate(path, hasher, throttle=at_once()).switched
    switched.set()
    thread.join(60)
    assert wrong == [] and not thread.is_alive()
    assert models == {MODEL, NEW}
    with Index.open(path) as index:
        assert is_whole(index)
        assert acknowledged <= {item.path for item in index.items()}


def test_a_change_at_the_last_moment_is_in_the_new_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last pass without the lock, more is added than may be done under it."""
    filled(tmp_path, PHOTOS)
    path, quiet = tmp_path / "g.fgi", migrating.quiet
    monkeypatch.setattr(migrating, "AT_ONCE", 4)
    monkeypatch.setattr(migrating, "_LAST", 6)
    bursts = [range(100, 120), range(130, 133)]

    def late(*arguments: object) -> object:
        if bursts:
            with Index.open(path) as index:
                for n in bursts.pop(0):
                    photo = paint(tmp_path / "photos" / f"{n}.png", (n, 9, 7))
                    index.add([Item(str(photo.path), code_of(n, False))])
        return quiet(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(migrating, "quiet", late)
    with new_hasher() as hasher:
        assert migrate(path, hasher, throttle=at_once()).items == PHOTOS + 23
    with Index.open(path) as index:
        assert is_whole(index)


def test_one_who_waits_for_the_lock_does_not_write_into_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 5)
    path, said = tmp_path / "g.fgi", list[str]()
    waiting = Index.open(path)
    threads = list[threading.Thread]()

    def add() -> None:
        try:
            waiting.add([Item("/photos/77.png", code_of(77, False))])
        except IndexStoreError as error:
            said.append(str(error))

    switch: Callable[..., None] = migrating.switch

    def meanwhile(*arguments: object) -> None:
        threads.append(threading.Thread(target=add))
        threads[0].start()
        switch(*arguments)

    monkeypatch.setattr(migrating, "switch", meanwhile)
    with new_hasher() as hasher:
        assert migrate(path, hasher, throttle=at_once()).switched
    threads[0].join(30)
    waiting.close()
    assert said == [f"{path} was replaced by another index since it was opened; open it anew"]
    for there in (path, old_of(path)):
        with Index.open(there) as index:
            assert len(index) == 5


def test_a_reader_in_the_middle_of_an_answer_keeps_its_index(tmp_path: Path) -> None:
    filled(tmp_path, 5)
    path = tmp_path / "g.fgi"
    with Index.open(path) as index, index._session.reading() as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (5,)
        with new_hasher() as hasher:
            assert migrate(path, hasher, throttle=at_once()).switched
        codes = [code for (code,) in connection.execute("SELECT code FROM items ORDER BY id")]
    assert codes == [code_of(n, False) for n in range(5)]
