"""The page at GET /: files of this package that load nothing from other hosts."""

from __future__ import annotations

import hashlib
import importlib.resources
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from fgdeploy.serve import openapi_parts as parts
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.route_parts import PLAIN, known_only

ROUTES = APIRouter(default_response_class=Response)

_START = "index.html"
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Scripts, styles and requests are the service's own; no text becomes markup (Trusted Types).
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    **PLAIN,
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "cache-control": "no-cache",
}


@lru_cache(maxsize=1)
def files() -> dict[str, bytes]:
    """Return the files of the page by name, read once. Nothing else can be asked for."""
    folder = importlib.resources.files("fgdeploy.serve") / "page"
    return {
        one.name: one.read_bytes()
        for one in folder.iterdir()
        if one.name.rpartition(".")[2] in _TYPES
    }


def is_of_page(path: str) -> bool:
    """Return whether a path, from the root of the service, is the page's: it holds no data."""
    return path == "/" or (path.startswith("/page/") and path[len("/page/") :] in files())


def _documented(what: str, *kinds: str) -> dict[int | str, dict[str, object]]:
    content = {kind: {"schema": parts.STRING} for kind in kinds}
    found: dict[int | str, dict[str, object]] = {**parts.answers({}, 404)}
    found[200] = {"description": what, "content": content}
    found[304] = {"description": "As the client has it (If-None-Match)."}
    return found


@ROUTES.get("/", summary="The page", responses=_documented("HTML.", "text/html"))
async def page(request: Request) -> Response:
    """Return the page for people: search by photo, look, add and remove."""
    return _file(request, _START)


@ROUTES.get(
    "/page/{name}",
    summary="A file of the page",
    responses=_documented("Style, script or picture.", *_TYPES.values()),
)
async def page_file(
    request: Request, name: Annotated[str, Path(description="Its name.")]
) -> Response:
    """Return a file that the page loads."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    known_only(request)
    body = files().get(name)
    if body is None:
        raise Refusal(404, "unknown_route", "the page has no such file")
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])
