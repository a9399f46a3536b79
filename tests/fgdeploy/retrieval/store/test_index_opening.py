"""Making, opening and closing an index."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core import atomic
from fgdeploy.core.errors import FgdeployError, IndexStoreError, UsageError
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store import schema
from fgdeploy.retrieval.store.making import DATABASE, Taken
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
    with refused(Taken, r"gallery\.fgi is there already; open it, or choose another"):
        Index.create(path, OTHER, 64)
    with Index.open(path) as index:
        assert (index.fingerprint, len(index)) == (MODEL, 1)


def test_creating_over_a_file(path: Path) -> None:
    path.write_text("mine")
    with refused(Taken, r"gallery\.fgi is there already; open it, or choose another"):
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


def test_opening_says_what_lies_there_instead(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))
    with refused(IndexStoreError, r"no index at .*gallery\.fgi: it is a link to nothing; an index"):
        Index.open(path)
    path.unlink()
    path.write_text("mine")
    with refused(IndexStoreError, r"no index at .*gallery\.fgi: it is a file; an index is a fold"):
        Index.open(path)
    path.unlink()
    path.mkdir()
    with refused(IndexStoreError, r"gallery\.fgi: it is a folder without index\.sqlite; name anot"):
        Index.open(path)
    (path / "manifest.json").write_text("{}")
    with refused(IndexStoreError, r"no index at .*gallery\.fgi: it is a bundle; an index is a fo"):
        Index.open(path)


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
