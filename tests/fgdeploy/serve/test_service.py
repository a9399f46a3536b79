"""The service without HTTP: what it does when too much comes, fails, or ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.errors import EngineError, IndexStoreError
from fgdeploy.engines import Engine, Outputs
from fgdeploy.hasher import Hasher, load
from fgdeploy.retrieval import Index
from fgdeploy.serve.app import create_app
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.service import HashedUpload, Service
from tests.checks import refused
from tests.fgdeploy.serve.asking import JPEG, WAIT, Inside, photo, told
from tests.fgdeploy.serve.conftest import Served


class Gated(Engine):
    """An engine that waits for `gate`; with `broken` it fails. sizes: what it ran."""

    backend, precision = "gated", "fp32"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.manifest)
        self._engine, self.broken, self.sizes = engine, False, list[int]()
        self.gate, self.begun = threading.Event(), threading.Event()

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        self.begun.set()
        assert self.gate.wait(WAIT)
        self.sizes.append(len(frames))
        if self.broken:
            raise RuntimeError("device lost")
        return self._engine.run(frames)

    def _free(self) -> None:
        self._engine.close()


@pytest.fixture
def gated(toy_bundle: Path) -> tuple[Hasher, Gated]:
    hasher = load(toy_bundle, "onnxruntime", threads=1)
    engine = Gated(hasher.engine)
    engine.gate.set()
    return Hasher(hasher.bundle, engine, 1), engine


def _shut(engine: Gated) -> None:
    engine.gate.clear()
    engine.begun.clear()


def test_every_number_of_frames_has_run_before_the_first_answer(
    gated: tuple[Hasher, Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher, engine = gated
    monkeypatch.setattr(engine, "at_once", lambda count: 1 if count < 3 else count)
    with Service(Hasher(hasher.bundle, engine, 4)):
        assert engine.sizes == [1, 3, 4] * 2


def test_too_many_are_told_to_come_again(gated: tuple[Hasher, Gated]) -> None:
    hasher, engine = gated

    async def ask(app: object) -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def one() -> httpx.Response:
                return await client.post("/hash", content=photo(0), headers=JPEG)

            first = asyncio.create_task(one())
            while not engine.begun.is_set():
                await asyncio.sleep(0.001)
            rest = [asyncio.create_task(one()) for _ in range(9)]
            while sum(task.done() for task in rest) < 7:  # refused while the first one runs
                await asyncio.sleep(0.001)
            engine.gate.set()
            return [await task for task in (first, *rest)]

    with Service(hasher, None, ServeSettings(waiting=2)) as service:
        _shut(engine)
        app = create_app(service)
        answers = asyncio.run(asyncio.wait_for(ask(app), WAIT))
        busy = [answer for answer in answers if answer.status_code != 200]
        assert len(busy) == 7
        for answer in busy:
            told(answer, 429, "busy", "send it again later")
            assert int(answer.headers["retry-after"]) >= 1
        assert "fgdeploy_refused_total 7.0" in Inside(app)("GET", "/metrics").text


def test_an_answer_that_takes_too_long_is_given_up(gated: tuple[Hasher, Gated]) -> None:
    hasher, engine = gated
    with Service(hasher, None, ServeSettings(timeout_s=0.2)) as service:
        _shut(engine)
        told(Inside(create_app(service)).image("/hash", photo(0)), 503, "timeout", "within 0.2 s")
        engine.gate.set()


def test_an_engine_that_stopped_is_not_ready(gated: tuple[Hasher, Gated]) -> None:
    hasher, engine = gated
    with Service(hasher) as service:
        engine.broken = True
        ask = Inside(create_app(service))
        assert ask("GET", "/readyz").status_code == 200
        told(ask.image("/hash", photo(0)), 503, "engine")
        told(ask("GET", "/readyz"), 503, "not_ready", "the engine failed and stopped")
        assert ask("GET", "/healthz").status_code == 200
        assert "fgdeploy_ready 0.0" in ask("GET", "/metrics").text


def test_an_index_that_is_gone_is_not_ready(served: Served) -> None:
    Path(served.service.index.path).rename(Path(served.service.index.path).with_name("x.fgi"))
    told(served.ask("GET", "/readyz"), 503, "not_ready", "moved or replaced")
    told(served.ask.image("/search", photo(0)), 503, "index")
    assert served.ask.image("/hash", photo(0)).status_code == 200


def test_an_index_of_another_model_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    with (
        load(toy_bundle, "onnxruntime") as hasher,
        Index.create(tmp_path / "g.fgi", "cd" * 32, hasher.bits) as index,
        refused(IndexStoreError, "their distances mean nothing"),
    ):
        Service(hasher, index)


def test_searches_while_others_add(serve: Callable[..., Served]) -> None:
    service = serve().service
    adding = [service.add(photo(seed), "owl", f"cam://{seed}") for seed in range(12)]
    looking: list[Future[HashedUpload]] = [service.hash(photo(seed)) for seed in range(12)]
    for seed, (added, hashed) in enumerate(zip(adding, looking, strict=True)):
        assert added.result(WAIT).item.code == hashed.result(WAIT).code, seed
    assert len(service.index) == 12


def test_after_the_end_it_says_so(serve: Callable[..., Served]) -> None:
    service = serve().service
    service.close()
    service.close()
    for call in (lambda: service.hash(photo(0)), lambda: service.item(1)):
        with refused(EngineError, "the service is ending"):
            call()


def test_thumbnails_go_in_where_the_index_keeps_them(serve: Callable[..., Served]) -> None:
    service = serve().service
    first = service.add(photo(1), None, "cam://1").result(WAIT).item
    service.index.thumbnails.keep()
    second = service.add(photo(2), None, "cam://2").result(WAIT).item
    assert service.index.thumbnails.has([first.id or 0, second.id or 0]) == {second.id}


def test_progress_is_that_of_the_engine(gated: tuple[Hasher, Gated]) -> None:
    hasher, engine = gated
    with Service(hasher) as service:
        _shut(engine)
        assert service.progress() is None
        waiting = service.hash(photo(0))
        assert engine.begun.wait(WAIT)
        assert service.progress() == 0
        engine.gate.set()
        waiting.result(WAIT)


def test_after_its_engine_failed_it_makes_no_progress(gated: tuple[Hasher, Gated]) -> None:
    """So systemd hears nothing more and starts it anew."""
    hasher, engine = gated
    with Service(hasher) as service:
        engine.broken = True
        with refused(EngineError, "failed again"):
            service.hash(photo(0)).result(WAIT)
        assert service.progress() == service.progress() == "failed"
