"""Routes for those who look at a gallery: thumbnails, labels, explanations, what is on offer."""

from __future__ import annotations

import hashlib
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fgdeploy.serve import openapi_parts as parts
from fgdeploy.serve.route_parts import (
    PLAIN,
    Number,
    answered,
    image_of,
    json_answer,
    known_only,
    service_of,
)
from fgdeploy.serve.service import MOST_ANSWERS
from fgdeploy.serve.uploads import require_image

ROUTES = APIRouter(default_response_class=Response)

_JPEG = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}
_KEPT = "private, max-age=31536000, immutable"


@ROUTES.get(
    "/items/{number}/thumbnail",
    summary="The thumbnail of an item",
    responses={
        **parts.answers({}, 404, 503),
        200: {"description": "A JPEG that the index keeps.", "content": _JPEG},
        304: {"description": "As the client has it (If-None-Match)."},
    },
)
async def get_thumbnail(
    request: Request,
    number: Number,
    sha256: Annotated[
        str | None,
        Query(
            pattern="^[0-9a-f]{64}$",
            description="Only the one of this photo; clients may keep such an answer for ever.",
        ),
    ] = None,
) -> Response:
    """Return the thumbnail of an item, where the index keeps thumbnails."""
    known_only(request)
    jpeg = await answered(request, service_of(request).thumbnail(number, sha256))
    tag = f'"{hashlib.sha256(jpeg).hexdigest()[:32]}"'
    headers = {
        **PLAIN,
        "etag": tag,
        "cache-control": "private, no-cache" if sha256 is None else _KEPT,
        "cross-origin-resource-policy": "same-origin",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(jpeg, headers=headers, media_type="image/jpeg")


@ROUTES.get(
    "/labels",
    summary="Labels and how many items have each",
    responses=parts.answers({200: ("The labels, the most frequent first.", "Labels")}, 404, 503),
)
async def list_labels(
    request: Request,
    limit: Annotated[
        int, Query(ge=1, le=MOST_ANSWERS, description="How many labels at most.")
    ] = MOST_ANSWERS,
) -> Response:
    """Return the labels of the items; `more` says whether there are others."""
    known_only(request)
    found = await answered(request, service_of(request).labels(limit))
    labels = [{"label": label, "items": count} for label, count in found.counts.items()]
    return json_answer({"labels": labels, "unlabelled": found.unlabelled, "more": found.more})


@ROUTES.post(
    "/explain",
    summary="What the model looked at in an image",
    responses=parts.answers(
        {200: ("Pictures with captions, the image first.", "Explained")},
        *(404, 408, 413, 415, 429, 503),
    ),
    openapi_extra=parts.image_body(),
)
async def explain_image(request: Request) -> Response:
    """Return which patches the network kept of the image in the body, or what else it shows.

    Only of a service that was started with --explain.
    """
    known_only(request)
    require_image(request)
    service, start = service_of(request), time.monotonic()
    with request.app.state.uploads.admitted():
        found = await answered(request, service.explain(await image_of(request)))
    took = 1000 * (time.monotonic() - start)
    return json_answer(found, headers={"server-timing": f"total;dur={took:.2f}"})


@ROUTES.get(
    "/about",
    summary="What the service offers",
    responses=parts.answers({200: ("Model, and what can be asked.", "About")}, 503),
)
async def about(request: Request) -> Response:
    """Return the model and what can be asked of the service."""
    known_only(request)
    return json_answer(await answered(request, service_of(request).about()))
