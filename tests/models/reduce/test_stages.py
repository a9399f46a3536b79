import itertools
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.errors import FgdeployError, StageError, UsageError
from fgdeploy.models.reduce.stages import Schedule, Stage, check, parse
from tests.checks import examples, refused

EET = Schedule(((4, 1 / 2), (8, 1 / 4), (10, 1 / 16)))
PUBLISHED = (Stage(4, 98), Stage(8, 49), Stage(10, 12))

thorough = examples(100)


# Reading


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("4:98,8:49,10:12", PUBLISHED),
        (" 4 : 98 ,8:49,\t10:12 ", PUBLISHED),
        ("1:1", (Stage(1, 1),)),
        ("04:098", (Stage(4, 98),)),
        ("none", ()),
        (" None ", ()),
        ("NONE", ()),
    ],
)
def test_stages_as_written(text: str, stages: tuple[Stage, ...]) -> None:
    assert parse(text) == stages


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        (" ", ""),
        ("4", "4"),
        ("4:", "4:"),
        (":98", ":98"),
        ("4:98,", ""),
        (",4:98", ""),
        ("4:98,,8:49", ""),
        ("4:98;8:49", "4:98;8:49"),
        ("4:98 8:49", "4:98 8:49"),
        ("4:-1", "4:-1"),
        ("-4:98", "-4:98"),
        ("+4:98", "+4:98"),
        ("4:9.5", "4:9.5"),
        ("4:98:2", "4:98:2"),
        ("4=98", "4=98"),
        ("four:98", "four:98"),
        ("4:1e2", "4:1e2"),
        ("none,4:98", "none"),
        ("nothing", "nothing"),
    ],
)
def test_text_that_is_no_stages(text: str, part: str) -> None:
    words = (
        f"stages {text!r}: expected BLOCK:TOKENS pairs such as 4:98,8:49,10:12, or none; "
        f"got {part!r}"
    )
    with refused(UsageError, f"^{re.escape(words)}$"):
        parse(text)


def test_an_error_stays_in_one_line() -> None:
    with refused(UsageError, r"got '8\\n:9x'$"):
        parse("4:98,8\n:9x")


def test_a_number_without_end() -> None:
    with pytest.raises(FgdeployError):
        check(parse("4:" + "9" * 5000), 12, 196)


@thorough
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9999)), min_size=1, max_size=6))
def test_what_is_shown_can_be_read(pairs: list[tuple[int, int]]) -> None:
    stages = tuple(Stage(block, keep) for block, keep in pairs)
    assert parse(",".join(map(str, stages))) == stages


@thorough
@given(st.text(alphabet="0123456789:, \nnoe-", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        stages = parse(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse(",".join(map(str, stages)) or "none") == stages


# Checking


@pytest.mark.parametrize(
    "stages",
    [
        (),
        PUBLISHED,
        (Stage(1, 196),),
        (Stage(11, 1),),
        (Stage(4, 98), Stage(5, 98)),
        tuple(Stage(block, 197 - block) for block in range(1, 12)),
    ],
)
def test_stages_that_a_backbone_can_follow(stages: tuple[Stage, ...]) -> None:
    assert check(list(stages), 12, 196) == stages


@pytest.mark.parametrize(
    ("text", "stage", "above"),
    [
        ("0:98", "0:98", 0),
        ("12:98", "12:98", 0),
        ("13:98", "13:98", 0),
        ("4:98,4:49", "4:49", 4),
        ("8:98,4:49", "4:49", 8),
        ("4:98,8:49,12:12", "12:12", 8),
    ],
)
def test_blocks_that_do_not_rise_or_come_too_late(text: str, stage: str, above: int) -> None:
    words = (
        rf"^stage {stage}: expected a block above {above} and below 12 "
        r"\(the backbone has 12 blocks, 1-based\); change the stages$"
    )
    with refused(StageError, words):
        check(parse(text), 12, 196)


@pytest.mark.parametrize(
    ("text", "stage", "keep", "there"),
    [
        ("4:197", "4:197", 197, 196),
        ("4:0", "4:0", 0, 196),
        ("4:98,8:99", "8:99", 99, 98),
        ("4:98,8:0", "8:0", 0, 98),
        ("4:98,8:49,10:50", "10:50", 50, 49),
    ],
)
def test_more_tokens_than_there_are_or_none(text: str, stage: str, keep: int, there: int) -> None:
    words = (
        rf"^stage {stage}: keeps {keep} patch tokens, but {there} arrive there; keep 1 to {there}$"
    )
    with refused(StageError, words):
        check(parse(text), 12, 196)


def test_a_negative_block_or_count() -> None:
    with refused(StageError, "^stage -1:98: expected a block above 0 and below 12"):
        check((Stage(-1, 98),), 12, 196)
    with refused(StageError, "^stage 4:-5: keeps -5 patch tokens, .*; keep 1 to 196$"):
        check((Stage(4, -5),), 12, 196)


@thorough
@given(
    st.lists(st.tuples(st.integers(-1, 14), st.integers(-1, 21)), max_size=5),
    st.integers(1, 13),
    st.integers(1, 20),
)
def test_checked_stages_only_ever_shrink(
    pairs: list[tuple[int, int]], depth: int, patches: int
) -> None:
    stages = tuple(Stage(block, keep) for block, keep in pairs)
    blocks, keeps = [0, *(s.block for s in stages)], [patches, *(s.keep for s in stages)]
    good = (
        all(before < after for before, after in itertools.pairwise(blocks))
        and all(before >= after >= 1 for before, after in itertools.pairwise(keeps))
        and all(block < depth for block in blocks[1:])
    )
    if good:
        assert check(stages, depth, patches) == stages
    else:
        with refused(StageError, "; (change the stages|keep 1 to [0-9]+)$"):
            check(stages, depth, patches)


# Scaling


@pytest.mark.parametrize(
    ("depth", "patches", "stages"),
    [
        (12, 196, "4:98,8:49,10:12"),  # 224 pixels, as published
        (12, 784, "4:392,8:196,10:49"),  # 448 pixels
        (12, 576, "4:288,8:144,10:36"),  # 384 pixels
        (12, 256, "4:128,8:64,10:16"),  # patch 14 at 224 pixels
        (12, 49, "4:24,8:12,10:3"),  # patch 32 at 224 pixels: rounded down
        (24, 196, "8:98,16:49,20:12"),
        (6, 196, "2:98,4:49,5:12"),
        (12, 4, "4:2,8:1,10:1"),  # never none
        (12, 1, "4:1,8:1,10:1"),
    ],
)
def test_the_published_schedule_scales(depth: int, patches: int, stages: str) -> None:
    assert EET.stages(depth, patches) == parse(stages)


def test_a_schedule_without_steps_is_dense() -> None:
    assert Schedule(()).stages(12, 196) == ()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_backbone_too_shallow_for_the_schedule(depth: int) -> None:
    words = rf"below {depth} \(the backbone has {depth} blocks.*change the stages$"
    with refused(StageError, words):
        EET.stages(depth, 196)


@thorough
@given(st.integers(5, 48), st.integers(1, 4000))
def test_the_schedule_suits_every_backbone(depth: int, patches: int) -> None:
    stages = EET.stages(depth, patches)
    assert len(stages) == 3
    assert [stage.keep for stage in stages] == [max(1, patches // part) for part in (2, 4, 16)]


def test_stages_need_no_torch() -> None:
    program = (
        "import sys, fgdeploy.models.reduce.stages; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
