"""A camera while the model changes under it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fgdeploy.camera.camera import Camera
from fgdeploy.core.errors import EngineError, IndexStoreError, UsageError
from fgdeploy.hasher import Hasher
from fgdeploy.live.pair import Pair
from fgdeploy.retrieval import Index, Item
from tests.checks import COLOUR_BITS, colour_bundle, refused
from tests.fgdeploy.camera.feeds import Feed, HeldEngine, number_in, numbered

OLD, NEW = "ab" * 32, "cd" * 32
FLIPS = {OLD: 0, NEW: 255}  # what the code of a frame is xored with, in each byte


class Models:
    """Opens a bundle by the model that its manifest names. fails: the first engine's first run."""

    def __init__(self, fails: bool = False) -> None:
        self.opened: list[Hasher] = []
        self._fails = fails

    def __call__(self, path: Path) -> Hasher:
        model = json.loads((path / "manifest.json").read_text())["fingerprint"]
        engine = HeldEngine()
        engine.flip = FLIPS[model]
        self.opened.append(Hasher(colour_bundle(model), engine))
        if self._fails and len(self.opened) == 1:
            engine.fails_at = 0
            fresh = Hasher(colour_bundle(model), HeldEngine())
            self.opened[0].reopened = lambda: fresh  # type: ignore[method-assign]
        return self.opened[-1]


def gallery(path: Path, model: str, first: int) -> None:
    """Make an index with the frames 0 to 39 by ids from `first` on."""
    codes = [bytes(one ^ FLIPS[model] for one in n.to_bytes(3, "big")) for n in range(40)]
    with Index.create(path, model, COLOUR_BITS) as index:
        index.add(Item(None, code, id=first + number) for number, code in enumerate(codes))
        bundle = path.parent / f"{model[:2]}.fgd"
        bundle.mkdir()
        (bundle / "manifest.json").write_text(json.dumps({"fingerprint": model}))
        index.remember_bundle(bundle)


@pytest.mark.parametrize("live", [False, True])
def test_frames_go_over_to_the_new_model_and_none_is_searched_by_the_other(
    live: bool, tmp_path: Path
) -> None:
    path, models = tmp_path / "g.fgi", Models()
    gallery(path, OLD, 0)
    gallery(tmp_path / "new.fgi", NEW, 1000)
    feed, ids, codes = Feed(live=live), [], []
    with Pair(path, load=models) as pair, Camera(feed, pair, k=1) as camera:
        results = iter(camera)
        for number in range(20):
            feed.push(numbered(number))
            result = next(results)
            assert result.hits[0].distance == 0
            ids.append(result.hits[0].id)
            codes.append(number_in(result))
            if number == 9:
                os.rename(path, tmp_path / "old.fgi")
                os.rename(tmp_path / "new.fgi", path)
        assert camera.counters.dropped == 0
        assert [hasher.fingerprint for hasher in models.opened] == [OLD, NEW]
        with refused(EngineError, "closed"):
            models.opened[0].engine.check_open()
        assert camera.worker.hasher is models.opened[1]
    assert ids == [*range(10), *range(1010, 1020)]
    assert codes == [*range(10), *(number ^ 0xFFFFFF for number in range(10, 20))]


def test_frames_under_way_are_hashed_anew(tmp_path: Path) -> None:
    """Two frames are hashed by the old model before the consumer finds the new one."""
    path, models = tmp_path / "g.fgi", Models()
    gallery(path, OLD, 0)
    gallery(tmp_path / "new.fgi", NEW, 1000)
    feed = Feed(map(numbered, range(40)), live=False, ends=True)
    with Pair(path, load=models) as pair, Camera(feed, pair, k=1) as camera:
        ids = []
        for result in camera:
            ids.append(result.hits[0].id)
            assert result.hits[0].distance == 0
            if result.number == 5:
                os.rename(path, tmp_path / "old.fgi")
                os.rename(tmp_path / "new.fgi", path)
    assert ids == [*range(6), *range(1006, 1040)]


def test_engines_that_were_opened_anew_are_counted_over_models(tmp_path: Path) -> None:
    path, models = tmp_path / "g.fgi", Models(fails=True)
    gallery(path, OLD, 0)
    gallery(tmp_path / "new.fgi", NEW, 1000)
    feed = Feed(live=False)
    with Pair(path, load=models) as pair, Camera(feed, pair, k=1) as camera:
        results = iter(camera)
        for number in range(2):
            feed.push(numbered(number))
            assert next(results).hits[0].id == 1001 * number
            assert camera.counters.rebuilds == 1
            if number == 0:
                os.rename(path, tmp_path / "old.fgi")
                os.rename(tmp_path / "new.fgi", path)
        assert camera.worker.rebuilt == 0


def test_an_index_that_is_gone_ends_it_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "g.fgi"
    gallery(path, OLD, 0)
    feed = Feed(map(numbered, range(3)), live=False, ends=True)
    with Pair(path, load=Models()) as pair:
        camera = Camera(feed, pair)
        os.rename(path, tmp_path / "gone.fgi")
        with refused(IndexStoreError, "g.fgi"):
            list(camera)
        with Index.open(tmp_path / "gone.fgi") as index, refused(UsageError, "its own index"):
            Camera(feed, pair, index)
