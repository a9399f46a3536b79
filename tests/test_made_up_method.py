"""A method that nobody published, in one file, through the whole house: nothing else names it.

It does what the frame must allow: a step before a block, one inside attention, one after; a suffix
token; a cache that makes tokens grow; weights of its own; an option; CLS rows of three blocks that
no norm has seen; a second pass over a crop; an extra output; precision pins; a key map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import fgdeploy
from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.calibration import half, linears, pins
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import Calibrated, calibrate
from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.demo.moths import write_moths
from fgdeploy.engines import BuildSettings, build, open_engine
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.base import FAST, Method, Options
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import CLSRows, Observer, Step
from fgdeploy.models.weights import checkpoint, trained
from fgdeploy.photos import read
from fgdeploy.proof.comparing import compare_engines, open_by_name
from fgdeploy.proof.parity import Limits
from fgdeploy.retrieval import Index, Item
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train

SIZE, BITS, WIDTH, DEPTH = 64, 16, 64, 6  # timm's test_vit


@dataclass(frozen=True)
class MadeUpOptions(Options):
    """keep: tokens that are left before the second block; zoom: look at a crop as well."""

    keep: int = 9
    zoom: bool = True


class Pool(Step):
    """Before a block: patches become `keep` weighted means, by learned queries."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(keep, WIDTH) * 0.1)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        end = tokens.count - tokens.suffix
        patches = tokens.x[:, tokens.prefix : end]
        weights = (self.queries @ patches.transpose(1, 2)).softmax(dim=-1)
        parts = [tokens.x[:, : tokens.prefix], weights @ patches, tokens.x[:, end:]]
        return super().forward(block, tokens.having(torch.cat(parts, dim=1)))


class Choose(nn.Module):
    """Which rows may ask: those that CLS attends to most."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        scores = blocks.softmax_products(q, k).mean(dim=1)[:, 0, 1:]
        return scores.topk(self.keep, dim=1, sorted=False).indices


class FewQueries(Step):
    """Inside attention: only the rows that CLS attends to most are queries, the rest end here."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.choose = Choose(keep)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        y = block.norm1(tokens.x)
        k, v = blocks.keys_values(block, y)
        rows = self.choose(blocks.queries(block, y[:, :1]), k)
        x, y = (blocks.take_rows(part, rows, 1) for part in (tokens.x, y))
        out = blocks.attention(block, blocks.queries(block, y), k, v)
        x = blocks.feed_forward(block, blocks.merge(block, x, out))
        return tokens.having(x, suffix=0, cache=(x[:, 1:].mean(dim=1, keepdim=True),))


