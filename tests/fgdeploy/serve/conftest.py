"""A service on the toy bundle with an index, and a client for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from fgdeploy.hasher import load
from fgdeploy.retrieval import Index
from fgdeploy.serve.app import create_app
from fgdeploy.serve.explainer import Explainer
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.service import Service
from tests.fgdeploy.serve.asking import Inside


@dataclass
class Served:
    """A service and a client of its application."""

    service: Service
    ask: Inside


@pytest.fixture
def serve(toy_bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Makes services; index: whether with one; explainer: what explains. Settings by name."""
    with ExitStack() as stack:

        def make(
            index: bool = True, explainer: Explainer | None = None, **settings: object
        ) -> Served:
            hasher = load(toy_bundle, "onnxruntime", threads=1, batch=4)
            place = tmp_path / "gallery.fgi"
            gallery = None
            if index:
                gallery, _ = Index.open_or_create(place, hasher.fingerprint, hasher.bits)
            allowed = ServeSettings(**settings)  # type: ignore[arg-type]
            service = stack.enter_context(Service(hasher, gallery, allowed, None, explainer))
            return Served(service, Inside(create_app(service)))

        yield make


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    """A service with an empty index."""
    return serve()
