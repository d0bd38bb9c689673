"""Two replicas in a Ray cluster of their own are one engine: the same samples, spread, freed, and made again."""

import gc
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psutil
import pytest
from marks import needs_ray
from served import post, served

import nad
from nad.engines.base import Engine, Rollout
from nad.engines.cluster.engine import ReplicatedEngine
from nad.errors import NadError, ReplicaLost, UsageError
from nad.neurons.activation import ActivationRule
from nad.server.settings import Defaults, Limits, Settings
from nad.stopping import At, Never
from nad.types import SamplingParams

pytestmark = needs_ray
RULE = ActivationRule(k=30, per_layer=16)
PARAMS = SamplingParams(max_tokens=60, seed=5)


@pytest.fixture(scope="module")
def engine(folder: str) -> Iterator[ReplicatedEngine]:
    loaded = nad.load_engine(folder, dtype="float32", replicas=2)
    assert isinstance(loaded, ReplicatedEngine)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def alone(folder: str) -> Engine:
    return nad.load_engine(folder, dtype="float32")


def processes(engine: ReplicatedEngine) -> list[int]:
    import ray

    return [ray.get(member.actor.process.remote()) for member in engine._crew._members]


def sampled(engine: Engine, text: str) -> tuple[Any, ...]:
    """What a rollout with a stop, a choice and a rest gives."""
    with engine.start(engine.encode(text), 6, PARAMS, RULE, True) as rollout:
        last = list(rollout.until(At(9)))[-1]
        group = rollout.group()
        rollout.keep([4], capture=False)
        written: list[int] = []
        for progress in rollout.until(Never()):
            written += progress.tokens[4][len(written) : progress.position]
        rest = rollout.group().completions
    sets = [(c.activations.neuron.tolist(), c.activations.first_token.tolist()) for c in group.completions]
    assert tuple(written) == rest[0].tokens
    return last, [c.tokens for c in group.completions], sets, rest[0].tokens, rest[0].text, rest[0].activations


