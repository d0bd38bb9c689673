"""Two replicas of the vLLM engine, each with vLLM's own processes: the same contract, and the same end."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from marks import needs_ray
from vllm_engines import RULE, assert_teacher_forced

import nad
from nad.errors import NadError, ReplicaLost
from nad.stopping import At, Never
from nad.types import SamplingParams

pytestmark = [pytest.mark.vllm, needs_ray, pytest.mark.timeout(600)]
ARGUMENTS = {"enforce_eager": "true", "block_size": "32", "max_num_seqs": "32"}


@pytest.fixture(scope="module")
def engine(folder: str) -> Iterator[Any]:
    pytest.importorskip("vllm")
    loaded = nad.load_engine(folder, "vllm", dtype="float32", arguments=ARGUMENTS, replicas=2)
    yield loaded
    loaded.close()


def family(engine: Any, number: int) -> list[psutil.Process]:
    """A replica's process and vLLM's."""
    import ray

    (member,) = [m for m in engine._crew._members if m.number == number]
    process = psutil.Process(ray.get(member.actor.process.remote()))
    return [process, *process.children(recursive=True)]


def test_sets_are_those_of_a_forward_pass(engine: Any, folder: str) -> None:
    reference = nad.load_engine(folder, dtype="float32", fast_cpu=False)
    prompt = engine.encode("hello there")
    assert engine.rollouts == 32
    params = SamplingParams(max_tokens=60, seed=3)
    with engine.start(prompt, 8, params, RULE) as one, engine.start(prompt, 8, params, RULE) as other:
        for rollout in (one, other):
            for _ in rollout.until(At(20)):
                pass
        groups = [one.group(), other.group()]
        one.keep([2], capture=False)
        for _ in one.until(Never()):
            pass
        rest = one.group().completions[0]
    for group in groups:
        assert_teacher_forced(reference, prompt, group.completions)
    assert rest.tokens[:20] == groups[0].completions[2].tokens and rest.activations is None
    assert [c.tokens for c in groups[0].completions] == [c.tokens for c in groups[1].completions], "on two replicas"


def test_a_thread_is_told_which_seats_it_holds(engine: Any) -> None:
    """The replica's engine knows the client's threads."""
    prompt = engine.encode("hello")
    rollouts = [engine.start(prompt, 32, SamplingParams(), None) for _ in range(2)]
    with pytest.raises(NadError, match="this thread holds 32 of 32 places of the batch"):
        engine.start(prompt, 32, SamplingParams(), None)
    for rollout in rollouts:
        rollout.close()


def test_a_replica_that_is_killed_takes_vllm_along_and_is_replaced(engine: Any) -> None:
    old = family(engine, 1)
    assert len(old) > 1
    prompt = engine.encode("hello there")
    lost = 0
    params = SamplingParams(max_tokens=400)
    with engine.start(prompt, 8, params, RULE) as one, engine.start(prompt, 8, params, RULE) as other:
        os.kill(old[0].pid, signal.SIGKILL)
        for rollout in (one, other):
            try:
                for _ in rollout.until(Never()):
                    pass
            except ReplicaLost:
                lost += 1
    assert lost == 1
    _, left = psutil.wait_procs(old, 60)
    assert not left
    until = time.monotonic() + 300
    while engine._crew.places.up() < 2:
        assert time.monotonic() < until, engine.notes
        time.sleep(0.2)
    assert len(family(engine, 1)) > 1
    with engine.start(prompt, 8, SamplingParams(max_tokens=10), RULE) as rollout:
        assert [p.position for p in rollout.until(Never())][-1] <= 10


def test_nobody_is_left(engine: Any) -> None:
    everybody = psutil.Process().children(recursive=True)
    engine.close()
    _, left = psutil.wait_procs(everybody, 30)
    assert not [p for p in left if "resource_tracker" not in " ".join(p.cmdline())]
