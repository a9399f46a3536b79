"""Damaged derived files: found by whatever query comes first, and answers stay right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import derived
from tests.checks import refused
from tests.fgdeploy.retrieval.many_segments import (
    TAIL,
    fatal,
    files,
    right,
    segments,
    some,
)
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, photo, raw

pytestmark = pytest.mark.usefixtures("small_files")


Hurt = Callable[[Path, bytes], object]
DAMAGE: dict[str, Hurt] = {
    "gone": lambda path, whole: path.unlink(),
    "empty": lambda path, whole: path.write_bytes(b""),
    "half a header": lambda path, whole: path.write_bytes(whole[:30]),
    "no codes": lambda path, whole: path.write_bytes(whole[:4096]),
    "half": lambda path, whole: path.write_bytes(whole[: (4096 + len(whole)) // 2]),
    "a byte short": lambda path, whole: path.write_bytes(whole[:-1]),
    "a byte long": lambda path, whole: path.write_bytes(whole + b"\0"),
    "zeros": lambda path, whole: path.write_bytes(bytes(len(whole))),
    "another magic": lambda path, whole: path.write_bytes(flipped(whole, 0)),
    "another width": lambda path, whole: path.write_bytes(flipped(whole, 8)),
    "another number of rows": lambda path, whole: path.write_bytes(flipped(whole, 16)),
    "another number": lambda path, whole: path.write_bytes(flipped(whole, 24)),
    "another first id": lambda path, whole: path.write_bytes(flipped(whole, 32)),
    "another uid": lambda path, whole: path.write_bytes(flipped(whole, 60)),
    "another header crc": lambda path, whole: path.write_bytes(flipped(whole, 66)),
    "the first code": lambda path, whole: path.write_bytes(flipped(whole, 4096)),
    "another code": lambda path, whole: path.write_bytes(flipped(whole, 4096 + 4 * 17 + 3)),
    "the table": lambda path, whole: path.write_bytes(flipped(whole, len(whole) - 2)),
    "an id": lambda path, whole: path.write_bytes(flipped(whole, an_id(whole))),
}


def flipped(whole: bytes, at: int) -> bytes:
    hurt = bytearray(whole)
    hurt[at] ^= 0x10
    return bytes(hurt)


def an_id(whole: bytes) -> int:
    """Return the place of an id, of the first where the others follow from it."""
    return 32 if whole[12] else len(whole) - 60


@pytest.fixture
def varied(index: Index, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an index with two segments, one of them with gaps, dead rows and a tail."""
    index.add([Item(f"/far/{n}", bytes([n % 3, 0, n % 5, 0]), id=7 * n) for n in range(1, 50)])
    monkeypatch.setattr(derived, "MERGE_ROWS", 1)
    index.add(some(2 * TAIL, 500))
    index.add(some(5, 900))
    index.remove([7, 21, 350])
    assert len(segments(index)) >= 2
    assert (index.stats().dead, index.stats().tail) == (3, 5)
    right(index)
    index.close()
    return index.path


@pytest.mark.parametrize(
    ("finder", "kind"),
    [(finder, kind) for finder in ("search", "verify") for kind in sorted(DAMAGE)]
    + [
        (finder, kind)
        for finder in ("filter", "radius", "rerank", "add")
        for kind in ("gone", "half", "another code")
    ],
)
@pytest.mark.parametrize("which", [0, -1])
def test_any_damage_is_found_and_mended(
    kind: str, which: int, finder: str, varied: Path, told: list[str]
) -> None:
    victim = varied / files(varied)[which]
    whole = victim.read_bytes()
    DAMAGE[kind](victim, whole)
    find: dict[str, Callable[[Index], object]] = {
        "search": lambda index: index.search_ids(ZERO, 5),
        "filter": lambda index: index.search(ZERO, 5, where="label = 'owl'"),
        "radius": lambda index: index.search_radius(ZERO[0], 3),
        "rerank": lambda index: index.search(ZERO, 5, hashes=np.full((1, BITS), -1.0)),
        "verify": lambda index: index.verify(),
        "add": lambda index: index.add(some(2 * TAIL, 2000)),
    }
    with Index.open(varied, told.append) as index:
        held = {item.id: item for item in index.items()}
        found = find[finder](index)
        if finder == "verify":
            repaired = [problem for problem in index.verify() if problem.repaired]
            assert repaired == []
            assert any(problem.repaired and not problem.fatal for problem in found)  # type: ignore[attr-defined]
        elif finder != "add":
            assert len(told) == 1
            assert told[0].endswith("; made again from the database")
            assert victim.name in told[0]
        assert "\n" not in "".join(told)
        right(index)
        assert held.items() <= {item.id: item for item in index.items()}.items()
        assert fatal(index) == []
        assert not [problem for problem in index.verify() if problem.repaired]
    with Index.open(varied, told.append) as index:
        right(index)


