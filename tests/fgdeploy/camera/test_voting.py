"""Votes by hand, and what holds for any."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.camera.voting import Verdict, Voter
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval import Hit
from tests.checks import examples, refused


def hits(*found: tuple[str | None, int]) -> list[Hit]:
    """Return hits of such labels and distances."""
    return [
        Hit(rank, distance, rank, None, label) for rank, (label, distance) in enumerate(found, 1)
    ]


OWL, MOTH, FAR = hits(("owl", 3)), hits(("moth", 4)), hits(("owl", 30))


def test_the_nearest_counts_most() -> None:
    """1 for the owl, 1/2 and 1/3 for the moths."""
    verdict = Voter().vote(hits(("owl", 3), ("moth", 4), ("moth", 9)))
    assert verdict == Verdict("owl", pytest.approx(6 / 11), 1)


def test_hits_at_one_distance_count_alike() -> None:
    """1, 1, 1 and then 1/4: whatever their ranks."""
    verdict = Voter().vote(hits(("owl", 3), ("moth", 3), ("moth", 3), ("bat", 4)))
    assert verdict == Verdict("moth", pytest.approx(2 / 3.25), 1)


def test_each_frame_has_one_vote_however_many_hits_it_has() -> None:
    voter = Voter()
    voter.vote(hits(*[("moth", 1)] * 50))
    voter.vote(OWL)
    assert voter.vote(OWL) == Verdict("owl", pytest.approx(2 / 3), 3)


def test_only_the_last_frames_count() -> None:
    voter = Voter(3)
    for _ in range(10):
        voter.vote(MOTH)
    assert voter.vote(OWL) == Verdict("moth", pytest.approx(2 / 3), 3)
    assert voter.vote(OWL) == Verdict("owl", pytest.approx(2 / 3), 3)
    assert voter.vote(OWL) == Verdict("owl", 1.0, 3)


@pytest.mark.parametrize(("distance", "label"), [(10, "owl"), (11, None)])
def test_the_threshold_itself_is_known(distance: int, label: str | None) -> None:
    verdict = Voter(threshold=10).vote(hits(("owl", distance)))
    assert verdict == Verdict(label, 1.0, 1)


def test_hits_beyond_the_threshold_do_not_vote_where_others_do() -> None:
    assert Voter(threshold=10).vote([*OWL, *FAR, *hits(("moth", 11))]) == Verdict("owl", 1.0, 1)


def test_unknown_is_voted_for_as_a_label_is() -> None:
    voter = Voter(3, threshold=10)
    assert voter.vote(FAR) == Verdict(None, 1.0, 1)
    assert voter.vote(OWL) == Verdict("owl", 0.5, 2)  # a tie, which unknown loses
    assert voter.vote(FAR) == Verdict(None, pytest.approx(2 / 3), 3)
    assert voter.vote([]) == Verdict(None, pytest.approx(2 / 3), 3)  # an empty gallery


def test_items_without_a_label_say_nothing() -> None:
    assert Voter().vote(hits((None, 1), ("owl", 2))) == Verdict(None, pytest.approx(2 / 3), 1)
    assert Voter().vote(hits((None, 1), ("owl", 1))) == Verdict("owl", 0.5, 1)


def test_ties_go_to_the_nearest_then_to_the_name() -> None:
    for order in ((OWL, MOTH), (MOTH, OWL)):
        voter = Voter()
        voter.vote(order[0])
        assert voter.vote(order[1]) == Verdict("owl", 0.5, 2)
    for order in (("b", "a"), ("a", "b")):
        voter = Voter()
        voter.vote(hits((order[0], 5)))
        assert voter.vote(hits((order[1], 5))) == Verdict("a", 0.5, 2)


def test_an_empty_label_is_a_label() -> None:
    assert Voter().vote(hits(("", 1))) == Verdict("", 1.0, 1)


def test_rounding_decides_no_tie() -> None:
    """Three thirds are one, though 1/3 is no float."""
    voter = Voter()
    thirds = hits(("b", 5), ("b", 5), ("a", 5))
    for frame in (thirds, thirds, thirds, hits(("a", 5))):
        verdict = voter.vote(frame)
    assert verdict == Verdict("a", 0.5, 4)


# --- gaps


@pytest.mark.parametrize(("at", "frames"), [(12.0, 2), (12.1, 1), (10.0, 2), (9.9, 1)])
def test_a_gap_makes_it_forget(at: float, frames: int) -> None:
    voter = Voter()
    voter.vote(MOTH, 10.0)
    assert voter.vote(OWL, at).frames == frames
    assert voter.vote(OWL, at + 1).frames == frames + 1


def test_without_times_or_a_gap_it_forgets_nothing() -> None:
    voter = Voter(forget_s=None)
    voter.vote(MOTH, 10.0)
    assert voter.vote(OWL, 1e6).frames == 2
    assert voter.vote(OWL).frames == 3


def test_reset() -> None:
    voter = Voter()
    voter.vote(MOTH, 100.0)
    voter.reset()
    assert voter.vote(OWL, 0.0) == Verdict("owl", 1.0, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frames": 0}, "expected votes of at least one frame, got 0"),
        ({"frames": 2.5}, "expected votes of at least one frame, got 2.5"),
        ({"threshold": -1}, "threshold -1: expected bits, 0 or more, or None"),
        ({"threshold": 1.5}, "threshold 1.5: expected bits"),
        ({"forget_s": 0}, "forget_s 0: expected seconds above 0"),
        ({"forget_s": math.nan}, "forget_s nan: expected seconds above 0"),
    ],
)
def test_settings_that_can_never_be_right(settings: dict[str, Any], words: str) -> None:
    with refused(UsageError, f"^{words}"):
        Voter(**settings)


some_hits = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 4)).map(lambda one: [one]),
    max_size=6,
).map(lambda lists: hits(*(one for found in lists for one in found)))


@examples(200)
@given(st.lists(some_hits, min_size=1, max_size=5), st.sampled_from([None, 0, 2]), st.randoms())
def test_the_order_of_frames_and_hits_decides_nothing(
    frames: list[list[Hit]], threshold: int | None, chooser: random.Random
) -> None:
    verdicts = set()
    for _ in range(3):
        voter = Voter(threshold=threshold)
        for frame in frames:
            verdict = voter.vote(chooser.sample(frame, len(frame)))
        assert 1 / 3 <= verdict.share <= 1 and verdict.frames == len(frames)
        verdicts.add(verdict)
        frames = chooser.sample(frames, len(frames))
    assert len(verdicts) == 1
