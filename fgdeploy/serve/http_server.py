"""The service on a socket: bound before anything is loaded, ended by SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fgdeploy.core.errors import FgdeployError, MissingDependency, UsageError
from fgdeploy.live.service_manager import Heartbeat, ServiceManager
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.request_gate import send_refusal

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as error:
    raise MissingDependency("uvicorn[standard]", "serve", "the service") from error

_HEADERS_S = 10.0  # for a request's head, which uvicorn would wait for without end
_IDLE_S = 15  # that a connection may wait for its next request
_CONNECTIONS = 512
_GRACE_S = 1  # for requests under way when the service ends
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ListenError(FgdeployError):
    """An address that the service cannot listen at."""


def bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, which nobody can connect to yet; port 0 is a free one.

    Raises ListenError, UsageError for what is no address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise UsageError(f"--host {host} --port {port}: no address ({error})") from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            why = "another program listens there; choose another --port, or 0 for a free one"
        else:
            why = f"{error.strerror or error}; choose another --host or --port"
        raise ListenError(f"{host}:{port}: {why}") from None
    return listening


def address_of(listening: socket.socket) -> str:
    """Return the URL at which a bound socket can be reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then those under way have a second.

    app: of `create_app`. ready: called when the first request can come; the service manager is told
    too, and after that as long as frames that wait are answered. Call it in the main thread.
    """
    manager = ServiceManager()

    def begun() -> None:
        ready()
        manager.ready(f"at {address_of(listening)}")

    config = uvicorn.Config(
        _AnsweredAtEnd(app),
        http=_BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    try:
        with Heartbeat(manager, app.state.service.progress):
            _Server(config, begun, manager.stopping).run(sockets=[listening])
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """Ends at the first signal and is not killed by it after that, as uvicorn would have it."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], ending: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._ready, self._ending = ready, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        def end(number: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit  # the second time
            self.should_exit = True

        before = {number: signal.signal(number, end) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _AnsweredAtEnd:
    """Answers 503 where uvicorn, whose grace is over, would log a traceback and answer 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, told)
        except asyncio.CancelledError:  # uvicorn cancels for nothing else
            if not begun:
                words = "the service ends; send it again later"
                refusal = Refusal(503, "not_ready", words, {"retry-after": "1"})
                await send_refusal(refusal, receive, send)


class _BoundedProtocol(HttpToolsProtocol):
    """Closes connections that take too long with the head of a request."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._forget_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(_HEADERS_S, self.transport.close)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
