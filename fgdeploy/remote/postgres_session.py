"""Connections to one PostgreSQL database, and what goes wrong there in one line."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import MissingDependency, RemoteError
from fgdeploy.core.text import one_line
from fgdeploy.remote.server_address import ServerAddress

try:
    import psycopg
except ImportError as error:
    raise MissingDependency("psycopg", "postgres", "a gallery in PostgreSQL") from error

if TYPE_CHECKING:
    from psycopg import Connection

OPTIONS = ("table", "host", "service", "sslmode", "sslrootcert")
_OLDEST = 140000  # the first with bit_count
_CONNECT_S, _STATEMENT_S, _LOCK_S = 10, 600, 2
_ALIVE = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3}

# After connecting rather than with it, since poolers refuse options of their own kind. Compiling a
# search takes longer than a search.
_SETTINGS = (
    f"SET statement_timeout = '{_STATEMENT_S}s'",
    f"SET lock_timeout = '{_STATEMENT_S}s'",
    f"SET idle_in_transaction_session_timeout = '{_STATEMENT_S}s'",
    "SET jit = off",
    "SET tcp_keepalives_idle = 20",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)

_Found = TypeVar("_Found")


class PostgresSession(Closing):
    """As many connections as threads work at once. What the address leaves out, libpq's
    environment, service file and password file say.
    """

    def __init__(self, address: ServerAddress) -> None:
        self.name = address.text
        self._address, self._process = address, os.getpid()
        self._idle: list[Connection[Any]] = []
        self._mutex, self._closed = threading.Lock(), False

    def run(self, work: Callable[[Connection[Any]], _Found]) -> _Found:
        """Return what comes of work in one transaction, which is done wholly or not at all.

        Begun once more where a connection that lay idle was cut meanwhile, as by a server's
        restart. Raises RemoteError.
        """
        with self._explained():
            connection, fresh = self._take()
            while True:
                try:
                    with connection.transaction():
                        found = work(connection)
                except BaseException as error:
                    cut = isinstance(error, psycopg.OperationalError) and connection.broken
                    connection.close()
                    if fresh or not cut:
                        raise
                    connection, fresh = self.connected(), True
                else:
                    self._give(connection)
                    return found

    def close(self) -> None:
        """Close all connections that no thread works with."""
        self._closed = True
        with self._mutex:
            idle, self._idle = self._idle, []
        if self._process == os.getpid():  # a fork must not end another's
            for connection in idle:
                connection.close()

    def _take(self) -> tuple[Connection[Any], bool]:
        """Return a connection, and whether it is new."""
        if self._closed:
            raise RemoteError(f"{self.name} is closed; open it anew")
        with self._mutex:
            if self._process != os.getpid():
                self._idle, self._process = [], os.getpid()
            if self._idle:
                return self._idle.pop(), False
        return self.connected(), True

    def _give(self, connection: Connection[Any]) -> None:
        with self._mutex:
            if not self._closed and self._process == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def connected(self) -> Connection[Any]:
        """Return a new connection, which whoever calls closes. Raises RemoteError."""
        with self._explained():
            connection = psycopg.connect(**self._arguments())
            try:
                self._check(connection)
                for setting in _SETTINGS:
                    connection.execute(setting)
            except BaseException:
                connection.close()
                raise
        return connection

    def lock(self, name: str) -> Connection[Any]:
        """Return a connection that holds a lock of the server until it is closed or cut.

        Raises RemoteError where another holds it longer than the end of a killed process takes.
        """
        connection = self.connected()
        try:
            with self._explained():
                connection.execute("SET idle_session_timeout = 0")
                connection.execute(f"SET lock_timeout = '{_LOCK_S}s'")
                connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        except BaseException:
            connection.close()
            raise
        return connection

    def _arguments(self) -> dict[str, Any]:
        address = self._address
        given: dict[str, Any] = {
            "host": address.host or address.options.get("host"),
            "port": address.port,
            "user": address.user,
            "dbname": address.path or None,
            **{
                name: address.options.get(name) for name in OPTIONS if name not in ("table", "host")
            },
        }
        if "PGCONNECT_TIMEOUT" not in os.environ:
            given["connect_timeout"] = _CONNECT_S
        known = {name: value for name, value in given.items() if value is not None}
        fixed = {"client_encoding": "utf8", "application_name": "fgdeploy"}
        # No prepared statements: behind a pooler the next transaction may be another server's.
        return {**_ALIVE, **known, **fixed, "autocommit": True, "prepare_threshold": None}

    def _check(self, connection: Connection[Any]) -> None:
        if (version := connection.info.server_version) < _OLDEST:
            raise RemoteError(
                f"{self.name} runs PostgreSQL {version // 10000}, expected "
                f"{_OLDEST // 10000} or later, which counts bits; upgrade the server"
            )
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            raise RemoteError(
                f"{self.name}: the database keeps text as {encoding}, expected UTF8; name a "
                "database that was made with ENCODING 'UTF8'"
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise what the client or the server says as RemoteError in one line."""
        try:
            yield
        except psycopg.Error as error:
            raise RemoteError(f"{self.name}: {_what(error)}") from error
        except UnicodeEncodeError as error:
            raise RemoteError(
                f"{self.name}: the name {error.object!r} is not UTF-8; rename the file or folder"
            ) from error


def _what(error: psycopg.Error) -> str:
    said = error.diag.message_primary or str(error).partition("\n")[0]
    text = one_line(said).rstrip(".")
    state = error.sqlstate or ""
    for kind, advice in _ADVICE.items():
        if state.startswith(kind):
            return f"{text}; {advice}"
    if state or not isinstance(error, psycopg.OperationalError):
        return text
    if "password" in text or "authentication" in text:
        return f"{text}; {_ADVICE['28']}"
    if "does not exist" in text:
        return f"{text}; name another user or database, or make it"
    return f"{text}; is the server up, and is the address right?"


# By SQLSTATE, or the class that it begins with
_ADVICE = {
    "28": "the password is read from PGPASSWORD or ~/.pgpass",
    "3F000": "make the schema, or name another",
    "42501": "a search needs SELECT on both tables, a push must own them",
    "42P01": "the table has gone; push the index again",
    "42703": "the table is not as index push made it; push with --replace",
    "53": "the server has no room or no connection left",
    "55P03": "another push is under way; wait for its end",
    "57014": f"given up after {_STATEMENT_S} s",
    "57P": "the server stops or starts; try again",
}
