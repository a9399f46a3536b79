import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdeploy.models.macs import Shape, block_macs, dense, exported, published
from fgdeploy.models.stages import Stage, check, parse

S224 = Shape(width=384, depth=12, patch_size=16, patches=196)
B224 = Shape(width=768, depth=12, patch_size=16, patches=196)
B448 = Shape(width=768, depth=12, patch_size=16, patches=784)
AT_224, AT_448 = parse("4:98,8:49,10:12"), parse("4:392,8:196,10:49")


def giga(macs: int) -> str:
    return f"{macs / 1e9:.2f}"


@pytest.mark.parametrize(
    ("shape", "stages", "numbers"),
    [
        (S224, AT_224, ("4.60", "4.28", "2.53", "2.27")),
        (B224, AT_224, ("17.56", "16.35", "9.69", "8.65")),
        (B448, AT_448, ("78.49", "72.92", "42.17", "37.98")),
        (B448, AT_224, ("78.49", "72.92", "30.24", "26.07")),  # "EET literal" at 448
    ],
    ids=["S/16@224", "B/16@224", "B/16@448", "B/16@448 literal"],
)
def test_the_numbers_of_the_method_tables(
    shape: Shape, stages: tuple[Stage, ...], numbers: tuple[str, ...]
) -> None:
    # docs/methods.md, section 6: dense as coded / simplified, EET as coded / simplified.
    counts = (dense(shape), exported(shape, ()), published(shape, stages), exported(shape, stages))
    assert tuple(giga(count) for count in counts) == numbers
    assert all(type(count) is int for count in counts)


def test_a_dense_block_is_twelve_t_d_squared_and_two_t_squared_d() -> None:
    tokens, width = 197, 384
    expected = 12 * tokens * width**2 + 2 * tokens**2 * width
    assert block_macs(width, tokens, tokens, tokens, tokens) == expected
    patches = 196 * 3 * 16**2 * 384
    assert dense(S224) == patches + 12 * expected


def test_each_part_of_a_block() -> None:
    width = 10
    none = block_macs(width, 0, 0, 0, 0)
    assert none == 0
    assert block_macs(width, 1, 0, 0, 0) == 100  # q
    assert block_macs(width, 0, 1, 0, 0) == 200  # k and v
    assert block_macs(width, 1, 1, 0, 0) == 100 + 200 + 2 * 10  # and QK^T, AV
    assert block_macs(width, 3, 7, 0, 0) == 300 + 1400 + 2 * 3 * 7 * 10
    assert block_macs(width, 0, 0, 1, 0) == 100  # proj
    assert block_macs(width, 0, 0, 0, 1) == 800  # MLP, ratio 4
    assert block_macs(width, 0, 0, 0, 1, ratio=8 / 3) == int(2 * 8 / 3 * 100)


@pytest.mark.parametrize("ratio", [2.0, 4.0])
@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_one_pruning_by_hand(ratio: float, prefix: int) -> None:
    shape = Shape(width=8, depth=3, patch_size=2, patches=9, prefix_tokens=prefix, mlp_ratio=ratio)
    stages = (Stage(2, 4),)
    many, few = 9 + prefix, 4 + prefix
    stem = 9 * 3 * 4 * 8

    def block(*rows: int) -> int:
        return block_macs(8, *rows, ratio=ratio)

    full, late = block(many, many, many, many), block(few, few, few, few)
    assert dense(shape) == stem + 3 * full
    assert published(shape, stages) == stem + 2 * full + late
    gathered = block(many, many, few, few)
    one_row = block(1, few, 1, 1)
    assert exported(shape, stages, early=True, last=False) == stem + full + gathered + late
    assert exported(shape, stages, early=False, last=True) == stem + 2 * full + one_row
    assert exported(shape, stages) == stem + full + gathered + one_row
    assert exported(shape, ()) == stem + 2 * full + block(1, many, 1, 1)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    depth=st.integers(2, 16),
    patches=st.integers(1, 300),
    prefix=st.integers(1, 5),
    width=st.sampled_from([64, 192, 384]),
    data=st.data(),
)
def test_each_saving_saves(
    depth: int, patches: int, prefix: int, width: int, data: st.DataObject
) -> None:
    shape = Shape(width, depth, 16, patches, prefix)
    blocks = data.draw(st.lists(st.integers(1, depth - 1), unique=True, max_size=4))
    keeps = data.draw(st.lists(st.integers(1, patches), min_size=4, max_size=4))
    stages = check(
        [
            Stage(block, keep)
            for block, keep in zip(sorted(blocks), sorted(keeps, reverse=True), strict=False)
        ],
        depth,
        patches,
    )
    assert exported(shape, stages, early=False, last=False) == published(shape, stages)
    assert published(shape, ()) == dense(shape)
    assert exported(shape, (), early=True, last=False) == dense(shape)
    early = exported(shape, stages, early=True, last=False)
    last = exported(shape, stages, early=False, last=True)
    both = exported(shape, stages)
    assert both <= last < published(shape, stages)
    assert both < early <= published(shape, stages) <= dense(shape)
    # The two savings are in different blocks, so they add up.
    assert published(shape, stages) - both == 2 * published(shape, stages) - early - last
