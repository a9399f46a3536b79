"""The HTTP application: routes over a `Service`, to run or to mount in another application."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import Future
from typing import Annotated, Any, NoReturn, TypeVar

from fgdeploy import __version__
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.core.text import shown

try:
    from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.openapi.utils import get_openapi
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise MissingDependency("fastapi", "serve", "the service") from error

from fgdeploy.retrieval import Item
from fgdeploy.serve import openapi_parts as parts
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.request_gate import RequestGate
from fgdeploy.serve.service import MOST_ANSWERS, TEXT, Asked, HashedUpload, Nearest, Service
from fgdeploy.serve.service_metrics import TYPE, ServiceMetrics
from fgdeploy.serve.uploads import (
    JSON_BYTES,
    UploadGate,
    is_image,
    json_of,
    read_body,
    require_image,
    require_json,
)

_MOST_ID = 2**62
_DECODING = 8  # images that may be decoded beside those that wait and run

_Result = TypeVar("_Result")

Count = Annotated[int, Query(ge=1, le=MOST_ANSWERS, description="How many answers at most.")]
Radius = Annotated[
    int | None, Query(ge=0, le=65_535, description="Only answers within so many bits.")
]
Label = Annotated[
    str | None, Query(min_length=1, max_length=TEXT, description="Only items with this label.")
]
Where = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=TEXT,
        description="Only items for which this SQL holds; off unless started --allow-where.",
    ),
]
Number = Annotated[int, Path(ge=0, le=_MOST_ID, description="The id of an item.")]


def create_app(service: Service) -> FastAPI:
    """Return the application, with the limits of the service's settings. It closes nothing.

    It can be mounted in another one; then that application's server bounds headers and idle
    connections. GET /openapi.json describes it; no page loads anything from other hosts.
    """
    app = FastAPI(
        title="fgdeploy",
        version=__version__,
        summary="Hash images, search a gallery, add to it.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    worker = service.worker
    gate = UploadGate(service.settings.waiting + worker.hasher.batch + _DECODING)
    metrics = ServiceMetrics(service, gate)
    app.state.service, app.state.uploads, app.state.metrics = service, gate, metrics
    app.add_middleware(RequestGate, settings=service.settings, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _wrong_value)
    app.add_exception_handler(HTTPException, _unknown_route)
    app.include_router(_routes)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


_routes = APIRouter(default_response_class=Response)
_UPLOAD = (408, 413, 415, 429, 503)


@_routes.post(
    "/hash",
    summary="The code of one image",
    responses=parts.answers({200: ("The code.", "Code")}, *_UPLOAD),
    openapi_extra=parts.image_body(),
)
async def hash_image(request: Request) -> Response:
    """Return the hash code of the image in the body."""
    _known_only(request)
    require_image(request)
    service, start = _service(request), time.monotonic()
    with request.app.state.uploads.admitted():
        image = await _image(request)
        hashed = await _answered(request, service.hash(image))
    _timed(request, hashed, start)
    model = hashed.model
    return _json({"code": hashed.code.hex(), "bits": model.bits, "model": model.fingerprint})


@_routes.post(
    "/search",
    summary="What is like an image, a code or an item",
    responses=parts.answers({200: ("The nearest items.", "Nearest")}, 404, *_UPLOAD),
    openapi_extra=parts.image_body(also_json=True),
)
async def search_items(
    request: Request,
    k: Count = 10,
    radius: Radius = None,
    label: Label = None,
    where: Where = None,
) -> Response:
    """Return the k nearest items by (distance, id), of an image, or of {"code": hex} or {"id": n}.

    With a radius those of them that are within it; `complete` says whether that is all there are.
    """
    _known_only(request)
    service, start = _service(request), time.monotonic()
    asked = Asked(k, radius, label, where)
    service.check(asked)
    if is_image(request):
        with request.app.state.uploads.admitted():
            image = await _image(request)
            found = await _answered(request, service.search(image, asked))
    else:
        require_json(request)
        query = json_of(await read_body(request, JSON_BYTES, service.settings.timeout_s))
        found = await _answered(request, _by_json(service, query, asked))
    _timed(request, found.hashed, start, found)
    return _json(_nearest(found))


def _by_json(service: Service, query: dict[str, Any], asked: Asked) -> Future[Nearest]:
    match query:
        case {"code": str(code)} if len(query) == 1:
            return service.search_code(code, asked)
        case {"id": int(number)} if len(query) == 1 and not isinstance(query["id"], bool):
            if 0 <= number <= _MOST_ID:
                return service.search_item(number, asked)
    raise UsageError('expected {"code": "hex digits"} or {"id": number}, one of the two')


@_routes.post(
    "/items",
    summary="Add an image",
    status_code=201,
    responses=parts.answers(
        {
            200: ("It was there already, or changed.", "Enrolled"),
            201: ("Added, and safe on the disk.", "Enrolled"),
        },
        404,
        409,
        *_UPLOAD,
    ),
    openapi_extra=parts.image_body(),
)
async def add_item(
    request: Request,
    label: Annotated[
        str | None, Query(min_length=1, max_length=TEXT, description="What the image shows.")
    ] = None,
    uri: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=TEXT,
            description="What the item is called, such as camera://yard/2026-01-31T12:00:00Z.",
        ),
    ] = None,
) -> Response:
    """Add the image in the body to the index; it is on the disk when this is answered.

    An item is the one of its URI, else of its content. Sending it again does no harm.
    """
    _known_only(request)
    require_image(request)
    service, start = _service(request), time.monotonic()
    service.check_new(label, uri)
    with request.app.state.uploads.admitted():
        image = await _image(request)
        enrolled = await _answered(request, service.add(image, label, uri))
    _timed(request, enrolled.hashed, start)
    answer = {"status": enrolled.status, "item": _as_json(enrolled.item)}
    return _json(answer, 201 if enrolled.status == "new" else 200)


@_routes.get(
    "/items",
    summary="List items",
    responses=parts.answers({200: ("A page of items, by id.", "Items")}, 404, 503),
)
async def list_items(
    request: Request,
    limit: Count = 100,
    after: Annotated[
        int, Query(ge=-1, le=_MOST_ID, description="Only items with larger ids.")
    ] = -1,
    label: Label = None,
    where: Where = None,
) -> Response:
    """Return items in order of id, a page at a time."""
    _known_only(request)
    asked = Asked(limit, None, label, where)
    found = await _answered(request, _service(request).items(asked, after))
    more = found[-1].id if len(found) == limit else None
    return _json({"items": [_as_json(item) for item in found], "next": more})


@_routes.get(
    "/items/{number}",
    summary="One item",
    responses=parts.answers({200: ("The item.", "Item")}, 404, 503),
)
async def get_item(request: Request, number: Number) -> Response:
    """Return an item."""
    _known_only(request)
    return _json(_as_json(await _answered(request, _service(request).item(number))))


@_routes.delete(
    "/items/{number}",
    summary="Remove an item",
    responses=parts.answers({200: ("The item that was removed.", "Item")}, 404, 503),
)
async def remove_item(request: Request, number: Number) -> Response:
    """Remove an item; it is gone from the disk when this is answered."""
    _known_only(request)
    return _json(_as_json(await _answered(request, _service(request).remove(number))))


@_routes.get(
    "/healthz",
    summary="Whether the process lives",
    responses=parts.answers({200: ("It does.", "State")}),
)
async def healthz(request: Request) -> Response:
    """Answer at once, without a key."""
    return _json({"state": "alive"})


@_routes.get(
    "/readyz",
    summary="Whether it can answer",
    responses=parts.answers({200: ("It can.", "State")}, 503),
)
async def readyz(request: Request) -> Response:
    """Return what answers, or 503 and why nothing does."""
    service = _service(request)
    state = await _answered(request, service.state())
    return _json(state)


@_routes.get(
    "/metrics",
    summary="Prometheus metrics",
    responses={
        **parts.answers({}, 503),
        200: {"description": "Text format.", "content": {"text/plain": {"schema": parts.STRING}}},
    },
)
async def metrics(request: Request) -> Response:
    """Return counters, times and states in Prometheus' text format."""
    found = await _answered(request, _service(request).reading(request.app.state.metrics.text))
    return Response(found, media_type=TYPE)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _image(request: Request) -> bytes:
    settings = _service(request).settings
    return await read_body(request, settings.upload_bytes, settings.timeout_s)


