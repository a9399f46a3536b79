"""Addresses of cameras as they may be shown: without user, password and tokens."""

from __future__ import annotations

import re

from fgdeploy.core.text import VALUE, one_line

_HIDDEN = "***"
_URL = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s\"']*)", re.IGNORECASE)
# A property of a pipeline's element: user-pw=x, password="x y".
_PROPERTY = re.compile(r"(?<![\w-])([\w-]+)(\s*=\s*)(\"[^\"]*\"|'[^']*'|\S+)")
_SECRET = re.compile("pw|pass|secret|token|key|user", re.IGNORECASE)


def shown_address(text: str, most: int = VALUE) -> str:
    """Return a URL, or text with URLs in it, in one line, its secrets replaced by stars.

    User and password before the host, and all values of a query, are taken for secrets.
    """
    hidden = _URL.sub(_without_secrets, text)
    return one_line(_PROPERTY.sub(_without_value, hidden), most)


def _without_secrets(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    place, mark, _ = rest.partition("?")
    # A password may hold a slash or an @ that nobody encoded: the last @ ends it.
    _, at, host = place.rpartition("@")
    shown = f"{_HIDDEN}@{host}" if at else host
    return f"{scheme}{shown}{f'?{_HIDDEN}' if mark else ''}"


def _without_value(found: re.Match[str]) -> str:
    name, equals, _ = found.groups()
    return f"{name}{equals}{_HIDDEN}" if _SECRET.search(name) else found[0]
