"""The runtime never needs torch: a process that cannot import it does the whole job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fgdeploy.demo.moths import write_moths
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from tests.fgdeploy.explaining.showing import write_showing_bundle

EXPORT_ONLY = ("torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors")
HEAVY = (*EXPORT_ONLY, "onnxruntime", "openvino", "tensorrt", "numpy", "PIL", "rich")

BLOCKED = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXPORT_ONLY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""


def _python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edge")
    write_moths(folder / "moths", 3, 4, size=96)
    export_bundle(
        ExportSettings(backbone="test_vit", weights="random", image_size=64, head="lsh"),
        folder / "eet.fgd",
    )
    write_showing_bundle(folder / "showing.fgd")
    return folder


def test_the_command_line_runs_without_it(work: Path) -> None:
    code = BLOCKED + "from fgdeploy.cli import main; main()"
    bundle, photos, index = work / "eet.fgd", work / "moths", work / "g.fgi"
    query = next(photos.rglob("*.jpg"))
    for command in (
        ["hash", photos, "-b", bundle, "-o", work / "codes.npz"],
        ["index", "add", index, photos, "-b", bundle],
        ["index", "verify", index],
        ["search", query, "-i", index, "-b", bundle, "--html", work / "s.html"],
        ["eval", photos / "split.csv", "-b", bundle],
        ["parity", photos, "-b", bundle],
        ["inspect", bundle],
        ["doctor"],
        ["explain", query, "-b", work / "showing.fgd", "-o", work / "e.png"],
    ):
        result = _python(code, *command)
        assert result.returncode == 0, (command, result.stderr)


@pytest.mark.parametrize(
    ("command", "need", "extra"),
    [
        (["train", "P"], "training", "train"),
        (["export", "--weights", "random"], "exporting", "export"),
        (["demo", "--folder", "d"], "the demo", "train"),
        (["parity", "P", "-b", "B", "--reference", "pytorch"], "the pytorch reference", "export"),
        (["explain", "Q", "-b", "B"], "explaining with the PyTorch model", "export"),
    ],
)
def test_what_needs_it_names_the_pip_command(
    work: Path, command: list[str], need: str, extra: str
) -> None:
    places = {"P": str(work / "moths"), "B": str(work / "eet.fgd")}
    places["Q"] = str(next((work / "moths").rglob("*.jpg")))
    code = BLOCKED + "from fgdeploy.cli import main; main()"
    result = _python(code, *(places.get(word, word) for word in command))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {need} needs the package ")
    assert result.stderr.endswith(f'is not installed; run: pip install "fgdeploy[{extra}]"\n')


def test_the_library_runs_without_it(work: Path) -> None:
    code = """
import sys, json, fgdeploy
with fgdeploy.load(sys.argv[1]) as hasher:
    codes = hasher.encode([sys.argv[2]])
loaded = sorted(name.partition(".")[0] for name in sys.modules)
print(json.dumps([list(codes.shape), loaded]))
"""
    photo = next((work / "moths").rglob("*.jpg"))
    result = _python(code, work / "eet.fgd", photo)
    assert result.returncode == 0, result.stderr
    shape, loaded = json.loads(result.stdout)
    assert shape == [1, 8]
    assert not set(EXPORT_ONLY) & set(loaded)


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from fgdeploy.cli.app import app
try:
    app(["--help"])
except SystemExit:
    pass
print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    result = _python(code)
    loaded = result.stderr
    assert "Usage:" in result.stdout
    assert [name for name in HEAVY if f"'{name}'" in loaded] == []
