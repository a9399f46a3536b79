"""The HTTP application: routes over a `Service`, to run or to mount in another application."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Annotated, Any, NoReturn

from fgdeploy import __version__
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.core.text import shown

try:
    from fastapi import APIRouter, FastAPI, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.openapi.utils import get_openapi
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise MissingDependency("fastapi", "serve", "the service") from error

from fgdeploy.serve import gallery_routes, page_files
from fgdeploy.serve import openapi_parts as parts
from fgdeploy.serve.index_requests import TEXT, Asked, Nearest
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.request_gate import RequestGate
from fgdeploy.serve.route_parts import (
    MOST_ID,
    Number,
    answered,
    as_json,
    image_of,
    json_answer,
    known_only,
    nearest_as_json,
    service_of,
    timed,
)
from fgdeploy.serve.service import MOST_ANSWERS, Service
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

_DECODING = 8  # images that may be decoded beside those that wait and run

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
Since = Annotated[
    str | None,
    Query(min_length=1, max_length=64, description="Only items of this time or later, ISO 8601."),
]
Full = Annotated[
    bool, Query(description="Also give time and sha256, and whether there is a thumbnail.")
]
Until = Annotated[
    str | None,
    Query(min_length=1, max_length=64, description="Only items from before this time, ISO 8601."),
]


def create_app(service: Service) -> FastAPI:
    """Return the application, with the limits of the service's settings. It closes nothing.

    It can be mounted in another one; then that application's server bounds headers and idle
    connections. GET /openapi.json describes it; GET / is the page, which loads nothing from other
    hosts.
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
    app.include_router(gallery_routes.ROUTES)
    if service.settings.page:
        app.include_router(page_files.ROUTES)
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
    known_only(request)
    require_image(request)
    service, start = service_of(request), time.monotonic()
    with request.app.state.uploads.admitted():
        image = await image_of(request)
        hashed = await answered(request, service.hash(image))
    model, times = hashed.model, timed(request, hashed, start)
    answer = {"code": hashed.code.hex(), "bits": model.bits, "model": model.fingerprint}
    return json_answer(answer, headers=times)


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
    since: Since = None,
    until: Until = None,
    full: Full = False,
) -> Response:
    """Return the k nearest items by (distance, id), of an image, or of {"code": hex} or {"id": n}.

    With a radius those of them that are within it; `complete` says whether that is all there are.
    """
    known_only(request)
    service, start = service_of(request), time.monotonic()
    asked = Asked(k, radius, label, where, since, until, full)
    service.check(asked)
    if is_image(request):
        with request.app.state.uploads.admitted():
            image = await image_of(request)
            found = await answered(request, service.search(image, asked))
    else:
        require_json(request)
        query = json_of(await read_body(request, JSON_BYTES, service.settings.timeout_s))
        found = await answered(request, _by_json(service, query, asked))
    times = timed(request, found.hashed, start, found)
    return json_answer(nearest_as_json(found), headers=times)


def _by_json(service: Service, query: dict[str, Any], asked: Asked) -> Future[Nearest]:
    match query:
        case {"code": str(code)} if len(query) == 1:
            return service.search_code(code, asked)
        case {"id": int(number)} if len(query) == 1 and not isinstance(query["id"], bool):
            if 0 <= number <= MOST_ID:
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
    known_only(request)
    require_image(request)
    service, start = service_of(request), time.monotonic()
    service.check_new(label, uri)
    with request.app.state.uploads.admitted():
        image = await image_of(request)
        enrolled = await answered(request, service.add(image, label, uri))
    times = timed(request, enrolled.hashed, start)
    answer = {"status": enrolled.status, "item": as_json(enrolled.item)}
    return json_answer(answer, 201 if enrolled.status == "new" else 200, times)


@_routes.get(
    "/items",
    summary="List items",
    responses=parts.answers({200: ("A page of items, by id.", "Items")}, 404, 503),
)
async def list_items(
    request: Request,
    limit: Count = 100,
    after: Annotated[int, Query(ge=-1, le=MOST_ID, description="Only items with larger ids.")] = -1,
    label: Label = None,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    full: Full = False,
) -> Response:
    """Return items in order of id, a page at a time."""
    known_only(request)
    asked = Asked(limit, None, label, where, since, until, full)
    found = await answered(request, service_of(request).items(asked, after))
    more = found.items[-1].id if len(found.items) == limit else None
    items = [as_json(item, found.pictured) for item in found.items]
    return json_answer({"items": items, "next": more})


@_routes.get(
    "/items/{number}",
    summary="One item",
    responses=parts.answers({200: ("The item.", "Item")}, 404, 503),
)
async def get_item(request: Request, number: Number) -> Response:
    """Return an item."""
    known_only(request)
    return json_answer(as_json(await answered(request, service_of(request).item(number))))


@_routes.delete(
    "/items/{number}",
    summary="Remove an item",
    responses=parts.answers({200: ("The item that was removed.", "Item")}, 404, 503),
)
async def remove_item(request: Request, number: Number) -> Response:
    """Remove an item; it is gone from the disk when this is answered."""
    known_only(request)
    return json_answer(as_json(await answered(request, service_of(request).remove(number))))


@_routes.get(
    "/healthz",
    summary="Whether the process lives",
    responses=parts.answers({200: ("It does.", "State")}),
)
async def healthz(request: Request) -> Response:
    """Answer at once, without a key."""
    return json_answer({"state": "alive"})


@_routes.get(
    "/readyz",
    summary="Whether it can answer",
    responses=parts.answers({200: ("It can.", "State")}, 503),
)
async def readyz(request: Request) -> Response:
    """Return what answers, or 503 and why nothing does."""
    service = service_of(request)
    state = await answered(request, service.state())
    return json_answer(state)


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
    found = await answered(request, service_of(request).reading(request.app.state.metrics.text))
    return Response(found, media_type=TYPE)


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
