"""Logits beside a fitted hash head, from a file of CLCA's authors to the bundle and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fgdeploy
from fgdeploy.core.errors import CheckpointError, DataError
from fgdeploy.export import hash_head
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle, rebuild
from fgdeploy.models import assembly as assemblies
from fgdeploy.models.network import Network
from tests.checks import refused
from tests.export.small import frames_of
from tests.models.methods import authors


def _settings(path: Path, **changed: object) -> ExportSettings:
    settings = ExportSettings(method="clca", checkpoint=path, head="lsh", bits=16)
    return dataclasses.replace(settings, **changed)  # type: ignore[arg-type]


def test_a_bundle_has_both_and_is_rebuilt(tmp_path: Path) -> None:
    theirs = authors.clca()
    path = authors.save(tmp_path / "best.pth", theirs)
    names = [f"leaf {number}" for number in range(authors.CLASSES)]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    settings = _settings(path, logits=True, class_names=tmp_path / "names.txt")
    done = export_bundle(settings, tmp_path / "clca.fgd")
    manifest = done.bundle.manifest
    assert manifest.classes == tuple(names)
    assert manifest.head == {"kind": "lsh", "seed": 0, "classes": authors.CLASSES}
    assert (manifest.width, manifest.outputs["embedding"].shape) == (64, (128,))
    assert manifest.outputs["logits"].shape == (authors.CLASSES,)
    frames = frames_of(3, authors.SIZE)
    found = fgdeploy.load(done.bundle.path).engine.run(frames)
    again = rebuild(done.bundle, path).run(frames)
    for name, value in again.arrays().items():
        assert np.abs(found.arrays()[name].astype(float) - value).max() < 1e-4, name
    logits, embedding = found.arrays()["logits"], torch.tensor(found.arrays()["embedding"])
    head = theirs["ifa_head.0.4.weight"].squeeze(2), theirs["ifa_head.0.4.bias"]
    assert np.abs(torch.nn.functional.linear(embedding, *head).numpy() - logits).max() < 1e-4
    theirs["ifa_head.0.4.weight"] = torch.zeros(authors.CLASSES, 64, 1)
    other = authors.save(tmp_path / "other.pth", theirs)
    with refused(CheckpointError, "other.pth holds no class head, as clca.fgd has one"):
        rebuild(done.bundle, other)


def test_logits_change_no_fingerprint_and_no_code(tmp_path: Path) -> None:
    path = authors.save(tmp_path / "best.pth", authors.clca())
    prints, heads = [], []
    for logits in (False, True):
        settings = _settings(path, logits=logits)
        assembly = assemblies.choose(settings.network())
        encoder = assembly.encoder()
        heads.append(hash_head.choose(settings, assembly, encoder))
        prints.append(Network(encoder, heads[-1]).fingerprint())
    assert prints[0] == prints[1]
    assert [head.classes for head in heads] == [0, authors.CLASSES]
    assert [head.outputs() for head in heads] == [(), ("logits",)]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"logits": True}, r"best.safetensors has none on an embedding of 128 values"),
        ({"class_names": Path("names.txt")}, "names.txt: best.safetensors has no class head"),
        ({"head": "trained"}, "the trained head needs a --checkpoint with head_hash.weight"),
    ],
)
def test_without_a_class_head(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    state = {key: value for key, value in authors.clca().items() if "0.4" not in key}
    save_file(state, tmp_path / "best.safetensors")
    settings = _settings(
        tmp_path / "best.safetensors",
        backbone="test_vit",
        options={"blocks": "2,3,4"},
        **changed,
    )
    with refused(CheckpointError, words):
        export_bundle(settings, tmp_path / "x.fgd")


def test_names_are_as_many_as_classes(tmp_path: Path) -> None:
    path = authors.save(tmp_path / "best.pth", authors.clca())
    (tmp_path / "names.txt").write_text("one\n", encoding="utf-8")
    with refused(DataError, "has 1 name, but the class head tells 7 classes"):
        export_bundle(_settings(path, class_names=tmp_path / "names.txt"), tmp_path / "x.fgd")
