"""The estimate of a training's time: right on known costs, and nothing of the training changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fgdeploy.training import estimate
from fgdeploy.training.estimate import Estimate, Work, about
from fgdeploy.training.loop import StepCost
from fgdeploy.training.trainer import Reporter, train
from tests.training.conftest import Make
from tests.training.weights import same_weights

COST = StepCost(step_s=0.5, first_views_s=0.4, views_s=0.1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 second"), (41.4, "41 seconds"), (372, "6 minutes"), (9000, "2.5 hours")],
)
def test_words_as_exact_as_an_estimate_is(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_seconds_by_hand() -> None:
    work = Work(3, 10, 0, 64, asked=20, at_end=100, overlapped=False)
    expected = 30 * 0.5 + 10 * 0.4 + 20 * 0.1 + (3 * 20 + 100) * 0.01
    assert work.seconds(COST, 0.01) == pytest.approx(expected)
    assert work.line(COST, 0.01) == (
        "about 23 seconds on this machine (30 steps of 64 photos, 0.6 s each, and evaluations)"
    )


def test_a_resumed_run_counts_what_is_left() -> None:
    work = Work(1, 10, 4, 64, asked=20, at_end=0, overlapped=False)
    expected = 14 * 0.5 + 4 * 0.4 + 10 * 0.1 + 2 * 20 * 0.01
    assert work.seconds(COST, 0.01) == pytest.approx(expected)
    evaluation = Work(0, 10, 0, 64, asked=0, at_end=50, overlapped=False)
    assert evaluation.seconds(COST, 0.01) == pytest.approx(0.5)


def test_workers_make_views_while_steps_are_taken() -> None:
    work = Work(3, 10, 0, 64, asked=0, at_end=0, overlapped=True)
    assert work.seconds(COST, 0.01) == pytest.approx(30 * 0.5)
    slow = StepCost(0.5, 1.0, 1.0)
    assert work.seconds(slow, 0.01) == pytest.approx(30)


@pytest.mark.parametrize(
    ("took", "said"),
    [
        (100.0, []),
        (130.0, []),
        (80.0, []),
        (
            150.0,
            "the first epoch took longer than estimated (2 minutes, not 2 minutes); about 8 "
            "minutes are left",
        ),
        (
            50.0,
            "the first epoch took less than estimated (50 seconds, not 2 minutes); about 3 "
            "minutes are left",
        ),
    ],
)
def test_an_estimate_that_was_wrong_is_corrected_once(took: float, said: str | list[str]) -> None:
    times = iter([0.0, took])
    heard: list[str] = []
    told = Estimate(100.0, 420.0, heard.append, clock=lambda: next(times))
    told.epoch_done()
    told.epoch_done()
    assert heard == ([said] if isinstance(said, str) else said)


@pytest.mark.parametrize("method", ["eet", "clca"])
def test_a_run_with_an_estimate_gives_the_same_weights(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """CLCA's aggregation has batch norms, whose statistics a forward pass would change."""
    said: dict[str, list[str]] = {}
    weights: dict[str, Path] = {}
    options: dict[str, object] = {} if method == "eet" else {"method": "clca", "options": {}}
    for name, fewest in (("with", 1), ("without", 10**9)):
        monkeypatch.setattr(estimate, "FEWEST_STEPS", fewest)
        lines = said[name] = []
        done = train(small(**options), tmp_path / name, reporter=Reporter(notify=lines.append))
        weights[name] = done.weights
    kinds = [[line for line in said[name] if "on this machine" in line] for name in said]
    assert [len(lines) for lines in kinds] == [1, 0]
    assert "(6 steps of 5 photos, " in kinds[0][0]
    assert same_weights(*weights.values())


def test_a_rehearsal_leaves_the_random_generator_alone(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []

    def around(*arguments: object) -> None:
        real: Callable[..., object] = before
        torch.manual_seed(3)
        real(*arguments)
        drawn.append(torch.rand(2))

    before = estimate.before
    monkeypatch.setattr(estimate, "FEWEST_STEPS", 1)
    monkeypatch.setattr(estimate, "before", around)
    train(small(epochs=1), tmp_path / "run")
    torch.manual_seed(3)
    assert torch.equal(drawn[0], torch.rand(2))
