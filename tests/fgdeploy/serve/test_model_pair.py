"""A new model comes in by a migration: requests go on, on one model or the other."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fgdeploy.bundle import seal
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.core.exchange import exchange
from fgdeploy.gallery.migrating import migrate
from fgdeploy.gallery.throttling import Throttle
from fgdeploy.hasher import Hasher, load
from fgdeploy.photos import thumbnail
from fgdeploy.retrieval import Index, Item
from fgdeploy.serve.service import Asked, Service
from tests.conftest import toy_manifest, write_toy_graph
from tests.fgdeploy.serve.asking import WAIT, photo

PHOTOS = [photo(seed) for seed in range(6)]


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A bundle of another model than the toy's."""
    folder = tmp_path / "newer.fgd"
    folder.mkdir()
    write_toy_graph(folder / "model.onnx", seed=7)
    seal(folder, toy_manifest("cd" * 32))
    return folder


def _filled(place: Path, bundle: Path) -> Path:
    with (
        load(bundle, "onnxruntime", threads=1) as hasher,
        Index.create(place, hasher.fingerprint, hasher.bits) as index,
    ):
        index.remember_bundle(bundle)
        index.thumbnails.keep()
        items = [
            Item(f"cam://{n}", code.tobytes(), "owl", hashlib.sha256(PHOTOS[n]).hexdigest())
            for n, code in enumerate(hasher.encode(PHOTOS))
        ]
        index.add(items, thumbnails=[thumbnail(image) for image in PHOTOS])
    return place


def _opener(place: Path) -> Callable[[], tuple[Hasher, Index]]:
    def reopen() -> tuple[Hasher, Index]:
        index = Index.open(place)
        assert index.bundle is not None
        return load(index.bundle, "onnxruntime", threads=1), index

    return reopen


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_no_request_fails_and_none_sees_a_mixture(
    toy_bundle: Path, newer: Path, tmp_path: Path
) -> None:
    place = _filled(tmp_path / "g.fgi", toy_bundle)
    reopen = _opener(place)
    wrong: list[object] = []
    added: list[str] = []
    models: list[set[str]] = [set() for _ in PHOTOS]
    over = threading.Event()
    with Service(*reopen(), reopen=reopen) as service:
        old = service.hasher.fingerprint

        def ask(number: int) -> None:
            found = service.search(PHOTOS[number], Asked(k=9)).result(WAIT)
            assert found.hashed is not None
            models[number].add(found.hashed.model.fingerprint)
            if f"cam://{number}" not in [hit.path for hit in found.hits if hit.distance == 0]:
                wrong.append(found)

        def enrol(number: int) -> None:
            uri = f"cam://new/{len(added)}"
            service.add(photo(100 + len(added)), None, uri).result(WAIT)
            added.append(uri)

        def repeat(work: Callable[[int], None], number: int) -> None:
            try:
                while not over.is_set():
                    work(number)
            except Exception as error:
                wrong.append(error)

        works = [(ask, number) for number in range(len(PHOTOS))] + [(enrol, 0)]
        threads = [threading.Thread(target=repeat, args=one) for one in works]
        for thread in threads:
            thread.start()
        _until(lambda: all(models) and len(added) > 2)
        with load(newer, "onnxruntime", threads=1) as hasher:
            assert migrate(place, hasher, throttle=Throttle(1.0)).switched
        before = len(added)
        _until(
            lambda: (all(len(seen) == 2 for seen in models) and len(added) > before + 1) or wrong
        )
        over.set()
        for thread in threads:
            thread.join(WAIT)
        assert wrong == []
        assert service.hasher.fingerprint != old and service.unready() is None
    with Index.open(place) as index:
        assert index.verify() == []
        assert [item.path for item in index.items()][len(PHOTOS) :] == added


def test_an_idle_service_goes_on_with_the_new_model_by_itself(
    toy_bundle: Path, newer: Path, tmp_path: Path
) -> None:
    place = _filled(tmp_path / "g.fgi", toy_bundle)
    following = _filled(tmp_path / "next.fgi", newer)
    reopen = _opener(place)
    with Service(*reopen(), reopen=reopen) as service:
        old = service.hasher.fingerprint
        exchange(place, following)
        _until(lambda: service.hasher.fingerprint != old)
        found = service.hash(PHOTOS[0]).result(WAIT)
        assert found.model.fingerprint == service.hasher.fingerprint


def test_a_pair_that_cannot_be_opened_is_tried_again(
    toy_bundle: Path, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdeploy.serve.model_pair._AGAIN_S", 0.01)
    place = _filled(tmp_path / "g.fgi", toy_bundle)
    following = _filled(tmp_path / "next.fgi", newer)
    open_now, tries = _opener(place), [0]

    def reopen() -> tuple[Hasher, Index]:
        tries[0] += 1
        if tries[0] == 1:
            raise IndexStoreError("its bundle is not there yet")
        return open_now()

    with Service(*open_now(), reopen=reopen) as service:
        old = service.hasher.fingerprint
        exchange(place, following)
        _until(lambda: service.hasher.fingerprint != old)
        assert tries[0] >= 2 and service.unready() is None