class Recall(Step):
    """After a block: what an earlier step kept aside joins the tokens, through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.adapt = nn.Linear(WIDTH, WIDTH)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        after = super().forward(block, tokens)
        rows = [self.adapt(row) for row in after.cache]
        return after.having(torch.cat([after.x, *rows], dim=1), cache=())


class Looks:
    """Observes where CLS looks in the first block."""

    wants_attention = False

    def __call__(self, number: int, tokens: Tokens) -> None:
        if number == 1:
            assert tokens.attended is not None
            self.where = tokens.attended.cls_attention().mean(dim=1)[:, 1:-1]


class Crop(nn.Module):
    """The rectangle around the two patches that are looked at most, scaled up to the image."""

    row: Tensor
    column: Tensor

    def __init__(self, grid: int, patch: int) -> None:
        super().__init__()
        places = torch.arange(grid * grid)
        self.register_buffer("row", (places // grid).float(), persistent=False)
        self.register_buffer("column", (places % grid).float(), persistent=False)
        self.patch = float(patch)

    def forward(self, where: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        best = where.topk(2, dim=1).indices
        sides, box = [], []
        for table, length in ((self.row, pixels.shape[2]), (self.column, pixels.shape[3])):
            places = table[best]
            low = self.patch * places.amin(dim=1, keepdim=True)
            high = self.patch * (places.amax(dim=1, keepdim=True) + 1)
            steps = torch.arange(length, dtype=low.dtype) / (length - 1)
            at = low + steps * (high - low - 1)
            grid = torch.arange(length, dtype=low.dtype)
            sides.append((1 - (at.unsqueeze(2) - grid).abs()).relu())
            box += [low, high]
        crop = sides[0].unsqueeze(1) @ pixels @ sides[1].unsqueeze(1).transpose(2, 3)
        return torch.cat(box, dim=1), crop


class TwoLooks(Encoder):
    """The steps, twice, with a learned mean of CLS rows of three blocks."""

    def __init__(self, vit: Any, norm: Any, options: MadeUpOptions) -> None:
        steps = {2: Pool(options.keep), 3: FewQueries(4), 5: Recall()}
        super().__init__(vit, norm, steps, nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02))
        self.mix = nn.Parameter(torch.tensor([0.5, 0.3, 0.2]))
        self.crop = Crop(int(vit.patch_embed.grid_size[0]), int(vit.patch_embed.patch_size[0]))
        self.zoom = options.zoom

    def forward(self, pixels: Tensor, observers: Sequence[Observer] = ()) -> Features:
        looks, rows = Looks(), CLSRows((2, 4, DEPTH))
        first = super().forward(pixels, [*observers, looks, rows])
        embedding = first.embedding + self.mix @ torch.stack(rows.rows, dim=1)
        box, crop = self.crop(looks.where, pixels)
        if self.zoom:
            embedding = embedding + super().forward(crop).embedding
        return Features(embedding, {"box": box})


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read what the authors would have saved: everything below `net`, the token `extra`."""
    if not any(key.startswith("net.") for key in state):
        return dict(state)
    return {
        {"extra": "suffix"}.get(key, key.removeprefix("net.")): value
        for key, value in state.items()
    }


MADE_UP = Method(
    name="made-up",
    backbone="test_vit",
    build=TwoLooks,
    options=MadeUpOptions,
    rename=_renamed,
    pins=("crop/*", "steps.*.choose/*"),
    outputs=("box",),
    recipes={"calm": dataclasses.replace(FAST, lr=1e-5, per_class=2)},
)
OWN = {"suffix", "mix", "steps.2.queries", "steps.5.adapt.weight", "steps.5.adapt.bias"}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    registry.register(MADE_UP)
    torch.set_num_threads(1)
    yield
    del registry.METHODS[MADE_UP.name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 3, 16, size=96)


def _settings(data: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        data=data,
        method="made-up",
        options={"keep": "7"},
        weights="random",
        image_size=SIZE,
        bits=BITS,
        epochs=2,
        batch=8,
        precision="fp32",
    )
    return dataclasses.replace(settings, **changes)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(_settings(data), folder)
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("bundles") / "made-up.fgd"
    return export_bundle(ExportSettings(checkpoint=run), target).bundle


@pytest.fixture(scope="module")
def calibrated(bundle: Bundle, data: Path) -> Calibrated:
    wide = Limits(min_bit_agreement=0.5)  # hardly trained: how good INT8 is, is not the question
    settings = CalibrationSettings(images=16)
    photos = [photo for photo in read(data) if photo.split == "train"]
    return calibrate(bundle, photos, settings, wide)


def test_no_other_file_knows_its_name() -> None:
    root = Path(fgdeploy.__file__).parent.parent
    rooms = ("fgdeploy", "models", "training", "export", "calibration", "engines")
    named = [
        path
        for room in rooms
        for path in (root / room).rglob("*.py")
        if "made-up" in path.read_text(encoding="utf-8")
    ]
    assert named == []


def test_all_its_weights_are_trained_and_saved(run: Path, data: Path, tmp_path: Path) -> None:
    learned = checkpoint.read(run / "model.safetensors")
    assert set(learned) >= OWN
    train(_settings(data, epochs=1, recipe="calm", lr=1e-12, warmup=0), tmp_path / "still")
    start = checkpoint.read(tmp_path / "still" / "model.safetensors")
    for name in OWN:
        assert (learned[name] - start[name]).abs().max() > 1e-6, name
    config = trained.load_config(run / "model.safetensors")
    assert config is not None
    assert config.options == MadeUpOptions(keep=7)


