"""The store: making, adding, removing, searching."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core import atomic
from fgdeploy.core.codes import hamming
from fgdeploy.core.errors import FgdeployError, IndexStoreError, UsageError
from fgdeploy.retrieval import Added, Hit, Index, Item
from fgdeploy.retrieval.store import schema
from fgdeploy.retrieval.store.session import DATABASE
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, OTHER, ZERO, names, photo, raw

# Making and opening


def test_a_new_index_is_empty_and_remembers_its_model(path: Path) -> None:
    with Index.create(path, MODEL, BITS) as index:
        assert (index.path, index.fingerprint, index.bits, len(index)) == (path, MODEL, BITS, 0)
    with Index.open(str(path)) as index:
        assert (index.path, index.fingerprint, index.bits, len(index)) == (path, MODEL, BITS, 0)
        assert list(index.items()) == []
        assert index.by_path(["/photos/a"]) == index.by_content(["0" * 64]) == {}
        assert index.search(np.zeros((2, 4), np.uint8), 3) == [[], []]
        assert index.search_radius(ZERO[0], 32) == []
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert [entry.name for entry in path.iterdir()] == [DATABASE]
    with Index.open(path) as index:
        assert index.verify() == []


@pytest.mark.parametrize("name", ["a b", "a?b#c", "50%20", "it's", 'a"b', "naïve-蛾", "a;b&c=d"])
def test_names_that_an_address_would_trip_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.fgi"
    with Index.create(path, MODEL, BITS) as index:
        index.add([photo("a")])
    with Index.open(path) as index:
        assert len(index) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Index.create("gallery.fgi", MODEL, BITS) as index:
        index.add([photo("a")])
    with Index.open("gallery.fgi") as index:
        assert len(index) == 1


@pytest.mark.parametrize("name", ["gallery", "gallery.fgd", "gallery.fgi.bak", "gallery.FGI"])
def test_a_name_with_another_suffix(name: str, tmp_path: Path) -> None:
    with refused(UsageError, rf"{name}: an index's name ends in \.fgi$"):
        Index.create(tmp_path / name, MODEL, BITS)
    assert list(tmp_path.iterdir()) == []


def test_creating_never_replaces(path: Path) -> None:
    with Index.create(path, MODEL, BITS) as index:
        index.add([photo("a")])
    with refused(IndexStoreError, r"gallery\.fgi is there already; open it, or choose another"):
        Index.create(path, OTHER, 64)
    with Index.open(path) as index:
        assert (index.fingerprint, len(index)) == (MODEL, 1)


def test_creating_over_a_file(path: Path) -> None:
    path.write_text("mine")
    with refused(IndexStoreError, r"gallery\.fgi is there already; open it, or choose another"):
        Index.create(path, MODEL, BITS)
    assert path.read_text() == "mine"


def test_creating_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with refused(IndexStoreError, r"no folder .*absent to write gallery\.fgi into"):
        Index.create(tmp_path / "absent" / "gallery.fgi", MODEL, BITS)
    assert list(tmp_path.iterdir()) == []


def test_creating_leaves_nothing_behind_when_it_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "TABLES", "CREATE TABLE meta (key TEXT, value TEXT); nonsense;")
    with refused(IndexStoreError, r"gallery\.fgi: near \"nonsense\""):
        Index.create(path, MODEL, BITS)
    assert list(path.parent.iterdir()) == []


def test_creating_never_replaces_what_another_process_made_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_folder = atomic.new_folder

    @contextlib.contextmanager
    def overtaken(target: Path) -> Iterator[Path]:
        with new_folder(target) as fresh:
            yield fresh
            monkeypatch.undo()
            with Index.create(path, MODEL, BITS) as rival:
                rival.add([photo("a")])

    monkeypatch.setattr(atomic, "new_folder", overtaken)
    with contextlib.suppress(IndexStoreError):
        Index.create(path, MODEL, BITS).close()
    with Index.open(path) as index:
        assert names(index) == ["a"]


@pytest.mark.parametrize("bits", [0, -8, 7, 513])
def test_creating_with_a_width_that_no_code_has(bits: int, path: Path) -> None:
    with refused(UsageError, rf"8 to 512 bits, not {bits}"):
        Index.create(path, MODEL, bits).close()


def test_opening_what_is_not_there(path: Path) -> None:
    words = r"no index at .*gallery\.fgi; make one with: fgdeploy index add .*gallery\.fgi PHOTOS$"
    with refused(IndexStoreError, words):
        Index.open(path)
    assert not path.exists()


def test_opening_a_file(path: Path) -> None:
    path.write_text("mine")
    with refused(IndexStoreError, r"no index at .*gallery\.fgi"):
        Index.open(path)
    assert path.read_text() == "mine"


def test_opening_a_folder_without_a_database(path: Path) -> None:
    path.mkdir()
    with refused(IndexStoreError, r"no index at .*gallery\.fgi"):
        Index.open(path)
    assert list(path.iterdir()) == []


def test_an_unknown_schema_version(index: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    words = r"has schema version 3, expected 2; use the fgdeploy that wrote it, or build the index"
    with refused(IndexStoreError, words):
        Index.open(path)


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM meta",
        "DELETE FROM meta WHERE key = 'bits'",
        "DELETE FROM meta WHERE key = 'fingerprint'",
        "UPDATE meta SET value = 'many' WHERE key = 'bits'",
        "UPDATE meta SET value = '' WHERE key = 'schema_version'",
    ],
)
def test_a_meta_table_that_is_not_whole(change: str, index: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute(change)
    with refused(
        IndexStoreError, r"gallery\.fgi is damaged \(its meta table (is not whole|was changed)"
    ):
        Index.open(path)
    with raw(path) as connection:  # as if its writer had seen it so
        meta = dict(connection.execute("SELECT * FROM meta"))
        crc = schema.meta_checksum(meta)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'crc'", (crc,))
    with refused(IndexStoreError, r"gallery\.fgi is damaged \(its meta table is not whole\)"):
        Index.open(path)


def test_a_model_that_was_changed_on_the_disk(index: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'fingerprint'", (OTHER,))
    with refused(IndexStoreError, r"gallery\.fgi is damaged \(its meta table was changed\)"):
        Index.open(path)


def test_another_model_is_refused_in_words(index: Index) -> None:
    index.require(MODEL, BITS)
    words = (
        r"holds 32-bit codes of model abababababab, these are {}-bit codes of model {}; "
        r"their distances mean nothing: use the bundle that built the index, or build a new index$"
    )
    with refused(IndexStoreError, words.format(BITS, OTHER[:12])):
        index.require(OTHER, BITS)
    with refused(IndexStoreError, words.format(64, MODEL[:12])):
        index.require(MODEL, 64)


def test_closing_twice_and_deleting(index: Index, path: Path) -> None:
    with Index.open(path) as rival:
        rival.add([photo("a")])
        assert not index.delete_if_empty()
        rival.remove([1])
        assert index.delete_if_empty()
        with refused(IndexStoreError, r"was removed by another process; run the command again"):
            rival.add([photo("b")])
    index.close()
    index.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "use",
    [
        len,
        Index.verify,
        Index.stats,
        Index.compact,
        lambda index: index.by_path(["a"]),
        lambda index: next(index.items()),
        lambda index: index.search(ZERO),
        lambda index: index.remove([1]),
        lambda index: index.add([photo("b")]),
    ],
    ids=["len", "verify", "stats", "compact", "by_path", "items", "search", "remove", "add"],
)
def test_using_a_closed_index(use: Callable[[Index], object], three: Index) -> None:
    three.close()
    with pytest.raises(FgdeployError, match="closed") as caught:
        use(three)
    assert "damaged" not in str(caught.value)


def test_using_an_index_from_another_thread(three: Index) -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            three.search(ZERO, 1)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not [error for error in caught if "damaged" in str(error)]


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


# Searching


def test_answers_are_ordered_by_distance_and_id(three: Index) -> None:
    three.add([photo("d", 0b10), photo("e", 0b1)])
    a, b, c, d, e = (item.id for item in three.items())
    assert three.search(ZERO, 4) == [
        [
            Hit(1, 1, a, "/photos/a", None),
            Hit(2, 1, d, "/photos/d", None),
            Hit(3, 1, e, "/photos/e", None),
            Hit(4, 2, b, "/photos/b", "moth"),
        ]
    ]
    assert [hit.id for hit in three.search(ZERO)[0]] == [a, d, e, b, c]
    assert [hit.id for hit in three.search_radius(ZERO[0], 1)] == [a, d, e]
    assert [hit.rank for hit in three.search_radius(ZERO[0], 3)] == [1, 2, 3, 4, 5]
    assert three.search_radius(ZERO[0], 0) == []


def test_many_queries_in_one_call(three: Index) -> None:
    queries = np.array([[0, 0, 0, 7], [0, 0, 0, 1], [255, 255, 255, 255]], np.uint8)
    answers = three.search(queries, 1)
    assert [[Path(hit.path).name for hit in hits] for hits in answers] == [["c"], ["a"], ["c"]]
    assert [hits[0].distance for hits in answers] == [0, 0, 29]
    assert three.search(queries[:0], 1) == []


@pytest.mark.parametrize("bits", [8, 12, 32, 63, 512])
def test_answers_against_all_distances(bits: int, tmp_path: Path) -> None:
    chooser = np.random.default_rng(bits)
    codes = np.packbits(chooser.random((80, bits)) < 0.1, axis=1)
    queries = np.packbits(chooser.random((5, bits)) < 0.1, axis=1)
    with Index.create(tmp_path / "gallery.fgi", MODEL, bits) as index:
        index.add(Item(str(n), code.tobytes(), None, "") for n, code in enumerate(codes))
        gone = chooser.choice([item.id for item in index.items()], 30, replace=False)
        index.remove([int(number) for number in gone])
        kept = list(index.items())
        gaps = hamming(queries, np.stack([np.frombuffer(i.code, np.uint8) for i in kept]))
        for query, gap, hits in zip(queries, gaps, index.search(queries, 20), strict=True):
            order = sorted((int(d), item.id) for d, item in zip(gap, kept, strict=True))
            assert [(hit.distance, hit.id) for hit in hits] == order[:20]
            near = [pair for pair in order if pair[0] <= bits // 8]
            found = index.search_radius(query, bits // 8)
            assert [(hit.distance, hit.id) for hit in found] == near


def test_own_changes_are_seen_by_the_next_search(three: Index) -> None:
    def nearest() -> tuple[str, int]:
        hit = three.search(ZERO, 1)[0][0]
        return Path(hit.path).name, hit.distance

    assert nearest() == ("a", 1)
    three.add([photo("d", 0)])
    assert nearest() == ("d", 0)
    three.add([photo("d", 0xFFFF)])
    assert nearest() == ("a", 1)
    three.remove([three.search(ZERO, 1)[0][0].id])
    assert nearest() == ("b", 2)


def test_changes_of_another_connection_are_seen_by_the_next_search(
    three: Index, path: Path
) -> None:
    assert len(three.search(ZERO, 10)[0]) == 3
    with Index.open(path) as other:
        other.add([photo("d", 0)])
        assert [Path(hit.path).name for hit in three.search(ZERO, 2)[0]] == ["d", "a"]
        other.add([photo("d", 0xFF)])  # same id, another code
        assert [hit.distance for hit in three.search(ZERO, 10)[0]] == [1, 2, 3, 8]
        other.remove([item.id for item in other.items()])
        assert three.search(ZERO, 10) == [[]]


def test_a_change_that_is_not_committed_is_not_seen(three: Index, path: Path) -> None:
    def slowly() -> Iterator[Item]:
        yield photo("d", 0)
        assert [Path(hit.path).name for hit in three.search(ZERO, 1)[0]] == ["a"]
        assert len(three) == 3

    with Index.open(path) as other:
        other.add(slowly())
    assert [Path(hit.path).name for hit in three.search(ZERO, 1)[0]] == ["d"]


@pytest.mark.parametrize("k", [0, -3])
def test_fewer_than_one_answer(k: int, three: Index) -> None:
    with refused(UsageError, rf"k is {k}; expected at least one result"):
        three.search(ZERO, k)


def test_queries_of_another_width(three: Index) -> None:
    words = "queries have 8 bytes, codes 4; hash both with the same model"
    with refused(UsageError, words):
        three.search(np.zeros((1, 8), np.uint8))
    with refused(UsageError, words):
        three.search_radius(np.zeros(8, np.uint8), 3)
