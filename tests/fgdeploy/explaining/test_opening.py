"""Which model looks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fgdeploy
from fgdeploy.bundle import BlockRows
from fgdeploy.core.errors import BundleError, CheckpointError, ImageError, UsageError
from fgdeploy.explaining import Opening, by_pytorch, open_looker
from fgdeploy.explaining.by_graph import GraphLooker
from fgdeploy.explaining.opening import tokens_go
from tests.checks import refused
from tests.conftest import toy_manifest
from tests.fgdeploy.explaining.showing import quarters, write_showing_bundle


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says what it looked at: do not write into it."""
    return write_showing_bundle(tmp_path_factory.mktemp("bundles") / "showing.fgd")


def _asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let the PyTorch model be no more than a note of what it was asked for."""
    notes: list[object] = []
    for name in ("of_bundle", "of_training"):
        monkeypatch.setattr(by_pytorch, name, lambda *given, name=name: notes.append((name, given)))
    return notes


def test_a_graph_that_says_all_is_asked_itself(
    showing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = _asked(monkeypatch)
    for opening in (Opening(), Opening("maps"), Opening(backend="openvino")):
        with open_looker(showing, opening) as looker:
            assert isinstance(looker, GraphLooker)
    assert notes == []


@pytest.mark.parametrize(
    "opening", [Opening("tokens"), Opening("rollout"), Opening(checkpoint=Path("run"))]
)
def test_for_all_else_the_pytorch_model_is(
    showing: Path, opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = _asked(monkeypatch)
    open_looker(showing, opening)
    assert len(notes) == 1


def test_where_tokens_go_too_the_pytorch_model_is_asked_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = _asked(monkeypatch)
    path = write_showing_bundle(tmp_path / "s.fgd", blocks=toy_manifest().blocks)
    open_looker(path, Opening())
    with open_looker(path, Opening("maps")) as looker:
        assert isinstance(looker, GraphLooker)
    assert len(notes) == 1


def test_whether_tokens_go() -> None:
    plain = toy_manifest()

    def runs(*rows: tuple[int, int]) -> bool:
        blocks = tuple(BlockRows(number, count, 5, 5, 5, 5) for number, count in rows)
        return tokens_go(dataclasses.replace(plain, blocks=blocks))

    assert runs((1, 5), (2, 3))
    assert not runs((1, 5), (2, 5))
    assert not runs((1, 9), (2, 9), (1, 5), (2, 5))  # a second look at fewer rows


def test_python_api(showing: Path, tmp_path: Path) -> None:
    chooser = np.random.default_rng(0)
    images = [chooser.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(2)]
    found = fgdeploy.explain(showing, images)
    assert [one.name for one in found] == ["photo 1", "photo 2"]
    for one in found:
        assert one.frame.shape == (32, 32, 3)
        np.testing.assert_allclose(one.seen.maps["similarity"], quarters(one.frame), rtol=1e-5)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    (named,) = fgdeploy.explain(str(showing), tmp_path / "a.png", "maps", backend="openvino")
    assert named.name == str(tmp_path / "a.png")
    np.testing.assert_array_equal(named.frame, found[0].frame)
    with refused(ImageError, "no such file"):
        fgdeploy.explain(showing, tmp_path / "none.jpg")


def test_mistakes(showing: Path, tmp_path: Path) -> None:
    with refused(UsageError, "^--as everything: expected one of tokens, maps, rollout$"):
        Opening("everything")
    words = "is told by its PyTorch model, not by an engine; leave out --backend"
    with refused(UsageError, words):
        open_looker(showing, Opening("rollout", backend="openvino"))
    with refused(BundleError, "none.fgd"):
        open_looker(tmp_path / "none.fgd", Opening())
    with refused(UsageError, "x is no bundle, so --checkpoint c has none to go with"):
        open_looker(tmp_path / "x", Opening(checkpoint=Path("c")))
    with refused(CheckpointError, "x"):
        open_looker(tmp_path / "x", Opening())
    told = write_showing_bundle(
        tmp_path / "t.fgd", weights={"source": "model.safetensors", "sha256": "ab" * 32}
    )
    words = "exported from, --checkpoint model.safetensors$"
    with refused(UsageError, words):
        open_looker(told, Opening("rollout"))
