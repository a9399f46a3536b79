"""Keep rates and blocks as users write them."""

from __future__ import annotations

import pytest

from fgdeploy.core.errors import StageError, UsageError
from fgdeploy.models.reduce import rates
from tests.checks import refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5", (0.5,)), ("1", (1.0,)), ("0.7,0.5, 0.3", (0.7, 0.5, 0.3)), ("[0.1]", (0.1,))],
)
def test_rates_are_read(text: str, expected: tuple[float, ...]) -> None:
    assert rates.parse_rates(text) == expected


@pytest.mark.parametrize(
    "text", ["0", "-0.5", "1.01", "nan", "inf", "", "half", "0.5,,0.3", "0.5,0"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with refused(UsageError, "keep_rate=.*above 0 and up to 1"):
        rates.parse_rates(text)


def test_blocks_are_read() -> None:
    assert rates.parse_blocks("4, 7,10") == (4, 7, 10)
    assert rates.parse_blocks("[3]") == (3,)
    for text in ("", "a", "4;7", "-1", "4.5", "1234567890"):
        with refused(UsageError, "blocks=.*numbers of blocks from 1"):
            rates.parse_blocks(text)


def test_published_blocks_are_scaled() -> None:
    assert rates.default_blocks(12) == (4, 7, 10)
    assert rates.default_blocks(24) == (8, 14, 20)
    assert rates.default_blocks(6) == (2, 4, 5)


@pytest.mark.parametrize("blocks", [(0,), (4, 4), (7, 4), (12,), (4, 7, 13)])
def test_blocks_that_do_not_exist_are_refused(blocks: tuple[int, ...]) -> None:
    with refused(
        StageError, r"expected rising numbers from 1 to 11, got \d+ \(the backbone has 12"
    ):
        rates.check((0.5,), blocks, 12)


@pytest.mark.parametrize("count", [2, 4])
def test_a_list_of_wrong_length_is_refused(count: int) -> None:
    rates.check((0.5,), (4, 7, 10), 12)
    rates.check((0.5,) * 3, (4, 7, 10), 12)
    with refused(StageError, f"{count} keep rates for 3 blocks .*one rate, or one for each"):
        rates.check((0.5,) * count, (4, 7, 10), 12)
