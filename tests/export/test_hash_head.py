"""Which hash head an export gets, and what it is fitted on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fgdeploy
from fgdeploy.core.errors import (
    CheckpointError,
    DataError,
)
from fgdeploy.export import hash_head
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle, rebuild
from fgdeploy.models import assembly
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.heads.projection import ProjectionHead
from tests.checks import refused
from tests.export.small import RANDOM, frames_of


def test_itq_head_is_fitted_on_the_train_split(tmp_path: Path) -> None:
    chooser = np.random.default_rng(0)
    lines = ["path,class,split"]
    for number in range(30):
        pixels = chooser.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,c{number % 3},{'train' if number < 20 else 'test'}")
    (tmp_path / "0.png").write_bytes(b"not an image")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    settings = dataclasses.replace(RANDOM, head="itq", bits=48, fit_data=tmp_path / "list.csv")
    done = export_bundle(settings, tmp_path / "itq.fgd")
    head = done.bundle.manifest.head
    assert head == {"kind": "itq", "seed": 0, "photos": 19, "skipped": 1}
    hasher = fgdeploy.load(done.bundle.path)
    codes = hasher.encode([tmp_path / f"{n}.png" for n in range(1, 20)])
    balance = np.unpackbits(codes, axis=1, count=48).mean(axis=0)
    assert abs(balance.mean() - 0.5) < 0.1  # centred on the fitting photos
    rebuilt = rebuild(done.bundle, None)
    frames = frames_of(2, 64)
    assert np.abs(rebuilt.run(frames).hash - hasher.engine.run(frames).hash).max() < 1e-5


def test_a_head_is_never_fitted_on_a_list_without_a_train_split(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,class,split\na.png,c,test\n")
    settings = dataclasses.replace(RANDOM, head="itq", fit_data=tmp_path / "list.csv")
    with pytest.raises(DataError, match=r"no photos of split 'train'; the list has test"):
        export_bundle(settings, tmp_path / "x.fgd")
    assert not (tmp_path / "x.fgd").exists()


def test_bits_that_do_not_match(authors_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"--bits 32 does not match .* has 24 bits"):
        export_bundle(ExportSettings(checkpoint=authors_checkpoint, bits=32), tmp_path / "x.fgd")
    state = torch.load(authors_checkpoint, weights_only=True)["model"]
    torch.save({**state, "module.head.extra": torch.zeros(3)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"more.pth has head.extra beside its class and hash"):
        export_bundle(ExportSettings(checkpoint=tmp_path / "more.pth"), tmp_path / "x.fgd")
    other = {k.replace("hash.", "hash.0."): v for k, v in state.items()}
    torch.save(other, tmp_path / "sequence.pth")
    with pytest.raises(CheckpointError, match=r"has head_hash.0.weight but no head_hash.weight"):
        export_bundle(ExportSettings(checkpoint=tmp_path / "sequence.pth"), tmp_path / "x.fgd")
    state["module.head_hash.weight"] = torch.zeros(24, 9)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(
        CheckpointError, match=r"head_hash takes 9 inputs, but head gives 5 classes"
    ):
        export_bundle(ExportSettings(checkpoint=tmp_path / "odd.pth"), tmp_path / "x.fgd")
    del state["module.head_hash.bias"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=r"half.pth lacks head_hash.bias"):
        export_bundle(ExportSettings(checkpoint=tmp_path / "half.pth"), tmp_path / "x.fgd")


def _choose(settings: ExportSettings) -> tuple[object, list[str]]:
    chosen, said = assembly.choose(settings.network()), []  # type: ignore[var-annotated]
    return hash_head.choose(settings, chosen, chosen.encoder(), said.append), said


def test_the_first_head_that_is_possible_is_taken(authors_checkpoint: Path, tmp_path: Path) -> None:
    Image.fromarray(frames_of(1, 40)[0]).save(tmp_path / "a.png")
    Image.fromarray(frames_of(2, 40)[1]).save(tmp_path / "b.png")
    auto = dataclasses.replace(RANDOM, head="auto", bits=None)
    head, said = _choose(auto)
    assert isinstance(head, ProjectionHead) and head.facts() == {"kind": "lsh", "seed": 0}
    assert head.bits == 64
    assert said == ["hash head lsh (no trained one; --head itq --fit-data FOLDER ranks better)"]
    head, said = _choose(dataclasses.replace(auto, fit_data=tmp_path))
    assert isinstance(head, ProjectionHead)
    assert head.facts() == {"kind": "itq", "seed": 0, "photos": 2, "skipped": 0}
    assert said == ["hash head itq (no trained one)"]
    trained = ExportSettings(checkpoint=authors_checkpoint, image_size=64)
    head, said = _choose(trained)
    assert isinstance(head, ClassHashHead) and said == []
    head, _ = _choose(dataclasses.replace(trained, head="lsh", bits=16))
    assert isinstance(head, ProjectionHead) and head.bits == 16


def test_hyperplanes_go_through_the_middle_of_the_photos_where_there_are_some(
    tmp_path: Path,
) -> None:
    for number, frame in enumerate(frames_of(6, 40)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    head, _ = _choose(dataclasses.replace(RANDOM, fit_data=tmp_path))
    plain, _ = _choose(RANDOM)
    assert isinstance(head, ProjectionHead) and isinstance(plain, ProjectionHead)
    assert head.facts() == {"kind": "lsh", "seed": 0, "photos": 6, "skipped": 0}
    assert torch.equal(head.linear.weight, plain.linear.weight)
    assert not plain.linear.bias.any() and head.linear.bias.any()


def test_photos_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with refused(DataError, "none of the 1 photo of --fit-data can be read"):
        _choose(dataclasses.replace(RANDOM, head="itq", fit_data=tmp_path))
