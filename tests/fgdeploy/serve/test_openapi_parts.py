"""What the OpenAPI document promises, asked for at random: schemathesis with real images."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from fgdeploy.hasher import load
from fgdeploy.serve.explainer import Explainer
from tests.checks import examples
from tests.fgdeploy.explaining.showing import write_showing_bundle
from tests.fgdeploy.serve.asking import photo
from tests.fgdeploy.serve.conftest import Served

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
_IMAGES = st.one_of(st.integers(0, 20).map(photo), st.binary(max_size=200))
for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, _IMAGES)


def test_every_answer_is_as_the_document_says(
    serve: Callable[..., Served], toy_bundle: Path, tmp_path: Path
) -> None:
    showing = load(write_showing_bundle(tmp_path / "showing.fgd"), "onnxruntime", threads=1)
    with showing:
        explainer = Explainer.open(showing)
    with load(toy_bundle, "onnxruntime", threads=1) as hasher:
        explainer.fingerprint = hasher.fingerprint
    served = serve(filters=True, explainer=explainer)
    served.service.index.thumbnails.keep()
    for seed in range(6):
        served.ask.image(f"/items?label=kind{seed % 2}&uri=cam://{seed}", photo(seed))
    statuses: set[tuple[str, int]] = set()
    document = schemathesis.openapi.from_dict(served.ask("GET", "/openapi.json").json())
    document.app = served.ask.app
    for found, mode in itertools.product(document.get_all_operations(), GenerationMode):
        operation = found.ok()

        @settings(
            examples(45),
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case: schemathesis.Case) -> None:
            answer = case.call(base_url="http://127.0.0.1:8000")
            statuses.add((case.operation.label, answer.status_code))
            case.validate_response(answer, checks=_CHECKS)

        with contextlib.suppress(Unsatisfiable):  # a route that takes nothing cannot be misused
            hold()
    assert {status for _, status in statuses} >= {200, 201, 404, 422}, statuses
    for route in ("GET /labels", "GET /about", "POST /explain", "GET /"):
        assert (route, 200) in statuses, route
    assert not {status for _, status in statuses if status >= 500}
