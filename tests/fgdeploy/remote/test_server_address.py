"""Addresses, and what is kept out of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.remote.server_address import is_address, parse_address
from tests.checks import refused

FORM = "db://HOST/TABLE"


def test_addresses_are_told_from_paths() -> None:
    assert is_address("milvus://here/birds") and is_address("POSTGRESQL://here/birds")
    for name in ("gallery.fgi", "/a/b.fgi", "C://x", Path("milvus:/here/birds"), "a:b", "1x://y"):
        assert not is_address(name)


def test_an_address_is_taken_apart() -> None:
    found = parse_address("db://Anna@[::1]:12/a%20b/c?table=x%26y&secure=", FORM)
    assert (found.scheme, found.host, found.port, found.user) == ("db", "::1", 12, "Anna")
    assert (found.path, found.options) == ("a b/c", {"table": "x&y", "secure": ""})
    bare = parse_address("db://host", FORM)
    assert (bare.port, bare.user, bare.path, bare.options) == (None, None, "", {})
    with refused(UsageError, "unknown option 'secure'; expected db$"):
        found.refuse_others(["db", "secure"][:1])


@pytest.mark.parametrize(
    "text",
    [
        "db://anna:hunter2@host/x",
        "db://:hunter2@host/x",
        "db://anna:hun/ter2@host/x",
        "db://anna:hun@ter2@host/x",
        "db://host/x?password=hunter2",
        "db://host/x?db=1&TOKEN=hunter2",
    ],
)
def test_a_password_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError, match="which others would see") as caught:
        parse_address(text, FORM)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("db://host:port/x", "db://host:99999/x", "db://[1/x", "db://h/a b", "db://h/x#y", "x"),
        *("db://h/x%00y", "db://a%0ab@h/x", "db://h/x?table=a%7f", "db://h/%ff%fe%1b"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with refused(UsageError, "expected db://HOST/TABLE$"):
        parse_address(text, FORM)
