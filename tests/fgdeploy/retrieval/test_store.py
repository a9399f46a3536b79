import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fgdeploy import atomic
from fgdeploy.codes import hamming
from fgdeploy.errors import FgdeployError, IndexStoreError, UsageError
from fgdeploy.retrieval import Hit, Index, Item, store

MODEL, OTHER = "ab" * 32, "cd" * 32
BITS = 32
ZERO = np.zeros((1, BITS // 8), np.uint8)
NOBODY = 65534


@contextlib.contextmanager
def refused(kind: type[FgdeployError], words: str) -> Iterator[None]:
    with pytest.raises(kind, match=words) as caught:
        yield
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def photo(name: str, code: int = 0, label: str | None = None) -> Item:
    return Item(f"/photos/{name}", code.to_bytes(BITS // 8, "big"), label, f"sha of {name} {code}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.fgi"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    with Index.create(path, MODEL, BITS) as made:
        yield made


@pytest.fixture
def three(index: Index) -> Index:
    index.add([photo("a", 0b1), photo("b", 0b11, "moth"), photo("c", 0b111, "owl")])
    return index


def database(path: Path) -> Path:
    return path / store.DATABASE


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database behind the index's back."""
    connection = sqlite3.connect(database(path), isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def names(index: Index) -> list[str]:
    return [Path(item.path).name for item in index.items()]


def use_all(path: Path) -> None:
    """Do everything that reads an index."""
    with Index.open(path) as index:
        len(index)
        index.known()
        list(index.items())
        index.search(ZERO, 5)
        index.verify()


# Making and opening


def test_a_new_index_is_empty_and_remembers_its_model(path: Path) -> None:
    with Index.create(path, MODEL, BITS) as index:
        assert (index.path, index.fingerprint, index.bits, len(index)) == (path, MODEL, BITS, 0)
    with Index.open(str(path)) as index:
        assert (index.path, index.fingerprint, index.bits, len(index)) == (path, MODEL, BITS, 0)
        assert list(index.items()) == []
        assert index.known() == {}
        assert index.verify() == []
        assert index.search(np.zeros((2, 4), np.uint8), 3) == [[], []]
        assert index.search_radius(ZERO[0], 32) == []
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert [entry.name for entry in path.iterdir()] == [store.DATABASE]


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
    monkeypatch.setattr(store, "_SCHEMA", "CREATE TABLE meta (key TEXT, value TEXT); nonsense;")
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
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    words = r"has schema version 2, expected 1; use the fgdeploy that wrote it, or build the index"
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
    with refused(IndexStoreError, r"gallery\.fgi is damaged \(its meta table is not whole\)"):
        Index.open(path)


def test_another_model_is_refused_in_words(index: Index) -> None:
    index.require(MODEL, BITS)
    words = (
        r"holds 32-bit codes of model abababababab, the bundle makes {}-bit codes of model {}; "
        r"their distances mean nothing: use the bundle that built the index, or build a new index$"
    )
    with refused(IndexStoreError, words.format(BITS, OTHER[:12])):
        index.require(OTHER, BITS)
    with refused(IndexStoreError, words.format(64, MODEL[:12])):
        index.require(MODEL, 64)


def test_closing_twice_and_deleting(index: Index, path: Path) -> None:
    index.close()
    index.close()
    index.delete()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "use",
    [len, Index.known, Index.verify, lambda index: index.add([photo("b")])],
    ids=["len", "known", "verify", "add"],
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
        assert index.known() == {item.path: item.sha256 for item in found}

    check(three)
    with Index.open(path) as again:
        check(again)


def test_the_time_is_utc_unless_given(index: Index) -> None:
    index.add(
        [photo("a"), Item("/photos/b", bytes(4), None, "", added="2020-01-02T03:04:05+00:00")]
    )
    now, given = (datetime.fromisoformat(item.added) for item in index.items())
    assert now.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - now) < timedelta(minutes=5)
    assert given == datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def test_adding_counts_and_takes_an_iterator(index: Index) -> None:
    assert index.add(photo(str(number), number) for number in range(1000)) == 1000
    assert index.add([]) == 0
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
    assert three.add([photo("d"), photo("b", 0xFF, "owl"), photo("e")]) == 3
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
    assert three.add([photo("d")]) == 1


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
        assert other.add([photo("d")]) == 1
    assert three.add([photo("e")]) == 1
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
    with refused(UsageError, rf"k is {k}; ask for at least one result"):
        three.search(ZERO, k)


def test_queries_of_another_width(three: Index) -> None:
    words = "queries have 8 bytes, codes 4; hash both with the same model"
    with refused(UsageError, words):
        three.search(np.zeros((1, 8), np.uint8))
    with refused(UsageError, words):
        three.search_radius(np.zeros(8, np.uint8), 3)


# Several processes


def test_a_second_writer_is_told(three: Index, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_LOCK_WAIT_S", 0.02)
    words = r"gallery\.fgi: another process is writing to it; wait for it to finish$"
    with raw(path) as writer, Index.open(path) as second:
        writer.execute("BEGIN IMMEDIATE")
        with refused(IndexStoreError, words):
            second.add([photo("d")])
        with refused(IndexStoreError, words):
            second.remove([1])
        assert len(second.search(ZERO, 5)[0]) == 3  # reading goes on
        writer.execute("ROLLBACK")
        assert second.add([photo("d")]) == 1
    assert names(three) == ["a", "b", "c", "d"]


def test_readers_are_told_while_a_writer_holds_the_file_alone(
    three: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_LOCK_WAIT_S", 0.02)
    with raw(path) as writer, Index.open(path) as reader:
        writer.execute("BEGIN EXCLUSIVE")
        for read in (reader.known, reader.verify, lambda: reader.search(ZERO), reader.__len__):
            with refused(IndexStoreError, "another process is writing to it; wait for it"):
                read()
        with refused(IndexStoreError, "another process is writing to it; wait for it"):
            Index.open(path)
        writer.execute("ROLLBACK")
        assert len(reader.search(ZERO, 5)[0]) == 3


def test_reading_items_does_not_keep_a_writer_out(
    three: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_LOCK_WAIT_S", 0.02)
    three.add(photo(str(number)) for number in range(2000))
    assert next(item.path for item in three.items()) == "/photos/a"  # and no further
    with Index.open(path) as other:
        assert other.add([photo("d")]) == 1


CHILD = """
import sys
from fgdeploy.retrieval import Index, Item

path, width, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Index.open(path) as index:
    index._connection.execute("PRAGMA cache_size = 2")  # pages go to the file before the commit
    for turn in range(start, 100_000):
        index.add(Item(f"{turn}/{n}", bytes(4), "x" * 200, "sha") for n in range(width))
        print(turn, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(index: Index, path: Path) -> None:
    chooser = random.Random(4)
    width, acknowledged, hot = 200, 0, 0
    for attempt in range(12):
        command = [sys.executable, "-c", CHILD, str(path), str(width), str(acknowledged)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chooser.randrange(1, 6)):
                acknowledged = int(child.stdout.readline()) + 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(chooser.random() * 0.01)
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:  # printed before the kill took hold
                acknowledged = int(line) + 1
        assert child.returncode == -signal.SIGKILL
        hot += database(path).with_name(store.DATABASE + "-journal").exists()
        with Index.open(path) as again:
            assert not [problem for problem in again.verify() if problem.fatal]
            turns = {int(item.path.partition("/")[0]) for item in again.items()}
            # One transaction may be whole in the file and not yet told.
            assert turns >= set(range(acknowledged))
            assert turns <= set(range(acknowledged + 1))
            assert len(again) == width * len(turns)
            assert len(again.search(ZERO, 3)[0]) == 3
            assert again.add([]) == 0
            again.remove([i.id for i in again.items() if i.path.startswith(f"{acknowledged}/")])
        if hot and attempt >= 3:
            break
    assert hot > 0, "no kill fell into a transaction, so this test showed nothing"


# Rights


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """Give a folder that every user can reach, with an index of one item."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        path = Path(name) / "gallery.fgi"
        with Index.create(path, MODEL, BITS) as index:
            index.add([photo("a")])
        yield path


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root's rights, which overrule all others, and take them back."""
    if os.getuid() != 0:
        yield
        return
    try:
        os.setresuid(NOBODY, NOBODY, 0)
    except OSError:
        pytest.skip("root here cannot become another user")
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextlib.contextmanager
def rights(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with unprivileged():
            yield
    finally:
        path.chmod(before)


def test_a_read_only_index_can_be_searched_but_not_changed(open_to_all: Path) -> None:
    words = r"gallery\.fgi: it cannot be written \(read-only or no permission\); check its rights$"
    database(open_to_all).chmod(0o444)
    with rights(open_to_all, 0o555), Index.open(open_to_all) as index:
        assert len(index.search(ZERO, 5)[0]) == len(index) == 1
        with refused(IndexStoreError, words):
            index.add([photo("b")])
        with refused(IndexStoreError, words):
            index.remove([1])
        assert names(index) == ["a"]


def test_a_read_only_file_system(three: Index, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    with Index.open(path) as index:
        assert len(index.search(ZERO, 5)[0]) == 3
        with refused(IndexStoreError, r"it cannot be written .*; check its rights"):
            index.add([photo("b")])


def test_a_database_that_cannot_be_read(open_to_all: Path) -> None:
    with (
        rights(database(open_to_all), 0o000),
        refused(IndexStoreError, r"gallery\.fgi: .*no permission.*; check its rights"),
    ):
        Index.open(open_to_all)


def test_a_folder_that_cannot_be_entered(open_to_all: Path) -> None:
    with (
        rights(open_to_all, 0o600),
        refused(IndexStoreError, r"gallery\.fgi: .*no permission.*; check its rights"),
    ):
        Index.open(open_to_all)


def test_a_full_disk(three: Index, path: Path) -> None:
    three._connection.execute("PRAGMA max_page_count = 8")
    words = r"gallery\.fgi: the disk is full; nothing was lost, free some space and try again$"
    with refused(IndexStoreError, words):
        three.add(photo(f"{number}" * 100) for number in range(1000))
    assert names(three) == ["a", "b", "c"]
    assert [problem for problem in three.verify() if problem.fatal] == []


# Damage


def test_a_clean_index_has_no_problems(index: Index, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    index.add(Item(str(tmp_path / f"{n}.jpg"), bytes(4), None, "") for n in range(3))
    assert index.verify() == []


def test_photos_that_are_gone_are_noted_and_nothing_more(three: Index, tmp_path: Path) -> None:
    (tmp_path / "there.jpg").touch()
    three.add([Item(str(tmp_path / "there.jpg"), bytes(4), None, "")])
    assert three.verify() == [store.Problem("3 photos are no longer at their path", fatal=False)]


def test_a_path_too_long_to_look_for(index: Index, tmp_path: Path) -> None:
    index.add([Item(str(tmp_path / ("x" * 300)), bytes(4), None, "")])
    assert [problem.fatal for problem in index.verify()] == [False]


def test_verify_finds_codes_of_another_width(three: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("UPDATE items SET code = x'00' WHERE path = '/photos/b'")
    problems = [problem.what for problem in three.verify() if problem.fatal]
    assert problems == ["item 2: code of 1 bytes, expected 4"]
    with refused(IndexStoreError, r"is damaged \(codes of unequal width\); restore a copy"):
        three.search(ZERO)


@pytest.mark.parametrize(("last", "bad"), [(0b1111_0000, False), (0b1, True), (0b1000, True)])
def test_verify_finds_bits_behind_the_last(last: int, bad: bool, tmp_path: Path) -> None:
    with Index.create(tmp_path / "gallery.fgi", MODEL, 12) as index:
        index.add([Item(str(tmp_path), bytes([255, last]), None, "")])
        problems = [problem.what for problem in index.verify()]
        assert problems == (["item 1: bits set behind bit 12"] if bad else [])


@pytest.mark.parametrize("value", ["'text'", "7", "1.5", "NULL"])
def test_a_code_that_is_no_blob(value: str, three: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'BLOB NOT NULL', 'BLOB')")
    with raw(path) as connection:
        connection.execute(f"UPDATE items SET code = {value} WHERE path = '/photos/b'")
    with Index.open(path) as index:
        assert any(problem.fatal for problem in index.verify())
        with refused(IndexStoreError, "is damaged"):
            index.search(ZERO)


@pytest.mark.parametrize("column", ["path", "label"])
def test_text_that_is_not_utf8(column: str, three: Index, path: Path) -> None:
    bad = b"/photos/beautiful/locked\xff".hex()
    with raw(path) as connection:
        connection.execute(f"UPDATE items SET {column} = CAST(x'{bad}' AS TEXT) WHERE id = 2")
    with Index.open(path) as index:
        for use in (lambda: list(index.items()), index.verify):
            with refused(IndexStoreError, "is damaged"):
                use()


def test_a_database_of_garbage(index: Index, path: Path) -> None:
    index.close()
    database(path).write_bytes(random.Random(1).randbytes(20_000))
    words = r"is damaged \(file is not a database\); restore a copy, or build the index again$"
    with refused(IndexStoreError, words):
        Index.open(path)


@pytest.mark.parametrize("kind", ["empty", "foreign"])
def test_a_database_of_something_else(kind: str, path: Path) -> None:
    path.mkdir()
    database(path).touch()
    if kind == "foreign":
        with raw(path) as connection:
            connection.execute("CREATE TABLE birds (name TEXT)")
    with refused(IndexStoreError, "damaged|not an index|not a gallery"):
        Index.open(path)


def filled(path: Path) -> bytes:
    """Make an index of 200 items, the same bytes each time, and return its database."""
    chooser = random.Random(0)
    with Index.create(path, MODEL, BITS) as index:
        index.add(
            Item(f"/photos/{n}.jpg", chooser.randbytes(4), f"label {n % 5}", "a" * 64, added="now")
            for n in range(200)
        )
    return database(path).read_bytes()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_database(share: float, path: Path) -> None:
    whole = filled(path)
    database(path).write_bytes(whole[: int(len(whole) * share)])
    with refused(IndexStoreError, r"gallery\.fgi is damaged \(.*\); restore a copy, or build"):
        use_all(path)


def test_pages_overwritten_by_garbage(path: Path) -> None:
    whole = filled(path)
    for page in range(len(whole) // 4096):
        hurt = bytearray(whole)
        hurt[page * 4096 : (page + 1) * 4096] = random.Random(page).randbytes(4096)
        database(path).write_bytes(hurt)
        with refused(IndexStoreError, r"gallery\.fgi is damaged \(.*\); restore a copy, or build"):
            use_all(path)


def test_a_flipped_bit_that_the_database_notices_is_listed(path: Path) -> None:
    hurt = bytearray(filled(path))
    at = hurt.index(b"/photos/17.jpg")  # first in the table or the index on paths: they differ now
    hurt[at + 8] ^= 1
    database(path).write_bytes(hurt)
    with Index.open(path) as index:
        problems = [problem.what for problem in index.verify() if problem.fatal]
    assert problems
    assert all(what.startswith("database: ") for what in problems)


def test_a_problem_is_one_line(path: Path) -> None:
    whole, seen = filled(path), []
    for seed in range(300):
        chooser, hurt = random.Random(seed), bytearray(whole)
        hurt[chooser.randrange(4096, len(hurt))] ^= 1 << chooser.randrange(8)
        database(path).write_bytes(hurt)
        with contextlib.suppress(IndexStoreError, TypeError), Index.open(path) as index:
            seen += [problem.what for problem in index.verify()]
    assert seen
    assert not [what for what in seen if "\n" in what]


def test_any_damage_is_told_in_words(path: Path) -> None:
    whole, chooser = filled(path), random.Random(2)
    told = set()
    for _ in range(250):
        hurt = bytearray(whole)
        for _ in range(chooser.choice([1, 4, 40])):
            hurt[chooser.randrange(len(hurt))] = chooser.randrange(256)
        database(path).write_bytes(hurt)
        try:
            use_all(path)
        except IndexStoreError as error:
            assert "\n" not in str(error)
            told.add(str(error))
    assert told


def test_a_flipped_bit_in_a_code_is_found(path: Path) -> None:
    whole = filled(path)
    with Index.open(path) as index:
        code = next(index.items()).code
    hurt = bytearray(whole)
    hurt[hurt.index(code)] ^= 1
    database(path).write_bytes(hurt)
    with Index.open(path) as index:
        assert next(index.items()).code != code
        assert [problem for problem in index.verify() if problem.fatal]


# Everything together, against a dictionary


class StoreAgainstDictionary(RuleBasedStateMachine):
    """Any sequence of changes leaves what a dictionary would hold."""

    names = st.sampled_from(["a", "b", "c", "d's", 'e"', "f蛾"])
    items = st.lists(st.tuples(names, st.integers(0, 7)), max_size=6)

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.index = Index.create(Path(self.folder.name) / "gallery.fgi", MODEL, BITS)
        self.model: dict[str, tuple[int, int]] = {}  # path -> (id, code)
        self.highest = 0

    @rule(items=items, reader=st.booleans())
    def add(self, items: list[tuple[str, int]], reader: bool) -> None:
        if reader:
            self.index.search(ZERO, 1)
        assert self.index.add(photo(name, code) for name, code in items) == len(items)
        held = {item.path: item.id for item in self.index.items()}
        for name, code in items:
            path = f"/photos/{name}"
            if path in self.model:
                assert held[path] == self.model[path][0]
            else:
                assert held[path] > self.highest
            self.model[path] = (held[path], code)
        self.highest = max([self.highest, *held.values()])

    @rule(items=items)
    def fail_to_add(self, items: list[tuple[str, int]]) -> None:
        bad = Item("/photos/bad", b"", None, "")
        with refused(IndexStoreError, "expected a code of 4 bytes, got 0"):
            self.index.add([*(photo(name, code) for name, code in items), bad])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True))
        assert self.index.remove([self.model[path][0] for path in gone]) == len(gone)
        for path in gone:
            del self.model[path]

    @rule()
    def fail_to_remove(self) -> None:
        ids = [number for number, _ in self.model.values()]
        with refused(IndexStoreError, "nothing was removed"):
            self.index.remove([*ids, self.highest + 1])

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index.open(self.index.path)

    @invariant()
    def holds_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        expected = sorted((number, path, code) for path, (number, code) in self.model.items())
        found = [(i.id, i.path, int.from_bytes(i.code, "big")) for i in self.index.items()]
        assert found == expected
        assert len(self.index) == len(expected)
        near = sorted((bin(code).count("1"), number) for number, _, code in expected)[:3]
        assert [(hit.distance, hit.id) for hit in self.index.search(ZERO, 3)[0]] == near

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert not [problem for problem in self.index.verify() if problem.fatal]
            self.index.close()
            self.folder.cleanup()


TestStoreAgainstDictionary = StoreAgainstDictionary.TestCase
TestStoreAgainstDictionary.settings = settings(
    derandomize=True, deadline=None, max_examples=25, stateful_step_count=20
)
