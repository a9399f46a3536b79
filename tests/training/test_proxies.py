"""DVA's loss in plain float64, who gets gradients of it, and a training with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.demo.moths import write_moths
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods import registry
from fgdeploy.models.network import Network
from fgdeploy.models.weights import checkpoint
from fgdeploy.photos import read
from fgdeploy.photos.boxes import Box
from fgdeploy.training.objective import Batch, build
from fgdeploy.training.proxies import ProxyObjective
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training import setups
from tests.training.setups import BITS, CLASSES, COUNT, LABELS

PAPER = registry.get("dva").recipe("paper")
# of the rows in `setups.batch`, 19 has no box and 4 and 7 boxes that leave no background
BOXES = [Box(0, 0, 1, 0.4)] * COUNT
for _row in (4, 7):
    BOXES[_row] = Box(0, 0, 1, 0.6)
SOME: list[Box | None] = [None if row == 19 else box for row, box in enumerate(BOXES)]


def _make() -> Network:
    vit = backbones.create("test_vit", setups.SIZE, seed=1)
    chosen = registry.get("dva")
    options = chosen.options.parse({"rank": "4"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = chosen.build(vit, setups.NORM, options)
        net = Network(encoder, ClassHashHead.fresh(encoder.width, CLASSES, BITS), options)
    with torch.no_grad():
        for name in encoder.own():
            encoder.state()[name].add_(0.1)
    for name in encoder.frozen():
        encoder.state()[name].requires_grad_(False)
    return net.eval()


def _objective(*without: str, boxes: list[Box | None] = SOME) -> ProxyObjective:
    setup = setups.made(*without, make=lambda pruned: _make(), boxes=boxes).setup
    made = build(PAPER, setup)
    assert isinstance(made, ProxyObjective)
    with torch.no_grad():  # apart from each other, as after some steps
        for number, points in enumerate((made.proxies_obj, made.proxies_all)):
            points.add_(0.3 * setups.draw(*points.shape, seed=number))
    return made.train()


def _batch() -> Batch:
    given = setups.batch()
    views = {"image": given.images, "object": 1 - given.images, "background": given.images * 2}
    return Batch(views, given.labels, given.rows)


def _near(rows: Tensor, points: Tensor, labels: list[int]) -> float:
    """Mean of -log(exp(-d) / sum exp(-d)), d the squared distance of vectors of length 3."""
    a, b = (setups.array(each) for each in (rows, points))
    a, b = (3 * each / np.sqrt((each**2).sum(1, keepdims=True)) for each in (a, b))
    d = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    chances = np.exp(-d) / np.exp(-d).sum(axis=1, keepdims=True)
    return float(-np.log(chances[range(len(labels)), labels]).mean())


def test_the_loss_is_its_formula() -> None:
    made, batch = _objective(), _batch()
    found = setups.values(made(batch))
    labels = batch.labels.tolist()
    assert batch.rows.tolist() == [7, 2, 19, 0, 11, 4]
    with torch.no_grad():
        whole, objects, backgrounds = (
            made.student(batch.views[name]).embedding for name in ("image", "object", "background")
        )
    boxed, behind = [0, 1, 3, 4, 5], [1, 3, 4]
    both = torch.cat([whole, backgrounds[behind]])
    hashes = made.student.hashes(made.student(batch.images))["hash"]
    codes = made.codes / made.codes.norm(dim=1, keepdim=True)
    cosines = hashes / hashes.norm(dim=1, keepdim=True) @ codes.T
    assert found == pytest.approx(
        {
            "proxy": _near(both, made.proxies_all, [*labels, *[CLASSES] * 3]),
            "object": _near(objects[boxed], made.proxies_obj, [labels[row] for row in boxed]),
            "transfer": 3 * _near(whole, made.proxies_obj, labels),
            "code": setups.entropy(8 * cosines, batch.labels),
        },
        rel=1e-4,
    )


def test_parts_can_be_left_out() -> None:
    batch, labels = _batch(), setups.batch().labels.tolist()
    made = _objective("background", "transfer", "start")
    found = setups.values(made(batch))
    assert list(found) == ["proxy", "object", "code"]
    with torch.no_grad():
        whole = made.student(batch.images).embedding
    assert found["proxy"] == pytest.approx(_near(whole, made.proxies_all, labels), rel=1e-5)
    bare = _objective(boxes=[*SOME[:3], *[None] * (COUNT - 3)])
    which = torch.tensor([5, 6])
    views = {name: view[:2] for name, view in batch.views.items()}
    assert list(bare(Batch(views, batch.labels[:2], which))) == ["proxy", "transfer", "code"]


def test_who_learns_from_which_term() -> None:
    made, batch = _objective(), _batch()
    terms = made(batch)
    head, encoder = list(made.student.head.parameters()), made.student.encoder
    own = [encoder.state()[name] for name in sorted(encoder.own())]
    learns = {
        name: [
            setups.norm(torch.autograd.grad(term, group, retain_graph=True, allow_unused=True)) > 0
            for group in (own, [made.proxies_obj], [made.proxies_all], head)
        ]
        for name, term in terms.items()
    }
    assert learns == {
        "proxy": [True, False, True, False],
        "object": [True, True, False, False],
        "transfer": [True, False, False, False],
        "code": [False, False, False, True],
    }


def test_rates_and_what_is_frozen() -> None:
    made = _objective()
    groups = made.parameter_groups(PAPER)
    held = [id(one) for group in groups for one in group["params"]]
    assert len(held) == len(set(held))
    wanted = {id(one) for one in made.parameters() if one.requires_grad}
    assert set(held) == wanted
    sizes = [(group["lr_scale"], group.get("eps"), len(group["params"])) for group in groups]
    assert sizes == [(1.0, None, 6 * 2 * 2), (0.01, 1e-8, 4), (4000.0, None, 2)]


def test_points_start_at_the_mean_direction_of_their_class() -> None:
    setup = setups.made(make=lambda pruned: _make(), boxes=SOME).setup
    made, random = (
        build(PAPER, setup),
        build(PAPER, dataclasses.replace(setup, without=frozenset({"start"}))),
    )
    assert isinstance(made, ProxyObjective) and isinstance(random, ProxyObjective)
    rows = setups.embed(_make()).astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for number in range(CLASSES):
        mean = units[number == LABELS].sum(axis=0)
        mean *= 64**0.5 / 8 / np.linalg.norm(mean)
        for points in (made.proxies_obj, made.proxies_all):
            assert np.abs(points[number].detach().numpy() - mean).max() < 1e-5
    assert torch.equal(made.proxies_all[-1], random.proxies_all[-1])
    assert float(random.proxies_obj.detach().std()) == pytest.approx(1 / 8, rel=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 3, 8, size=64)


def _settings(data: Path, folder: Path, **changes: Any) -> TrainSettings:
    names = ["/".join(photo.path.parts[-2:]) for photo in read(data)]
    lines = [f"{name},.2,.3,.8,.7\n" for name in names[1:]]  # one photo has none
    (folder / "boxes.csv").write_text("path,x0,y0,x1,y1\n" + "".join(lines), encoding="utf-8")
    settings = TrainSettings(
        data=data,
        method="dva",
        recipe="paper",
        options={"rank": "4"},
        backbone="test_vit",
        weights="random",
        image_size=64,
        bits=16,
        epochs=2,
        batch=8,
        precision="fp32",
        boxes=folder / "boxes.csv",
    )
    return dataclasses.replace(settings, **changes)


def _weights(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    state = checkpoint.read(folder / "model.safetensors")
    return {name: value.numpy() for name, value in state.items()}


def test_a_training_leaves_a_network_without_points_and_resumes_to_the_bit(
    data: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    done = train(_settings(data, tmp_path), tmp_path / "a", reporter=Reporter(said.append))
    assert set(done.history[0]) > {"proxy", "object", "transfer", "code"}
    assert any("views of" in line for line in said)

    def breaks(tick: Any) -> None:
        if tick.epoch == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(_settings(data, tmp_path), tmp_path / "b", reporter=Reporter(tick=breaks))
    other = tmp_path / "other.csv"
    other.write_text("path,x0,y0,x1,y1\n" + f"{read(data)[2].path},0,0,1,1\n", "utf-8")
    with refused(CheckpointError, "other settings or other photos"):
        train(_settings(data, tmp_path, boxes=other), tmp_path / "b", resume=True)
    train(_settings(data, tmp_path), tmp_path / "b", resume=True)
    first, second = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert first.keys() == second.keys() and not any("proxies" in name for name in first)
    assert all((first[name] == second[name]).all() for name in first)
    start = backbones.create("test_vit", 64, seed=0).state_dict()
    assert all((first[name] == start[name].numpy()).all() for name in start)
    assert any(value.any() for name, value in first.items() if "up.weight" in name)


def test_without_boxes_nothing_is_left_behind(data: Path, tmp_path: Path) -> None:
    with refused(UsageError, "pass --boxes FILE, or train with --recipe fast"):
        train(_settings(data, tmp_path, boxes=None), tmp_path / "c")
    assert not (tmp_path / "c").exists()
