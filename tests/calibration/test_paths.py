"""Ways through a graph, on one small enough to see."""

from __future__ import annotations

import pytest

from fgdeploy.calibration.paths import Paths
from tests.calibration.graphs import Draft


@pytest.fixture(scope="module")
def paths() -> Paths:
    """x -> a -> b -> top -> y, with a -> side -> top and b -> z; dead ends nowhere."""
    draft = Draft()
    draft.op("Relu", ["x"], "a")
    draft.op("Neg", ["a"], "side")
    draft.op("Mul", ["a", draft.constant("two", 2.0)], "b")
    draft.op("Max", ["b", "side"], "top")
    draft.op("Abs", ["top"], "y")
    draft.op("Exp", ["b"], "z")
    return Paths(draft.model({"x": ["n", 4]}, {"y": ["n", 4], "z": ["n", 4]}).graph)


def test_wiring(paths: Paths) -> None:
    assert paths.constants == {"two"}
    assert set(paths.producers) == {"a", "b", "side", "top", "y", "z"}
    assert [node.name for node in paths.users["a"]] == ["node_side", "node_b"]
    assert [node.name for node in paths.users["b"]] == ["node_top", "node_z"]


def test_reaching_and_reached(paths: Paths) -> None:
    assert paths.reaching(lambda node: node.op_type == "Max") == {
        "node_a",
        "node_b",
        "node_side",
        "node_top",
    }
    assert paths.reached_from(lambda node: node.op_type == "Mul") == {
        "node_b",
        "node_top",
        "node_y",
        "node_z",
    }
    assert paths.reaching(lambda node: False) == set()
    assert paths.reached_from(lambda node: False) == set()


def test_only_towards(paths: Paths) -> None:
    # `b` also goes to `z` and `a` to `b`, so only `side` serves `top` alone.
    assert paths.only_towards(lambda node: node.op_type == "Max") == {"node_side", "node_top"}
    both = paths.only_towards(lambda node: node.op_type in ("Max", "Exp"))
    assert both == {"node_a", "node_b", "node_side", "node_top", "node_z"}


def test_an_output_of_the_graph_is_a_way_of_its_own() -> None:
    draft = Draft()
    draft.op("Relu", ["x"], "a")
    draft.op("Abs", ["a"], "y")
    paths = Paths(draft.model({"x": ["n"]}, {"a": ["n"], "y": ["n"]}).graph)
    assert paths.only_towards(lambda node: node.op_type == "Abs") == {"node_y"}


@pytest.mark.parametrize(
    ("tensor", "kinds", "found"),
    [
        ("y", ("Abs", "Max", "Mul"), "node_b"),
        ("y", ("Abs",), "node_y"),
        ("y", ("Max",), None),  # another op
        ("a", ("Relu", "Relu"), None),  # nothing makes the input
        ("two", ("Mul",), None),
    ],
)
def test_follow_back(paths: Paths, tensor: str, kinds: tuple[str, ...], found: str | None) -> None:
    node = paths.follow_back(tensor, kinds)
    assert (node.name if node is not None else None) == found
