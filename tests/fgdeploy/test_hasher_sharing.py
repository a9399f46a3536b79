"""One hasher, many users: threads, a close among them, copies, other processes."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.engines import BuildSettings, build
from fgdeploy.hasher import Hasher, load
from tests.checks import ColourEngine, refused
from tests.test_house import ROOT

BACKENDS = ("onnxruntime", "openvino")
CLOSED = r"^the \w+ engine is closed; open a new one$"


def pictures(count: int) -> list[npt.NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 40, 44, 3), np.uint8))


def decoders() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("decode")]


# --- threads


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_get_what_one_gets(own_bundle: Path, backend: str, compiled: bool) -> None:
    if compiled:
        build(open_bundle(own_bundle), backend, "fp32", BuildSettings(batches=(1, 3)))
    shots = pictures(9)
    # Of different lengths, so that they ask for batches of different sizes at the same time.
    shares = [shots[:1], shots, shots[2:5], shots[4:], shots[:2], shots[3:9:2]] * 4
    with load(own_bundle, backend, "fp32", threads=1, batch=3) as hasher:
        expected = [hasher.encode_full(share) for share in shares]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(hasher.encode_full, shares))
    for one, other in zip(expected, found, strict=True):
        assert one.code.tobytes() == other.code.tobytes()
        assert one.hash.tobytes() == other.hash.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_while_others_run(toy_bundle: Path, backend: str) -> None:
    hasher = load(toy_bundle, backend, batch=2)
    shots, started, errors = pictures(6), threading.Barrier(5), []

    def encode() -> None:
        started.wait(30)
        try:
            while True:
                hasher.encode(shots)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait(30)
    hasher.encode(shots)
    hasher.close()
    for thread in threads:
        thread.join(30)
    assert [str(error) for error in errors] == [
        f"the {backend} engine is closed; open a new one"
    ] * 4
    assert {type(error) for error in errors} == {EngineError}


@pytest.mark.parametrize("consumed", [0, 1, 2])
def test_a_stream_whose_hasher_was_closed(toy_bundle: Path, consumed: int) -> None:
    hasher = load(toy_bundle, batch=2)
    stream = hasher.stream(iter(pictures(20)))
    for _ in range(consumed):
        next(stream)
    hasher.close()
    with refused(EngineError, CLOSED):
        next(stream)
    assert list(stream) == []


def test_a_closed_hasher_refuses_even_nothing(toy_bundle: Path) -> None:
    hasher = load(toy_bundle)
    hasher.close()
    with refused(EngineError, CLOSED):
        hasher.encode([])


def test_decoding_threads_are_those_of_the_hasher(toy_bundle: Path) -> None:
    before = set(decoders())
    with load(toy_bundle, batch=2) as hasher:
        assert set(decoders()) == before  # none until they are needed
        hasher.encode(pictures(8))
        own = threading.active_count()
        for _ in range(5):
            left = hasher.stream(pictures(20))
            next(left)
            hasher.encode(pictures(8))
        assert threading.active_count() == own
    assert set(decoders()) == before


# --- copies, and processes that are spawned


def codes_of(hasher: Hasher) -> bytes:
    """What a spawned process does with the hasher that it is given."""
    with hasher:
        return hasher.encode(pictures(5)).tobytes()


def test_spawned_processes_open_it_again(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(open_bundle(own_bundle), "openvino", "fp32", BuildSettings(batches=(2,)))
    monkeypatch.chdir(own_bundle.parent)  # which the process does not share
    with load(own_bundle.name, "onnxruntime") as one, load(own_bundle.name, "openvino") as other:
        monkeypatch.chdir("/")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.map(codes_of, [one, other])
        assert found == [hasher.encode(pictures(5)).tobytes() for hasher in (one, other)]


def test_it_comes_back_as_it_was(own_bundle: Path) -> None:
    build(open_bundle(own_bundle), "openvino", "fp32", BuildSettings(batches=(1, 2)))
    with load(own_bundle, "openvino", threads=2, batch=5, bit_depth=12) as hasher:
        for again in (pickle.loads(pickle.dumps(hasher)), copy.copy(hasher), copy.deepcopy(hasher)):
            assert again.engine is not hasher.engine and (again.batch, again.bit_depth) == (5, 12)
            assert again.engine.describe() == "openvino fp32 (compiled here)"
            assert again.engine.source == hasher.engine.source
            again.close()
        assert hasher.encode(pictures(1)).shape == (1, 2)


def test_an_engine_is_opened_anew(own_bundle: Path) -> None:
    build(open_bundle(own_bundle), "openvino", "fp32", BuildSettings(batches=(1, 2)))
    with load(own_bundle, "openvino", threads=2, batch=5, bit_depth=12) as hasher:
        with hasher.reopened() as again:
            assert again is not hasher and again.engine is not hasher.engine
            assert (again.batch, again.bit_depth) == (5, 12)
            assert again.engine.describe() == "openvino fp32 (compiled here)"
            assert again.encode(pictures(3)).tobytes() == hasher.encode(pictures(3)).tobytes()
        assert hasher.encode(pictures(1)).shape == (1, 2)  # it stays open
    with refused(EngineError, CLOSED):
        hasher.reopened()


def test_a_bundle_that_changed_meanwhile(own_bundle: Path) -> None:
    with load(own_bundle, "openvino") as hasher:
        kept = pickle.dumps(hasher)
    build(open_bundle(own_bundle), "openvino", "fp32")
    with refused(
        EngineError,
        r"own\.fgd changed since its hasher was opened: expected openvino fp32 \(from "
        r"model\.onnx\) of model \w+, got openvino fp32 \(compiled here\) of model \w+; load",
    ):
        pickle.loads(kept)


def test_what_cannot_be_sent_says_so(toy_bundle: Path) -> None:
    bundle = open_bundle(toy_bundle)
    with refused(UsageError, r"^a hasher on colour fp32 cannot be copied or sent to another proc"):
        pickle.dumps(Hasher(bundle, ColourEngine(bundle.manifest)))
    with load(toy_bundle) as hasher, refused(UsageError, r"^the onnxruntime engine cannot be cop"):
        copy.copy(hasher.engine)
    with refused(EngineError, CLOSED):
        pickle.dumps(hasher)


def test_sizes_are_read_from_where_the_bundle_was(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO reads the models of further batch sizes when they are first needed."""
    build(open_bundle(own_bundle), "openvino", "fp32", BuildSettings(batches=(1, 4)))
    monkeypatch.chdir(own_bundle.parent)
    with load(own_bundle.name, "openvino") as hasher:
        monkeypatch.chdir("/")
        assert hasher.encode(pictures(4)).shape == (4, 2)


# --- forks

# Without the alarm a process that waits for threads it does not have would never end.
FORKED = """
import os, signal, sys
import numpy as np
import fgdeploy
bundle, backend = sys.argv[1:]
shots = np.zeros((5, 40, 40, 3), np.uint8)

def fails(hasher):
    try:
        hasher.encode(shots)
    except fgdeploy.errors.EngineError as error:
        print(error, flush=True)

with fgdeploy.load(bundle, backend, threads=2) as hasher:
    hasher.encode(shots)
    for what in (fails, fgdeploy.Hasher.close, lambda hasher: None):
        child = os.fork()
        if not child:
            signal.alarm(30)
            what(hasher)
            sys.exit(0)  # through the end of the block, which closes
        assert os.waitpid(child, 0)[1] == 0, what
    assert len(hasher.encode(shots)) == 5
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_process_is_told_and_ends(toy_bundle: Path, backend: str) -> None:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(toy_bundle), backend],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == (
        f"the {backend} engine was opened before this process was forked, and its threads stayed "
        "behind; open it after the fork, or start processes by spawn\n"
    )
