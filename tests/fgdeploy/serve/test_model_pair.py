"""A new model comes in by a migration: requests go on, on one model or the other."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fgdeploy.bundle import seal
from fgdeploy.core.errors import EngineError, IndexStoreError
from fgdeploy.core.exchange import exchange
from fgdeploy.gallery.migrating import migrate
from fgdeploy.gallery.throttling import Throttle
from fgdeploy.hasher import Hasher, load
from fgdeploy.photos import thumbnail
from fgdeploy.retrieval import Index, Item
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.service import Asked, Service
from tests.checks import refused
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


def _load(bundle: Path) -> Hasher:
    return load(bundle, "onnxruntime", threads=1)


def _following(place: Path, opens: Callable[[Path], Hasher] = _load) -> Service:
    index = Index.open(place)
    assert index.bundle is not None
    return Service(_load(index.bundle), index, load=opens)


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_no_request_fails_and_none_sees_a_mixture(
    toy_bundle: Path, newer: Path, tmp_path: Path
) -> None:
    place = _filled(tmp_path / "g.fgi", toy_bundle)
    wrong: list[object] = []
    added: list[str] = []
    models: list[set[str]] = [set() for _ in PHOTOS]
    over = threading.Event()
    with _following(place) as service:
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
    with _following(place) as service:
        old = service.hasher.fingerprint
        exchange(place, following)
        _until(lambda: service.hasher.fingerprint != old)
        found = service.hash(PHOTOS[0]).result(WAIT)
        assert found.model.fingerprint == service.hasher.fingerprint


class Failing:
    """Opens bundles but when told to fail, and counts the failures."""

    def __init__(self) -> None:
        self.fails, self.failed = True, 0

    def __call__(self, bundle: Path) -> Hasher:
        if self.fails:
            self.failed += 1
            raise EngineError("the self-test failed")
        return _load(bundle)


def test_a_pair_that_cannot_be_opened_is_tried_again(
    toy_bundle: Path, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdeploy.serve.model_pair._AGAIN_S", 0.01)
    place = _filled(tmp_path / "g.fgi", toy_bundle)
    following, opens = _filled(tmp_path / "next.fgi", newer), Failing()
    with _following(place, opens) as service:
        old = service.hasher.fingerprint
        exchange(place, following)  # none is kept as g.fgi.old
        with refused(
            IndexStoreError, "self-test failed.*none of the model before is kept|not open"
        ):
            service.search(PHOTOS[0], Asked()).result(WAIT)
        assert service.unready() is not None and opens.failed
        opens.fails = False
        _until(lambda: service.hasher.fingerprint != old)
        assert service.unready() is None


def test_searches_go_on_with_the_old_index_until_the_new_pair_can_be_opened(
    toy_bundle: Path, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, opens = _filled(tmp_path / "g.fgi", toy_bundle), Failing()
    with _following(place, opens) as service:
        old, worker = service.hasher.fingerprint, service.worker
        with _load(newer) as hasher:
            assert migrate(place, hasher, throttle=Throttle(1.0)).switched
        found = service.search(PHOTOS[3], Asked(k=1)).result(WAIT)
        assert [(hit.path, hit.distance) for hit in found.hits] == [("cam://3", 0)]
        assert opens.failed and service.unready() is None and service.worker is worker
        for write in (lambda: service.add(photo(9), None, None), lambda: service.remove(2)):
            with pytest.raises(Refusal, match="the new one cannot be used yet") as told:
                write()
            assert told.value.status == 503
        opens.fails, tried = False, opens.failed
        monkeypatch.setattr("fgdeploy.live.pair_opener.RETRY_S", 0.0)
        monkeypatch.setattr(service._keeper._opener, "_retry_at", 0.0)
        _until(lambda: service.hasher.fingerprint != old)
        assert opens.failed == tried == 1  # it waited in between
        assert service.add(photo(9), None, "cam://9").result(WAIT).status == "new"
    with Index.open(place) as index:
        assert [item.path for item in index.items()] == [f"cam://{n}" for n in (*range(6), 9)]


def test_another_index_of_the_same_model_keeps_the_worker(toy_bundle: Path, tmp_path: Path) -> None:
    place = _filled(tmp_path / "g.fgi", toy_bundle)
    following = _filled(tmp_path / "next.fgi", toy_bundle)
    with _following(place) as service:
        worker, index = service.worker, service.index
        exchange(place, following)
        assert service.search(PHOTOS[0], Asked(k=1)).result(WAIT).hits[0].distance == 0
        _until(lambda: not service._keeper._retired)
        assert service.worker is worker and service.index is not index
        assert service.hash(PHOTOS[0]).result(WAIT).model.fingerprint == worker.hasher.fingerprint
