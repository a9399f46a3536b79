"""What asymmetric re-ranking gains: mAP by Hamming distance and by the real-valued query.

    .venv/bin/python benchmarks/retrieval/rerank.py DATA/split.csv MODEL.fgd [MODEL.fgd ...]

Test photos are queries against the codes of training photos. "whole": every gallery item
re-ranked. "k = n": the first n answers, found among the POOL * n nearest, as `fgdeploy search -k n
--rerank asymmetric` does; AP over the first n, divided by min(n, relevant items).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import hamming
from fgdeploy.hasher import hash_all, load
from fgdeploy.photos import of_split, read
from fgdeploy.retrieval.store import rerank

CUTS = (10, 50, 100)


def average_precision(relevant: npt.NDArray[np.bool_], total: npt.NDArray[np.int64]) -> float:
    """Return mean AP of rankings (Q, N) whose relevant items are marked, of `total` (Q,) each."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = np.cumsum(relevant, axis=1) / ranks
    return float(((precision * relevant).sum(axis=1) / np.maximum(total, 1)).mean())


def main() -> None:
    """Hash, rank both ways, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--pool", type=int, default=rerank.POOL)
    options = parser.parse_args()
    photos = read(options.data)
    print(
        "| model | answers | Hamming mAP | asymmetric mAP | gain, points |\n|---|---|---|---|---|"
    )
    for model in options.models:
        with load(model) as hasher:
            of_queries = hash_all(hasher, of_split(photos, "test"))
            of_gallery = hash_all(hasher, of_split(photos, "train"))
        queries, gallery = of_queries.outputs.code, of_gallery.outputs.code
        labels = [np.array([p.label for p in run.photos]) for run in (of_queries, of_gallery)]
        same = labels[0][:, None] == labels[1][None, :]
        distances = hamming(queries, gallery)
        cost = np.stack(
            [
                rerank.costs(of_queries.outputs.hash[i : i + 1], gallery[None])[0]
                for i in range(len(queries))
            ]
        )
        rows = np.arange(len(gallery))
        plain = np.lexsort((np.broadcast_to(rows, distances.shape), distances), axis=1)
        total = same.sum(axis=1)
        for cut in (len(gallery), *CUTS):
            pool = plain[:, : min(options.pool * cut, len(gallery))]
            keys = (pool, np.take_along_axis(distances, pool, 1), np.take_along_axis(cost, pool, 1))
            order = np.take_along_axis(pool, np.lexsort(keys, axis=1), 1)
            most = np.minimum(total, cut)
            before = average_precision(np.take_along_axis(same, plain[:, :cut], 1), most)
            after = average_precision(np.take_along_axis(same, order[:, :cut], 1), most)
            what = "whole" if cut == len(gallery) else f"k = {cut}"
            bits = f"{model.name}, {of_queries.outputs.hash.shape[1]} bits"
            print(
                f"| {bits} | {what} | {100 * before:.2f} | {100 * after:.2f} "
                f"| {100 * (after - before):+.2f} |"
            )


if __name__ == "__main__":
    main()
