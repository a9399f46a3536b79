"""All live codes of a snapshot in order of id, in bounded memory: what compacting writes anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval.store import segment
from fgdeploy.retrieval.store.segment import Ids
from fgdeploy.retrieval.store.snapshot import Part, joined


def in_order(parts: Sequence[Part]) -> Iterator[tuple[Ids, UInt8Array]]:
    """Yield ids, ascending, and codes of all live rows, BLOCK_ROWS at a time, the last ones fewer.

    Holds a block of each part. No id is live in two of them.
    """
    yield from _cut_again(_steps(parts))


def _steps(parts: Sequence[Part]) -> Iterator[tuple[Ids, UInt8Array]]:
    """Yield rows in order: each time up to the least id at which a part has given a whole block."""
    at = [0] * len(parts)
    while True:
        left = [number for number, part in enumerate(parts) if at[number] < len(part.source.codes)]
        if not left:
            return
        bound = min(_id_at(parts[number], at[number] + segment.BLOCK_ROWS - 1) for number in left)
        found = []
        for number in left:
            _, end = parts[number].source.span(bound, bound)
            found.append(parts[number].live_rows(at[number], end))
            at[number] = end
        yield joined(found)


def _id_at(part: Part, row: int) -> int:
    row = min(row, len(part.source.codes) - 1)
    return int(part.source.ids(slice(row, row + 1))[0])


def _cut_again(pieces: Iterable[tuple[Ids, UInt8Array]]) -> Iterator[tuple[Ids, UInt8Array]]:
    """Yield the same rows in blocks of BLOCK_ROWS."""
    waiting: list[tuple[Ids, UInt8Array]] = []
    rows, block = 0, segment.BLOCK_ROWS
    for piece in pieces:
        waiting.append(piece)
        rows += len(piece[0])
        if rows < block:
            continue
        ids, codes = joined(waiting)
        whole = rows - rows % block
        for start in range(0, whole, block):
            yield ids[start : start + block], codes[start : start + block]
        waiting, rows = [(ids[whole:], codes[whole:])], rows - whole
    if rows:
        yield joined(waiting)
