"""What re-ranking by embeddings gains and costs: quality, microseconds a query, bytes an item.

    .venv/bin/python benchmarks/retrieval/embeddings.py DATA/split.csv MODEL.fgd [MODEL.fgd ...]

Test photos are queries against an index of the training photos, as `fgdeploy search -k n --rerank
WAY` asks it: the first n of the POOL * n nearest codes. mAP over the first n, divided by min(n,
relevant items). "same": how many of the first n are among the first n by float embeddings, out of
the same pool. "all by cosine" ranks every item by its float embedding, without codes: what the
pool can reach at most. Times are of one thread, 64 queries at once, the best of five rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import code_bytes
from fgdeploy.core.cosine import unit
from fgdeploy.hasher import HashRun, hash_all, load
from fgdeploy.photos import of_split, read
from fgdeploy.retrieval import Index, Item

CUTS = (10, 50)
_AT_ONCE, _ROUNDS = 64, 5
_HEAD = ("model", "answers", "order", "mAP", "R@1", "same", "us a query", "bytes an item")

Ids = npt.NDArray[np.int64]
Search = Callable[[slice, int], list[list[Any]]]  # which queries, and k


def scores(relevant: npt.NDArray[np.bool_], total: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return mAP and R@1 of rankings (Q, k) whose relevant items are marked, of `total` (Q,)."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = np.cumsum(relevant, axis=1) / ranks
    most = np.maximum(np.minimum(total, relevant.shape[1]), 1)
    mean = float(((precision * relevant).sum(axis=1) / most).mean())
    return mean, float(relevant[:, 0].mean())


def filled(path: Path, kind: str, run: HashRun) -> Index:
    """Return an index of the photos that were hashed, with embeddings of a kind."""
    index = Index.create(path, "ab" * 32, run.outputs.hash.shape[1])
    items = [
        Item(f"photo://{number}", code.tobytes(), photo.label, str(number), number)
        for number, (photo, code) in enumerate(zip(run.photos, run.outputs.code, strict=True))
    ]
    assert run.outputs.embedding is not None
    index.embeddings.keep(kind, run.outputs.embedding.shape[1])
    index.add(items, embeddings=run.outputs.embedding)
    index.compact()
    return index


def timed(search: Search, k: int, queries: int) -> tuple[Ids, float]:
    """Return the ids (Q, k) that a search finds, and its microseconds for each query."""
    best, found = np.inf, np.empty(0, np.int64)
    for _ in range(_ROUNDS):
        start, rows = time.perf_counter(), []
        for at in range(0, queries, _AT_ONCE):
            rows += search(slice(at, min(at + _AT_ONCE, queries)), k)
        best = min(best, time.perf_counter() - start)
        found = np.array([[hit.id for hit in hits] for hits in rows])
    return found, 1e6 * best / queries


def measured(name: str, of_queries: HashRun, of_gallery: HashRun, folder: Path) -> None:
    """Print the rows of one model."""
    queries, hashes = of_queries.outputs.code, of_queries.outputs.hash
    rows, gallery = of_queries.outputs.embedding, of_gallery.outputs.embedding
    assert rows is not None
    assert gallery is not None
    labels = [np.array([photo.label for photo in run.photos]) for run in (of_queries, of_gallery)]
    same = labels[0][:, None] == labels[1][None]
    total = same.sum(axis=1)
    code = code_bytes(hashes.shape[1])
    with (
        filled(folder / "f.fgi", "float", of_gallery) as exact,
        filled(folder / "i.fgi", "int8", of_gallery) as small,
    ):
        sizes = [index.embeddings.form.row_bytes for index in (exact, small)]  # type: ignore[union-attr]
        one = {"threads": 1}
        ways: dict[str, tuple[Search, int]] = {
            "embedding, float": (
                lambda part, k: exact.search(queries[part], k, embeddings=rows[part], **one),
                code + sizes[0],
            ),
            "Hamming": (lambda part, k: exact.search(queries[part], k, **one), code),
            "asymmetric": (
                lambda part, k: exact.search(queries[part], k, hashes=hashes[part], **one),
                code,
            ),
            "embedding, int8": (
                lambda part, k: small.search(queries[part], k, embeddings=rows[part], **one),
                code + sizes[1],
            ),
        }
        for k in CUTS:
            best = np.empty(0)
            for way, (search, size) in ways.items():
                ids, each = timed(search, k, len(queries))
                best = ids if way == "embedding, float" else best
                alike = np.mean([np.isin(a, b).mean() for a, b in zip(ids, best, strict=True)])
                mean, first = scores(np.take_along_axis(same, ids, 1), total)
                cells = (f"k = {k}", way, f"{100 * mean:.2f}", f"{100 * first:.2f}")
                cells += (f"{100 * alike:.2f} %", f"{each:,.0f}", str(size))
                print(f"| {name} | {' | '.join(cells)} |", flush=True)
            every = np.argsort(-unit(rows) @ unit(gallery).T, axis=1, kind="stable")[:, :k]
            mean, first = scores(np.take_along_axis(same, every, 1), total)
            cells = (f"k = {k}", "all by cosine", f"{100 * mean:.2f}", f"{100 * first:.2f}")
            print(f"| {name} | {' | '.join((*cells, '', '', ''))} |", flush=True)


def main() -> None:
    """Hash, fill indexes, ask them, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args()
    photos = read(options.data)
    print(f"| {' | '.join(_HEAD)} |\n{'|---' * len(_HEAD)}|", flush=True)
    for model in options.models:
        with load(model) as hasher, tempfile.TemporaryDirectory() as name:
            runs = [hash_all(hasher, of_split(photos, split)) for split in ("test", "train")]
            measured(f"{model.name}, {hasher.bits} bits", runs[0], runs[1], Path(name))


if __name__ == "__main__":
    main()
