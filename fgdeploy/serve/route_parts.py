"""What routes share: the service of a request, its image, waiting, times, JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from typing import Annotated, Any, TypeVar

from fastapi import Path, Request, Response

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown
from fgdeploy.retrieval import Item
from fgdeploy.serve.index_requests import HashedUpload, Nearest
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.service import Service
from fgdeploy.serve.uploads import read_body

MOST_ID = 2**62
PLAIN = {"x-content-type-options": "nosniff"}  # labels and paths are anybody's text

_Result = TypeVar("_Result")

Number = Annotated[int, Path(ge=0, le=MOST_ID, description="The id of an item.")]


def service_of(request: Request) -> Service:
    """Return the service that answers a request."""
    service: Service = request.app.state.service
    return service


async def image_of(request: Request) -> bytes:
    """Read the image in a request's body. Raises Refusal."""
    settings = service_of(request).settings
    return await read_body(request, settings.upload_bytes, settings.timeout_s)


async def answered(request: Request, future: Future[_Result]) -> _Result:
    """Wait for what other threads do. Raises Refusal when it takes too long."""
    seconds = service_of(request).settings.timeout_s
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
    except asyncio.TimeoutError:
        words = f"no answer within {seconds:g} s; send it again later"
        raise Refusal(503, "timeout", words, {"retry-after": "1"}) from None


def timed(
    request: Request, hashed: HashedUpload | None, start: float, found: Nearest | None = None
) -> dict[str, str]:
    """Note the times of the stages, and return the header that tells them to the client."""
    stages = {} if hashed is None else dict(hashed.latency)
    if found is not None:
        stages["search"] = found.took
    stages["total"] = time.monotonic() - start
    request.app.state.metrics.time(stages, 0 if hashed is None else hashed.together)
    told = ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in stages.items())
    return {"server-timing": told}


def json_answer(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer in JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, {**PLAIN, **(headers or {})}, "application/json")


def as_json(item: Item, pictured: AbstractSet[int] | None = None) -> dict[str, Any]:
    """Return an item as clients see it; pictured: the ids of items that have a thumbnail."""
    shown = {} if pictured is None else {"thumbnail": item.id in pictured}
    return {
        "id": item.id,
        "label": item.label,
        "path": item.path,
        "time": item.time,
        "sha256": item.sha256,
        "code": item.code.hex(),
        **shown,
    }


def nearest_as_json(found: Nearest) -> dict[str, Any]:
    """Return a search's answer as clients see it."""
    hits: list[dict[str, Any]] = [
        {
            "rank": hit.rank,
            "distance": hit.distance,
            "id": hit.id,
            "label": hit.label,
            "path": hit.path,
        }
        for hit in found.hits
    ]
    if found.details is not None:
        for hit in hits:
            item = found.details.items.get(hit["id"])
            hit["time"] = None if item is None else item.time
            hit["sha256"] = None if item is None else item.sha256
            hit["thumbnail"] = hit["id"] in found.details.pictured
    complete = {} if found.complete is None else {"complete": found.complete}
    return {"code": found.code.hex(), "hits": hits, **complete}


def known_only(request: Request) -> None:
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
