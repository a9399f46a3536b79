"""Addresses of galleries on servers, such as `milvus://host:19530/birds`: no password is in one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown

# A letter alone before :// would be a Windows drive.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


@dataclass(frozen=True)
class ServerAddress:
    """SCHEME://[USER@]HOST[:PORT]/PATH[?OPTION=VALUE&...], taken apart and decoded.

    text: the whole of it, to be shown. host, port, user: None where nothing is said. path: what
    stands behind the host, without the slash between. options: by name.
    """

    text: str
    scheme: str
    host: str | None
    port: int | None
    user: str | None
    path: str
    options: dict[str, str] = field(default_factory=dict)

    def refuse_others(self, known: Collection[str]) -> None:
        """Raise UsageError for an option that is not among the known ones."""
        if strangers := sorted(self.options.keys() - set(known)):
            raise UsageError(
                f"{self.text}: unknown option {shown(strangers[0])!r}; expected "
                + (", ".join(known) or "none")
            )


def is_address(text: str | os.PathLike[str]) -> bool:
    """Return whether a name means a server's gallery rather than a folder."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def parse_address(text: str, form: str) -> ServerAddress:
    """Take an address apart. form: what is expected, for messages.

    Raises UsageError for one that is none, or has a password in it: other users of the machine see
    what stands on a command line, and messages show addresses.
    """
    match = _SCHEME.match(text)
    if match is None:
        raise UsageError(f"{shown(text)} is no address; expected {form}")
    scheme = match[1].lower()
    rest = text[match.end() :]
    place, mark, query = rest.partition("?")
    login, at, _ = place.rpartition("@")
    if at and ":" in login:
        raise UsageError(
            f"an address {scheme}://... holds a password, which others would see; leave it out: "
            "it is read from the environment (see docs/retrieval/remote.md)"
        )
    try:
        parts = urlsplit(f"{scheme}://{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"{shown(text)}: no such host or port; expected {form}") from None
    if "#" in rest or any(not c.isprintable() or c.isspace() for c in text):
        raise UsageError(f"{shown(text)}: no address has a space or # in it; expected {form}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if secret := [name for name in options if re.search("pass|token|secret|key", name, re.I)]:
        raise UsageError(
            f"an address {scheme}://... has the option {shown(secret[0])!r}, which others would "
            "see; leave it out: it is read from the environment (see docs/retrieval/remote.md)"
        )
    if mark and len(options) != len(query.split("&")):
        raise UsageError(f"{shown(text)}: expected ?NAME=VALUE&... at its end; expected {form}")
    user = unquote(parts.username) if parts.username else None
    path = unquote(parts.path[1:])
    if not all(part.isprintable() for part in (user or "", path, *options.values())):
        # A client in C reads no further than %00: it would take another database.
        raise UsageError(f"{shown(text)}: no name has a control character; expected {form}")
    return ServerAddress(text, scheme, host, port, user, path, options)