def test_a_run_that_is_broken_off_goes_on_to_the_same_weights(
    run: Path, data: Path, tmp_path: Path
) -> None:
    def breaks(tick: Any) -> None:
        if tick.epoch == 2:
            raise InterruptedError

    folder = tmp_path / "again"
    with pytest.raises(InterruptedError):
        train(_settings(data), folder, reporter=Reporter(tick=breaks))
    train(_settings(data), folder, resume=True)
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_its_manifest(bundle: Bundle) -> None:
    manifest = open_bundle(bundle.path).manifest
    assert manifest.options == {"keep": 7, "zoom": True}
    assert list(manifest.outputs) == ["code", "hash", "embedding", "box"]
    assert manifest.outputs["box"].shape == (4,)
    assert manifest.grid == (4, 4)
    assert len(manifest.classes) == 3
    # CLS, patches and the suffix; pooled; few queries; the cache comes back; twice over.
    assert [rows.tokens for rows in manifest.blocks] == [18, 9, 9, 5, 5, 6] * 2
    assert [rows.mlp for rows in manifest.blocks] == [18, 9, 5, 5, 5, 1] * 2
    assert manifest.blocks[2].query == 5 and manifest.blocks[2].keyval == 9
    assert manifest.parity is not None and "box" in manifest.parity["output_errors"]


def test_published_and_deployed_are_one_in_float64(run: Path) -> None:
    from fgdeploy.models import assembly
    from fgdeploy.models.network import Network

    chosen = assembly.choose(assembly.NetworkSettings(checkpoint=run))
    state = chosen.source.state
    assert state is not None
    head = MADE_UP.head.from_state(state, WIDTH, None, "run")
    assert head is not None
    network = Network(chosen.encoder(), head, chosen.options).double()
    frames = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    assert set(network.simplifications()) == {"fold-normalisation", "cls-last", "fold-hash-head"}
    answers = []
    for one in (network.published(), network.deployed()):
        with torch.no_grad():
            features = one(one.pixels(frames))
            answers.append((one.hashes(features)["hash"], features.extras["box"]))
    (hashes, box), (folded, folded_box) = answers
    assert torch.equal(box, folded_box)
    # mean and std are float32 numbers in the published network, float64 ones where folded
    assert (hashes - folded).abs().max() < 1e-6 * hashes.abs().max()


def test_engines_agree_on_all_outputs(bundle: Bundle, run: Path, data: Path) -> None:
    photos = read(data)[:24]
    limits = Limits(max_hash_diff=1e-3, min_bit_agreement=1.0, max_output_error=1e-4)
    with open_by_name(bundle, "pytorch", run / "model.safetensors") as reference:
        for backend in ("onnxruntime", "openvino"):
            pytest.importorskip(backend)
            with open_engine(bundle, backend) as candidate:
                parity, _ = compare_engines(bundle, reference, candidate, photos)
            assert set(parity.output_errors) == {"embedding", "box"}
            assert parity.breaches(limits) == []


