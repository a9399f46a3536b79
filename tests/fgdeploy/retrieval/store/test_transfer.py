"""Items out to a file and back: nothing lost, nothing believed that was not checked."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import DataError, IndexStoreError, UsageError
from fgdeploy.retrieval import Added, Index, Item
from fgdeploy.retrieval.store import transfer
from fgdeploy.retrieval.store.schema import MAX_ID
from fgdeploy.retrieval.store.transfer import export_items, import_items, open_export
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, OTHER, brought_in, photo

HEAD = {"fgdeploy_index": 1, "bits": BITS, "fingerprint": MODEL, "items": 1}


LINE: dict[str, Any] = {"id": 1, "code": "00000007"}


def contents(index: Index) -> list[Item]:
    return list(index.items())


def write(target: Path, *lines: Any, **head: Any) -> Path:
    """Write an export by hand; lines are objects, or text as it is."""
    first = {**HEAD, "items": len(lines), **head}
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (first, *lines)]
    target.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return target


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "items.jsonl"


# There and back

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=5,
).map(json.dumps)


TIMES = st.datetimes(
    datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(timezone.utc)
).map(datetime.isoformat)


ITEMS = st.builds(
    Item,
    path=st.none() | st.text(),
    code=st.binary(min_size=3, max_size=3).map(lambda code: code[:2] + bytes([code[2] & 0xF0])),
    label=st.none() | st.text(),
    sha256=st.text(),
    id=st.just(0) | st.integers(1, 1 << 61),
    time=st.just("") | TIMES,
    json=st.none() | JSON,
)


def _path_of(item: Item) -> object:
    return object() if item.path is None else item.path


def _id_of(item: Item) -> object:
    return item.id or object()


@settings(deadline=None, max_examples=25)
@given(st.lists(ITEMS, max_size=6, unique_by=(_path_of, _id_of)))
def test_what_comes_back_is_equal(given_items: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            Index.create(folder / "one.fgi", MODEL, 20) as one,
            Index.create(folder / "two.fgi", MODEL, 20) as two,
        ):
            one.add(given_items)
            count = export_items(one, folder / "all.jsonl")
            assert count == len(one)
            assert brought_in(two, folder / "all.jsonl") == Added(new=count)
            assert contents(two) == contents(one)
            assert not any(problem.fatal for problem in two.verify())
            assert brought_in(two, folder / "all.jsonl") == Added(known=count)


def test_the_lines_of_an_export(three: Index, source: Path) -> None:
    assert export_items(three, source) == 3
    lines = source.read_text(encoding="utf-8").splitlines()
    head, first, second, third = map(json.loads, lines)
    assert head == {**HEAD, "items": 3}
    assert set(first) == {"id", "code", "path", "sha256", "time"}
    assert (first["id"], first["code"], first["path"]) == (1, "00000001", "/photos/a")
    assert (second["label"], third["label"]) == ("moth", "owl")


def test_own_json_stays_as_it_was_written(index: Index, source: Path, tmp_path: Path) -> None:
    text = '{"a" : 1.0,\n "a": 1e2, "ä": "\\u00e4"}'
    index.add([dataclasses.replace(photo("a"), json=text)])
    export_items(index, source)
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        brought_in(other, source)
        assert contents(other)[0].json == text


def test_an_empty_name_is_another_than_none(index: Index, source: Path, tmp_path: Path) -> None:
    index.add([Item("", b"abcd", ""), Item(None, b"abcd")])
    export_items(index, source)
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        brought_in(other, source)
        assert [(i.path, i.label) for i in contents(other)] == [("", ""), (None, None)]


def test_an_index_that_changes_during_its_export(
    three: Index, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = three.items

    def items(*arguments: Any) -> Any:
        three.add(
            [photo(str(n), n) for n in range(20)]
        )  # 3 items at the first line, 23 at the last
        return listed()

    monkeypatch.setattr(three, "items", items)
    assert export_items(three, source) == 23
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        assert brought_in(other, source) == Added(new=23)


def test_an_empty_index(index: Index, source: Path, tmp_path: Path) -> None:
    assert export_items(index, source) == 0
    assert export_items(index, tmp_path / "none.npz") == 0
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        assert brought_in(other, source) == brought_in(other, tmp_path / "none.npz") == Added()


def test_progress_of_both_ways(
    three: Index, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_SHOW_EVERY", 2)
    monkeypatch.setattr(transfer, "BATCH", 2)
    for target in (source, tmp_path / "codes.npz"):
        seen: list[tuple[int, int]] = []

        def note(done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, total))

        export_items(three, target, note)
        with open_export(target) as incoming:
            import_items(three, incoming, note)
        assert seen == [(2, 3), (3, 3)] * 2


def test_an_order_of_ones_own(three: Index, source: Path, tmp_path: Path) -> None:
    three.add([photo(str(n), n) for n in range(40)])
    three.remove(range(5, 30, 3))
    export_items(three, source)
    head, *lines = source.read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)
    source.write_text("\n".join([head, *lines]), encoding="utf-8")
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        assert brought_in(other, source) == Added(new=len(three))
        assert contents(other) == contents(three)


def test_an_item_is_known_by_its_id(three: Index, source: Path) -> None:
    changed = {"id": 2, "code": "000000ff", "path": "/photos/b", "label": "bee"}
    assert brought_in(three, write(source, changed)) == Added(changed=1)
    assert three.get([2])[0].code == b"\0\0\0\xff"
    assert brought_in(three, source) == Added(known=1)


# Files that are not to be believed


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[" * 100000, "not JSON"),
        ("[1]", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ({**LINE, "size": 3}, "unknown key 'size'; expected id, code, path, label"),
        ({"code": "00000007"}, "id: expected a whole number from 0 to"),
        ({**LINE, "id": "1"}, "id: expected a whole number"),
        ({**LINE, "id": True}, "id: expected a whole number"),
        ({**LINE, "id": 1.0}, "id: expected a whole number"),
        ({**LINE, "id": -1}, "id: expected a whole number"),
        ({**LINE, "id": MAX_ID + 1}, "id: expected a whole number"),
        ({"id": 1}, "code: expected 8 hex digits, got 'None'"),
        ({**LINE, "code": 7}, "code: expected 8 hex digits, got '7'"),
        ({**LINE, "code": "0007"}, "code: expected 8 hex digits, got '0007'"),
        ({**LINE, "code": "0000000g"}, "code: expected 8 hex digits"),
        ({**LINE, "code": "00 00 07"}, "code: expected 8 hex digits"),
        ({**LINE, "code": "00 00 00 07"}, "code: expected 8 hex digits"),
        ({**LINE, "code": "0000000\u0667"}, "code: expected 8 hex digits"),
        ({**LINE, "path": 1}, "path: expected text, got int"),
        ({**LINE, "label": ["a"]}, "label: expected text, got list"),
        ({**LINE, "json": {"a": 1}}, "json: expected text, got dict"),
        ({**LINE, "json": "{"}, "json is not JSON"),
        ({**LINE, "json": "[" * 100000}, "json"),
        ({**LINE, "time": "yesterday"}, "'yesterday' is not a time; expected ISO 8601"),
        ({**LINE, "time": "0001-01-01T00:00:00+14:00"}, "time"),
        ({**LINE, "path": "a\ud800"}, "path: its text is not Unicode"),
    ],
)
def test_bad_lines_are_named(index: Index, source: Path, line: Any, words: str) -> None:
    good = {"id": 5, "code": "00000001"}
    write(source, good, line)
    with pytest.raises(DataError) as caught:
        brought_in(index, source)
    text = str(caught.value)
    assert text.startswith(f"{source} line 3: ")
    assert words in text
    assert text.endswith("; nothing was added")
    assert "\n" not in text
    assert len(index) == 0


def test_bits_behind_the_last(tmp_path: Path, source: Path) -> None:
    write(source, {"id": 1, "code": "ff01"}, bits=12)
    with (
        Index.create(tmp_path / "twelve.fgi", MODEL, 12) as index,
        refused(DataError, "line 2: item 1: its code has bits set behind bit 12; .*nothing was"),
    ):
        brought_in(index, source)


def test_what_was_acknowledged_stays(
    index: Index, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)
    lines: list[Any] = [{"id": n, "code": f"{n:08x}"} for n in range(1, 8)]
    write(source, *lines[:5], "oops", *lines[5:])
    with refused(DataError, r"line 7: not JSON \(.*\); nothing after line 5 was added$"):
        brought_in(index, source)
    assert [item.id for item in index.items()] == [1, 2, 3, 4]
    write(source, *lines)
    assert brought_in(index, source) == Added(new=3, known=4)


@pytest.mark.parametrize("batch", [2, 100])
def test_an_id_that_comes_twice(
    index: Index, source: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(transfer, "BATCH", batch)
    lines = [{"id": n, "code": f"{n:08x}", "label": "a"} for n in (3, 1, 2, 9)]
    timed = {"id": 8, "code": "00000000", "time": "2026-01-31T13:00:00+01:00"}
    again = {**timed, "time": "2026-01-31T12:00:00Z"}
    assert brought_in(index, write(source, *lines, timed, *lines, again)) == Added(new=5, known=5)
    for line in lines:
        for other in ({"label": "b"}, {"code": "ffffffff"}, {"path": "/x"}):
            write(source, *lines, {**line, **other})
            with refused(DataError, f"line 6: id {line['id']} was there before with other content"):
                brought_in(index, source)


def test_a_file_that_was_cut_off(three: Index, source: Path, tmp_path: Path) -> None:
    export_items(three, source)
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join(lines[:3]))
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        words = "ends after item 2 of 3, so it was cut off; those were added; export it again$"
        with refused(DataError, words):
            brought_in(other, source)
        assert len(other) == 2
        source.write_bytes(lines[0])
        with refused(DataError, "ends after item 0 of 3, .*nothing was added"):
            brought_in(other, source)
        source.write_bytes(b"".join(lines)[:-9])
        with refused(DataError, "line 4: not JSON"):
            brought_in(other, source)
        source.write_bytes(b"".join([*lines, lines[1]]))
        with refused(DataError, "line 5: line 1 says 3, and there are more"):
            brought_in(other, source)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "line 1: not JSON"),
        (b"\xff\xd8\xff\xe0", "line 1: not JSON"),
        (b"7\n", "line 1: expected a JSON object"),
        (b'{"id": 1, "code": "00"}\n', "line 1: no fgdeploy_index in it"),
        (b" " * 9999, "line 1: not JSON"),
    ],
)
def test_what_is_no_export(source: Path, head: bytes, words: str) -> None:
    source.write_bytes(head)
    with refused(DataError, f"{words}.*; expected what fgdeploy index export writes; nothing was"):
        open_export(source)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fgdeploy_index": 2}, "has version 2, expected 1; use the fgdeploy that wrote it"),
        ({"bits": 7}, "bits: expected 8 to 512"),
        ({"bits": 513}, "bits: expected 8 to 512"),
        ({"bits": "32"}, "bits: expected 8 to 512"),
        ({"bits": True}, "bits: expected 8 to 512"),
        ({"fingerprint": 3}, "fingerprint: expected text"),
        ({"fingerprint": ""}, "fingerprint: expected text"),
        ({"fingerprint": "a\nb"}, "fingerprint: expected text"),
        ({"items": -1}, "items: expected their number"),
        ({"items": "3"}, "items: expected their number"),
    ],
)
def test_bad_first_lines(source: Path, wrong: dict[str, Any], words: str) -> None:
    with refused(DataError, words):
        open_export(write(source, **wrong))


def test_another_model(index: Index, source: Path, tmp_path: Path) -> None:
    with refused(IndexStoreError, "holds 32-bit codes of model ababababab"):
        brought_in(index, write(source, LINE, fingerprint=OTHER))
    CodeFile(np.zeros((1, 2), np.uint8), ["a"], [""], 16, MODEL).save(tmp_path / "c.npz")
    with refused(IndexStoreError, "holds 32-bit codes of model ababababab"):
        brought_in(index, tmp_path / "c.npz")


def test_a_path_that_is_another_items(three: Index, source: Path) -> None:
    write(source, {"id": 9, "code": "00000000", "path": "/photos/a"})
    words = "is the path of item 1, so item 9 cannot have it; .*; nothing was added$"
    with refused(IndexStoreError, words):
        brought_in(three, source)


def test_a_path_that_comes_twice(index: Index, source: Path) -> None:
    lines = [{"id": n, "code": "00000000", "path": "/photos/a"} for n in (1, 2)]
    with refused(DataError, "line 3: /photos/a is the path of id 1 too; nothing was added$"):
        brought_in(index, write(source, *lines))


def test_other_files_and_none(three: Index, tmp_path: Path) -> None:
    words = r"expected a name ending in \.jsonl .* or \.npz"
    for use in (open_export, lambda path: export_items(three, path)):
        for name in ("items.csv", "items", "items.jsonl.gz"):
            with refused(UsageError, words):
                use(tmp_path / name)
    with refused(DataError, "no file at .*gone.jsonl; make one with: fgdeploy index export"):
        open_export(tmp_path / "gone.jsonl")
    (tmp_path / "folder.npz").mkdir()
    with refused(DataError, "no file at .*folder.npz"):
        open_export(tmp_path / "folder.npz")


@pytest.mark.parametrize("name", ["items.jsonl", "items.npz"])
def test_a_full_disk_leaves_the_old_file(
    three: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    export_items(three, folder / name)
    before = (folder / name).read_bytes()

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fgdeploy.core.atomic.os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        export_items(three, folder / name)
    assert [entry.name for entry in folder.iterdir()] == [name]
    assert (folder / name).read_bytes() == before


def test_a_file_is_closed(source: Path, recwarn: Any) -> None:
    with refused(DataError, "version"):
        open_export(write(source, fgdeploy_index=9))
    assert not recwarn
