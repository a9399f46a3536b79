"""A connection to Milvus: calls that end in bounded time, errors in one line without passwords."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import MissingDependency, RemoteError
from fgdeploy.core.text import one_line
from fgdeploy.remote.milvus_place import MilvusPlace

CONNECT_S, CALL_S = 5.0, 30.0
_OLDEST = 2, 3  # the first that has upsert
_REASON = 300  # characters of what the server says


class MilvusRefusal(RemoteError):
    """What the server said of a call that it did not do."""


class MilvusLink(Closing):
    """A connection to a server, or to a file of Milvus Lite. version: of the server, as it says.

    Raises RemoteError where none answers, MissingDependency without pymilvus or milvus-lite.
    """

    def __init__(self, place: MilvusPlace) -> None:
        self.place = place
        pymilvus = _pymilvus(place.file is not None)
        if place.file is not None and not place.file.parent.is_dir():
            raise RemoteError(f"{place.text}: no folder {place.file.parent}; make it first")
        try:
            # dedicated: else pymilvus 3.0.2 gives https:// a connection that http:// has opened.
            self._client = pymilvus.MilvusClient(
                uri=place.uri,
                token=place.token,
                db_name=place.database,
                timeout=CONNECT_S,
                dedicated=True,
                # Else a server that was away is not tried anew for up to 2 minutes in this process.
                grpc_options={"grpc.use_local_subchannel_pool": 1},
            )
        except Exception as error:
            raise self._failed("connecting", error) from None
        try:
            self.version = self._version()
        except BaseException:
            self.close()
            raise

    def _version(self) -> str:
        """Return the server's version. Raises RemoteError for one without what is needed."""
        if self.place.file is not None:
            return "Milvus Lite"
        version = str(self.call("get_server_version", collection=False, timeout=CONNECT_S))
        numbers = re.match(r"v?(\d+)\.(\d+)", version)
        if numbers is not None and (int(numbers[1]), int(numbers[2])) < _OLDEST:
            raise RemoteError(
                f"{self.place.text} is Milvus {one_line(version, 40)}; expected 2.3 or newer, "
                "which can replace an item by its id"
            )
        return one_line(version, 40)

    def call(self, method: str, *arguments: Any, collection: bool = True, **options: Any) -> Any:
        """Call a method of MilvusClient, with the collection's name before the arguments.

        Raises MilvusRefusal where the server refuses, RemoteError where it does not answer.
        """
        options.setdefault("timeout", CALL_S)
        own = (self.place.collection,) if collection else ()
        try:
            return getattr(self._client, method)(*own, *arguments, **options)
        except Exception as error:
            raise self._failed(method, error) from None

    def upsert_columns(self, columns: list[dict[str, Any]]) -> None:
        """Put rows in by columns, each {"name", "type", "values"}: faster than by rows."""
        if (upsert := self._way_of_columns()) is None:
            names = [column["name"] for column in columns]
            rows = zip(*(column["values"] for column in columns), strict=True)
            self.call("upsert", [dict(zip(names, row, strict=True)) for row in rows])
            return
        try:
            upsert(self.place.collection, columns, timeout=CALL_S)
        except Exception as error:
            raise self._failed("upsert", error) from None

    def _way_of_columns(self) -> Callable[..., Any] | None:
        """Return what takes columns, None where pymilvus has it no more.

        MilvusClient takes rows alone. It is what pymilvus' Collection, deprecated by now, calls.
        """
        try:
            way: Callable[..., Any] = self._client._get_connection().upsert
        except AttributeError:
            return None
        return way

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _failed(self, what: str, error: Exception) -> RemoteError:
        """Return an error in one line; what the server says is shortened, without the token."""
        code = getattr(error, "code", None)
        code = code() if callable(code) else code  # a gRPC error's own
        reason = str(getattr(error, "message", "") or error)
        details = getattr(error, "details", None)
        if callable(details):
            reason = str(details())
        if token := self.place.token:
            for secret in {token, token.partition(":")[2] or token}:
                reason = reason.replace(secret, "***")
        name = getattr(code, "name", str(code))
        text = one_line(reason, _REASON)
        if "UNAUTHENTICATED" in f"{name} {text}".upper() or "auth check failure" in text:
            return RemoteError(
                f"{self.place.text}: user or password are not accepted; set MILVUS_TOKEN, or "
                "MILVUS_USER and MILVUS_PASSWORD"
            )
        if "Fail connecting" in text or name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            return RemoteError(
                f"{self.place.text} does not answer ({what}); is the server up, and the address "
                "right?"
            )
        if self.place.file is not None and "Open local milvus failed" in text:
            return RemoteError(
                f"{self.place.text} cannot be opened: another process has it open, or it is not "
                "what Milvus Lite made; end that process, or name another"
            )
        return MilvusRefusal(f"{self.place.text}: {what}: {text}")


def _pymilvus(lite: bool) -> Any:
    if importlib.util.find_spec("pymilvus") is None:
        raise MissingDependency("pymilvus", "milvus", "a gallery on Milvus")
    if lite and importlib.util.find_spec("milvus_lite") is None:
        raise MissingDependency("milvus-lite", "servers", "a gallery in a file of Milvus Lite")
    # gRPC writes lines of its own about connections that fail, unless told so before its start.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import pymilvus

    # They log each refusal with its traceback, also those that are asked for; ours say it in a
    # line.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def is_there(place: MilvusPlace) -> bool:
    """Return whether a file of Milvus Lite is there; connecting would make it."""
    return place.file is None or Path(place.file).exists()