def test_what_it_pins_stays_in_float32(calibrated: Calibrated) -> None:
    graph = onnx.load(calibrated.bundle.graph("fp32"))
    kept = [node.name for node in graph.graph.node if pins.of(graph).keeps(node.name)]
    assert any(name.startswith("crop/") for name in kept)
    assert any(name.startswith("steps.3.choose/") for name in kept)
    full = half.in_full(graph)
    assert set(kept) <= full
    assert not {one.node for one in linears.find(graph)} & set(kept)
    # One weight, two activations: each run of a block has INT8 weights of its own.
    found = [one for one in linears.find(graph) if one.name.startswith("blocks.0.mlp.fc1")]
    assert len(found) == 2 and found[0].weight == found[1].weight
    fp16 = onnx.load(calibrated.bundle.graph("fp16"))
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(fp16).graph.value_info
    }
    boxes = [
        name
        for node in fp16.graph.node
        if node.name.startswith("crop/") and node.op_type in ("MatMul", "Mul", "Sub")
        for name in node.output
    ]
    assert boxes and all(types[name] == onnx.TensorProto.FLOAT for name in boxes)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_is_built(calibrated: Calibrated, data: Path, backend: str, precision: str) -> None:
    pytest.importorskip(backend)
    bundle = calibrated.bundle
    try:
        build(bundle, backend, precision, BuildSettings(batches=(1, 4)))
    except fgdeploy.FgdeployError as error:
        assert precision == "int8" and "INT8" in str(error)  # refused where this CPU clips it
        pytest.skip(str(error))
    photos = [photo.path for photo in read(data)[:6]]
    with fgdeploy.load(bundle.path, backend, precision, batch=4) as hasher:
        outputs = hasher.encode_full(photos)
        assert outputs.code.shape == (6, BITS // 8)
        assert outputs.extras["box"].shape == (6, 4)
        assert (np.packbits(outputs.hash > 0, axis=1) == outputs.code).all()


@pytest.mark.parametrize("key", ["fp32", "fp16", "int8-fp16"])
def test_tensorrt_parses_and_builds_it(calibrated: Calibrated, tmp_path: Path, key: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from fgdeploy.engines.trt_build import compile_engine

    settings = BuildSettings(batches=(1, 4), compute_capabilities=("8.6",))
    target = tmp_path / "engine"
    compile_engine(trt, calibrated.bundle.graph(key), (SIZE, SIZE, 3), target, settings)
    assert target.stat().st_size > 10_000


def test_photos_are_hashed_and_found(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    photos = read(data)
    with (
        fgdeploy.load(bundle.path) as hasher,
        Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits) as index,
    ):
        codes = hasher.encode([photo.path for photo in photos])
        index.add(
            [
                Item(str(photo.path), code.tobytes(), label=photo.label)
                for photo, code in zip(photos, codes, strict=True)
            ]
        )
        hits = index.search(codes[:1], k=3)[0]
        assert hits[0].distance == 0


def test_a_weight_of_its_own_changes_the_fingerprint(
    bundle: Bundle, run: Path, tmp_path: Path
) -> None:
    seen = {bundle.manifest.fingerprint}
    state = checkpoint.read(run / "model.safetensors")
    config = trained.load_config(run / "model.safetensors")
    assert config is not None
    for number, name in enumerate(sorted(OWN)):
        changed = {**state, name: state[name] + 0.01}
        folder = tmp_path / str(number)
        folder.mkdir()
        trained.save(folder / "model.safetensors", changed, config)
        done = export_bundle(ExportSettings(checkpoint=folder), folder / "b.fgd")
        seen.add(done.bundle.manifest.fingerprint)
    assert len(seen) == 1 + len(OWN)


def test_its_authors_checkpoint_is_read_by_its_key_map(
    bundle: Bundle, run: Path, tmp_path: Path
) -> None:
    ours = checkpoint.read(run / "model.safetensors")
    theirs = {("extra" if k == "suffix" else f"net.{k}"): v for k, v in ours.items()}
    torch.save(theirs, tmp_path / "authors.pth")
    settings = ExportSettings(
        method="made-up",
        backbone="test_vit",
        image_size=SIZE,
        options={"keep": "7"},
        checkpoint=tmp_path / "authors.pth",
    )
    done = export_bundle(settings, tmp_path / "a.fgd")
    assert done.bundle.manifest.weights["sha256"] == bundle.manifest.weights["sha256"]
    assert done.bundle.manifest.fingerprint == bundle.manifest.fingerprint


def test_what_does_not_fit_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the method's options are keep, zoom"):
        MadeUpOptions.parse({"speed": "1"})
    with pytest.raises(UsageError, match="expected a whole number such as 9"):
        MadeUpOptions.parse({"keep": "many"})
    with pytest.raises(UsageError, match="no recipe 'paper'; choose fast, calm"):
        MADE_UP.recipe("paper")
    settings = ExportSettings(checkpoint=run, options={"keep": "5"})
    with pytest.raises(CheckpointError, match=r"has misshapen steps\.2\.queries"):
        export_bundle(settings, tmp_path / "b.fgd")
    assert list(tmp_path.iterdir()) == []
