"""Kill a writer of a gallery index at random moments, and look at what it left behind.

    python benchmarks/faults/kill.py --kills 200 --seed 0

A child adds, replaces, removes and compacts without pause, in batches, and tells each batch that
was acknowledged; segments are so small that they are written all the time, and so are the items'
embeddings. It is killed (SIGKILL), then the index is opened: every acknowledged change must be
there, the one under way whole or not at all, each item with its own embedding, searches must equal
ones over a plain list, and `verify` must have nothing but left-over files to name. Prints a table
of where the kills fell; exits 1 at the first difference.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.cosine import cosines, unit
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import (
    derived,
    embedding_file,
    embeddings,
    segment,
    snapshot,
    verifying,
)
from fgdeploy.retrieval.store.int8_rows import quantised, restored
from fgdeploy.retrieval.store.making import DATABASE
from fgdeploy.retrieval.store.session import Session

BITS, BATCH, WIDTH = 64, 40, 8
TAIL_ROWS, MERGE_ROWS, BLOCK_ROWS = 90, 700, 64
MOST_BATCHES = 40
WRITING = {"segment": "writing a segment", "embeddings": "writing embeddings"}

IndexState = dict[int, int]  # number of a batch -> version of its codes


@dataclass
class Counts:
    """What the kills fell into, and what they left."""

    during: collections.Counter[str] = field(default_factory=collections.Counter)
    left: dict[str, collections.Counter[str]] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )


def small_files() -> None:
    """Let little data fill many segments and blocks."""
    derived.TAIL_ROWS, derived.MERGE_ROWS = TAIL_ROWS, MERGE_ROWS
    embeddings.MERGE_ROWS = 4 * BATCH
    for module in (segment, derived, snapshot, verifying):
        vars(module)["BLOCK_ROWS"] = BLOCK_ROWS


def items_of(batch: int, version: int) -> list[Item]:
    """Return the items of a batch; their codes tell which version they are."""
    return [
        Item(
            f"kill://{batch}/{number}",
            hashlib.blake2b(f"{batch} {number} {version}".encode(), digest_size=8).digest(),
            f"label {batch % 3}",
            f"{batch}/{number}/{version}",
            json="[" + ", ".join(["1"] * 30) + "]",
        )
        for number in range(BATCH)
    ]


def rows_of(codes: Iterable[bytes]) -> npt.NDArray[np.float32]:
    """Return the embeddings of items, which follow from their codes."""
    rows = [np.frombuffer(hashlib.blake2b(code).digest()[:WIDTH], np.uint8) for code in codes]
    return np.array(rows, np.float32).reshape(-1, WIDTH) - 127


def make(path: Path) -> None:
    """Make an empty index that keeps embeddings."""
    with Index.create(path, "ab" * 32, BITS) as index:
        index.embeddings.keep("int8", WIDTH)


# The child


def work(path: Path, state: IndexState, seed: int, tell: Any) -> None:
    """Change the index without end, and tell what begins and what is done."""
    chooser = random.Random(seed)
    write = segment.write

    def told(*arguments: Any) -> int:
        tell("begin segment")
        crc = write(*arguments)
        tell("end segment")
        return crc

    segment.write = told
    write_rows = embedding_file.write

    def told_rows(*arguments: Any) -> int:
        tell("begin embeddings")
        crc = write_rows(*arguments)
        tell("end embeddings")
        return crc

    embedding_file.write = told_rows
    if chooser.random() < 0.5:  # pages go to the file before the commit
        connect = Session._connect

        def narrow(session: Session) -> Any:
            connection = connect(session)
            connection.execute("PRAGMA cache_size = 2")
            return connection

        Session._connect = narrow  # type: ignore[method-assign]
    with Index.open(path) as index:
        fresh = max(state, default=0)
        while True:
            kind = chooser.choices(["add", "replace", "remove", "compact"], [50, 20, 22, 8])[0]
            if kind == "add" and len(state) < MOST_BATCHES:
                fresh += 1
                change(index, state, tell, kind, fresh, 0)
            elif kind == "replace" and state:
                batch = chooser.choice(list(state))
                change(index, state, tell, kind, batch, state[batch] + 1)
            elif kind == "remove" and state:
                change(index, state, tell, kind, chooser.choice(list(state)), -1)
            elif kind == "compact":
                tell("begin compact")
                index.compact()
                tell("done compact 0 0")


def change(index: Index, state: IndexState, tell: Any, kind: str, batch: int, version: int) -> None:
    """Add, replace or remove one batch."""
    tell(f"begin {kind} {batch} {version}")
    if version < 0:
        paths = [str(item.path) for item in items_of(batch, 0)]
        index.remove([item.id for item in index.by_path(paths).values()])
        del state[batch]
    else:
        items = items_of(batch, version)
        rows = rows_of(item.code for item in items)
        index.add(items, lambda done: tell(f"done {kind} {batch} {version}"), embeddings=rows)
        state[batch] = version
        return
    tell(f"done {kind} {batch} {version}")


# The parent


def run_until_killed(path: Path, state: IndexState, chooser: random.Random) -> list[str]:
    """Let a child work on the index, kill it, and return the lines that it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(
                path,
                dict(state),
                chooser.randrange(1 << 30),
                lambda text: os.write(writing, f"{text}\n".encode()),
            )
        except BaseException as error:
            os.write(writing, f"error {error!r}\n".encode())
        os._exit(1)
    os.close(writing)
    told = b""
    with open(reading, "rb", buffering=0) as stream:
        lines = chooser.randrange(1, 40)
        while told.count(b"\n") < lines and (part := stream.read(1 << 16)):
            told += part
        time.sleep(chooser.random() ** 2 * 0.02)
        os.kill(child, signal.SIGKILL)
        while part := stream.read(1 << 16):  # told before the kill took hold
            told += part
    os.waitpid(child, 0)
    return told.decode().splitlines()


