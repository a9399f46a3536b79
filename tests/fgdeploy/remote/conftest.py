"""An index with everything in it that a server must give back, and servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.retrieval import Index, Item
from tests.fgdeploy.remote.milvus_server import MilvusOfTests, milvus_server
from tests.fgdeploy.remote.postgres_server import PostgresOfTests, postgres_server

MODEL, BITS = "cd" * 32, 20


def some_items(count: int, seed: int = 0, values: int = 40) -> list[Item]:
    """Return items of which many have equal codes: of 20 bits, `values` different ones."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 256, (values, 3), dtype=np.uint8)
    codes[:, -1] &= 0xF0
    labels = [None, "", "Uhu", "uhu", 'o"wl', "it's", "back\\slash", "50%_off", "Käuzchen", "\n"]
    return [
        Item(
            path=None if n % 7 == 0 else f"/photos/{n % 5}/{n}.jpg",
            code=codes[random.integers(values)].tobytes(),
            label=labels[n % len(labels)],
            sha256="" if n % 3 == 0 else f"{n % 11:064x}",
            time=f"2026-01-{n % 28 + 1:02d}T12:00:00+00:00",
            id=n + 1,
            json=None if n % 4 == 0 else f'{{"n": {n}, "wing": "{n % 3}"}}',
        )
        for n in range(count)
    ]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.create(tmp_path / "gallery.fgi", MODEL, BITS) as made:
        made.add(some_items(100))
        yield made


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresOfTests]:
    """Give a PostgreSQL server that no test ends; each takes a table of its own."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def milvus() -> Iterator[MilvusOfTests]:
    """Give a Milvus server that no test ends; each takes a collection of its own."""
    with milvus_server() as server:
        yield server
