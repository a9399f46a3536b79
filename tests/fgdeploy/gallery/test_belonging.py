"""Which bundle and which index belong together, by path and by fingerprint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.gallery import bundle_of, index_of
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.gallery.conftest import BITS, MODEL

OTHER = "cd" * 32


def made(path: Path, fingerprint: str = MODEL) -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def index(place: Path) -> Iterator[Index]:
    (place / "there").mkdir()
    with Index.create(place / "there" / "g.fgi", MODEL, BITS) as made:
        yield made


def test_the_bundle_at_the_path_that_the_index_remembers(index: Index, place: Path) -> None:
    bundle = made(place / "far" / "eet.fgd")
    assert index.bundle is None
    index.remember_bundle(os.path.relpath(bundle))
    made(place / "there" / "same.fgd")  # of the same model, and not asked
    with Index.open(index.path) as again:
        assert again.bundle == bundle
        assert bundle_of(again) == bundle
        assert not [problem for problem in again.verify() if problem.fatal]


@pytest.mark.parametrize("folder", ["there", "here", "far"])
def test_a_moved_bundle_is_found_by_its_fingerprint(folder: str, index: Index, place: Path) -> None:
    index.remember_bundle(place / "far" / "eet.fgd")
    made(place / "far" / "eet.fgd", OTHER)  # another one lies there now
    made(place / folder / "other.fgd", OTHER)
    moved = made(place / folder / "new name.fgd")
    found = bundle_of(index)
    assert found is not None
    assert found.resolve() == moved


def test_several_are_listed_and_none_is_none(index: Index, place: Path) -> None:
    made(place / "there" / "other.fgd", OTHER)
    (place / "there" / "broken.fgd").mkdir()
    (place / "there" / "broken.fgd" / "manifest.json").write_text("{")
    assert bundle_of(index) is None
    made(place / "there" / "a.fgd")
    made(place / "here" / "b.fgd")
    words = r"^2 bundles \(.*a\.fgd, b\.fgd\) are of the model of .*g\.fgi; name one with --bundle$"
    with refused(UsageError, words):
        bundle_of(index)


def test_the_index_that_a_bundle_built(index: Index, place: Path) -> None:
    mine, other = made(place / "a.fgd"), made(place / "b.fgd", OTHER)
    Index.create(place / "there" / "other.fgi", OTHER, 64).close()
    (place / "there" / "empty.fgi").mkdir()
    indexes = sorted((place / "there").glob("*.fgi"))
    assert index_of(indexes, [mine]) == place / "there" / "g.fgi"
    assert index_of(indexes, [other]) == place / "there" / "other.fgi"
    assert index_of(indexes, [mine, other]) is None
    assert index_of(indexes, []) is None
