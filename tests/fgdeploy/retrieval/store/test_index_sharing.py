"""One index in many hands: copies and other processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from tests.checks import refused

CODES = np.random.default_rng(0).integers(0, 256, (40, 4), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Index.create(tmp_path / "g.fgi", "model", 32) as index:
        index.add([Item(f"{place}.jpg", code.tobytes()) for place, code in enumerate(CODES)])
    return tmp_path / "g.fgi"


def nearest(index: Index) -> list[int]:
    """What a spawned process does with the index that it is given."""
    with index:
        return [hits[0].id for hits in index.search(CODES, 1)]


def test_a_spawned_process_opens_it_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with Index.open(folder.name) as index, multiprocessing.get_context("spawn").Pool(1) as pool:
        monkeypatch.chdir("/")
        assert pool.apply(nearest, [index]) == list(range(1, 41))


def test_closing_a_copy_does_not_close_the_other(folder: Path) -> None:
    with Index.open(folder) as index:
        for again in (copy.copy(index), copy.deepcopy(index)):
            assert nearest(again) == nearest(copy.copy(index))
        assert len(index) == 40
    with refused(IndexStoreError, r"g\.fgi is closed; open the index anew$"):
        pickle.dumps(index)


def test_an_index_of_another_model_by_now(folder: Path) -> None:
    with Index.open(folder) as index:
        kept = pickle.dumps(index)
    shutil.rmtree(folder)
    Index.create(folder, "other", 32).close()
    with refused(IndexStoreError, r"holds 32-bit codes of model other, these are 32-bit codes of"):
        pickle.loads(kept)
