"""What tests of derived files share: little data in many segments, and every answer compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import derived, segment, snapshot, verifying, writing
from tests.fgdeploy.retrieval.samples import BITS

TAIL, BLOCK = 20, 8


def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little data fill many segments and blocks."""
    monkeypatch.setattr(writing, "BATCH", 10)
    monkeypatch.setattr(derived, "TAIL_ROWS", TAIL)
    for module in (segment, derived, snapshot, verifying):
        monkeypatch.setattr(module, "BLOCK_ROWS", BLOCK)


def some(count: int, start: int = 0) -> list[Item]:
    chooser = np.random.default_rng(start)
    codes = chooser.integers(0, 4, (count, BITS // 8), np.uint8)
    return [
        Item(f"/photos/{start + n}", code.tobytes(), "owl" if n % 2 else None)
        for n, code in enumerate(codes)
    ]


def segments(index: Index) -> list[int]:
    return [rows for _, rows, _ in index.stats().segments]


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.name.endswith(".codes"))


def right(index: Index) -> None:
    """Compare every kind of answer with one from the items alone."""
    items = list(index.items())
    for query in (0, 0x01020301, 0xFFFFFFFF):
        packed = np.frombuffer(query.to_bytes(4, "big"), np.uint8)
        order = sorted(
            ((int.from_bytes(i.code, "big") ^ query).bit_count(), i.id, i.path, i.label)
            for i in items
        )
        for k in (1, 7, len(items) + 5):
            hits = index.search(packed[None], k)[0]
            assert [(hit.distance, hit.id, hit.path, hit.label) for hit in hits] == order[:k]
        owls = [pair for pair in order if pair[3] == "owl"]
        hits = index.search(packed[None], 9, where="label = 'owl'")[0]
        assert [(hit.distance, hit.id, hit.path, hit.label) for hit in hits] == owls[:9]
        hits = index.search_radius(packed, 4)
        near = [pair for pair in order if pair[0] <= 4]
        assert [(hit.distance, hit.id, hit.path, hit.label) for hit in hits] == near
    assert len(index) == len(items)


def fatal(index: Index) -> list[str]:
    return [problem.what for problem in index.verify() if problem.fatal]
