"""Serving on vLLM: an engine of our own in this process, `nad serve` as a program, and `vllm serve` with our plugin.

Each starts vLLM once; the answers of the programs are held against those of the engine in this process.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from served import HELLO, Served, get, post, served
from vllm_engines import packages_of_this_tree, started, tiny_folder

import nad
from nad.engines.vllm.arguments import WORKER
from nad.server.settings import Defaults, Limits, Settings
from nad.types import Message, Result, SamplingParams

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]
N, STOP, MOST = 4, 8, 480
KEY = "k" * 32
LONG = {"max_tokens": MOST, "temperature": 0, "extra_body": {"nad": {"n": 1}}}
"""A sample of hundreds of tokens: greedy, the tiny model seldom ends."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_folder(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def engine(folder: str) -> Iterator[Any]:
    engine = started(folder, max_num_seqs=32)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def server(engine: Any) -> Iterator[Served]:
    with served(engine, Settings(Defaults(N, str(STOP)), Limits(max_tokens=MOST))) as server:
        yield server


def expected(engine: Any, seed: int = 1, **params: Any) -> Result:
    """The library's answer to HELLO."""
    return nad.generate(
        engine, [Message("user", "hello")], N, stop=STOP, params=SamplingParams(**{"seed": seed, **params})
    )


def answered(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "seed": 1, "max_tokens": 24, **more})


def wait_until_nothing_is_held(engine: Any) -> None:
    until = time.monotonic() + 20
    while any(worker[0] for worker in engine.held()):
        assert time.monotonic() < until, "captures were left in the workers"
        time.sleep(0.05)
    assert engine._llm.get_num_unfinished_requests() == 0


def test_a_chat_answer_is_the_librarys_whole_and_streamed(server: Served, engine: Any) -> None:
    client, result = server.client(), expected(engine, max_tokens=24)
    got = answered(client, extra_body={"nad": {"report": True}})
    assert got.choices[0].message.content == result.text
    assert got.choices[0].finish_reason == result.completion.finish_reason
    assert (got.nad["selected"], got.nad["n"]) == (result.completion.index, N)
    assert got.nad["usage"]["sampled_tokens"] == result.group.sampled_tokens
    pieces = [chunk.choices[0].delta.content or "" for chunk in answered(client, stream=True) if chunk.choices]
    assert "".join(pieces) == result.text
    assert len(pieces) > 4


def test_a_text_is_continued_as_it_is(server: Served, engine: Any) -> None:
    client, asked = server.client(), {"model": "tiny", "prompt": "abc", "seed": 2, "max_tokens": 24}
    result = nad.generate(engine, "abc", N, stop=STOP, params=SamplingParams(max_tokens=24, seed=2), raw=True)
    assert client.completions.create(**asked).choices[0].text == result.text
    chunks = client.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == result.text


def test_the_field_nad_logprobs_and_the_best_ranked(server: Served) -> None:
    client = server.client()
    got = answered(client, max_tokens=6, n=2, logprobs=True, extra_body={"nad": {"selector": "medoid", "stop_at": 3}})
    assert [choice.index for choice in got.choices] == [0, 1]
    assert all(len(choice.logprobs.content) <= 6 for choice in got.choices)
    plain = answered(client, max_tokens=6, extra_body={"nad": {"n": 1}})
    assert plain.usage.completion_tokens <= 6


def test_many_clients_at_once_get_what_each_gets_alone(server: Served, engine: Any) -> None:
    client, got = server.client(), {}

    def ask(seed: int) -> None:
        got[seed] = answered(client, seed=seed).choices[0].message.content

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {seed: expected(engine, seed, max_tokens=24).text for seed in range(12)}
    wait_until_nothing_is_held(engine)


