"""The command line in odd surroundings: other encodings, closed streams, names that are not text, no folder."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model, tiny_tokenizer

from nad.cli.main import main

NAD = [sys.executable, "-c", "from nad.cli.main import entry; entry()"]
SMALL = ["-n", "2", "--max-tokens", "8", "--activation", "top_k:k=30,per_layer=16", "--dtype", "float32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def run(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """A command in a process of its own."""
    return subprocess.run([*NAD, *arguments], capture_output=True, text=True, timeout=120, **options)


def closed(number: int) -> Callable[[], None]:
    """To be called in a new process: one of its streams is not there."""
    return lambda: os.close(number)


def on_ascii(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What a command prints where standard output is ASCII and strict, as PYTHONIOENCODING=ascii makes it."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        assert main(arguments) == 0
    stream.flush()
    data: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return data.decode("ascii")


def test_output_survives_an_encoding_that_lacks_its_characters(
    model: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("generate", "caf\u00e9 \u2603", "--model", model, *SMALL, "--seed", "1")
    assert main([*command, "--json"]) == 0
    text = json.loads(capfd.readouterr().out)["text"]
    assert not text.isascii()
    assert json.loads(on_ascii(monkeypatch, *command, "--json"))["text"] == text
    escaped = text.encode("ascii", errors="backslashreplace").decode()
    assert on_ascii(monkeypatch, *command) == escaped + "\n"


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "LANG": "C"}])
def test_what_is_said_in_any_locale(locale: dict[str, str]) -> None:
    done = run("generate", "-", "--selector", "caf\u00e9", env={**os.environ, **locale}, input="x")
    assert done.returncode == 2
    assert done.stderr.startswith("nad: error: unknown selector 'caf")
    assert done.stderr.count("\n") == 1


def test_standard_input_is_utf_8_where_the_locale_is_ascii() -> None:
    """The prompt arrives whole: what is wrong with the call is found after it was read."""
    wrong = ["generate", "-", "--model", "nowhere"]
    options: dict[str, Any] = {"env": {**os.environ, "PYTHONIOENCODING": "ascii"}, "capture_output": True}
    done = subprocess.run([*NAD, *wrong], input="caf\u00e9".encode(), timeout=120, **options)
    assert b"no model 'nowhere'" in done.stderr
    done = subprocess.run([*NAD, *wrong], input=b"caf\xe9", timeout=120, **options)
    assert b"standard input is not UTF-8 text" in done.stderr and done.returncode == 2


@pytest.mark.parametrize("command", [["generate", "-"], ["score", "-"]])
def test_a_closed_standard_input_is_one_line(command: list[str]) -> None:
    done = run(*command, preexec_fn=closed(0))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("nad: error: standard input is closed; pipe a text into it, or name a file instead of -\n")


def test_a_closed_standard_input_that_nobody_reads_does_not_matter() -> None:
    done = run("selectors", preexec_fn=closed(0))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_standard_error_leaves_standard_output_alone() -> None:
    done = run("generate", "x", "--selector", "nothing", preexec_fn=closed(2))
    assert (done.returncode, done.stdout) == (2, "")


def test_a_closed_standard_output_is_found_before_the_work() -> None:
    done = run("selectors", preexec_fn=closed(1))
    assert done.returncode == 1
    assert done.stderr == "nad: error: standard output is closed; send it to a file, or to /dev/null\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--task", "arithmetic", "--out", "caf\udce9"],
        ["generate", "caf\udce9"],
        ["figures", "run", "--out", "\udcff"],
        ["select", "\udcff/run"],
        ["tasks", "show", "\udce9"],
    ],
)
def test_bytes_that_are_no_text_are_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    code = main(arguments)
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert "is not UTF-8 text" in err and err.count("\n") == 1 and "\\udc" in err


def test_a_folder_deleted_underfoot_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(gone), *NAD, "selectors"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("nad: error: the current folder has been deleted; change to one that exists (cd)\n")
    assert done.stderr.count("nad:") == 1


def test_after_two_dashes_everything_is_a_prompt(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    def prompt_tokens(*prompt: str) -> int:
        assert main(["generate", "--model", model, "--json", "--raw", *SMALL, *prompt]) == 0
        return int(json.loads(capfd.readouterr().out)["usage"]["prompt_tokens"])

    assert prompt_tokens("--", "--debug") == prompt_tokens("xxdebug") == len("--debug")
    assert prompt_tokens("--", "--help") == len("--help")
    assert prompt_tokens("--", "-n") == len("-n")


def test_debug_before_two_dashes_is_the_option(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--debug", "--", ""]) == 2
    assert "Traceback" in capfd.readouterr().err
    assert main(["generate", "--", "", "--debug"]) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_only_a_stop_the_user_gave_is_refused(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["generate", "hi", "--model", model, "--json", "-n", "2", "--activation", "top_k:k=30,per_layer=16"]
    assert main([*few, "--max-tokens", "5"]) == 0
    assert json.loads(capfd.readouterr().out)["stop_at"] == "5"
    assert main([*few, "--max-tokens", "40"]) == 0
    assert json.loads(capfd.readouterr().out)["stop_at"] == "32"
    assert main([*few, "--max-tokens", "20", "--stop-at", "32"]) == 2
    assert capfd.readouterr().err == "nad: error: the stop position 32 lies past max_tokens (20)\n"


def test_a_device_without_memory_of_its_own_is_refused(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    for device in ("meta", "privateuseone", "cuda:99"):
        assert main(["generate", "x", "--model", model, "--device", device]) == 2
        assert capfd.readouterr().err == (
            f"nad: error: device '{device}' is not available here; allowed: auto, cpu, cuda, cuda:N\n"
        )
