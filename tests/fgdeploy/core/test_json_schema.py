"""Checks of JSON values: what they take, and how what they do not take is said."""

from __future__ import annotations

from typing import Any

import pytest

from fgdeploy.core import json_schema as schema
from fgdeploy.core.json_schema import Check
from tests.checks import refused

NESTED: list[Any] = []
for _ in range(40):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "Expecting value"),
        (b"\xff", "codec can't decode"),
        (b"[" * 100_000, "lists nested too deeply"),
        (b"[NaN]", "NaN is no JSON number"),
        (b"-Infinity", "-Infinity is no JSON number"),
        (b"1" * 5000, "a number of 5000 digits"),
        (b"0." + b"1" * 5000, "a number of 5002 digits"),
    ],
)
def test_what_is_no_json(raw: bytes, words: str) -> None:
    with refused(ValueError, words) if raw[:1] not in (b"", b"\xff") else pytest.raises(ValueError):
        schema.parse(raw)


def test_json() -> None:
    assert schema.parse(b'{"a": [1, -2.5e3, "\xc3\xa9", null, true]}') == {
        "a": [1, -2500.0, "é", None, True]
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1e400]}, "^a.0 is Infinity, expected a number$"),
        ({"a": 10**30}, "^a is 10+, expected a number$"),
        ({"a": "\ud800"}, r'^a is "\\ud800", expected text$'),
        ({"a": {"\ud800": 1}}, r'^a name in a is "\\ud800", expected text$'),
        ([NESTED], "nests more than 32 lists and objects$"),
    ],
)
def test_what_no_file_of_ours_holds(value: Any, words: str) -> None:
    with refused(ValueError, words):
        schema.sane(value)


def test_a_sane_value() -> None:
    schema.sane({"a": [None, True, 1, 0.5, "é", {"b": []}], "most": schema.LARGEST})


@pytest.mark.parametrize(
    ("check", "good", "bad", "words"),
    [
        (schema.TEXT, ["", "a"], [1, None, [], "\ud800"], "expected text"),
        (schema.NAME, ["a"], ["", True], "expected some text"),
        (schema.sha256, ["0a" * 32], ["0A" * 32, "0a" * 31, 1, None], "expected a sha256"),
        (schema.flag, [True, False], [0, "true", None], "expected true or false"),
        (schema.whole(1, 3), [1, 3], [0, 4, 1.0, True, "1"], "expected a whole number from 1 to 3"),
        (schema.whole(0), [0, schema.LARGEST], [-1, 1 << 63], "expected a whole number from 0 up"),
        (schema.number(0, 1), [0, 0.5, 1], [-0.1, 2, True, None], "expected a number from 0 to 1"),
        (schema.number(), [-1e300], [float("nan"), float("inf"), 10**400], "expected a number$"),
        (schema.one_of("a", True), ["a", True], ["b", 1, None], 'expected "a" or true'),
        (schema.maybe(schema.flag), [None, True], [0], "expected true or false"),
        (schema.list_of(schema.flag), [[], [True]], [{}, "ab", None], "expected a list"),
        (schema.list_of(schema.flag), [], [[True, 1]], r"^it\.1|^1 is 1, expected true or false"),
        (schema.list_of(schema.flag, 1, 2), [[True]], [[]], "a list of 0, expected one of from 1"),
        (schema.map_of(schema.flag), [{}, {"a": True}], [[], 1], "expected an object"),
        (schema.map_of(schema.flag), [], [{"a": 1}], "^a is 1, expected true or false"),
        (schema.table({"a": schema.flag}), [{"a": True, "b": 1}], [{"b": 1}], "^no entry 'a'$"),
        (schema.table({}, {"a": schema.flag}), [{}, {"a": True}], [{"a": 1}], "^a is 1, exp"),
    ],
)
def test_checks(check: Check, good: list[Any], bad: list[Any], words: str) -> None:
    for value in good:
        check(value, "")
    for value in bad:
        with refused(ValueError, words):
            check(value, "")


def test_places_cannot_paint_on_a_terminal() -> None:
    with refused(ValueError, r"^files\.'a\\x1b\[2Jb' is 1, expected an object$"):
        schema.table({"files": schema.map_of(schema.table({}))})({"files": {"a\x1b[2Jb": 1}}, "")
    with refused(ValueError, r"^a is \"x{59}\.\.\., expected an object$"):
        schema.map_of(schema.table({}))({"a": "x" * 10**6}, "")
