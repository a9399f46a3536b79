"""Exact Hamming search on engines that install from a registry: PostgreSQL, pgvector, Qdrant.

    PYTHONPATH=. .venv/bin/python benchmarks/remote/engines.py [--qdrant PYTHON] [--codes N ...]

PYTHON has qdrant-client and qdrant-edge-py. Codes of 64 bits in clusters, as photos of kinds have
them: many lie at equal distances; with --ties there are only 1,000 different ones. Each contender
has a process of its own; the server is started
here, with its defaults but for a buffer that the codes fit in. "same order": share of queries whose
first 10 are those of (distance, id); "right": share whose distances are right; "recall": share of
the right items. MiB: what the process grew by; for PostgreSQL the table with its indexes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

K, QUERIES, ROUNDS = 10, 20, 3
Search = Callable[[np.ndarray], list[tuple[int, int]]]  # a code -> (id, distance)


def made(count: int, ties: bool) -> np.ndarray:
    """Return codes (count + QUERIES, 8): 1,000 centres, of which each bit flips at 5 %.

    ties: only the last, the queries, are not centres themselves.
    """
    random = np.random.default_rng(count)
    centres = random.integers(0, 256, (1000, 8), dtype=np.uint8)
    flips = np.packbits(random.random((count + QUERIES, 64)) < 0.05, axis=1)
    flips[: count if ties else 0] = 0
    return centres[random.integers(0, 1000, count + QUERIES)] ^ flips


def _plus_minus(codes: np.ndarray) -> np.ndarray:
    return np.unpackbits(codes, axis=-1).astype(np.float32) * 2 - 1


def library(codes: np.ndarray, _: str) -> tuple[Search, float]:
    from fgdeploy.retrieval import search_codes

    def search(code: np.ndarray) -> list[tuple[int, int]]:
        ids, distances = search_codes(code[None], codes, K)
        return list(zip(ids[0].tolist(), distances[0].tolist(), strict=True))

    return search, 0.0


def _postgres(codes: np.ndarray, address: str, distance: str, order: str, *more: str) -> Any:
    import struct

    import psycopg

    asked = psycopg.connect(address, autocommit=True, prepare_threshold=None)
    asked.execute("CREATE EXTENSION IF NOT EXISTS vector")
    asked.execute("DROP TABLE IF EXISTS codes")
    asked.execute("CREATE TABLE codes (id bigint PRIMARY KEY, code bit(64) NOT NULL)")
    with asked.cursor().copy("COPY codes FROM STDIN (FORMAT BINARY)") as copying:
        copying.set_types(("int8", "bytea"))
        length = struct.pack("!i", 64)
        for number, code in enumerate(codes):
            copying.write_row((number, length + code.tobytes()))
    asked.execute("VACUUM ANALYZE codes")
    for statement in more:
        asked.execute(statement)
    query = f"SELECT id, {distance} AS d FROM codes ORDER BY {order} LIMIT {K}"

    def search(code: np.ndarray) -> list[tuple[int, int]]:
        text = "".join(f"{byte:08b}" for byte in code.tolist())
        values = [text] * query.count("%s")
        return [(number, round(gap)) for number, gap in asked.execute(query, values).fetchall()]

    (size,) = asked.execute("SELECT pg_total_relation_size('codes')").fetchone()
    return search, size / 2**20


def bit_count(codes: np.ndarray, address: str) -> tuple[Search, float]:
    return _postgres(codes, address, "bit_count(code # %s::bit(64))", "d, id")


def pgvector(codes: np.ndarray, address: str) -> tuple[Search, float]:
    return _postgres(codes, address, "(code <~> %s::bit(64))", "d, id")


def hnsw(codes: np.ndarray, address: str) -> tuple[Search, float]:
    return _postgres(
        codes,
        address,
        "(code <~> %s::bit(64))",
        "code <~> %s::bit(64)",
        "SET maintenance_work_mem = '1GB'",
        "CREATE INDEX ON codes USING hnsw (code bit_hamming_ops)",
        "SET hnsw.ef_search = 100",
    )


def qdrant_local(codes: np.ndarray, _: str) -> tuple[Search, float]:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection(
        "codes", vectors_config=models.VectorParams(size=64, distance=models.Distance.DOT)
    )
    for start in range(0, len(codes), 5000):
        vectors = _plus_minus(codes[start : start + 5000])
        ids = list(range(start, start + len(vectors)))
        client.upsert("codes", points=models.Batch(ids=ids, vectors=vectors.tolist()))

    def search(code: np.ndarray) -> list[tuple[int, int]]:
        found = client.query_points("codes", query=_plus_minus(code).tolist(), limit=K).points
        return [(int(point.id), round(32 - point.score / 2)) for point in found]

    return search, -1.0


def qdrant_edge(codes: np.ndarray, folder: str) -> tuple[Search, float]:
    import qdrant_edge as edge

    vectors = edge.EdgeVectorParams(size=64, distance=edge.Distance.Dot)
    path = Path(folder) / "edge"
    path.mkdir()
    shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=vectors))
    for start in range(0, len(codes), 5000):
        points = [
            edge.Point(start + row, vector)
            for row, vector in enumerate(_plus_minus(codes[start : start + 5000]).tolist())
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
    exact = edge.SearchParams(exact=True)

    def search(code: np.ndarray) -> list[tuple[int, int]]:
        query = edge.Query.Nearest(_plus_minus(code).tolist())
        found = shard.query(edge.QueryRequest(limit=K, query=query, params=exact))
        return [(int(point.id), round(32 - point.score / 2)) for point in found]

    return search, -1.0


CONTENDERS = {
    "search_codes, this library": library,
    "PostgreSQL bit_count": bit_count,
    "pgvector <~>": pgvector,
    "pgvector HNSW, ef_search 100": hnsw,
    "Qdrant client, local": qdrant_local,
    "Qdrant Edge, exact": qdrant_edge,
}


def run(name: str, count: int, ties: bool, place: str) -> dict[str, float]:
    """Return what one contender does."""
    every = made(count, ties)
    codes, queries = every[:count], every[count:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    search, size = CONTENDERS[name](codes, place)
    filled = time.perf_counter() - start
    search(queries[0])
    times, same, right, recall = [], 0, 0, 0.0
    for code in queries:
        best = min(_timed(search, code) for _ in range(ROUNDS))
        times.append(best)
        found = search(code)
        gaps = np.bitwise_count(codes ^ code).sum(axis=1).astype(int)
        order = np.lexsort((np.arange(count), gaps))[:K]
        expected = [(int(n), int(gaps[n])) for n in order]
        same += found == expected
        right += [gap for _, gap in found] == [gap for _, gap in expected]
        within = sum(gap <= expected[-1][1] for _, gap in found)
        recall += min(within, K) / K
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {
        "rate": count / filled,
        "ms": float(np.median(times)) * 1000,
        "same": same / len(queries),
        "right": right / len(queries),
        "recall": recall / len(queries),
        "mib": size if size > 0 else grown,
    }


def _timed(search: Search, code: np.ndarray) -> float:
    start = time.perf_counter()
    search(code)
    return time.perf_counter() - start


def main() -> None:
    """Run each contender in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qdrant", help="a Python with qdrant-client and qdrant-edge-py")
    parser.add_argument("--codes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ties", action="store_true", help="only 1,000 different codes")
    given = parser.parse_args()
    if given.one:
        name, count, place = given.one
        print(json.dumps(run(name, int(count), given.ties, place)))
        return
    from tests.fgdeploy.remote.postgres_server import postgres_server

    print("| codes | engine | fills codes/s | ms a query | same order | right | recall | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    with postgres_server() as server, tempfile.TemporaryDirectory() as folder:
        for count in given.codes:
            for name in CONTENDERS:
                qdrant = name.startswith("Qdrant")
                if (qdrant and not given.qdrant) or (name.endswith("local") and count > 100_000):
                    continue  # the local client takes minutes to fill
                python = given.qdrant if qdrant else sys.executable
                place = tempfile.mkdtemp(dir=folder) if qdrant else server.address
                command = [python, __file__, "--one", name, str(count), place]
                command += ["--ties"] if given.ties else []
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"| {count:,} | {name} | {found['rate']:,.0f} | {found['ms']:.1f} | "
                    f"{found['same']:.2f} | {found['right']:.2f} | {found['recall']:.2f} | "
                    f"{found['mib']:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
