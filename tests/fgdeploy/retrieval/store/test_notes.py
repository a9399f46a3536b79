from __future__ import annotations

from pathlib import Path

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import raw


def test_notes_are_those_of_the_index(index: Index, path: Path) -> None:
    assert index.notes.get("colour") is None
    index.notes.set("colour", "blau ü")
    with Index.open(path) as other:
        assert other.notes.get("colour") == "blau ü"
        other.notes.set("colour", "red")
    assert index.notes.get("colour") == "red"
    assert index.notes.get("bits") == "32"


def test_a_note_that_was_changed_is_damage(index: Index, path: Path) -> None:
    index.notes.set("colour", "red")
    with raw(path) as connection:
        connection.execute("UPDATE meta SET value = 'rot' WHERE key = 'colour'")
    with refused(IndexStoreError, "its meta table was changed"):
        index.notes.get("colour")
