"""A Milvus server of a test's own, from the package milvus: a real one, 2.3.5."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import shutil
import socket
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_STARTS, _START_S = 3, 40
# The etcd inside keeps the parts of a server that was killed for alive so long, 30 by default; the
# next one answers nobody until then.
_SESSION_S = 3
_TURN_S = 300


class NotBack(Exception):
    """A server that did not come up."""


class MilvusOfTests:
    """A server on a free port of this machine. address: of it, without a collection.

    options: of its configuration, such as authorization_enabled.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._package = pytest.importorskip("milvus", exc_type=ImportError)
        self._folder, self._options = folder, options
        self._port = _free_port()
        self.address = f"milvus://127.0.0.1:{self._port}"
        self._server: Any = None

    def start(self) -> None:
        """Start it and wait until a client is answered. Raises NotBack where none is.

        One that was killed may end again at its start, or wait for parts of itself that etcd still
        has for running: it is started anew then.
        """
        for _ in range(_STARTS):
            self._start_once()
            end = time.monotonic() + _START_S
            while time.monotonic() < end and self._server.server_proc.poll() is None:
                if self._is_healthy() and self._answers():
                    return
                time.sleep(0.1)
            self.kill()
            time.sleep(_SESSION_S)
        raise NotBack(f"Milvus answered nobody in {_STARTS} starts of {_START_S} s")

    def _start_once(self) -> None:
        self._server = self._package.MilvusServer(wait_for_started=False)
        self._server.set_base_dir(str(self._folder))
        self._server.listen_port = self._port
        self._server.webservice_port = _free_port()
        for name, value in self._options.items():
            self._server.config.set(name, value)
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patched:
            warnings.simplefilter("ignore", ResourceWarning)  # sockets of ports that it tries
            patched.setenv("COMMON_SESSION_TTL", str(_SESSION_S))
            self._server.start()
            gc.collect()

    def _answers(self) -> bool:
        from pymilvus import MilvusClient, MilvusException

        uri = self.address.replace("milvus://", "http://")
        try:
            options = {"grpc.use_local_subchannel_pool": 1}  # else it waits after failures
            client = MilvusClient(uri, timeout=2, dedicated=True, grpc_options=options)
            client.list_collections(timeout=2)
            client.close()
        except MilvusException:
            return False
        return True

    def _is_healthy(self) -> bool:
        address = f"http://127.0.0.1:{self._server.webservice_port}/healthz"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return b"OK" in answer.read()
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self._server is not None and self._server.server_proc is not None:
            self._server.server_proc.kill()
            self._server.server_proc.wait(timeout=30)
            self._server.stop()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Wait for other tests' servers: the etcd inside takes port 2380, whatever is configured."""
    with open(Path(tempfile.gettempdir()) / "fgdeploy-milvus.lock", "w") as lock:
        end = time.monotonic() + _TURN_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                assert time.monotonic() < end, "another Milvus of tests goes on for too long"
                time.sleep(0.2)
        yield


@contextlib.contextmanager
def milvus_server(**options: Any) -> Iterator[MilvusOfTests]:
    """Start a server; skip where it, or the client, is not installed."""
    pytest.importorskip("pymilvus", exc_type=ImportError)
    folder = Path(tempfile.mkdtemp(prefix="fgdeploy-milvus-"))
    try:
        server = MilvusOfTests(folder, **options)
        with _turn():
            try:
                server.start()
                yield server
            finally:
                server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
