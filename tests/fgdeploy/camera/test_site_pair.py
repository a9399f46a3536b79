"""A camera on an index that is replaced goes on with the new model; no result is of both."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.bundle import seal
from fgdeploy.camera.enrolling import Enroller
from fgdeploy.camera.on_site import Site, SiteSettings
from fgdeploy.camera.site_pair import pair_for
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.hasher import Hasher, load
from fgdeploy.live.pair import Pair
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.conftest import toy_manifest, write_toy_graph
from tests.fgdeploy.camera.feeds import Feed
from tests.fgdeploy.camera.results import result

FRAME = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.fixture
def new_bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "new.fgd"
    folder.mkdir()
    write_toy_graph(folder / "model.onnx", seed=1)
    seal(folder, toy_manifest("cd" * 32))
    return folder


def make(path: Path, bundle: Path, label: str) -> None:
    """Make an index of one item, the code of the frame."""
    with load(bundle) as hasher, Index.create(path, hasher.fingerprint, hasher.bits) as index:
        index.remember_bundle(bundle)
        index.add([Item("camera://x/1", hasher.encode([FRAME])[0].tobytes(), label)])


@pytest.fixture
def gallery(tmp_path: Path, toy_bundle: Path, new_bundle: Path) -> Path:
    """An index of the old model, and beside it `next.fgi` of the new one."""
    make(tmp_path / "g.fgi", toy_bundle, "old")
    make(tmp_path / "next.fgi", new_bundle, "new")
    return tmp_path / "g.fgi"


def switch(gallery: Path) -> None:
    os.rename(gallery, gallery.with_name("old.fgi"))
    os.rename(gallery.with_name("next.fgi"), gallery)


def test_after_a_migration_it_goes_on_with_the_new_model(gallery: Path, new_bundle: Path) -> None:
    feed, seen = Feed([FRAME]), []
    with Pair(gallery) as pair, Site(SiteSettings("0"), pair, source=feed) as site:
        for sighting in site:
            seen.append(sighting)
            if len(seen) == 1:
                switch(gallery)
            if len(seen) == 3:
                site.close()
            feed.push(FRAME)
    assert [one.verdict.label for one in seen if one.verdict] == ["old", "new", "new"]
    assert [one.result.hits[0].distance for one in seen] == [0, 0, 0]
    with load(new_bundle) as hasher:
        assert seen[1].result.code == hasher.encode([FRAME])[0].tobytes() != seen[0].result.code


def test_what_is_enrolled_goes_into_the_new_index(gallery: Path) -> None:
    feed, count = Feed([FRAME]), 0
    settings = SiteSettings("0", enroll="moth")
    with Pair(gallery) as pair, Site(settings, pair, source=feed) as site:
        for sighting in site:
            assert sighting.enrolled is not None
            count += 1
            if count == 1:
                switch(gallery)
            else:
                site.close()
            feed.push(255 - FRAME)
    with Index.open(gallery) as index:
        assert [item.label for item in index.items()] == ["new", "moth"]
    with Index.open(gallery.with_name("old.fgi")) as index:
        assert [item.label for item in index.items()] == ["old", "moth"]


def test_a_frame_whose_index_is_replaced_that_moment_is_in_neither(gallery: Path) -> None:
    with Pair(gallery) as pair:
        enroller = Enroller(pair, "moth")
        switch(gallery)
        assert enroller.enrol(result(b"\x01\x10")) is None
        assert (enroller.enrolled, enroller.missed) == (0, 1)
        pair.refresh()
        assert enroller.enrol(result(b"\x01\x10")) is not None


def test_an_index_is_made_to_enrol_and_removed_where_nothing_came(
    tmp_path: Path, toy_bundle: Path
) -> None:
    path = tmp_path / "new.fgi"
    loaded = []

    def opened(found: Path | None) -> Hasher:
        loaded.append(found)
        return load(found or toy_bundle)

    with pair_for(path, None, opened, enrolls=True) as pair, Index.open(path) as index:
        assert index.bundle == toy_bundle
    assert not path.exists() and loaded == [None]
    with pair_for(path, toy_bundle, opened, enrolls=True) as pair, pair.using() as both:
        both.index.add([Item("a", b"\x01\x10")])
    with pair_for(path, None, opened, enrolls=False) as pair, pair.using() as both:
        assert len(both.index) == 1
    none = pair_for(tmp_path / "none.fgi", toy_bundle, opened, enrolls=False)
    with refused(IndexStoreError, "no index at"), none:
        pass


def test_closed_before_it_began_it_gives_nothing(gallery: Path) -> None:
    with Pair(gallery) as pair, Site(SiteSettings("0"), pair, source=Feed()) as site:
        site.close()
        assert list(site) == []
