"""The store: adding and removing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from fgdeploy.core.errors import FgdeployError, IndexStoreError
from fgdeploy.retrieval import Added, Index, Item
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import ZERO, names, photo

# Adding and removing


def test_items_come_back_as_they_went_in(three: Index, path: Path) -> None:
    def check(index: Index) -> None:
        found = list(index.items())
        assert [(item.path, item.code, item.label, item.sha256) for item in found] == [
            ("/photos/a", b"\0\0\0\1", None, "sha of a 1"),
            ("/photos/b", b"\0\0\0\3", "moth", "sha of b 3"),
            ("/photos/c", b"\0\0\0\7", "owl", "sha of c 7"),
        ]
        ids = [item.id for item in found]
        assert ids == sorted(set(ids))
        assert min(ids) > 0
        assert index.by_path(["/photos/b", "/photos/d"]) == {"/photos/b": found[1]}
        assert index.by_content(["sha of c 7", "sha of c"]) == {"sha of c 7": found[2]}
        assert index.get([3, 1]) == [found[2], found[0]]

    check(three)
    with Index.open(path) as again:
        check(again)


def test_the_time_is_utc_unless_given(index: Index) -> None:
    index.add([photo("a"), Item("/photos/b", bytes(4), None, "", time="2020-01-02T03:04:05+00:00")])
    now, given = (datetime.fromisoformat(item.time) for item in index.items())
    assert now.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - now) < timedelta(minutes=5)
    assert given == datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def test_adding_counts_and_takes_an_iterator(index: Index) -> None:
    assert index.add(photo(str(number), number) for number in range(1000)) == Added(1000)
    assert index.add([]) == Added()
    assert len(index) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "it's",
        'say "moth"',
        "'; DROP TABLE items; --",
        "<script>alert(1)</script>",
        "Größe 蛾 🦋",
        "e\u0301",
        "two\nlines\tand a tab",
        "%s {0} \\ ?1 :name",
        " ",
        "x" * 10_000,
    ],
)
def test_labels_and_paths_of_any_text(text: str, index: Index) -> None:
    index.add([Item(f"/{text}", bytes(4), text, "sha"), photo("plain", 1, "")])
    assert [(item.path, item.label) for item in index.items()] == [
        (f"/{text}", text),
        ("/photos/plain", ""),
    ]
    hits = index.search(ZERO, 1)[0]
    assert [(hit.path, hit.label) for hit in hits] == [(f"/{text}", text)]


def test_the_same_path_is_replaced_and_keeps_its_id(three: Index) -> None:
    before = list(three.items())
    assert three.add([photo("d"), photo("b", 0xFF, "owl"), photo("e")]) == Added(2, 1)
    after = list(three.items())
    assert names(three) == ["a", "b", "c", "d", "e"]
    assert after[0] == before[0]
    assert after[2] == before[2]
    assert after[1].id == before[1].id
    assert (after[1].code, after[1].label, after[1].sha256) == (
        b"\0\0\0\xff",
        "owl",
        "sha of b 255",
    )


def test_the_last_of_two_with_one_path_stays(index: Index) -> None:
    index.add([photo("a", 1, "first"), photo("a", 2, "last")])
    assert [(item.code, item.label) for item in index.items()] == [(b"\0\0\0\2", "last")]


@pytest.mark.parametrize("reopen", [False, True])
def test_ids_are_never_given_again(reopen: bool, three: Index, path: Path) -> None:
    given = {item.id for item in three.items()}
    for _ in range(3):
        held = [item.id for item in three.items()]
        assert three.remove(held) == len(held)
        if reopen:
            three.close()
            three = Index.open(path)
        three.add([photo("a"), photo("z")])
        fresh = {item.id for item in three.items()}
        assert not given & fresh
        assert min(fresh) > max(given)
        given |= fresh
    three.close()


@pytest.mark.parametrize("code", [b"", bytes(3), bytes(5), bytes(64)])
def test_a_code_of_another_width_adds_nothing(code: bytes, three: Index) -> None:
    before = list(three.items())
    bad = Item("/photos/bad", code, None, "")
    words = rf"^/photos/bad: expected a code of 4 bytes, got {len(code)}"
    with refused(IndexStoreError, words):
        three.add([photo("d"), photo("a", 77), bad, photo("e")])
    assert list(three.items()) == before
    assert three.add([photo("d")]) == Added(1)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_items_that_raise_halfway_add_nothing(
    error: type[BaseException], three: Index, path: Path
) -> None:
    def halfway() -> Iterator[Item]:
        yield photo("d")
        yield photo("a", 77)
        raise error

    before = list(three.items())
    with pytest.raises(error):
        three.add(halfway())
    assert list(three.items()) == before
    with Index.open(path) as other:  # nothing is left locked
        assert other.add([photo("d")]) == Added(1)
    assert three.add([photo("e")]) == Added(1)
    assert names(three) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("field", ["path", "label"])
def test_a_name_that_is_not_utf8(field: str, three: Index) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    item = Item(name, bytes(4), None, "") if field == "path" else photo("d", 0, name)
    # Either kept as it is or refused in words, but never a traceback.
    with contextlib.suppress(FgdeployError):
        three.add([item])
        assert getattr(list(three.items())[-1], field) == name


@pytest.mark.parametrize("name", [Path("/photos/d"), None])
def test_a_path_that_is_not_text(name: object, three: Index) -> None:
    try:
        three.add([Item(name, bytes(4), None, "")])  # type: ignore[arg-type]
    except Exception as error:
        assert "damaged" not in str(error)


def test_removing(three: Index) -> None:
    first, _, last = (item.id for item in three.items())
    assert three.remove([last, first]) == 2
    assert names(three) == ["b"]
    assert three.remove([]) == 0


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_unknown_id_removes_nothing(at: int, three: Index) -> None:
    before = list(three.items())
    ids = [before[0].id, before[1].id]
    ids.insert(at, 99)
    words = r"gallery\.fgi has no item 99; nothing was removed; see: fgdeploy index list$"
    with refused(IndexStoreError, words):
        three.remove(ids)
    assert list(three.items()) == before


def test_unknown_ids_are_named_but_not_all_of_a_thousand(three: Index) -> None:
    with refused(IndexStoreError, r"has no item 100, 101, 102, 103, 104; nothing was removed"):
        three.remove(range(100, 1100))
    assert len(three) == 3


def test_an_id_beyond_sqlites_integers(three: Index) -> None:
    with refused(IndexStoreError, "has no item 9223372036854775808; nothing was removed"):
        three.remove([2**63])


def test_the_same_id_twice(three: Index) -> None:
    first = next(item.id for item in three.items())
    assert three.remove([first, first]) == 1
    assert names(three) == ["b", "c"]
