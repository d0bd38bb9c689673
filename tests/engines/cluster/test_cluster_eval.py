"""`nad eval` with replicas, as a user runs it: killed, interrupted, in a cluster that was there before."""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from marks import needs_ray
from replicas import assert_equal_runs, parts, running

from nad.engines import load_engine
from nad.runs.evaluate import evaluate
from nad.runs.sampling import Settings
from nad.runs.store import RunStore
from nad.tasks import load_task
from nad.types import SamplingParams

pytestmark = [needs_ray, pytest.mark.timeout(600)]
PROBLEMS = 10
TASK = ("eval", "--task", "arithmetic_1", "--limit", str(PROBLEMS), "-n", "12", "--max-tokens", "120")


def arguments(folder: str, out: Path, *more: str) -> list[str]:
    return [*TASK, "--dtype", "float32", "--model", folder, "--out", str(out), *more]


@pytest.fixture(scope="module")
def undisturbed(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one engine, in this process."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    engine = load_engine(folder, dtype="float32")
    settings = Settings(n=12, params=SamplingParams(max_tokens=120))
    evaluate(engine, load_task("arithmetic_1", limit=PROBLEMS), str(out), settings)
    return out


def test_a_replica_killed_in_the_middle_changes_nothing(folder: str, undisturbed: Path, tmp_path: Path) -> None:
    """Both replicas are killed, one after the other; the run ends whole, and nobody is left."""
    out = tmp_path / "run"
    with running(tmp_path, *arguments(folder, out, "--replicas", "2"), TMPDIR=str(tmp_path / "temporary")) as program:
        killed: list[int] = []
        for least in (1, 4):
            program.wait_for(lambda least=least: parts(out) >= least)  # type: ignore[misc]
            victim = next(p for p in program.replicas() if p.pid not in killed)
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)
        assert program.ended() == 0, program.said()
        assert program.said().count("died (") == 2, "each loss is told in the account"
        assert not program.left()
    assert RunStore.open(str(out)).graded() == RunStore.open(str(undisturbed)).graded()
    assert_equal_runs(out, undisturbed, range(PROBLEMS))
    assert "Traceback" not in program.said() and "(raylet)" not in program.said()
    assert not list((tmp_path / "temporary").glob("nad-ray-*"))


@pytest.mark.slow
def test_what_kills_every_replica_ends_the_run_with_one_line(folder: str, tmp_path: Path) -> None:
    """With one replica, which is killed whenever it has begun: the third loss of the same problem is the last."""
    out = tmp_path / "run"
    command = arguments(folder, out, "--replicas", "1", "--max-tokens", "350", "-n", "64")
    with running(tmp_path, *command) as program:
        killed: set[int] = set()

        def kill() -> bool:
            for process in program.replicas():
                if "Replica.advance" in " ".join(process.cmdline()) and process.pid not in killed:
                    killed.add(process.pid)
                    process.send_signal(signal.SIGKILL)
            return len(killed) == 3

        program.wait_for(kill)
        assert program.ended() == 1, program.said()
        (line,) = [line for line in program.said().splitlines() if line.startswith("nad: error")]
        assert re.search(r"problem \S+ lost 3 replicas in a row: replica 1 died \(", line)
        assert not program.left()


def ended_by(folder: str, tmp_path: Path, how: signal.Signals, to_all: bool = False) -> tuple[int, str]:
    """Exit code and output of a run that is ended in the middle, of which nobody is left."""
    out = tmp_path / "run"
    command = arguments(folder, out, "--replicas", "1", "--max-tokens", "350", "-n", "64")
    with running(tmp_path, *command) as program:
        program.wait_for(lambda: parts(out) > 0)
        replicas = program.replicas()
        (os.killpg if to_all else os.kill)(program.process.pid, how)
        code = program.ended()
        _, alive = psutil.wait_procs(replicas, 20)
        assert len(replicas) == 1 and not alive
        # Two idle helpers of Ray's whose cluster was killed look for it a while before they end.
        assert not program.left(20 if how != signal.SIGKILL else 180)
        assert "Traceback" not in program.said() and "***" not in program.said(), program.said()
        return code, program.said()


def test_nobody_is_left_after_ctrl_c(folder: str, tmp_path: Path) -> None:
    """It reaches the whole group, as in a terminal."""
    code, said = ended_by(folder, tmp_path, signal.SIGINT, to_all=True)
    assert (code, said.strip().splitlines()[-1:]) == (130, ["nad: error: interrupted"])


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nobody_is_left_after_a_kill(folder: str, tmp_path: Path, how: signal.Signals, code: int) -> None:
    assert ended_by(folder, tmp_path, how)[0] == code
