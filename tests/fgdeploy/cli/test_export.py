"""`fgdeploy export` as a user types it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.cli import export as command
from fgdeploy.export.against_dense import AgainstDense
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_export(run: Run, tmp_path: Path) -> None:
    flags = ["--backbone", "test_vit", "--weights", "random", "--image-size", "64"]
    result = run(
        "export", "--no-time", "--method", "eet", *flags, "--stages", "2:9,5:3", "--bits", "12"
    )
    assert result.exit_code == 0, result.output
    assert "2:9, 5:3" in result.stdout
    assert "next: fgdeploy index add gallery.fgi PHOTOS --bundle eet.fgd" in result.stderr
    manifest = json.loads((tmp_path / "eet.fgd" / "manifest.json").read_text())
    assert manifest["options"]["stages"] == [[2, 9], [5, 3]]
    fails(run("export", *flags, "--stages", "2:9"), 1, "eet.fgd is there already; pass --over")
    fails(run("export", *flags, "--stages", "2-9", "-o", "x.fgd"), 2, "expected BLOCK:TOKENS")
    fails(run("export", *flags, "--stages", "2:17", "-o", "x.fgd"), 2, "keeps 17.*16 arrive")
    fails(run("export", *flags, "--bits", "7", "-o", "x.fgd"), 2, "--bits 7: expected .* 8 to 512")
    fails(run("export", *flags, "--checkpoint", "no.pth", "-o", "x.fgd"), 1, "no checkpoint at")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["eet.fgd"]
    done = run("export", *flags, "--head", "lsh", "--set", "stages=none", "--overwrite", "--json")
    facts = json.loads(done.stdout)
    assert (facts["path"], facts["bits"], facts["weights"]["source"]) == ("eet.fgd", 64, "random")
    assert facts["parity"]["identical_codes"] == 1
    assert [one["batch"] for one in facts["against_dense"]] == [1, 8]
    assert all(one["dense_ms"] > 0 and one["exported_ms"] > 0 for one in facts["against_dense"])
    assert result.stdout.count("as fast") == 0


def test_the_weights_are_the_first_word_or_the_only_training(run: Run, tmp_path: Path) -> None:
    fails(run("export", "no.pth"), 1, "no checkpoint at no.pth")
    fails(run("export", "--checkpoint", "no.pth"), 1, "no checkpoint at no.pth")
    fails(run("export", "no.pth", "--checkpoint", "b.pth"), 2, "name two checkpoints; give one of")
    (tmp_path / "moth-run").mkdir()
    (tmp_path / "moth-run" / "model.safetensors").write_bytes(b"damaged")
    told = run("export")
    assert told.exit_code == 1
    assert told.stderr.startswith("exporting moth-run, the only training here; --weights pretrai")
    chosen = run("export", "--weights", "random", "--backbone", "no_vit")
    assert chosen.exit_code != 0 and "moth-run" not in chosen.stderr


def test_a_model_that_is_no_cheaper_is_told_with_the_numbers(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_bundle(bundle).manifest
    paces = [AgainstDense(1, 20.0, 10.0), AgainstDense(8, 80.0, 100.0)]
    command._warn(manifest, paces)
    assert capsys.readouterr().err == (
        "slower than the dense ViT in ONNX Runtime at batch 8: 100.00 against 80.00 ms; reduce "
        "more, or deploy the dense model\n"
    )
    assert command._paces(paces)[0] == (
        "batch 1",
        "10.00 ms, dense 20.00 ms in ONNX Runtime: 2.00x as fast",
    )
    assert command._paces(paces[:1])[1][1].startswith("not measured")
    costly = dataclasses.replace(
        manifest, macs={"dense": 5_000_000, "published": 6_000_000, "exported": 5_500_000}
    )
    command._warn(costly, [])
    told = capsys.readouterr().err
    assert told.startswith("no cheaper than the dense ViT: 5.5") and "5.0" in told
    assert "; reduce more, or deploy" in told
    command._warn(dataclasses.replace(costly, blocks=2 * costly.blocks), [])
    told = capsys.readouterr().err
    assert told.endswith(" MACs; it looks at a photo 2 times, and the dense model once\n")
