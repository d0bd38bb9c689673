"""Commands with replicas, as processes of their own, and who of them is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from nad.runs.store import PARTS, RunStore

WAIT_S = 180.0


@dataclass
class Program:
    """A `nad` that runs, the leader of a group of its own; everybody who ever was its descendant is remembered."""

    process: subprocess.Popen[bytes]
    log: Path

    def __post_init__(self) -> None:
        self.seen: dict[int, psutil.Process] = {}

    def replicas(self) -> list[psutil.Process]:
        """Its actors, as they are now."""
        return [p for p in self.descendants() if "ray::Replica" in _name(p)]

    def descendants(self) -> list[psutil.Process]:
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen |= {p.pid: p for p in found}
        return found

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_S
        while not what():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            self.descendants()
            time.sleep(0.1)

    def ended(self) -> int:
        """Its exit code."""
        until = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < until, self.said()
            self.descendants()
            time.sleep(0.1)
        return self.process.returncode

    def left(self, seconds: float = 10.0) -> list[str]:
        """Who of its descendants is there yet, after some time to end."""
        _, alive = psutil.wait_procs(list(self.seen.values()), seconds)
        return [_name(p) for p in alive]

    def said(self) -> str:
        return self.log.read_text()


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def running(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[Program]:
    """`nad` with these arguments, in a temporary folder of its own."""
    log, place = tmp_path / "log", tmp_path / "temporary"
    place.mkdir(exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "nad", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        program.descendants()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        program.left(20)


def parts(path: Path) -> int:
    """Problems that are recorded and graded by now."""
    return len(list((path / PARTS).glob("*"))) if (path / PARTS).is_dir() else 0


def assert_equal_runs(one: Path, other: Path, problems: Sequence[int]) -> None:
    """Tokens, texts, grades, neurons with their first tokens."""
    a, b = RunStore.open(str(one)), RunStore.open(str(other))
    for index in problems:
        for ours, theirs in zip(a.read(index).samples, b.read(index).samples, strict=True):
            x, y = ours.completion, theirs.completion
            assert (x.tokens, x.text, ours.answer, ours.correct) == (y.tokens, y.text, theirs.answer, theirs.correct)
            assert x.activations is not None and y.activations is not None
            assert x.activations.neuron.tolist() == y.activations.neuron.tolist()
            assert x.activations.first_token.tolist() == y.activations.first_token.tolist()
            assert x.signals is not None and y.signals is not None
            assert np.allclose(x.signals.logprob, y.signals.logprob, atol=1e-5)
