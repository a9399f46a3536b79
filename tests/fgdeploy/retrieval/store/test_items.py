"""Items: what is checked before one goes in, times, and checksums."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.retrieval.store import items
from fgdeploy.retrieval.store.items import Added, Checker, Item
from fgdeploy.retrieval.store.schema import MAX_ID
from tests.checks import refused

GOOD = Item("/a", bytes(4), "owl", "s", 3, "2026-01-01", "{}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-01-31T12:00:00+00:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31 12:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T01:30:00+02:00", "2026-01-30T23:30:00+00:00"),
        ("2026-01-31T12:00:00-05:30", "2026-01-31T17:30:00+00:00"),
        ("2026-01-31T12:00:00.123456+00:00", "2026-01-31T12:00:00.123456+00:00"),
    ],
)
def test_times_are_kept_as_utc(given: str, expected: str) -> None:
    assert items.utc(given) == expected
    assert items.utc(expected) == expected


@pytest.mark.parametrize(
    "text", ["now", "31.1.2026", "2026-13-01", "2026-01-31T25:00", "12:00", "Z", " ", "2026-02-30"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with refused(UsageError, r"is not a time; expected ISO 8601, such as 2026-01-31T12:00:00\+00"):
        items.utc(text)


@settings(derandomize=True, deadline=None)
@given(
    moment=st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)),
    minutes=st.integers(-23 * 60, 23 * 60),
)
def test_any_time_stays_the_same_moment(moment: datetime, minutes: int) -> None:
    told = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    kept = datetime.fromisoformat(items.utc(told.isoformat()))
    assert (kept, kept.utcoffset()) == (told, timedelta(0))


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:00:00-23:00"])
def test_a_time_that_utc_has_not(text: str) -> None:
    with refused(UsageError, "is not a time"):
        items.utc(text)


def test_now_is_utc() -> None:
    told = datetime.fromisoformat(items.now())
    assert told.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - told) < timedelta(minutes=5)


def test_a_good_item() -> None:
    Checker(32).check(GOOD)
    Checker(32).check(Item(None, bytes(4)))
    Checker(12).check(Item(None, b"\xff\xf0"))
    for number in (0, 1, MAX_ID):
        Checker(32).check(Item(None, bytes(4), id=number))
    for text in ("{}", "[1, 2]", '"x"', "null", " 7 ", '{"a": "蛾"}'):
        Checker(32).check(Item(None, bytes(4), json=text))


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"code": b""}, IndexStoreError, "^/a: expected a code of 4 bytes, got 0; hash it with"),
        ({"code": bytes(5)}, IndexStoreError, "expected a code of 4 bytes, got 5"),
        ({"code": "text"}, UsageError, "^/a: expected a code in bytes, got str; a row of an array"),
        ({"code": bytearray(4)}, UsageError, "expected a code in bytes, got bytearray"),
        ({"code": None}, UsageError, "expected a code in bytes, got NoneType"),
        ({"code": b"\0\0\0\1"}, IndexStoreError, "/a: its code has bits set behind bit 31; pack"),
        ({"path": b"/a"}, UsageError, "expected a path in text, got bytes"),
        ({"label": 7}, UsageError, "expected a label in text, got int"),
        ({"sha256": b"s"}, UsageError, "expected a sha256 in text, got bytes"),
        ({"time": 7.5}, UsageError, "expected a time in text, got float"),
        ({"json": {}}, UsageError, "expected a json in text, got dict"),
        ({"json": b"{}"}, UsageError, "expected a json in text, got bytes"),
        ({"json": "{"}, UsageError, r"^/a: json is not JSON \(.*\); use json.dumps$"),
        ({"json": ""}, UsageError, "json is not JSON"),
        ({"json": "NaN"}, UsageError, "json is not JSON"),
        ({"json": '{"a": -Infinity}'}, UsageError, "json is not JSON"),
        ({"id": -1}, UsageError, rf"^id -1: expected a whole number from 0 to {MAX_ID}$"),
        ({"id": MAX_ID + 1}, UsageError, "expected a whole number"),
        ({"id": 1.0}, UsageError, "expected a whole number"),
        ({"id": True}, UsageError, "expected a whole number"),
        ({"id": "1"}, UsageError, "expected a whole number"),
        ({"id": 2**63}, UsageError, "^id 9223372036854775808: expected a whole number"),
        ({"id": np.uint64(2**64 - 1)}, UsageError, "expected a whole number"),
        ({"id": np.int64(-1)}, UsageError, "expected a whole number"),
        ({"id": np.bool_(True)}, UsageError, "expected a whole number"),
        ({"id": np.float64(1)}, UsageError, "expected a whole number"),
        ({"id": 10**9999}, UsageError, "^id .{1,150}: expected a whole number"),
        ({"path": None, "id": None, "code": b""}, IndexStoreError, "^item without id: expected"),
        ({"path": None, "id": 0, "code": b""}, IndexStoreError, "^item 0: expected"),
        ({"path": None, "code": b""}, IndexStoreError, "^item 3: expected a code"),
    ],
)
def test_a_bad_item(change: dict[str, object], kind: type, words: str) -> None:
    bits = 31 if change.get("code") == b"\0\0\0\1" else 32
    with refused(kind, words):
        Checker(bits).check(Item(**{**vars(GOOD), **change}))


def test_arrays_of_codes() -> None:
    Checker(12).check_array(np.full((3, 2), 0xF0, np.uint8))
    Checker(12).check_array(np.empty((0, 2), np.uint8))
    with refused(IndexStoreError, "expected codes of 2 bytes, got 3; hash them with the bundle"):
        Checker(12).check_array(np.zeros((1, 3), np.uint8))
    with refused(IndexStoreError, "codes have bits set behind bit 12; pack them with"):
        Checker(12).check_array(np.array([[255, 0xF0], [0, 0xF8]], np.uint8))


def test_the_row_of_an_item_and_back() -> None:
    row = (3, b"code", "/a", None, None, "2026", "{}")
    assert items.item_of(row) == Item("/a", b"code", None, "", 3, "2026", "{}")
    others = [
        (4, *row[1:]),
        (3, b"kode", *row[2:]),
        *((*row[:n], "other", *row[n + 1 :]) for n in range(2, 7)),
        *((*row[:n], None, *row[n + 1 :]) for n in (2, 6)),
    ]
    crcs = {items.row_checksum(other) for other in [row, *others]}  # type: ignore[arg-type]
    assert len(crcs) == 1 + len(others)


def test_counts_of_what_was_added() -> None:
    assert Added(1, 2, 3).total == 6
    assert Added().total == 0
