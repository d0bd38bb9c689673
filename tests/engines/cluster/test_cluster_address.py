"""`nad eval` in a Ray cluster that was there before: two machines (both of them this one) of a core each."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from marks import needs_ray
from replicas import WAIT_S, parts, running

pytestmark = [needs_ray, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Cluster:
    """Where it answers, how its clients must be set, and its nodes."""

    address: str
    environment: dict[str, str]
    nodes: list[subprocess.Popen[bytes]]

    def replicas(self) -> list[list[psutil.Process]]:
        """By node."""
        return [
            [p for p in psutil.Process(node.pid).children(recursive=True) if p.name().startswith("ray::Replica")]
            for node in self.nodes
        ]


@contextmanager
def cluster(folder: Path, machines: int) -> Iterator[Cluster]:
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    port = 20_000 + secrets.randbelow(10_000)
    found = Cluster(f"127.0.0.1:{port}", environment, [])
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--block"]
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    # A second node on the loopback address is refused where clusters are off.
    settings = {**os.environ, **environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    try:
        for i in range(machines):
            command = [*ray, "--node-ip-address=127.0.0.1", *(head if i == 0 else [f"--address={found.address}"])]
            log = folder / f"log{i}"
            with log.open("wb") as out:
                node = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=settings, start_new_session=True
                )
            found.nodes.append(node)
            until = time.monotonic() + WAIT_S
            while "Ray runtime started" not in log.read_text():
                assert node.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
        yield found
    finally:
        family = [p for node in found.nodes for p in psutil.Process(node.pid).children(recursive=True)]
        for process in [*found.nodes, *family]:
            process.kill()
        for node in found.nodes:
            node.wait()
        psutil.wait_procs(family, 10)


def test_a_cluster_that_was_there_is_used_and_left_alone(folder: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = Path(tmp_path_factory.mktemp("ray", numbered=True))
    with cluster(place, machines=2) as there:
        command = ["eval", "--task", "arithmetic_1", "--limit", "4", "-n", "8", "--max-tokens", "60", "--model", folder]
        command += ["--dtype", "float32", "--replicas", "2", "--ray-address", there.address]
        with running(place, *command, "--out", str(place / "run"), **there.environment) as program:
            program.wait_for(lambda: all(there.replicas()))
            assert [len(found) for found in there.replicas()] == [1, 1], "one on each machine"
            assert program.ended() == 0, program.said()
        assert parts(place / "run") == 4
        assert "replicas: 2, each with 1 core" in program.said()
        assert all(node.poll() is None for node in there.nodes)
        long = [*command, "--max-tokens", "350", "-n", "64", "--out", str(place / "killed")]
        with running(place, *long, **there.environment) as program:
            program.wait_for(lambda: all(there.replicas()) and (place / "killed").is_dir())
            os.kill(program.process.pid, signal.SIGKILL)
            program.ended()
        until = time.monotonic() + WAIT_S
        while any(there.replicas()):
            assert time.monotonic() < until, "a dead client left replicas behind"
            time.sleep(0.1)
        assert all(node.poll() is None for node in there.nodes)
        with running(
            place, *command[:-4], "--replicas", "3", "--ray-address", there.address, "--out", "x", **there.environment
        ) as program:
            assert program.ended() == 2
            assert "not enough for 3 replicas: a core each, and there are 2; lower --replicas" in program.said()