def test_it_is_an_engine_of_the_same_model(engine: ReplicatedEngine, alone: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.rollouts == 2 * alone.rollouts == 2
    for name in ("name", "kind", "revision", "dtype", "layers", "neurons", "eos", "weights_digest", "thinking_tags"):
        assert getattr(engine, name) == getattr(alone, name), name
    assert f"replicas: 2, each with {max(1, len(os.sched_getaffinity(0)) // 2)} core" in engine.notes[-1]
    prompt = [nad.Message("user", "Hi")] if hasattr(nad, "Message") else "Hi"
    assert engine.encode(prompt) == alone.encode(prompt)
    assert engine.decode(engine.encode_completion("so be it")) == "so be it"


def test_samples_are_those_of_one_engine(engine: ReplicatedEngine, alone: Engine) -> None:
    for text in ("one", "two", "three"):
        assert sampled(engine, text) == sampled(alone, text)
    ours, theirs = (nad.generate(e, "four", n=5, stop=12, params=PARAMS, rule=RULE) for e in (engine, alone))
    assert (ours.selected, ours.text, ours.scores) == (theirs.selected, theirs.text, theirs.scores)


def test_given_texts_are_read_as_by_one_engine(engine: ReplicatedEngine, alone: Engine) -> None:
    prompt, text = alone.encode("one"), alone.encode_completion("and so on")
    ours, theirs = (e.score(prompt, text, RULE).activations for e in (engine, alone))
    assert ours is not None and theirs is not None
    assert ours.neuron.tolist() == theirs.neuron.tolist()


def started(engine: Engine) -> Rollout:
    return engine.start(engine.encode("x"), 2, PARAMS, RULE)


def test_rollouts_lie_on_different_replicas_and_are_freed(engine: ReplicatedEngine) -> None:
    """Each replica takes one: two in one thread are on two, and a third would wait for itself."""
    for _ in range(2):
        with started(engine) as one, started(engine) as other:
            next(iter(one.until(At(3))))
            next(iter(other.until(At(3))))
            with pytest.raises(NadError, match="close one before it starts another"):
                started(engine)
    with pytest.raises(NadError, match="closed"):
        next(iter(one.until(Never())))


def test_a_rollout_that_is_dropped_is_freed(engine: ReplicatedEngine) -> None:
    for _ in range(4):
        rollout = started(engine)
        del rollout
        gc.collect()
    with started(engine), started(engine):
        pass


def test_threads_share_it(engine: ReplicatedEngine, alone: Engine) -> None:
    texts, found = [f"text {i}" for i in range(6)], dict[str, Any]()

    def work(text: str) -> None:
        found[text] = sampled(engine, text)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {text: sampled(alone, text) for text in texts}


def test_errors_of_the_engine_keep_their_kinds(engine: ReplicatedEngine) -> None:
    with pytest.raises(UsageError, match="n must be at least 1, got 0"):
        engine.start((1,), 0, PARAMS, None)
    with pytest.raises(UsageError, match="has a context window of 512"):
        engine.start((1,) * 600, 1, PARAMS, None)
    with started(engine) as rollout, pytest.raises(NadError):
        rollout.keep([7])
    with started(engine), started(engine):
        pass


def test_it_serves_two_requests_at_once(engine: ReplicatedEngine, alone: Engine) -> None:
    settings = Settings(Defaults(n=4, stop="6"), Limits(n=8, max_tokens=24), RULE)

    def answers(served_by: Engine) -> tuple[list[str], int]:
        with served(served_by, settings) as server, ThreadPoolExecutor(4) as pool:
            asked = [[{"role": "user", "content": f"ask {i}"}] for i in range(4)]
            bodies = [{"model": served_by.name, "messages": messages, "seed": i} for i, messages in enumerate(asked)]
            ask = partial(post, f"{server.url}/v1/chat/completions")
            found = [json.loads(body) for _, _, body in pool.map(ask, bodies)]
            return [answer["choices"][0]["message"]["content"] for answer in found], server.service.work._workers

    assert answers(engine) == (answers(alone)[0], 2)


def test_each_replica_has_its_own_cores(engine: ReplicatedEngine) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    sets = []
    for pid in processes(engine):
        threads = psutil.Process(pid).threads()
        assert psutil.Process(pid).nice() == psutil.Process().nice(), "nor does Ray put it behind others"
        sets.append(min((os.sched_getaffinity(t.id) for t in threads), key=len))
    assert all(len(s) == len(cores) // 2 for s in sets) and not set.intersection(*sets)


def test_the_cluster_listens_on_this_machine_alone(engine: ReplicatedEngine) -> None:
    listening = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening and {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}


def test_a_replica_that_dies_is_told_of_and_replaced(engine: ReplicatedEngine, alone: Engine) -> None:
    before = processes(engine)
    with started(engine) as one, started(engine) as other:
        os.kill(before[0], signal.SIGKILL)
        lost = []
        for rollout in (one, other):
            try:
                for _ in rollout.until(Never()):
                    time.sleep(0.01)
            except ReplicaLost as error:
                lost.append(error)
    assert len(lost) == 1 and "replica 1 died" in str(lost[0]) and "\n" not in str(lost[0])
    assert lost[0].again(1), "the other one is free"
    until = time.monotonic() + 60
    while engine._crew.places.up() < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "replica 1 died" in engine.notes[-1]
    assert set(processes(engine)) & set(before) == {before[1]}
    with started(engine), started(engine):
        pass
    assert sampled(engine, "one") == sampled(alone, "one")


def test_two_engines_share_the_cluster(engine: ReplicatedEngine, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(UsageError, match="another Ray cluster already"),
    ):
        nad.load_engine(folder, replicas=1, ray_address=f"127.0.0.1:{other.getsockname()[1]}")
    with pytest.raises(UsageError, match="lower --replicas"):
        nad.load_engine(folder, replicas=1000)
    with monkeypatch.context() as patch:
        patch.setattr("nad.engines.cluster.crew._FOUND_S", 0.5)
        with pytest.raises(NadError, match=r"replica 1 found no room within 0.5 s: it needs . cores? on one"):
            nad.load_engine(folder, replicas=1)
    assert processes(engine), "the first engine's cluster goes on"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas": 0}, "--replicas must be at least 1, got 0"),
        ({"ray_address": "127.0.0.1:1"}, "--ray-address needs --replicas"),
        ({"replicas": 1, "ray_address": "auto"}, "--ray-address must be HOST:PORT of the cluster's head, got 'auto'"),
        ({"replicas": 1, "ray_address": "127.0.0.1:1"}, "no Ray cluster at 127.0.0.1:1 .*start one with `ray start"),
        ({"replicas": 1, "tokenizer": object()}, "replicas load the model themselves"),
        ({"replicas": 1, "engine": "nothing"}, "unknown engine 'nothing'"),
    ],
)
def test_calls_that_cannot_be_served(folder: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(NadError, match=message):
        nad.load_engine(folder, **arguments)


def test_without_ray_the_line_that_installs_it(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nad.engines.cluster.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'replicas need Ray: pip install "nad\[cluster\]"'):
        nad.load_engine(folder, replicas=1)
