"""The file of embeddings: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.retrieval.store import embedding_file
from fgdeploy.retrieval.store.embedding_file import (
    KINDS,
    EmbeddingFileError,
    Owner,
    RowFormat,
    Rows,
    opened,
    path_of,
    seal_of,
    write,
)
from fgdeploy.retrieval.store.shelf import Shelf
from tests.checks import refused
from tests.fgdeploy.retrieval.embedded import flip

OWNER = Owner(bytes(range(16)), "ab" * 32)
HEADER = 88  # bytes, with its CRC


def some_rows(form: RowFormat, count: int) -> Rows:
    chooser = np.random.default_rng(count)
    ids = np.sort(chooser.permutation(10 * count)[:count]).astype(np.int64)
    seals = chooser.integers(0, 1 << 63, count, np.uint64)
    rows = chooser.standard_normal((count, form.width)).astype(np.float32)
    return Rows.packed(form, ids, seals, rows)


def written(folder: Path, form: RowFormat, count: int, number: int = 7) -> tuple[Rows, int]:
    rows = some_rows(form, count)
    every = Shelf([rows])
    index = rows.ids, rows.seals
    return rows, write(folder, number, form, OWNER, index, every.pieces(every.latest()[2]))


@pytest.mark.parametrize("count", [1, 64, 65, 5000])
@pytest.mark.parametrize("width", [1, 64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [100, 1 << 22])
def test_what_is_written_is_read(
    kind: str, width: int, count: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_file, "_BLOCK", block)
    form = RowFormat(kind, width)
    rows, crc = written(tmp_path, form, count)
    found = opened(tmp_path, 7, crc, form, OWNER, 2)
    assert np.array_equal(found.ids, rows.ids)
    assert np.array_equal(found.seals, rows.seals)
    assert np.array_equal(found.values, rows.values)
    assert found.values.dtype == rows.values.dtype
    assert (found.scales is None) == (kind == "float")
    assert found.ids.flags.aligned
    assert found.seals.flags.aligned
    if found.scales is not None:
        assert np.array_equal(found.scales, np.asarray(rows.scales))
    every = np.arange(count)
    assert np.array_equal(found.wide(every), rows.wide(every))
    size = path_of(tmp_path, 7).stat().st_size
    padding = 4096 + 3 * 64 + 4 * -(-size // block)
    assert count * form.row_bytes <= size <= count * form.row_bytes + padding
    assert [entry.name for entry in tmp_path.iterdir()] == ["embeddings-7.rows"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_byte_is_found(kind: str, tmp_path: Path) -> None:
    form = RowFormat(kind, 3)
    _, crc = written(tmp_path, form, 9)
    path = path_of(tmp_path, 7)
    whole = path.read_bytes()
    for at in [*range(HEADER), *range(4096, len(whole))]:
        flip(path, at)
        with refused(EmbeddingFileError, r"^embeddings-7\.rows"):
            opened(tmp_path, 7, crc, form, OWNER, 1)
        path.write_bytes(whole)
    opened(tmp_path, 7, crc, form, OWNER, 1)


Hurt = Callable[[Path, bytes], object]
HURT: dict[str, tuple[Hurt, str]] = {
    "gone": (lambda path, whole: path.unlink(), "is missing"),
    "empty": (lambda path, whole: path.write_bytes(b""), "cannot be read"),
    "half a header": (lambda path, whole: path.write_bytes(whole[:40]), "its header was changed"),
    "half": (lambda path, whole: path.write_bytes(whole[:4200]), "its size or its table"),
    "short": (lambda path, whole: path.write_bytes(whole[:-1]), "its size or its table"),
    "long": (lambda path, whole: path.write_bytes(whole + b"\0"), "its size or its table"),
    "zeros": (lambda path, whole: path.write_bytes(bytes(len(whole))), "its header was changed"),
}


@pytest.mark.parametrize("kind", HURT)
def test_damage(kind: str, tmp_path: Path) -> None:
    form = RowFormat("float", 3)
    _, crc = written(tmp_path, form, 9)
    path = path_of(tmp_path, 7)
    hurt, words = HURT[kind]
    hurt(path, path.read_bytes())
    with refused(EmbeddingFileError, words):
        opened(tmp_path, 7, crc, form, OWNER, 1)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"_MAGIC": b"FGDEMB9\0"}, "is of an unknown format"),
        ({"model": "cd" * 32}, "holds embeddings of another model"),
        ({"uid": bytes(16)}, "its header is not the one written"),
        ({"number": 8}, "its header is not the one written"),
        ({"form": RowFormat("float", 4)}, "expected rows of 3 float values"),
        ({"form": RowFormat("int8", 3)}, "expected rows of 3 float values"),
    ],
)
def test_a_whole_file_of_something_else(
    what: dict[str, object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, rows = RowFormat("float", 3), some_rows(RowFormat("float", 3), 9)
    _, crc = written(tmp_path, form, 9)
    if "_MAGIC" in what:
        monkeypatch.setattr(embedding_file, "_MAGIC", what["_MAGIC"])
    other = what.get("form", form)
    assert isinstance(other, RowFormat)
    rows = some_rows(other, 9)
    owner = Owner(bytes(what.get("uid", OWNER.uid)), str(what.get("model", OWNER.model)))  # type: ignore[call-overload]
    number = int(str(what.get("number", 7)))
    shelf = Shelf([rows])
    index = rows.ids, rows.seals
    write(tmp_path, number, other, owner, index, shelf.pieces(shelf.latest()[2]))
    if number != 7:
        path_of(tmp_path, number).rename(path_of(tmp_path, 7))
    monkeypatch.undo()
    with refused(EmbeddingFileError, words):
        opened(tmp_path, 7, crc, form, OWNER, 1)


def test_an_older_file_of_the_same_number(tmp_path: Path) -> None:
    form = RowFormat("float", 3)
    _, crc = written(tmp_path, form, 9)
    written(tmp_path, form, 10)
    with refused(EmbeddingFileError, "its header is not the one written"):
        opened(tmp_path, 7, crc, form, OWNER, 1)


def test_a_header_as_it_is_documented(tmp_path: Path) -> None:
    _, crc = written(tmp_path, RowFormat("int8", 3), 9)
    whole = path_of(tmp_path, 7).read_bytes()
    values = struct.unpack("<8sIIQQI16s32sI", whole[:HEADER])
    assert values[:5] == (b"FGDEMB1\0", 1, 3, 9, 7)
    assert values[5] == zlib.crc32(whole[-4:])
    assert values[6:8] == (OWNER.uid, OWNER.digest)
    assert values[8] == zlib.crc32(whole[: HEADER - 4]) == crc
    assert whole[-4:] == struct.pack("<I", zlib.crc32(whole[4096:-4]))


def test_ids_and_rows_that_are_not_as_many(tmp_path: Path) -> None:
    rows = some_rows(RowFormat("float", 3), 9)
    shelf = Shelf([rows])
    index = rows.ids[:8], rows.seals[:8]
    with pytest.raises(ValueError, match="8 ids and 9 embeddings"):
        write(tmp_path, 1, RowFormat("float", 3), OWNER, index, shelf.pieces(shelf.latest()[2]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "float", "float x", "double 3", "float 0", "int8 -1", "8"])
def test_no_format(text: str) -> None:
    with pytest.raises(ValueError, match="no format of embeddings"):
        RowFormat.of_text(text)
    assert RowFormat.of_text("int8 192") == RowFormat("int8", 192)


def test_a_seal_is_of_one_photo() -> None:
    seals = {
        seal_of(number, code, sha)
        for number in (1, 2)
        for code in (b"a", b"b")
        for sha in (None, "x", "y")
    }
    assert len(seals) == 12
    assert seal_of(1, b"a", "") == seal_of(1, b"a", None)
