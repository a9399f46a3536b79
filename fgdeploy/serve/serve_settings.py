"""What the service allows: sizes, times, who may ask."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import UsageError

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
KEY_CHARACTERS = 16  # of the shortest API key
MEGABYTE = 1_000_000
_KEY_FILE = 4096  # bytes of the longest file with a key


@dataclass(frozen=True)
class ServeSettings:
    """Limits of the service.

    waiting: frames that may wait for the engine; upload_bytes, image_pixels: of one image;
    timeout_s: for a request's body to arrive, and again for its answer. filters: whether clients
    may give SQL expressions (`where`); filter_s: the time that one may take. api_key: what every
    request but /healthz and the page's own files must carry. hosts: the names that a request may
    call the service by, any where None. page: whether there is a page at GET /. Raises UsageError.
    """

    waiting: int = 32
    upload_bytes: int = 20 * MEGABYTE
    image_pixels: int = 50_000_000
    timeout_s: float = 30.0
    filters: bool = False
    filter_s: float = 2.0
    api_key: str | None = None
    hosts: frozenset[str] | None = LOCAL_NAMES
    page: bool = True

    def __post_init__(self) -> None:
        for what in ("waiting", "upload_bytes", "image_pixels", "timeout_s", "filter_s"):
            if not getattr(self, what) > 0:
                raise UsageError(f"{what} is {getattr(self, what)}; expected more than 0")
        if self.api_key is not None:
            check_key(self.api_key)


def check_key(key: str) -> None:
    """Raise UsageError unless a key is long enough and can stand in a header."""
    if len(key) < KEY_CHARACTERS or not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(
            f"the API key must have {KEY_CHARACTERS} printable ASCII characters or more and no "
            "spaces; make one with: openssl rand -hex 24"
        )


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can reach a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hosts_of(host: str) -> frozenset[str] | None:
    """Return the names that requests may call a service by that listens at an address."""
    return LOCAL_NAMES | {host} if is_loopback(host) else None


def key_for(host: str, given: str | None, file: Path | None) -> str | None:
    """Return the API key: of a file, or else the one given; None without.

    Raises UsageError for one that is too weak, and without one for an address that other machines
    can reach.
    """
    key = given or None
    if file is not None:
        key = _key_in(file)
    if not host:
        raise UsageError("--host is empty text; give an address, such as 127.0.0.1")
    if key is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines; give an API key, in the "
            "environment (FGDEPLOY_API_KEY) or a file (--api-key-file)"
        )
    if key is not None:
        check_key(key)
    return key


def _key_in(file: Path) -> str:
    """Return the text of a file with a key. Raises UsageError."""
    try:
        with open(file, "rb") as stream:
            start = stream.read(_KEY_FILE + 1)  # never all of what was named by mistake
    except OSError as error:
        raise UsageError(f"--api-key-file {file} cannot be read: {error.strerror}") from None
    if len(start) > _KEY_FILE or not start.isascii() or b"\0" in start:
        raise UsageError(
            f"--api-key-file {file} holds no key; make one with: openssl rand -hex 24 > {file}"
        )
    return start.decode("ascii").strip()