@pytest.mark.parametrize("kind", sorted(DAMAGE))
@pytest.mark.parametrize("which", [0, -1])
def test_where_nothing_can_be_written_damage_is_gone_around(
    kind: str, which: int, varied: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = varied / files(varied)[which]
    DAMAGE[kind](victim, victim.read_bytes())
    before = sorted(entry.name for entry in varied.iterdir())
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    with Index.open(varied, told.append) as index:
        right(index)
        assert told
        assert all(
            victim.name in line and "; searching the database itself, which is slower" in line
            for line in told
        )
        found = [problem for problem in index.verify() if victim.name in problem.what]
        assert [(problem.fatal, problem.repaired) for problem in found] == [(False, False)]
        right(index)
        for change in (index.compact, lambda: index.add(some(1, 5000))):
            with refused(IndexStoreError, "it cannot be written"):
                change()
    assert sorted(entry.name for entry in varied.iterdir()) == before


@pytest.mark.parametrize("kind", DAMAGE)
def test_compacting_does_not_copy_damage(kind: str, varied: Path, told: list[str]) -> None:
    """Not even that which came after the files were opened and found intact."""
    victim = varied / files(varied)[0]
    whole = victim.read_bytes()
    with Index.open(varied, told.append) as index:
        right(index)
        victim.unlink()  # what is mapped stays as it was
        victim.touch()
        DAMAGE[kind](victim, whole)
        index.compact()
        assert [victim.name in line and "made again" in line for line in told] == [True]
        assert fatal(index) == []
        right(index)


def test_a_folder_in_place_of_a_file_is_gone_around(varied: Path, told: list[str]) -> None:
    victim = varied / files(varied)[0]
    victim.unlink()
    victim.mkdir()
    with Index.open(varied, told.append) as index:
        right(index)
        assert told
        assert fatal(index) == []
        right(index)


def test_segments_of_another_index_are_not_taken(
    varied: Path, told: list[str], tmp_path: Path
) -> None:
    twin = tmp_path / "twin.fgi"
    with Index.create(twin, MODEL, BITS) as other:
        other.add([Item(f"/far/{n}", bytes([9, 9, n % 5, 0]), id=7 * n) for n in range(1, 50)])
    for name in files(twin):
        shutil.copy(twin / name, varied / name)
    with Index.open(varied, told.append) as index:
        right(index)
        assert fatal(index) == []


def test_segments_of_one_index_that_change_places(varied: Path, told: list[str]) -> None:
    one, other = (varied / name for name in files(varied)[:2])
    one.rename(varied / "aside")
    other.rename(one)
    (varied / "aside").rename(other)
    with Index.open(varied, told.append) as index:
        right(index)
        assert told
        assert fatal(index) == []


def test_an_older_file_of_the_same_number_is_not_taken(
    index: Index, path: Path, told: list[str], tmp_path: Path
) -> None:
    """As from a folder restored in part: the same index, number and rows, other codes."""
    copy = tmp_path / "copy.fgi"
    index.close()
    shutil.copytree(path, copy)
    for folder, value in ((path, 1), (copy, 2)):
        with Index.open(folder, told.append) as each:
            each.add_codes(np.full((2 * TAIL, 4), value, np.uint8))
    assert files(path) == files(copy)
    shutil.copy(copy / files(copy)[0], path / files(path)[0])
    with Index.open(path, told.append) as each:
        right(each)
        assert any("its header is not the one written" in line for line in told)


def test_a_file_damaged_while_the_index_is_open_is_found_by_verify(
    varied: Path, told: list[str]
) -> None:
    with Index.open(varied, told.append) as index:
        right(index)
        victim = varied / files(varied)[0]
        with open(victim, "r+b") as stream:
            stream.seek(4096)
            stream.write(b"\xff")
        assert [problem for problem in index.verify() if problem.repaired]
        right(index)


def test_two_processes_one_repair(varied: Path, told: list[str]) -> None:
    (varied / files(varied)[0]).unlink()
    with Index.open(varied, told.append) as one, Index.open(varied, told.append) as other:
        right(one)
        right(other)
    assert len(told) == 1


def test_a_repair_waits_for_no_writer(varied: Path, told: list[str]) -> None:
    (varied / files(varied)[0]).unlink()
    with Index.open(varied, told.append) as one, Index.open(varied) as other:

        def slowly() -> Iterator[Item]:
            right(one)
            yield photo("late")

        other.add(slowly())
        assert all("; searching the database itself" in line for line in told)
        assert told
        right(one)


def test_a_database_that_is_damaged_too_is_not_made_into_a_segment(
    varied: Path, told: list[str]
) -> None:
    (varied / files(varied)[0]).unlink()
    with raw(varied) as connection:
        connection.execute("UPDATE items SET code = x'00000001' WHERE id = 14")
    with Index.open(varied, told.append) as index:
        with refused(IndexStoreError, "the code of item 14 is not the one that was added"):
            index.search(ZERO)
        assert fatal(index)
    assert told == []