@pytest.mark.parametrize("stream", [False, True])
def test_the_requests_of_a_client_that_hangs_up_leave_the_workers(server: Served, engine: Any, stream: bool) -> None:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": MOST, "nad": {"stop_at": 200}, "stream": stream}
    body = json.dumps(asked)
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
        until = time.monotonic() + 20
        while not engine.held()[0][0]:
            assert time.monotonic() < until, "nothing was captured"
    server.wait_until_idle(3)
    wait_until_nothing_is_held(engine)


@dataclass(frozen=True)
class Program:
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def client(self, path: str, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=f"http://127.0.0.1:{self.port}{path}", api_key=key, max_retries=0, timeout=60)

    def wait(self, text: str) -> None:
        until = time.monotonic() + 400
        while text not in (log := self.log.read_text(errors="replace")):
            assert self.process.poll() is None and time.monotonic() < until, log[-3000:]
            time.sleep(0.1)

    def others(self) -> list[str]:
        """The other processes of its session that are there."""
        listed = ("ps", "--sid", str(self.process.pid), "-o", "pid=,stat=,comm=")
        lines = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
        found = [line.split(None, 2) for line in lines]
        return [name for pid, state, name in found if pid != str(self.process.pid) and state[0] != "Z"]

    def ended(self) -> int:
        code = self.process.wait(60)
        until = time.monotonic() + 20
        while self.others() and time.monotonic() < until:
            time.sleep(0.1)
        assert self.others() == [], "processes were left behind"
        return code


@contextmanager
def program(command: Sequence[str], log: Path, **environment: str) -> Iterator[Program]:
    """A program in a session of its own, as a terminal would start it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "127.0.0.1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=out,
            stderr=out,
            env={**values, **environment},
            start_new_session=True,
        )
    try:
        yield Program(process, port, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_ctrl_c_in_a_terminal_lets_what_runs_finish_and_ends_without_a_word(folder: str, tmp_path: Path) -> None:
    """A terminal sends it to every process of the program, vLLM's too."""
    engine = ("--engine", "vllm", "--engine-arg", "enforce_eager=true", "--engine-arg", "block_size=32")
    options = ("--dtype", "float32", "--max-tokens", str(MOST))
    command = (sys.executable, "-m", "nad", "serve", "--model", folder, *engine, *options)
    with program(command, tmp_path / "log") as nad_serve:
        nad_serve.wait("at http://")
        with nad_serve.client("/v1") as client:
            chunks = answered(client, stream=True, **LONG)
            next(chunks)
            os.killpg(nad_serve.process.pid, signal.SIGINT)
            reasons = [chunk.choices[0].finish_reason for chunk in chunks]
        assert len(reasons) > 100
        assert reasons[-1] in ("stop", "length")
        assert nad_serve.ended() == 0
    log = nad_serve.log.read_text(errors="replace")
    assert '"outcome": "ok"' in log
    assert "Error" not in log and "Traceback" not in log


def with_packages(folder: Path) -> str:
    """PYTHONPATH, with this tree's plugin before what is installed."""
    return f"{packages_of_this_tree(folder)}:{os.environ.get('PYTHONPATH', '')}"


