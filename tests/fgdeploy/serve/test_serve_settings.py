"""Limits, names and keys of the service."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.serve.serve_settings import (
    ServeSettings,
    check_key,
    hosts_of,
    is_loopback,
    key_for,
)
from tests.checks import refused

KEY = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_of_this_machine(host: str) -> None:
    assert is_loopback(host) and key_for(host, None, None) is None
    names = hosts_of(host)
    assert names is not None and {host, "localhost"} <= names


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "camera", "localhost.evil"])
def test_other_machines_need_a_key(host: str) -> None:
    assert not is_loopback(host) and hosts_of(host) is None
    with refused(UsageError, "can be reached from other machines; give an API key"):
        key_for(host, None, None)
    with refused(UsageError, "give an API key"):
        key_for(host, "", None)
    assert key_for(host, KEY, None) == KEY


def test_a_file_has_the_key_and_wins(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}{KEY}\n")
    assert key_for("0.0.0.0", KEY, file) == KEY + KEY
    with refused(UsageError, "none cannot be read: No such file or directory$"):
        key_for("127.0.0.1", None, tmp_path / "none")
    file.write_bytes(b"\xff\xfe")
    for wrong in (file, Path("/dev/zero")):  # the second has no end
        with refused(UsageError, "holds no key; make one with: openssl rand -hex 24"):
            key_for("127.0.0.1", None, wrong)
    file.write_text("\n")
    with refused(UsageError, "16 printable ASCII characters"):
        key_for("127.0.0.1", None, file)


def test_an_empty_address_is_none_of_this_machine() -> None:
    with refused(UsageError, "--host is empty text; give an address"):
        key_for("", KEY, None)


@pytest.mark.parametrize("key", ["", KEY[:-1], KEY + " ", KEY + "\n" + KEY, "é" * 20])
def test_weak_keys(key: str) -> None:
    with refused(UsageError, "openssl rand"):
        check_key(key)
    with refused(UsageError, "openssl rand"):
        ServeSettings(api_key=key)


@pytest.mark.parametrize("name", ["waiting", "upload_bytes", "image_pixels", "timeout_s"])
def test_limits_are_above_zero(name: str) -> None:
    for value in (0, -1, float("nan")):
        with refused(UsageError, f"{name} is .*expected more than 0"):
            ServeSettings(**{name: value})  # type: ignore[arg-type]
