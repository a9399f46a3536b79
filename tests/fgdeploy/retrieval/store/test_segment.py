"""Segments: what goes in comes out, and nothing that was changed comes out unnoticed."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval.store import segment
from fgdeploy.retrieval.store.segment import Header, Ids, Segment, SegmentError
from tests.checks import examples

UID, OTHER_UID = b"u" * 16, b"v" * 16
BLOCK = 4  # rows, in place of 131,072


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "BLOCK_ROWS", BLOCK)


def blocks(ids: Ids, codes: UInt8Array) -> Iterator[tuple[Ids, UInt8Array]]:
    for start in range(0, len(ids), BLOCK):
        yield ids[start : start + BLOCK], codes[start : start + BLOCK]


def written(folder: Path, ids: Ids, codes: UInt8Array, number: int = 7) -> tuple[Header, int]:
    consecutive = bool((np.diff(ids) == 1).all())
    header = Header(codes.shape[1], len(ids), number, int(ids[0]), consecutive, UID)
    return header, segment.write(folder, header, blocks(ids, codes))


def some(rows: int, width: int, consecutive: bool, seed: int = 0) -> tuple[Ids, UInt8Array]:
    chooser = np.random.default_rng(seed)
    steps = np.ones(rows, np.int64) if consecutive else chooser.integers(1, 2**40, rows)
    if not consecutive and rows > 1:
        steps[1] = 2  # with a gap for sure
    return np.cumsum(steps), chooser.integers(0, 256, (rows, width), np.uint8)


@examples(60)
@given(
    rows=st.integers(1, 19),
    width=st.integers(1, 64),
    consecutive=st.booleans(),
    threads=st.sampled_from([1, 3]),
    data=st.data(),
)
def test_rows_come_back_as_they_went_in(
    rows: int, width: int, consecutive: bool, threads: int, data: st.DataObject
) -> None:
    ids, codes = some(rows, width, consecutive, seed=rows)
    with tempfile.TemporaryDirectory() as name:
        header, crc = written(Path(name), ids, codes)
        read = Segment(Path(name), 7, crc, width, UID)
        read.check(threads)
        assert read.header == header
        assert [entry.name for entry in Path(name).iterdir()] == ["segment-7.codes"]
        assert read.path.stat().st_size == header.size
        assert len(read) == rows
        assert np.array_equal(read.codes, codes)
        assert np.array_equal(read.ids(slice(None)), ids)
        assert np.array_equal(read.ids(slice(2, 5)), ids[2:5])
        assert np.array_equal(read.ids(np.arange(rows)[::3]), ids[::3])
        near = np.unique(np.clip(np.concatenate([ids - 1, ids, ids + 1]), 1, None))
        drawn = np.array(data.draw(st.lists(st.sampled_from(near.tolist()), unique=True)), np.int64)
        wanted = [ids.tolist().index(number) for number in drawn if number in ids]
        assert read.rows_of(drawn).tolist() == wanted
        first, last = sorted(data.draw(st.tuples(*[st.sampled_from(near.tolist())] * 2)))
        start, end = read.span(first, last)
        assert ids[start:end].tolist() == [n for n in ids.tolist() if first <= n <= last]


def test_codes_begin_on_a_page_and_ids_on_a_cache_line(tmp_path: Path) -> None:
    ids, codes = some(9, 3, consecutive=False)
    header, _ = written(tmp_path, ids, codes)
    raw = segment.path_of(tmp_path, 7).read_bytes()
    assert raw[4096 : 4096 + 27] == codes.tobytes()
    assert header.ids_at % 64 == 0
    assert raw[header.ids_at : header.ids_at + 72] == ids.astype("<i8").tobytes()


def test_fewer_rows_than_promised_leave_nothing_behind(tmp_path: Path) -> None:
    ids, codes = some(9, 3, consecutive=True)
    header = Header(3, 10, 7, 1, True, UID)
    with pytest.raises(ValueError, match="a segment of 10 rows was given 9"):
        segment.write(tmp_path, header, blocks(ids, codes))
    assert list(tmp_path.iterdir()) == []


def read(folder: Path, crc: int, number: int = 7, width: int = 3, uid: bytes = UID) -> None:
    Segment(folder, number, crc, width, uid).check()


def covered(header: Header) -> list[int]:
    """Return the places of all bytes that mean something: the others are never read."""
    return [
        *range(68),
        *range(4096, 4096 + header.rows * header.width),
        *range(header.ids_at, header.size),
    ]


@pytest.mark.parametrize("consecutive", [True, False])
def test_every_changed_byte_is_noticed(consecutive: bool, tmp_path: Path) -> None:
    header, crc = written(tmp_path, *some(9, 3, consecutive))
    path = segment.path_of(tmp_path, 7)
    whole = path.read_bytes()
    read(tmp_path, crc)
    places = covered(header)
    assert len(places) > 68 + 27
    for place in places:
        for bit in (1, 0x80):
            hurt = bytearray(whole)
            hurt[place] ^= bit
            path.write_bytes(hurt)
            with pytest.raises(SegmentError):
                read(tmp_path, crc)
    path.write_bytes(whole)
    read(tmp_path, crc)


@pytest.mark.parametrize("consecutive", [True, False])
def test_every_other_length_is_noticed(consecutive: bool, tmp_path: Path) -> None:
    header, crc = written(tmp_path, *some(9, 3, consecutive))
    path = segment.path_of(tmp_path, 7)
    whole = path.read_bytes()
    lengths = [0, 1, 67, 68, 69, 4095, 4096, 4097, *range(4110, header.size), header.size + 1]
    for length in [*lengths, header.size + 4096]:
        path.write_bytes((whole + bytes(4096))[:length])
        with pytest.raises(SegmentError, match=r"^segment-7\.codes: "):
            read(tmp_path, crc)


def test_a_file_that_is_gone_or_no_file(tmp_path: Path) -> None:
    _, crc = written(tmp_path, *some(9, 3, consecutive=True))
    path = segment.path_of(tmp_path, 7)
    path.unlink()
    with pytest.raises(SegmentError, match=r"^segment-7\.codes is missing$"):
        read(tmp_path, crc)
    path.mkdir()
    with pytest.raises(SegmentError, match=r"^segment-7\.codes cannot be read"):
        read(tmp_path, crc)


def test_a_segment_of_another_index_number_or_width(tmp_path: Path) -> None:
    ids, codes = some(9, 3, consecutive=True)
    header, crc = written(tmp_path, ids, codes)
    with pytest.raises(SegmentError):
        read(tmp_path, crc, uid=OTHER_UID)
    with pytest.raises(SegmentError):
        read(tmp_path, crc, width=4)
    with pytest.raises(SegmentError, match="its header is not the one written"):
        read(tmp_path, crc ^ 1)
    other = segment.write(tmp_path, dataclasses.replace(header, number=8), blocks(ids, codes))
    read(tmp_path, other, number=8)
    shutil.copy(segment.path_of(tmp_path, 7), segment.path_of(tmp_path, 8))
    with pytest.raises(SegmentError, match="its header is not the one written"):
        read(tmp_path, other, number=8)


def test_an_unknown_format_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_MAGIC", b"FGDSEG9\0")
    _, crc = written(tmp_path, *some(9, 3, consecutive=True))
    monkeypatch.undo()
    with pytest.raises(SegmentError, match="it is of an unknown format"):
        read(tmp_path, crc)


def test_codes_that_are_mapped_cannot_be_written(tmp_path: Path) -> None:
    _, crc = written(tmp_path, *some(9, 3, consecutive=True))
    codes = Segment(tmp_path, 7, crc, 3, UID).codes
    with pytest.raises(ValueError, match="read-only"):
        codes[0, 0] = 1
