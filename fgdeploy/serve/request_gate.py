"""The door of the service: who may ask, and one answer for every end of a request."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fgdeploy.core.text import one_line
from fgdeploy.live.events import LOG, tell
from fgdeploy.serve.page_files import is_of_page
from fgdeploy.serve.refusals import Refusal, body_of, refusal_of
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.service_metrics import ServiceMetrics

_OPEN = "/healthz"
_READING = ("GET", "HEAD", "OPTIONS")
_DRAIN_S = 2.0  # that a client is listened to after its answer, so that it can read that


class RequestGate:
    """ASGI middleware: checks name, origin and key, counts, logs, and answers what failed."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: ServiceMetrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._key = None if settings.api_key is None else _digest(settings.api_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, told)
        except Exception as error:
            refusal, unsaid = refusal_of(error)
            if unsaid:
                what = f"{type(error).__name__}: {error}"
                tell("request_failed", logging.ERROR, status=refusal.status, error=one_line(what))
                LOG.debug("request failed", exc_info=True)
            if not status:
                await send_refusal(refusal, receive, told)
        finally:
            self._note(scope, status, time.monotonic() - start)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        known = scope["method"] in (*_READING, "POST", "DELETE", "PUT", "PATCH")
        method = scope["method"] if known else "other"
        self._metrics.count(route, method, status)
        tell("request", logging.DEBUG, route=route, method=method, status=status, seconds=seconds)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        reads = scope["method"] in _READING
        own = self._settings.page and reads and is_of_page(path)
        self._check_name(headers)
        if not (own and path == "/" and headers.get(b"sec-fetch-mode") == b"navigate"):
            self._check_origin(headers)
        if self._key is not None and path != _OPEN and not own:
            self._check_key(self._key, headers)

    def _check_name(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse names that are not the service's: a page of a foreign name may mean this one."""
        hosts = self._settings.hosts
        if hosts is not None and _name(headers.get(b"host", b"").decode("latin-1")) not in hosts:
            raise Refusal(421, "host", "the service is not known by this name (Host)", close=True)

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what a page of another site sends, all but the way to the page itself.

        Reading too: whether a picture loads would tell what the index holds.
        """
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        own = origin is None or urlsplit(origin.decode("latin-1")).netloc.encode(
            "latin-1"
        ) == headers.get(b"host")
        if not own or site not in (None, b"same-origin", b"none"):
            words = "pages of other sites may not use the service (Origin, Sec-Fetch-Site)"
            raise Refusal(403, "cross_site", words, close=True)

    def _check_key(self, key: bytes, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if not given and scheme.lower() == b"bearer":
            given = token.strip()
        if not hmac.compare_digest(_digest(given), key):
            words = "expected the service's API key, in Authorization: Bearer or X-API-Key"
            raise Refusal(401, "api_key", words, {"www-authenticate": "Bearer"}, close=True)


async def send_refusal(refusal: Refusal, receive: Receive, send: Send) -> None:
    """Send a refusal; where it closes the connection, read on a little before that.

    Else a client that is still sending would lose the answer to the reset of its connection.
    """
    body = body_of(str(refusal), refusal.kind)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **({"connection": "close"} if refusal.close else {}),
        **refusal.headers,
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": refusal.close})
    if refusal.close:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drain(receive), _DRAIN_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    while True:
        message: Any = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
