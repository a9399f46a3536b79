"""How fast an index goes to Milvus beside the client's own limits, and whether answers are exact.

    PYTHONPATH=. .venv/bin/python benchmarks/remote/milvus_rate.py GALLERY.fgi [--codes 100000]

Starts the Milvus 2.3.5 of the package `milvus`. Pushes the gallery, then sends as many bare rows
(id and code) with pymilvus itself: by rows, as MilvusClient does, and by columns, as the push does.
Then 100,000 random and 100,000 clustered codes with many ties must give the index's answers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.remote.adapters import connect, table_at
from fgdeploy.remote.pushing import push
from fgdeploy.retrieval import Index
from tests.fgdeploy.remote.milvus_server import milvus_server

_BATCH, _BARE = 10_000, 200_000
_MODEL = "ab" * 32


def _told(what: str, count: int, start: float) -> None:
    seconds = time.perf_counter() - start
    print(f"| {what} | {seconds:.1f} s | {count / seconds:,.0f}/s |", flush=True)


def _bare(address: str) -> None:
    """Send ids and codes alone, ready in memory."""
    from pymilvus import DataType, MilvusClient

    client: Any = MilvusClient(address.replace("milvus://", "http://"))
    codes = np.random.default_rng(0).integers(0, 256, (_BARE, 8), dtype=np.uint8)
    ready = [code.tobytes() for code in codes]

    def rows(first: int, last: int) -> None:
        client.upsert("bare", [{"id": n, "code": ready[n]} for n in range(first, last)])

    def columns(first: int, last: int) -> None:
        numbers = {"name": "id", "type": DataType.INT64, "values": list(range(first, last))}
        vectors = {"name": "code", "type": DataType.BINARY_VECTOR, "values": ready[first:last]}
        client._get_connection().upsert("bare", [numbers, vectors], timeout=60)

    ways: dict[str, Callable[[int, int], None]] = {"rows": rows, "columns": columns}
    for name, send in ways.items():
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("code", DataType.BINARY_VECTOR, dim=64)
        client.create_collection("bare", schema=schema)
        start = time.perf_counter()
        for first in range(0, _BARE, _BATCH):
            send(first, first + _BATCH)
        _told(f"pymilvus alone, ids and codes, by {name}", _BARE, start)
        client.drop_collection("bare")
    client.close()


def _codes(count: int, clustered: bool) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(clustered)
    codes = random.integers(0, 256, (count, 8), dtype=np.uint8)
    if clustered:
        flips = (random.random((count, 64)) < 0.02).astype(np.uint8)
        return codes[random.integers(0, 200, count)] ^ np.packbits(flips, axis=1)
    codes[:, 2:] = 0  # 65,536 values
    return codes


def _exact(address: str, count: int, clustered: bool) -> None:
    codes, what = _codes(count, clustered), "clustered" if clustered else "random"
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.create(Path(folder) / "g.fgi", _MODEL, 64) as index,
    ):
        index.add_codes(codes)
        with table_at(address) as table:
            push(index, table, replace=True)
        with connect(address) as remote:
            for k in (1, 10, 700):
                start = time.perf_counter()
                found = remote.search(codes[:20], k)
                _told(f"{what}, 20 queries, k {k}", 20, start)
                assert found == index.search(codes[:20], k), (what, k)
            start = time.perf_counter()
            found = remote.search_radius(codes[5], 6)
            _told(f"{what}, {len(found):,} within 6 bits", 1, start)
            assert found == index.search_radius(codes[5], 6)
            start = time.perf_counter()
            for code in codes[:20]:
                remote.search(code[None], 10)
            _told(f"{what}, 20 queries one by one, k 10", 20, start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--codes", type=int, default=100_000)
    given = parser.parse_args()
    print("| what | time | items or queries |\n|---|---|---|")
    with milvus_server() as server, Index.open(given.index, read_only=True) as index:
        address = f"{server.address}/gallery"
        for what, replace in (("first push", True), ("push again, nothing changed", False)):
            with table_at(address) as table:
                start = time.perf_counter()
                _told(what, push(index, table, replace=replace).items, start)
        _bare(server.address)
        for clustered in (False, True):
            _exact(f"{server.address}/exact", given.codes, clustered)
    print("all answers are the index's own")


if __name__ == "__main__":
    main()