def follow(lines: list[str], state: IndexState) -> tuple[str, list[IndexState]]:
    """Return what was under way, and the states that may now be on the disk."""
    now, under_way, may_be = "between two changes", None, [state]
    inside = ""
    for line in lines:
        word, kind, *numbers = line.split()
        if word == "error":
            raise SystemExit(f"the writer failed: {line}")
        if word == "begin" and kind in WRITING:
            inside = WRITING[kind]
        elif word == "end":
            inside = ""
        elif word == "begin":
            now, inside = kind, ""
            under_way = changed(state, numbers) if numbers else state
        else:  # done
            state = changed(state, numbers) if kind != "compact" else state
            now, under_way, inside = f"after {kind}: to a segment or the next", None, ""
    may_be = [state] if under_way is None else [state, under_way]
    return inside or now, may_be


def changed(state: IndexState, numbers: list[str]) -> IndexState:
    """Return the state after a change."""
    batch, version = map(int, numbers)
    after = {key: value for key, value in state.items() if key != batch}
    return after if version < 0 else {**after, batch: version}


def look(path: Path, may_be: list[IndexState], counts: Counts, kind: str) -> IndexState:
    """Check the index that a kill left behind, and return which state it is in."""
    journal = path / f"{DATABASE}-journal"
    if journal.exists() and journal.read_bytes()[:8].strip(b"\0"):
        counts.left[kind]["hot journal"] += 1
    if [*path.glob(".segment-*.tmp"), *path.glob(".embeddings-*.tmp")]:
        counts.left[kind]["temporary file"] += 1
    notices: list[str] = []
    with Index.open(path, notices.append) as index:
        with index._session.reading() as connection:
            unnamed = [
                file for file in derived.left_over(connection, path) if file.suffix != ".tmp"
            ]
        counts.left[kind]["unnamed segment"] += bool(unnamed)
        state = which(index, may_be)
        search_right(index)
        found = index.verify()
        expect(not [problem for problem in found if problem.fatal], f"verify: {found}")
        expect(
            all("left over" in problem.what for problem in found), f"verify is not clean: {found}"
        )
        expect(index.verify() == [], "verify is not clean after it repaired")
        search_right(index)
    expect(notices == [], f"a kill damaged a derived file: {notices}")
    counts.during[kind] += 1
    return state