def vllm_serve(folder: str, *more: str) -> tuple[str, ...]:
    program = shutil.which("vllm", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None
    model = (folder, "--served-model-name", "tiny", "--dtype", "float32", "--host", "127.0.0.1")
    sizes = ("--max-num-seqs", "32", "--block-size", "32", "--kv-cache-memory-bytes", str(1 << 28))
    return (program, "serve", *model, "--enforce-eager", *sizes, *more)


def test_vllm_serve_carries_the_method_beside_its_own_api(folder: str, engine: Any, tmp_path: Path) -> None:
    more = ("--api-key", KEY, "--shutdown-timeout", "20", "--enable-scale-out")
    command = vllm_serve(folder, "--worker-cls", WORKER, *more)
    plugins = {"VLLM_PLUGINS": "nad", "NAD_SERVE": f"-n {N} --stop-at {STOP} --max-tokens {MOST}"}
    path = f"{packages_of_this_tree(tmp_path / 'packages')}:{os.environ.get('PYTHONPATH', '')}"
    with program(command, tmp_path / "log", PYTHONPATH=path, **plugins) as vllm:
        vllm.wait("Application startup complete")
        with vllm.client("/v1") as theirs, vllm.client("/nad/v1") as ours:
            _both_answer(theirs, ours, engine)
            _the_door_is_locked(vllm)
            _strangers_capture_nothing(vllm)
            _it_ends_in_order(vllm, ours)
    while_it_served, ended, _ = vllm.log.read_text(errors="replace").partition("API server: engine client stopped")
    assert ended  # how vLLM takes its own end is its own: now and then it logs it as a death
    assert "Traceback" not in while_it_served.partition("[shutdown] API server: shutdown triggered")[0]


def _both_answer(theirs: OpenAI, ours: OpenAI, engine: Any) -> None:
    assert answered(theirs).model == "tiny"
    for seed in (1, 2):
        got = answered(ours, seed=seed, extra_body={"nad": {"report": True}})
        result = expected(engine, seed, max_tokens=24)
        assert got.choices[0].message.content == result.text
        assert (got.nad["selected"], got.nad["n"]) == (result.completion.index, N)
    pieces = [chunk.choices[0].delta.content or "" for chunk in answered(ours, stream=True) if chunk.choices]
    assert "".join(pieces) == expected(engine, max_tokens=24).text
    assert "nad-medoid/tiny" in [model.id for model in ours.models.list()]


def _the_door_is_locked(vllm: Program) -> None:
    url = f"http://127.0.0.1:{vllm.port}"
    for path in ("/v1/models", "/nad/v1/models", "/nad/metrics", "/nad/api/settings"):
        assert get(url + path)[0] == 401
        assert get(url + path, Authorization=f"Bearer {KEY}")[0] == 200
    assert get(f"{url}/nad/health")[0] == get(f"{url}/nad/")[0] == 200
    with vllm.client("/nad/v1", "wrong" * 8) as stranger, pytest.raises(openai.AuthenticationError):
        answered(stranger)


def _strangers_capture_nothing(vllm: Program) -> None:
    """What clients of vLLM's own API may put where our orders travel is not read, and breaks nothing."""
    url, key = f"http://127.0.0.1:{vllm.port}", {"Authorization": f"Bearer {KEY}"}
    asked = {"model": "tiny", "prompt": "a", "max_tokens": 2, "vllm_xargs": {"nad": "x"}}
    assert post(f"{url}/v1/completions", asked, **key)[0] == 200
    order = {"key": "a", "rule": None, "signals": True, "score": [], "start": 0}
    sampling = {"max_tokens": 2, "extra_args": {"nad": order}}
    asked = {"model": "tiny", "token_ids": [65, 66], "sampling_params": sampling}
    assert post(f"{url}/inference/v1/generate", asked, **key)[0] == 200


def _it_ends_in_order(vllm: Program, ours: OpenAI) -> None:
    """With time to do so, what runs is finished; nothing is left."""
    chunks = answered(ours, stream=True, **LONG)
    next(chunks)
    vllm.process.send_signal(signal.SIGTERM)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert len(reasons) > 100
    assert reasons[-1] in ("stop", "length")
    assert vllm.ended() == 0


def test_vllm_serve_without_the_capture_ends_with_one_line(folder: str, tmp_path: Path) -> None:
    path = f"{packages_of_this_tree(tmp_path / 'packages')}:{os.environ.get('PYTHONPATH', '')}"
    with program(vllm_serve(folder), tmp_path / "log", PYTHONPATH=path, VLLM_PLUGINS="nad") as vllm:
        assert vllm.ended() == 1
    log = vllm.log.read_text(errors="replace")
    said = "nad: error: vLLM runs without the capture of neurons; start it with: vllm serve --worker-cls"
    assert f"{said} {WORKER}\n" in log
    assert "Traceback" not in log
