"""The scan on a GPU, with FAISS's index of the CPU and a contrary one in its place; and on one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fgdeploy.core import machine
from fgdeploy.core.codes import UInt8Array, hamming
from fgdeploy.core.errors import EngineError, MissingDependency, UsageError
from fgdeploy.retrieval.scan import gpu_scan, scan_numpy
from fgdeploy.retrieval.scan.search import search_codes, search_radius
from tests.checks import refused


class Contrary:
    """FAISS's interface, which of equal distances returns the last rows, in disorder."""

    def __init__(self, bits: int) -> None:
        self.codes = np.empty((0, bits // 8), np.uint8)

    def add(self, codes: UInt8Array) -> None:
        self.codes = codes

    def search(self, queries: UInt8Array, k: int) -> tuple[Any, Any]:
        assert k <= min(gpu_scan.MOST_K, len(self.codes))
        gaps = hamming(queries, self.codes).astype(np.int32)
        rows = np.broadcast_to(np.arange(len(self.codes)), gaps.shape)
        first = np.lexsort((-rows, gaps))[:, :k]
        first = np.random.default_rng(k).permuted(first, axis=1)
        return np.take_along_axis(gaps, first, axis=1), first


def _faiss(bits: int) -> Any:
    return pytest.importorskip("faiss", reason="faiss is not installed").IndexBinaryFlat(bits)


@pytest.fixture(params=[Contrary, _faiss], ids=["contrary", "faiss on the CPU"])
def instead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_scan, "_empty_index", request.param)


def _random(count: int, width: int, levels: int = 256) -> UInt8Array:
    return np.random.default_rng(width).integers(0, levels, (count, width), dtype=np.uint8)


@pytest.mark.usefixtures("instead")
@pytest.mark.parametrize(
    ("codes", "k"),
    [
        (_random(5000, 8), 10),
        (_random(5000, 8), 2048),
        (_random(300, 4), 300),  # all of them
        (_random(6000, 1), 7),  # ties by the thousand
        (_random(6000, 2, levels=2), 100),  # 16 bits, 4 codes: beyond what FAISS selects
        (np.zeros((4000, 8), np.uint8), 5),
        (_random(1, 8), 1),
    ],
)
def test_the_order_is_that_of_every_scan(codes: UInt8Array, k: int) -> None:
    queries = np.concatenate([codes[:3], _random(20, codes.shape[1])])
    rows, distances = search_codes(queries, codes, k, kernel="faiss-gpu")
    expected = scan_numpy.nearest(queries, codes, k, None)
    assert (rows.dtype, distances.dtype) == (np.int64, np.uint16)
    assert (rows == expected[0]).all() and (distances == expected[1]).all()


@pytest.mark.usefixtures("instead")
def test_only_allowed_rows_are_answers() -> None:
    codes, queries = _random(4000, 4), _random(40, 4)
    allowed = np.random.default_rng(1).random(4000) < 0.02
    found = search_codes(queries, codes, 50, allowed=allowed, kernel="faiss-gpu")
    expected = search_codes(queries, codes, 50, allowed=allowed, kernel="numpy")
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


@pytest.mark.usefixtures("instead")
def test_codes_that_stay_are_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_scan, "_QUERIES", 3)
    codes = _random(2000, 8)
    held = gpu_scan.GpuCodes(codes)
    for queries in (codes[:7], _random(5, 8)):
        expected = scan_numpy.nearest(queries, codes, 9, None)
        found = held.nearest(queries, 9)
        assert all((one == other).all() for one, other in zip(found, expected, strict=True))


@pytest.mark.usefixtures("instead")
def test_what_faiss_does_not_find_on_a_gpu() -> None:
    codes = _random(3000, 8)
    with refused(UsageError, "k is 2049; FAISS finds 2048 on a GPU at most"):
        search_codes(codes[:1], codes, 2049, kernel="faiss-gpu")
    with refused(UsageError, "finds the k nearest, not a radius"):
        search_radius(codes[0], codes, 3, kernel="faiss-gpu")


@pytest.mark.parametrize(
    ("faiss", "kind", "words"),
    [
        (
            None,
            MissingDependency,
            r'needs the package faiss-gpu.*pip install "fgdeploy\[search-gpu',
        ),
        (SimpleNamespace(), MissingDependency, "needs the package faiss-gpu"),
        (
            SimpleNamespace(GpuIndexBinaryFlat=None, get_num_gpus=lambda: 0),
            EngineError,
            "finds no NVIDIA GPU",
        ),
    ],
)
def test_there_is_no_other_scan_in_its_place(
    faiss: Any, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    codes = _random(10, 8)
    with refused(kind, words):
        search_codes(codes, codes, 1, kernel="faiss-gpu")


def test_faiss_without_nvidias_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faiss.py").write_text("raise RuntimeError('nvidia-cublas-cu12 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    codes = _random(10, 8)
    with refused(EngineError, "faiss cannot be imported: .*nvidia-cublas-cu12 is missing"):
        search_codes(codes, codes, 1, kernel="faiss-gpu")


@pytest.mark.gpu
@pytest.mark.skipif(not machine.gpus(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("make", [lambda: _random(200_000, 8), lambda: _random(50_000, 1)])
def test_on_a_gpu(make: Callable[[], UInt8Array]) -> None:
    if not hasattr(pytest.importorskip("faiss"), "GpuIndexBinaryFlat"):
        pytest.skip("faiss has no GPU part")
    codes = make()
    queries = codes[:64] ^ _random(64, codes.shape[1], levels=8)
    found = search_codes(queries, codes, 100, kernel="faiss-gpu")
    expected = scan_numpy.nearest(queries, codes, 100, None)
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))
