"""Futures one after the other."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from fgdeploy.core.errors import EngineError
from fgdeploy.serve.chained import chain, otherwise
from tests.checks import refused


def test_results_and_errors_come_through() -> None:
    first: Future[int] = Future()
    second: Future[str] = Future()
    seen: list[int] = []

    def step(value: int) -> Future[str]:
        seen.append(value)
        return second

    result = chain(first, step)
    first.set_result(3)
    assert seen == [3] and not result.done()
    second.set_result("three")
    assert result.result(0) == "three"


def test_an_error_of_any_stage_is_the_error_of_all() -> None:
    first: Future[int] = Future()
    result = chain(first, lambda value: first)
    first.set_exception(ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        result.result(0)

    def fail(value: int) -> Future[int]:
        raise KeyError(value)

    good: Future[int] = Future()
    result = chain(good, fail)
    good.set_result(1)
    with pytest.raises(KeyError):
        result.result(0)


def test_giving_up_gives_up_what_has_not_begun() -> None:
    first: Future[int] = Future()
    result = chain(first, lambda value: first)
    result.cancel()
    assert first.cancelled()

    first, second = Future[int](), Future[int]()
    result = chain(first, lambda value: second)
    first.set_result(1)
    result.cancel()
    assert second.cancelled()


def test_a_stage_that_another_gave_up_is_an_error_not_a_wait() -> None:
    first: Future[int] = Future()
    result = chain(first, lambda value: first)
    first.cancel()
    with refused(EngineError, "the service is ending"):
        result.result(0)


def test_a_failure_is_tried_otherwise_once_or_kept() -> None:
    first, second = Future[int](), Future[int]()
    result = otherwise(first, lambda error: second if isinstance(error, KeyError) else None)
    first.set_exception(KeyError("gone"))
    assert not result.done()
    second.set_result(2)
    assert result.result(0) == 2

    other: Future[int] = Future()
    result = otherwise(other, lambda error: None)
    other.set_exception(ValueError("kept"))
    with pytest.raises(ValueError, match="kept"):
        result.result(0)

    def fail(error: Exception) -> Future[int]:
        raise IndexError from error

    last: Future[int] = Future()
    result = otherwise(last, fail)
    last.set_exception(ValueError("first"))
    with pytest.raises(IndexError):
        result.result(0)
