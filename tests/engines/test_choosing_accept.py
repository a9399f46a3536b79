"""Engines that whoever opens them refuses: closed, told of, and followed by the next."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.engines import Engine, choosing, open_engine
from tests.checks import refused

ALL = [
    "onnxruntime fp32 (compiled here)",
    "openvino fp32 (compiled here)",
    "onnxruntime fp32 (from model.onnx)",
    "openvino fp32 (from model.onnx)",
]


class Picky:
    """Refuses the first engines that it sees."""

    def __init__(self, refuses: int) -> None:
        self.refuses, self.seen = refuses, list[Engine]()

    def __call__(self, engine: Engine) -> None:
        self.seen.append(engine)
        if len(self.seen) <= self.refuses:
            raise EngineError(f"no {len(self.seen)}")


@pytest.mark.parametrize("refuses", range(4))
def test_the_next_runs_where_that_is_allowed(built_bundle: Path, refuses: int) -> None:
    accept, told = Picky(refuses), list[str]()
    opened = open_bundle(built_bundle)
    with open_engine(opened, fallback=True, notify=told.append, accept=accept) as engine:
        assert engine is accept.seen[-1]
        engine.check_open()
        assert [one.describe() for one in accept.seen] == ALL[: refuses + 1]
        for one in accept.seen[:-1]:
            with refused(EngineError, "is closed"):
                one.check_open()
    numbers = "; ".join(f"no {number + 1}" for number in range(refuses))
    assert told == ([f"{numbers}; running {ALL[refuses]} instead"] if refuses else [])


def test_all_that_were_refused_are_named(built_bundle: Path) -> None:
    with refused(EngineError, "^no 1; no 2; no 3; no 4$"):
        open_engine(open_bundle(built_bundle), fallback=True, accept=Picky(4))


def test_without_fallback_the_first_decides(built_bundle: Path) -> None:
    accept = Picky(1)
    with refused(EngineError, "^no 1$"):
        open_engine(open_bundle(built_bundle), accept=accept)
    with refused(EngineError, "is closed"):
        accept.seen[0].check_open()


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_a_graph_that_is_opened_directly(toy_bundle: Path, backend: str) -> None:
    opened = open_bundle(toy_bundle)
    with refused(EngineError, "^no 1$"):
        open_engine(opened, backend, accept=Picky(1))
    with open_engine(opened, backend, fallback=True, accept=Picky(1)) as engine:
        other = "openvino" if backend == "auto" else "onnxruntime"
        assert engine.describe() == f"{other} fp32 (from model.onnx)"
        assert engine.reason == "no other engine fits: no 1"


def test_other_errors_end_it_with_the_engine_closed(built_bundle: Path) -> None:
    seen: list[Engine] = []

    def accept(engine: Engine) -> None:
        seen.append(engine)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_engine(open_bundle(built_bundle), fallback=True, accept=accept)
    (engine,) = seen
    with refused(EngineError, "is closed"):
        engine.check_open()


def test_one_that_runs_for_ever_is_not_waited_for(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_CLOSES_IN_S", 0.01)
    ended = threading.Event()

    def accept(engine: Engine) -> None:
        begun = threading.Event()

        def hang() -> None:
            with engine._turn():
                begun.set()
                ended.wait(60)

        threading.Thread(target=hang, daemon=True).start()
        assert begun.wait(30)
        raise UsageError("it hangs")

    with refused(UsageError, "^it hangs$"):
        open_engine(open_bundle(toy_bundle), accept=accept)
    assert not ended.is_set()
    ended.set()