async def _answered(request: Request, future: Future[_Result]) -> _Result:
    """Wait for what other threads do. Raises Refusal when it takes too long."""
    seconds = _service(request).settings.timeout_s
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
    except asyncio.TimeoutError:
        words = f"no answer within {seconds:g} s; send it again later"
        raise Refusal(503, "timeout", words, {"retry-after": "1"}) from None


def _timed(
    request: Request, hashed: HashedUpload | None, start: float, found: Nearest | None = None
) -> None:
    stages = {} if hashed is None else dict(hashed.latency)
    if found is not None:
        stages["search"] = found.took
    stages["total"] = time.monotonic() - start
    request.app.state.metrics.time(stages, 0 if hashed is None else hashed.together)


def _json(value: Any, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")


def _as_json(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "label": item.label,
        "path": item.path,
        "time": item.time,
        "sha256": item.sha256,
        "code": item.code.hex(),
    }


def _nearest(found: Nearest) -> dict[str, Any]:
    hits = [
        {
            "rank": hit.rank,
            "distance": hit.distance,
            "id": hit.id,
            "label": hit.label,
            "path": hit.path,
        }
        for hit in found.hits
    ]
    complete = {} if found.complete is None else {"complete": found.complete}
    return {"code": found.code.hex(), "hits": hits, **complete}


def _known_only(request: Request) -> None:
    """Refuse query parameters that a route has not, or that are given twice."""
    if not request.scope["query_string"]:
        return
    known = {one.alias for one in request.scope["route"].dependant.query_params}
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            wanted = ", ".join(sorted(known)) or "none"
            raise UsageError(f"unknown parameter {shown(repr(name))}; known are: {wanted}")
        if names.count(name) > 1:
            raise UsageError(f"the parameter {name} is given more than once; give it once")


async def _wrong_value(request: Request, error: Exception) -> NoReturn:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    raise Refusal(422, "usage", f"{shown(where)}: {first['msg']}")


async def _unknown_route(request: Request, error: Exception) -> NoReturn:
    assert isinstance(error, HTTPException)
    kinds = {404: "unknown_route", 405: "method"}
    words = f"{str(error.detail).lower()}; see: /openapi.json"
    kind = kinds.get(error.status_code, "usage")
    raise Refusal(error.status_code, kind, words, error.headers)


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        components = found.setdefault("components", {})
        components["schemas"] = {**components.get("schemas", {}), **parts.SCHEMAS}
        components["securitySchemes"] = parts.KEYS
        found["security"] = [{}, *({name: []} for name in parts.KEYS)]
        app.openapi_schema = found
    return app.openapi_schema
