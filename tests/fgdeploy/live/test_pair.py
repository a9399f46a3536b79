"""A hasher and an index that change together."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import BundleError, EngineError, IndexStoreError
from fgdeploy.gallery import go_back, migrate, old_of
from fgdeploy.hasher import Hasher
from fgdeploy.live.pair import Pair
from fgdeploy.live.pair_opener import RETRY_S, Both
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.gallery.conftest import MODEL, colour_hasher
from tests.fgdeploy.gallery.succession_samples import NEW, at_once, filled, new_hasher

FRAME = np.full((8, 8, 3), (3, 9, 7), np.uint8)


class Loader:
    """Opens bundles that are a manifest alone, and keeps all that it opened."""

    def __init__(self) -> None:
        self.opened: list[Hasher] = []
        self.fails = False

    def __call__(self, path: Path) -> Hasher:
        if self.fails:
            raise EngineError("the self-test failed; build the engine again")
        model = json.loads((path / "manifest.json").read_text())["fingerprint"]
        self.opened.append(colour_hasher() if model == MODEL else new_hasher(model))
        return self.opened[-1]


def is_open(hasher: Hasher) -> bool:
    try:
        hasher.engine.check_open()
    except EngineError:
        return False
    return True


def bundle(folder: Path, model: str) -> Path:
    path = folder / f"{model[:2]}.fgd"
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps({"fingerprint": model}))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    filled(tmp_path, 6)
    bundle(tmp_path, MODEL)
    bundle(tmp_path, NEW)
    return tmp_path / "g.fgi"


@pytest.fixture
def load() -> Loader:
    return Loader()


def to_new(path: Path, keep_old: bool = True) -> None:
    with new_hasher() as hasher:
        assert migrate(path, hasher, throttle=at_once(), keep_old=keep_old).switched


def nearest(hasher: Hasher, index: Index) -> tuple[str, int, int]:
    hits = index.search(hasher.encode([FRAME]), 1)[0]
    return hasher.fingerprint, hits[0].id, hits[0].distance


def test_it_goes_over_when_the_index_was_replaced(path: Path, load: Loader) -> None:
    with Pair(path, load=load) as pair:
        assert pair.answer(nearest) == (MODEL, 4, 0)
        assert not pair.refresh()
        to_new(path)
        assert pair.refresh() and not pair.refresh()
        assert pair.answer(nearest) == (NEW, 4, 0)
        assert [is_open(hasher) for hasher in load.opened] == [False, True]
    assert not is_open(load.opened[1])


def test_a_search_that_meets_the_switch_is_answered_by_the_new_pair(
    path: Path, load: Loader
) -> None:
    seen: list[str] = []

    def work(hasher: Hasher, index: Index) -> tuple[str, int, int]:
        seen.append(hasher.fingerprint)
        codes = hasher.encode([FRAME])
        if len(seen) == 1:
            to_new(path)  # between hashing and searching
        hits = index.search(codes, 1)[0]
        return hasher.fingerprint, hits[0].id, hits[0].distance

    with Pair(path, load=load) as pair:
        assert pair.answer(work) == (NEW, 4, 0)
    assert seen == [MODEL, NEW]


def test_other_errors_of_the_work_are_not_tried_again(path: Path, load: Loader) -> None:
    calls: list[int] = []

    def work(hasher: Hasher, index: Index) -> None:
        calls.append(1)
        index.get([99])

    with Pair(path, load=load) as pair, refused(IndexStoreError, "has no item 99"):
        pair.answer(work)
    assert calls == [1]


def test_who_uses_the_old_pair_keeps_it_open(path: Path, load: Loader) -> None:
    with Pair(path, load=load) as pair:
        with pair.using() as both:
            to_new(path)
            assert pair.refresh()
            assert both.hasher.encode([FRAME]).tolist() == [[3, 9, 7]]
            with pair.using() as fresh:
                assert fresh.hasher is load.opened[1]
            assert is_open(load.opened[0])
        assert not is_open(load.opened[0])


def test_a_new_model_that_fails_leaves_the_old_pair_at_work(
    path: Path, load: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    with Pair(path, load=load, clock=lambda: now[0]) as pair:
        to_new(path)
        load.fails = True
        with caplog.at_level(logging.WARNING, "fgdeploy.live"):
            assert pair.answer(nearest) == (MODEL, 4, 0)
        assert "old_index_kept" in caplog.text and "the self-test failed" in caplog.text
        with pair.using() as both:
            assert both.kept_old and both.index.path == old_of(path)
            with refused(IndexStoreError, "it cannot be written"):
                both.index.add([Item("/new", bytes(3))])  # it would be lost to the new one
        load.fails = False
        assert not pair.refresh()  # not yet
        now[0] = RETRY_S + 1
        assert pair.refresh()
        assert pair.answer(nearest) == (NEW, 4, 0)
        assert not is_open(load.opened[0])


def test_the_old_hasher_is_open_while_it_is_used_whatever_index_it_went_on_with(
    path: Path, load: Loader
) -> None:
    now = [0.0]
    with Pair(path, load=load, clock=lambda: now[0]) as pair:
        with pair.using() as both:
            to_new(path)
            load.fails = True
            assert pair.refresh()  # the same hasher and the index that was kept
            load.fails, now[0] = False, RETRY_S + 1
            assert pair.refresh()  # both new; nobody uses the index that was kept
            assert both.hasher.encode([FRAME]).tolist() == [[3, 9, 7]]
        assert [is_open(hasher) for hasher in load.opened] == [False, True]


def test_without_an_old_index_it_says_why_it_cannot_go_on(path: Path, load: Loader) -> None:
    with Pair(path, load=load) as pair:
        to_new(path, keep_old=False)
        load.fails = True
        with refused(IndexStoreError, "was replaced and cannot be used now .the self-test failed"):
            pair.refresh()
        load.fails = False
        assert pair.refresh()
        assert pair.answer(nearest) == (NEW, 4, 0)


def test_going_back_is_followed_too(path: Path, load: Loader) -> None:
    with Pair(path, load=load) as pair:
        to_new(path)
        assert pair.refresh()
        go_back(path)
        assert pair.answer(nearest) == (MODEL, 4, 0)


def test_another_index_of_the_same_model_keeps_the_hasher(path: Path, load: Loader) -> None:
    with Pair(path, load=load) as pair:
        shutil.rmtree(path)
        shutil.rmtree(path.parent / "photos")
        filled(path.parent, 5)
        assert pair.refresh()
        assert pair.answer(nearest) == (MODEL, 4, 0)
        assert len(load.opened) == 1 and is_open(load.opened[0])
    assert not is_open(load.opened[0])


def test_what_cannot_be_opened_at_first_is_told(path: Path, load: Loader) -> None:
    shutil.rmtree(path.parent / "ab.fgd")
    with refused(BundleError, "no bundle of its model abababababab is found.*put it beside"):
        Pair(path, load=load)
    with refused(IndexStoreError, "holds 24-bit codes of model"):
        Pair(path, path.parent / "cd.fgd", load=load)
    assert not is_open(load.opened[0])
    with refused(IndexStoreError, "no index at"):
        Pair(path.parent / "none.fgi", load=load)


def test_closed_it_gives_nothing_out(path: Path, load: Loader) -> None:
    pair = Pair(path, load=load)
    with pair.using() as both:
        pair.close()
        assert nearest(both.hasher, both.index) == (MODEL, 4, 0)
    assert not is_open(load.opened[0])
    with refused(IndexStoreError, "is closed; open it anew"), pair.using():
        pass
    pair.close()


def test_threads_get_whole_pairs_during_switches(path: Path, load: Loader) -> None:
    wrong, answers = list[BaseException](), set[tuple[str, int, int]]()
    stop = threading.Event()

    def ask(pair: Pair) -> None:
        try:
            while not stop.is_set():
                answers.add(pair.answer(nearest))
        except BaseException as error:
            wrong.append(error)

    with Pair(path, load=load) as pair:
        threads = [threading.Thread(target=ask, args=(pair,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        to_new(path)
        for _ in range(3):
            go_back(path)
        pair.answer(nearest)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert answers <= {(MODEL, 4, 0), (NEW, 4, 0)} and len(answers) == 2
    assert not any(is_open(hasher) for hasher in load.opened)


def test_a_thread_that_comes_between_two_switches_gets_no_other_index(
    path: Path, load: Loader
) -> None:
    """A connection that it made meanwhile would be of the index that lay there then."""
    said, answers = list[str](), list[int]()
    asked, back = threading.Event(), threading.Event()
    index = Index.open(path)
    query = np.array([[3, 9, 7]], np.uint8)

    def ask() -> None:
        try:
            index.search(query, 1)
        except IndexStoreError as error:
            said.append(str(error))
        asked.set()
        assert back.wait(30)
        answers.append(index.search(query, 1)[0][0].distance)

    to_new(path)
    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(30)
    go_back(path)
    back.set()
    thread.join(30)
    index.close()
    assert "was replaced" in said[0] and answers == [0]


def test_both_is_what_using_gives(path: Path, load: Loader) -> None:
    with Pair(path, path.parent / "ab.fgd", load) as pair, pair.using() as both:
        assert isinstance(both, Both) and not both.kept_old
