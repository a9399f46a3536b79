"""Numbers of the command line: what is one, what is none, and what is too large."""

from __future__ import annotations

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.core.numbers import MOST_WHOLE, real, whole

NONE = ["", " 5", "5 ", "+5", "-0", "1_000", "0x10", "\u0665", "\uff15", "1e3", "nan", "inf", "5\n"]


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("8", 8), ("007", 7), (str(MOST_WHOLE), MOST_WHOLE)]
)
def test_whole_numbers(text: str, value: int) -> None:
    assert whole(text, "-n") == value


@pytest.mark.parametrize("text", [*NONE, "1.0", "-1"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(UsageError, match=r"^-n .*expected a whole number of 0 or more$") as caught:
        whole(text, "-n")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", [str(MOST_WHOLE + 1), "9" * 5000, "9" * 10**6])
def test_whole_numbers_that_are_too_large_name_the_largest(text: str) -> None:
    with pytest.raises(UsageError, match=rf"^-n 9.* from 0 to {MOST_WHOLE}$") as caught:
        whole(text, "-n")
    assert len(str(caught.value)) < 200


def test_whole_numbers_lie_within_bounds() -> None:
    assert whole("-3", "--shift", least=-3) == -3
    with pytest.raises(UsageError, match=r"^-k 0: expected a whole number from 1 to 9$"):
        whole("0", "-k", 1, 9)
    with pytest.raises(UsageError, match=r"^-k 10: "):
        whole("10", "-k", 1, 9)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0.0), ("-1.5", -1.5), (".5", 0.5), ("5.", 5.0), ("1e-3", 0.001), ("1E+3", 1000.0)],
)
def test_real_numbers(text: str, value: float) -> None:
    assert real(text, "--lr") == value


@pytest.mark.parametrize(
    "text",
    [one for one in NONE if one != "1e3"]
    + ["1e400", "-1e400", "1e-400", "-0.0", "-inf", "infinity", ".", "1.5.2", "9" * 5000],
)
def test_what_is_no_real_number(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--lr .*expected a finite number$"):
        real(text, "--lr")


def test_real_numbers_lie_within_bounds() -> None:
    with pytest.raises(UsageError, match=r"^--crop 1.5: expected a finite number from 0 to 1$"):
        real("1.5", "--crop", 0.0, 1.0)
