"""Damage every file of a gallery index in every way, and look at what it answers then.

    python benchmarks/faults/damage.py --flips 600 --seed 0

Derived files are cut off, flipped in every region, deleted and replaced by others; the database is
flipped at random places. Each kind of question must then give the same answers as before, or be
refused in words; an answer that differs is printed, and the exit status is 1. Then the index is
filled until its disk is full, and read from one that cannot be written. Full disks are a small
tmpfs where root may mount one, else a limit on the size of files.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fgdeploy.core.errors import FgdeployError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import derived, segment, snapshot, verifying
from fgdeploy.retrieval.store.making import DATABASE

BITS = 64
MODEL = "ab" * 32
PAGE = 4096

Outcomes = collections.Counter[tuple[str, str]]  # (what was damaged, what came of it)
QUERIES = np.random.default_rng(5).integers(0, 256, (4, BITS // 8), np.uint8)
HASHES = np.where(np.unpackbits(QUERIES, axis=1), 1.0, -1.0) * np.linspace(0.1, 2, BITS)
ALL = 10**6

QUESTIONS: dict[str, Callable[[Index], object]] = {
    "search": lambda index: index.search(QUERIES, 20),
    "search of all": lambda index: index.search(QUERIES[:1], ALL),
    "search of ids": lambda index: [found.tolist() for found in index.search_ids(QUERIES, ALL)],
    "radius": lambda index: index.search_radius(QUERIES[0], 28),
    "re-ranked": lambda index: index.search(QUERIES, 7, hashes=HASHES),
    "filter by label": lambda index: index.search(QUERIES, 20, where="label = 'label 3'"),
    "filter by time": lambda index: index.search(QUERIES, 20, where="time > '2026-06'"),
    "filter by json": lambda index: index.search(QUERIES, 20, where="json ->> '$.n' > 40"),
    "list": lambda index: list(index.items()),
    "list with a filter": lambda index: list(index.items("label = 'label 3'")),
    "by id": lambda index: index.get([1, 2, 90, 1009, 1600]),
    "number": len,
    "by path": lambda index: index.by_path([f"/photos/{n}.jpg" for n in range(0, 900, 37)]),
    "by content": lambda index: index.by_content([f"{n:064}" for n in range(0, 900, 37)]),
}


def small_files() -> None:
    """Let little data fill many segments and blocks."""
    derived.TAIL_ROWS, derived.MERGE_ROWS = 200, 64
    for module in (segment, derived, snapshot, verifying):
        vars(module)["BLOCK_ROWS"] = 64


def build(path: Path, seed: int) -> None:
    """Make an index with several segments, gaps, removed and replaced items, and a tail."""
    chooser = np.random.default_rng(seed)
    codes = chooser.integers(0, 256, (900, BITS // 8), np.uint8)

    def item(number: int, extra: int = 0) -> Item:
        return Item(
            f"/photos/{number}.jpg",
            bytes(codes[(number + extra) % 900]),
            f"label {number % 7}",
            f"{number + 10_000 * extra:064}",
            time=f"2026-{number % 12 + 1:02}-01T00:00:00+00:00",
            json=f'{{"n": {number % 50}}}',
        )

    with Index.create(path, MODEL, BITS) as index:
        index.add(item(n) for n in range(300))
        index.add(
            Item(i.path, i.code, i.label, i.sha256, 1000 + 3 * n, i.time, i.json)
            for n, i in enumerate(map(item, range(300, 600)))
        )
        index.add(item(n) for n in range(600, 820))
        index.remove([*range(5, 60, 7), 1003, 1300])
        index.add(item(n, 1) for n in range(100, 140, 3))
        index.add(item(n) for n in range(820, 900))


def answers_of(path: Path) -> dict[str, tuple[str, object]]:
    """Return what comes of each question: the answer, or the words in which it was refused."""
    found: dict[str, tuple[str, object]] = {}
    try:
        with Index.open(path, lambda told: None) as index:
            for name, question in QUESTIONS.items():
                try:
                    found[name] = ("answer", question(index))
                except FgdeployError as error:
                    found[name] = ("refused", str(error))
                except Exception as error:
                    found[name] = ("a traceback", repr(error))
    except FgdeployError as error:
        found = {name: found.get(name, ("refused", str(error))) for name in QUESTIONS}
    return found


def judge(path: Path, right: dict[str, tuple[str, object]], what: str, outcomes: Outcomes) -> bool:
    """Count what came of each question; print wrong answers, and whether `verify` finds them."""
    good = True
    for name, (kind, value) in answers_of(path).items():
        if kind == "refused":
            outcomes[what, "refused in words"] += 1
            assert "\n" not in str(value)
        elif value == right[name][1]:
            outcomes[what, "same answer"] += 1
        else:
            outcomes[what, f"WRONG {kind} of: {name}"] += 1
            good = False
    outcomes[what, "damages"] += 1
    return good


# Derived files


def damages(whole: bytes, other: bytes, chooser: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield kinds of damage and the content that it leaves."""
    for length in (0, 1, 30, 67, 68, 100, 4095, 4096, 4097, len(whole) // 2, len(whole) - 1):
        yield "cut off", whole[:length]
    yield "longer", whole + b"\0"
    yield "another index's", other
    yield "zeros", bytes(len(whole))
    consecutive = whole[12]
    rows = int.from_bytes(whole[16:24], "little")
    codes_end = 4096 + rows * BITS // 8
    ids_at = -(-codes_end // 64) * 64
    table_at = ids_at + (0 if consecutive else 8 * rows)
    regions = {"header flipped": range(68), "codes flipped": range(4096, codes_end)}
    regions["ids flipped"] = range(ids_at, table_at)
    regions["CRCs flipped"] = range(table_at, len(whole))
    for kind, places in regions.items():
        for place in chooser.sample(places, min(len(places), 20)):
            hurt = bytearray(whole)
            hurt[place] ^= 1 << chooser.randrange(8)
            yield kind, bytes(hurt)


def damage_derived(folder: Path, path: Path, chooser: random.Random, outcomes: Outcomes) -> bool:
    """Damage each derived file in every way, where it can be mended and where it cannot."""
    right, good = answers_of(path), True
    build(folder / "other.fgi", 99)
    others = sorted((folder / "other.fgi").glob("*.codes"))
    for number, name in enumerate(sorted(file.name for file in path.glob("*.codes"))):
        whole, other = (path / name).read_bytes(), others[number % len(others)].read_bytes()
        cases: list[tuple[str, bytes | None]] = [("deleted", None)]
        cases += damages(whole, other, chooser)
        cases += [("another segment's", (path / each.name).read_bytes()) for each in others
                  if each.name != name and (path / each.name).exists()]  # fmt: skip
        for kind, content in cases:
            for writable in (True, False):
                copy = folder / "copy.fgi"
                shutil.copytree(path, copy)
                (copy / name).unlink()
                if content is not None:
                    (copy / name).write_bytes(content)
                with read_only(not writable):
                    good &= judge(copy, right, f"derived file: {kind}", outcomes)
                good &= not writable or is_whole_again(copy)
                shutil.rmtree(copy)
    return good


@contextlib.contextmanager
def read_only(active: bool) -> Iterator[None]:
    """Let the index believe that it cannot be written."""
    access = os.access
    if active:
        os.access = lambda place, mode, **more: not mode & os.W_OK  # type: ignore[assignment]
    try:
        yield
    finally:
        os.access = access


def is_whole_again(path: Path) -> bool:
    """Return whether the questions left an index of which `verify` has nothing to say."""
    with Index.open(path) as index:
        wrong = [problem for problem in index.verify() if problem.fatal or problem.repaired]
    if wrong:
        print(f"not mended: {wrong}")
    return not wrong


# The database


def damage_database(
    folder: Path, path: Path, flips: int, chooser: random.Random, outcomes: Outcomes
) -> bool:
    """Flip a bit, a byte or a whole stretch of the database, each time from the undamaged one."""
    right, good = answers_of(path), True
    whole = (path / DATABASE).read_bytes()
    roots = pages(path)
    used = [at for at in range(PAGE, len(whole)) if whole[at] and at // PAGE + 1 in roots]
    for number in range(flips):
        hurt, place = bytearray(whole), chooser.randrange(len(whole))
        kind = ("a bit", "a bit", "a byte", "16 bytes", "a bit of a small table")[number % 5]
        if kind == "a bit of a small table":
            place = chooser.choice(used)
        if kind.startswith("a bit"):
            hurt[place] ^= 1 << chooser.randrange(8)
        else:
            for at in range(place, min(place + (1 if kind == "a byte" else 16), len(hurt))):
                hurt[at] = chooser.randrange(256)
        copy = folder / "copy.fgi"
        shutil.copytree(path, copy)
        (copy / DATABASE).write_bytes(hurt)
        before = outcomes.copy()
        if not judge(copy, right, f"database: {kind}", outcomes):
            good = False
            wrong = ", ".join(name[1] for name in outcomes - before if "WRONG" in name[1])
            page = place // PAGE + 1
            print(
                f"byte {place} ({kind}), page {page} of {roots.get(page, 'items or its indexes')},"
                f" offset {place % PAGE}: {wrong}; verify {'finds' if found(copy) else 'MISSES'} it"
            )
        shutil.rmtree(copy)
    return good


def pages(path: Path) -> dict[int, str]:
    """Return what lies on the pages of small tables."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(path / DATABASE)) as connection:
        rows = connection.execute("SELECT rootpage, name FROM sqlite_master").fetchall()
    return {1: "the schema", **{page: name for page, name in rows if "items" not in name}}


def found(path: Path) -> bool:
    """Return whether `verify` finds something."""
    try:
        with Index.open(path, lambda told: None) as index:
            return any(problem.fatal or problem.repaired for problem in index.verify())
    except FgdeployError:
        return True


# Disks


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder where little can be written, and what kind of limit it has."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield disk, "a disk of 4 MiB"
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, before[1]))
    try:
        yield disk, "files of at most 2 MiB"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def fill_disk(folder: Path) -> str:
    """Add until the disk is full; return what happened. Raises AssertionError if items are lost."""
    told: list[str] = []
    with small_disk(folder) as (disk, limit):
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        acknowledged, words = 0, ""
        with Index.create(disk / "full.fgi", MODEL, BITS, told.append) as index:
            while not words:
                batch = [Item(f"/{acknowledged + n}", os.urandom(8), "x" * 40) for n in range(300)]
                try:
                    index.add(batch)
                    acknowledged += 300
                except FgdeployError as error:
                    words = str(error).partition(": ")[2]
            assert len(index) == len(list(index.items())) == acknowledged
            assert index.search_ids(QUERIES[:1], ALL)[0].shape == (1, acknowledged)
            ballast.unlink()
            if "disk" in limit:
                index.add([Item("/after", bytes(8))])
                assert len(index) == acknowledged + 1
            wrong = [problem for problem in index.verify() if problem.fatal]
            assert not wrong, wrong
    return (
        f"{limit}: refused after {acknowledged} items ({words}); {len(told)} times no room for a "
        f"segment; all {acknowledged} there and found; adding went on when room was made"
    )


def read_only_media(folder: Path, path: Path) -> str:
    """Search on a file system that cannot be written; return what happened."""
    mount = folder / "media"
    mount.mkdir()
    bind = ["mount", "--bind", str(path.parent), str(mount)]
    again = ["mount", "-o", "remount,bind,ro", str(mount)]
    if os.getuid() or subprocess.run(bind, capture_output=True).returncode:
        return "read-only media: not tried, needs root that may mount"
    try:
        subprocess.run(again, check=True, capture_output=True)
        assert answers_of(mount / path.name) == answers_of(path)
        with Index.open(mount / path.name) as index:
            assert not [problem for problem in index.verify() if problem.fatal]
            try:
                index.add([Item("/new", bytes(8))])
            except FgdeployError as error:
                return f"read-only media: same answers; adding is refused ({error})".replace(
                    str(mount), ""
                )
            raise AssertionError("it was written")
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def table(outcomes: Outcomes) -> Iterator[str]:
    """Yield the lines of a table of what came of the damage."""
    yield "| damaged | times | questions | same answer | refused in words | wrong answer |"
    yield "|---|---|---|---|---|---|"
    totals = [0] * 5
    for what in sorted({name for name, _ in outcomes}):
        same, refused = outcomes[what, "same answer"], outcomes[what, "refused in words"]
        wrong = sum(n for (name, came), n in outcomes.items() if name == what and "WRONG" in came)
        row = [outcomes[what, "damages"], same + refused + wrong, same, refused, wrong]
        totals = [total + number for total, number in zip(totals, row, strict=True)]
        yield f"| {what} | {' | '.join(map(str, row))} |"
    yield f"| all | {' | '.join(map(str, totals))} |"


def main() -> int:
    """Read the options, print the table; return 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--flips", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default a temporary folder")
    options = parser.parse_args()
    small_files()
    chooser, outcomes = random.Random(options.seed), Outcomes()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path = folder / "undamaged" / "gallery.fgi"
        path.parent.mkdir()
        build(path, 0)
        good = damage_derived(folder, path, chooser, outcomes)
        good &= damage_database(folder, path, options.flips, chooser, outcomes)
        notes = [fill_disk(folder), read_only_media(folder, path)]
    print("\n".join([*table(outcomes), "", *(f"- {note}" for note in notes)]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