def which(index: Index, may_be: list[IndexState]) -> IndexState:
    """Return which state the items are in, every batch of them whole."""
    held = {(item.path, item.code, item.label, item.sha256) for item in index.items()}
    for state in may_be:
        expected = {
            (item.path, item.code, item.label, item.sha256)
            for batch, version in state.items()
            for item in items_of(batch, version)
        }
        if held == expected:
            expect(len(index) == len(expected), "the number of items is wrong")
            return state
    differing = collections.Counter(str(path).rpartition("/")[0] for path, *_ in held)
    raise SystemExit(f"LOST OR HALF: expected one of {may_be}, got {dict(differing)}")


def search_right(index: Index) -> None:
    """Compare searches with ones over a plain list of the items."""
    items = list(index.items())
    for query in (bytes(8), b"\xff" * 8, hashlib.blake2b(b"query", digest_size=8).digest()):
        value = int.from_bytes(query, "big")
        order = sorted(
            ((int.from_bytes(item.code, "big") ^ value).bit_count(), item.id, item.path)
            for item in items
        )
        hits = index.search(np.frombuffer(query, np.uint8)[None], 30)[0]
        expect([(h.distance, h.id, h.path) for h in hits] == order[:30], "a search is wrong")
        hits = index.search_radius(np.frombuffer(query, np.uint8), 26)
        near = [each for each in order if each[0] <= 26]
        expect([(h.distance, h.id, h.path) for h in hits] == near, "a radius search is wrong")
    embeddings_right(index, items)


def embeddings_right(index: Index, items: list[Item]) -> None:
    """Compare a re-ranked search with one over a plain list, each item with its own embedding."""
    query = np.arange(WIDTH, dtype=np.float64) - 3
    costs = 1 - cosines(unit(query), unit(restored(*quantised(rows_of(i.code for i in items)))))
    distances = [int.from_bytes(item.code, "big").bit_count() for item in items]
    pool = sorted(zip(distances, [item.id for item in items], costs.tolist(), strict=True))[:60]
    order = sorted((cost, distance, number) for distance, number, cost in pool)
    code = np.zeros((1, BITS // 8), np.uint8)
    hits = index.search(code, 30, embeddings=query[None], pool=60)[0]
    expect([(h.cost, h.distance, h.id) for h in hits] == order[:30], "a re-ranked search is wrong")


def expect(good: bool, what: str) -> None:
    """End with the difference that was found."""
    if not good:
        raise SystemExit(f"WRONG: {what}")


def table(counts: Counts, what: str = "kill") -> Iterator[str]:
    """Yield the lines of a table of what the kills fell into."""
    columns = ("hot journal", "temporary file", "unnamed segment")
    yield f"| {what} while | times | {' | '.join(columns)} | lost | half there | wrong answers |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind, kills in sorted(counts.during.items()):
        left = " | ".join(str(counts.left[kind][column]) for column in columns)
        yield f"| {kind} | {kills} | {left} | 0 | 0 | 0 |"
    total = [sum(left[column] for left in counts.left.values()) for column in columns]
    numbers = " | ".join(map(str, total))
    yield f"| all | {sum(counts.during.values())} | {numbers} | 0 | 0 | 0 |"


def run(folder: Path, kills: int, seed: int) -> Counts:
    """Kill so many writers of one index after another."""
    small_files()
    chooser, counts = random.Random(seed), Counts()
    path, state = folder / "killed.fgi", IndexState()
    make(path)
    for _ in range(kills):
        lines = run_until_killed(path, state, chooser)
        kind, may_be = follow(lines, state)
        state = look(path, may_be, counts, kind)
    return counts


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        counts = run(Path(name), options.kills, options.seed)
    print("\n".join(table(counts)))


if __name__ == "__main__":
    sys.exit(main())
