"""Standard streams that are missing, closed, full or broken: nothing crashes, nothing is lost."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fgdeploy.cli.app import app
from fgdeploy.cli.streams import Guarded, guarded, unheard

ROOT = Path(__file__).resolve().parents[3]


def _closed() -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.close()
    return stream


def _full() -> io.TextIOWrapper:
    return open("/dev/full", "w", encoding="utf-8")


def _unread() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


# Each kind of stream, and what standard output of that kind makes of exit code 0.
KINDS: dict[str, tuple[Callable[[], io.TextIOWrapper | None], int]] = {
    "none": (lambda: None, 1),
    "closed": (_closed, 1),
    "full": (_full, 1),
    "a pipe that nobody reads": (_unread, 141),
}


def _exit_code(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        app([str(word) for word in words], prog_name="fgdeploy")
    return int(end.value.code or 0)


@pytest.mark.parametrize("kind", KINDS)
def test_messages_that_nobody_hears_change_nothing(
    kind: str, moths: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", KINDS[kind][0]())
    monkeypatch.setattr(sys, "stdin", None)
    assert _exit_code("index", "add", "g.fgi", moths, "-b", bundle) == 0
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no photo")
    os.link(next(moths.rglob("*.jpg")), tmp_path / "photos" / "good.jpg")
    assert _exit_code("hash", "photos", "-b", bundle) == 3
    assert _exit_code("hash", "photos", "-b", bundle, "--strict") == 1
    assert _exit_code("inspect", "none.fgd") == 1
    assert _exit_code("--debug", "inspect", "none.fgd") == 1
    assert _exit_code("inspect", "--no-such-option") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"g.fgi", "photos", "codes.npz"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_does_not_arrive_is_an_error(
    kind: str,
    gallery: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, code = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    for words in (
        ("index", "list"),
        ("index", "list", "--json"),
        ("index", "stats", "--csv"),
        ("search", "--id", 1),
        ("inspect", bundle),
        ("doctor",),
        ("hash", "--help"),
        ("--version",),
    ):
        monkeypatch.setattr(sys, "stdout", make())
        assert _exit_code(*words) == code, words
        errors = capsys.readouterr().err
        assert errors.count("\n") == (0 if code == 141 else 1), (words, errors)
        assert code == 141 or errors.startswith("error: standard output: ")


@pytest.mark.parametrize("kind", KINDS)
def test_work_is_done_and_told_though_its_answer_is_lost(
    kind: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, code = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", make())
    assert _exit_code("pack", bundle, "-o", "x.fgdz") == code
    assert "wrote x.fgdz" in capsys.readouterr().err
    assert (tmp_path / "x.fgdz").is_file()


def test_what_failed_keeps_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert _exit_code("doctor", "--json", "--csv") == 2
    assert _exit_code("inspect", "none.fgd") == 1


def test_a_list_ends_when_nobody_reads_it(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgdeploy.cli import show

    monkeypatch.setattr(sys, "stdout", _unread())
    with guarded():
        assert not unheard()
        rows = iter([(1, 2)] * 5)
        show.stream(rows, ("a", "b"))
        assert unheard()
        assert len(list(rows)) == 3  # one was lost, and one was taken before that was seen


def test_streams_are_as_before_after_a_command() -> None:
    before = sys.stdin, sys.stdout, sys.stderr
    with guarded() as out:
        assert sys.stdout is out
        assert isinstance(sys.stderr, Guarded)
    assert (sys.stdin, sys.stdout, sys.stderr) == before


def test_a_guarded_stream_is_a_stream() -> None:
    inner = io.StringIO()
    stream = Guarded(inner)
    assert stream.write("ä") == 1
    stream.flush()
    assert (inner.getvalue(), stream.error, stream.encoding) == ("ä", None, "utf-8")
    assert not stream.isatty() and stream.writable()
    with pytest.raises(TypeError, match="expected str, got bytes"):
        stream.write(b"")  # type: ignore[arg-type]
    with pytest.raises(io.UnsupportedOperation):
        Guarded(None).fileno()


@pytest.mark.parametrize(
    ("shell", "code", "errors"),
    [
        ("inspect {0} --json >&-", 1, "error: standard output: closed; "),
        ("inspect {0} --json >/dev/full", 1, "error: standard output: No space left on device; "),
        ("inspect {0} --json 2>&-", 0, ""),
        ("inspect none.fgd <&- >&- 2>&-", 1, ""),
        ("index list {1} | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        ("hash {2} -b {0} -o x.npz <&- >&- 2>&-", 0, ""),
    ],
)
def test_as_a_shell_closes_them(
    shell: str,
    code: int,
    errors: str,
    moths: Path,
    bundle: Path,
    kept_gallery: Path,
    tmp_path: Path,
) -> None:
    command = f"{sys.executable} -m fgdeploy {shell.format(bundle, kept_gallery, moths)}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(errors)
    assert done.stderr.count("\n") == (1 if errors else 0)
    if "x.npz" in shell:  # no library has written messages into it
        import numpy as np

        assert len(np.load(tmp_path / "x.npz")["codes"]) == 18
    if "--json 2" in shell:
        assert json.loads(done.stdout)["bits"] == 32
