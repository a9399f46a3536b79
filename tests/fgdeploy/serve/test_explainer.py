"""What the model looked at, over HTTP: held to `fgdeploy.explain`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.explaining import explain
from fgdeploy.explaining.explanation import Seen
from fgdeploy.explaining.looker import Looker
from fgdeploy.hasher import load
from fgdeploy.retrieval import Index
from fgdeploy.serve.app import create_app
from fgdeploy.serve.explainer import WAITING, Explainer, as_json
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.service import Service
from tests.checks import refused
from tests.conftest import toy_manifest
from tests.fgdeploy.explaining.showing import write_showing_bundle
from tests.fgdeploy.serve.asking import WAIT, Inside, photo, told
from tests.fgdeploy.serve.conftest import Served


@pytest.fixture
def showing(tmp_path: Path) -> Iterator[tuple[Path, Inside]]:
    """A bundle whose graph gives a map and a box, and a client of its service."""
    bundle = write_showing_bundle(tmp_path / "showing.fgd")
    hasher = load(bundle, "onnxruntime", threads=1)
    with Service(hasher, explainer=Explainer.open(hasher)) as service:
        yield bundle, Inside(create_app(service))


def test_it_says_what_the_library_says(showing: tuple[Path, Inside]) -> None:
    bundle, ask = showing
    assert ask("GET", "/about").json()["unexplained"] is None
    answer = ask.image("/explain", photo(3))
    assert answer.status_code == 200, answer.text
    assert answer.json() == as_json(explain(bundle, photo(3))[0])
    captions = [panel["caption"] for panel in answer.json()["panels"]]
    assert captions[0] == "photo" and captions[1].startswith("similarity")
    told(ask.image("/explain", b"no image"), 422, "image")
    told(ask.image("/explain?k=3", photo(3)), 422, "usage", "known are: none")


def test_without_it_the_service_says_so(served: Served) -> None:
    told(served.ask.image("/explain", photo(0)), 404, "no_explanation", "without --explain")


def test_an_explanation_of_another_model_is_refused(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    with load(write_showing_bundle(tmp_path / "other.fgd"), "onnxruntime") as other:
        explainer = Explainer.open(other)
    explainer.fingerprint = "00" * 32
    served = serve(explainer=explainer)
    assert "was replaced" in served.ask("GET", "/about").json()["unexplained"]
    told(served.ask.image("/explain", photo(0)), 404, "no_explanation", "model was replaced")


def test_a_bundle_that_needs_its_checkpoint_is_told_at_the_start(tmp_path: Path) -> None:
    weights = {"source": "run/best.pth", "sha256": "ab" * 32}
    blocks = toy_manifest().blocks  # tokens go, and the graph does not say which
    bundle = write_showing_bundle(tmp_path / "t.fgd", weights=weights, blocks=blocks)
    with load(bundle, "onnxruntime") as hasher, refused(UsageError, "--checkpoint run/best.pth"):
        Explainer.open(hasher)


class _Held(Looker):
    def __init__(self, looker: Looker) -> None:
        self.preprocess, self._looker = looker.preprocess, looker
        self.gate = threading.Event()

    def describe(self) -> str:
        return "held"

    def look(self, frames: npt.NDArray[np.uint8]) -> list[Seen]:
        assert self.gate.wait(WAIT)
        return self._looker.look(frames)

    def close(self) -> None:
        self._looker.close()


def test_few_may_wait(tmp_path: Path) -> None:
    from fgdeploy.explaining import Opening, open_looker

    bundle = write_showing_bundle(tmp_path / "showing.fgd")
    held = _Held(open_looker(bundle, Opening()))
    with Explainer(held, "ab") as explainer:
        frame = explainer.frame(photo(0))
        waiting = [explainer.explain(frame) for _ in range(WAITING)]
        with refused(Refusal, "other explanations are under way"):
            explainer.explain(frame)
        held.gate.set()
        assert len({str(one.result(WAIT)) for one in waiting}) == 1
        assert len(explainer.explain(frame).result(WAIT)["panels"]) == 3


def test_an_index_does_not_matter(tmp_path: Path) -> None:
    hasher = load(write_showing_bundle(tmp_path / "showing.fgd"), "onnxruntime", threads=1)
    index = Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits)
    with Service(hasher, index, explainer=Explainer.open(hasher)) as service:
        ask = Inside(create_app(service))
        assert ask.image("/explain", photo(1)).status_code == 200
