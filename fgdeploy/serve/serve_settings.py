"""What the service allows: sizes, times, who may ask."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import UsageError

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
KEY_CHARACTERS = 16  # of the shortest API key
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ServeSettings:
    """Limits of the service.

    waiting: frames that may wait for the engine; upload_bytes, image_pixels: of one image;
    timeout_s: for a request's body to arrive, and again for its answer. filters: whether clients
    may give SQL expressions (`where`); filter_s: the time that one may take. api_key: what every
    request but /healthz must carry. hosts: the names that a request may call the service by, any
    where None. Raises UsageError.
    """

    waiting: int = 32
    upload_bytes: int = 20 * MEGABYTE
    image_pixels: int = 50_000_000
    timeout_s: float = 30.0
    filters: bool = False
    filter_s: float = 2.0
    api_key: str | None = None
    hosts: frozenset[str] | None = LOCAL_NAMES

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
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--api-key-file {file}: it cannot be read ({error})") from None
    if key is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines; give an API key, in the "
            "environment (FGDEPLOY_API_KEY) or a file (--api-key-file)"
        )
    if key is not None:
        check_key(key)
    return key
