"""`nad serve` as a program: what it refuses before it loads a model, its log, its end."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI
from tiny import tiny_model, tiny_tokenizer

from nad.cli.main import main
from nad.cli.serve import check_installed
from nad.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--host", "0.0.0.0"], "no key is asked for"),
        (["--api-key-file", "/no/such/file"], "No such file"),
        (["--selector", "nobody"], "unknown selector"),
        (["--stop-at", "soon"], "unknown stop rule"),
        (["--max-tokens", "0"], "max_tokens must be at least 1"),
        (["--temperature", "3"], "temperature must be between 0 and 2"),
        (["--host", "no.such.address.invalid", "--insecure"], "no such address"),
        (["--activation", "most"], "unknown activation rule"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", "/no/such/model", *arguments]) in (1, 2)
    assert error in capsys.readouterr().err


def test_a_taken_port_is_said_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--model", "/no/such/model", "--port", str(taken.getsockname()[1])]) == 1
    assert "give another --port" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nad.cli.serve.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "nad\[serve\]"'):
        check_installed()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_logs_no_prompt_and_ends_in_order(tmp_path: Path, end: signal.Signals) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    options = ["--model", str(tmp_path / "tiny"), "--port", "0", "--api-key-file", str(keys), "-n", "3"]
    program = [sys.executable, "-m", "nad", "serve", *options]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name, url = process.stdout.readline().split(" at ")
        with OpenAI(base_url=url.strip(), api_key="k" * 32) as client:
            answer = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": "a secret"}], max_tokens=40, user="me\nhim"
            )
        process.send_signal(end)
        _, log = process.communicate(timeout=60)
    assert (name, answer.usage.completion_tokens > 0 if answer.usage else None) == ("tiny", True)
    assert process.returncode == 0
    (line,) = [line for line in log.splitlines() if "nad.server" in line]
    assert '"outcome": "ok"' in line and '"user": "me\\nhim"' in line
    assert "secret" not in log and "kkk" not in log and "Traceback" not in log
