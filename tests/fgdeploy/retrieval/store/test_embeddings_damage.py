"""Damaged embeddings: refused by name, searches by codes go on, photos make them again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store import embedding_file
from tests.checks import refused
from tests.fgdeploy.retrieval.embedded import (
    WIDTH,
    add_embedded,
    answers_without,
    embedded_item,
    files_in,
    first_file,
    flip,
    ranks_right,
    row_of,
)
from tests.fgdeploy.retrieval.samples import BITS, OTHER

ROWS = {f"kept://{number}": row_of(number) for number in range(20)}


@pytest.fixture
def kept(index: Index, path: Path) -> Path:
    """Make an index of twenty items with float embeddings in two files, and close it."""
    index.embeddings.keep("float", WIDTH)
    add_embedded(index, range(16))
    add_embedded(index, range(16, 20))
    index.close()
    assert len(files_in(path)) == 2
    return path


@pytest.mark.parametrize(
    ("how", "which"),
    [("gone", 0), ("gone", -1), ("row", 0), ("row", -1), ("header", 0), ("short", 0)],
)
def test_damage_is_told_and_mended(how: str, which: int, kept: Path, told: list[str]) -> None:
    victim = kept / files_in(kept)[which]
    if how == "gone":
        victim.unlink()
    elif how == "short":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        flip(victim, {"header": 20, "row": 4100}[how])
    with Index.open(kept, told.append) as index:
        said = answers_without(index)
        assert victim.name in said
        assert said.endswith(f"photos with: fgdeploy index embed {kept}")
        (problem,) = index.verify()
        assert (problem.fatal, problem.repaired) == (False, False)
        assert victim.name in problem.what
        assert answers_without(index) == said  # not mended by looking
        add_embedded(index, range(20, 22))  # adding goes on
        index.compact()
        assert [victim.name in line and "left as they were" in line for line in told] == [True]
        assert victim.name in answers_without(index)
        (gone,) = index.embeddings.mend()
        assert victim.name in gone
        lacking = [item for item in index.items() if not index.embeddings.has([item])[0]]
        assert 0 < len(lacking) < 22
        assert "has no embedding" in answers_without(index)
        again = np.array([row_of(int((item.path or "")[7:])) for item in lacking])
        index.embeddings.put(lacking, again)
        ranks_right(index, ROWS | {f"kept://{n}": row_of(n) for n in (20, 21)})
        assert index.verify() == []
        assert index.embeddings.mend() == []


def test_damage_while_the_index_is_open_is_found_by_verify(kept: Path) -> None:
    with Index.open(kept) as index:
        ranks_right(index, ROWS)
        with open(first_file(kept), "r+b") as stream:
            stream.seek(4100)
            stream.write(b"\xff")
        (problem,) = index.verify()
        assert "was changed (CRC)" in problem.what
        assert "was changed (CRC)" in answers_without(index)


def test_compacting_copies_no_damage(kept: Path, told: list[str]) -> None:
    with Index.open(kept, told.append) as index:
        ranks_right(index, ROWS)
        flip(first_file(kept), 4100)
        index.compact()
        assert ["left as they were" in line for line in told] == [True]
        assert "\n" not in told[0]
        assert len(files_in(kept)) == 2
        assert "was changed (CRC)" in answers_without(index)


@pytest.mark.parametrize("model", ["another model", "another index"])
def test_files_from_elsewhere(model: str, kept: Path, tmp_path: Path) -> None:
    fingerprint = OTHER if model == "another model" else "ab" * 32
    with Index.create(tmp_path / "other.fgi", fingerprint, BITS) as other:
        other.embeddings.keep("float", WIDTH)
        add_embedded(other, range(16))
    shutil.copy(first_file(tmp_path / "other.fgi"), first_file(kept))
    with Index.open(kept) as index:
        words = "of another model" if fingerprint == OTHER else "its header is not the one written"
        assert words in answers_without(index)


def test_files_that_change_places(kept: Path) -> None:
    one, other = (kept / name for name in files_in(kept))
    one.rename(kept / "aside")
    other.rename(one)
    (kept / "aside").rename(other)
    with Index.open(kept) as index:
        assert "its header is not the one written" in answers_without(index)


@pytest.mark.parametrize("change", ["crc = 7", "rows = 7", "crc = 'x'", "number = 99"])
def test_a_list_of_files_that_was_changed(change: str, kept: Path) -> None:
    with Index.open(kept) as index, index._session.transaction() as connection:
        connection.execute(
            f"UPDATE embeddings SET {change} WHERE number = (SELECT min(number) FROM embeddings)"
        )
    with Index.open(kept) as index:
        said = answers_without(index)
        if change == "rows = 7":  # nobody goes by it
            assert said == ""
            ranks_right(index, ROWS)
        else:
            assert "embeddings-" in said
            index.embeddings.mend()


def test_where_nothing_can_be_written_searches_go_on(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    with Index.open(kept) as index:
        ranks_right(index, ROWS)
        assert index.verify() == []
        first_file(kept).unlink()
        assert "is missing" in index.verify()[0].what
        assert "is missing" in answers_without(index)
        with refused(IndexStoreError, "it cannot be written"):
            index.embeddings.mend()
        with refused(IndexStoreError, "it cannot be written"):
            index.embeddings.keep("int8", WIDTH)


def test_a_full_disk_changes_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with Index.open(kept) as index:
        monkeypatch.setattr(embedding_file, "write", full)
        words = r"embeddings cannot be written \(No space left on device\); nothing of this step"
        with refused(IndexStoreError, words):
            add_embedded(index, range(20, 30))
        assert len(index) == 20
        monkeypatch.undo()
        ranks_right(index, ROWS)
        index.add([embedded_item(3, 1)])
        assert "has no embedding" in answers_without(index)
