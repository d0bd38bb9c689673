"""`nad eval` with replicas, as a user runs it: killed, interrupted, in a cluster that was there before."""

import os
import signal
from pathlib import Path

import pytest
from marks import needs_ray
from replicas import assert_equal_runs, parts, running

from nad.runs.store import RunStore

pytestmark = [needs_ray, pytest.mark.timeout(400)]
PROBLEMS = 10
TASK = ("eval", "--task", "arithmetic_1", "--limit", str(PROBLEMS), "-n", "12", "--max-tokens", "120")


def arguments(folder: str, out: Path, *more: str) -> list[str]:
    return [*TASK, "--dtype", "float32", "--model", folder, "--out", str(out), *more]


@pytest.fixture(scope="module")
def undisturbed(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one engine, without replicas."""
    place = tmp_path_factory.mktemp("undisturbed")
    with running(place, *arguments(folder, place / "run")) as program:
        assert program.ended() == 0, program.said()
    return place / "run"


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
        assert "problem arithmetic_1/" in line and "lost 3 replicas in a row: replica 1 died" in line
        assert not program.left()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nobody_is_left_of_a_run_that_is_ended(folder: str, tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C reaches the whole group, as in a terminal; the others the command alone."""
    out = tmp_path / "run"
    with running(tmp_path, *arguments(folder, out, "--replicas", "2", "--max-tokens", "350")) as program:
        program.wait_for(lambda: len(program.replicas()) == 2 and out.is_dir())
        if how == signal.SIGINT:
            os.killpg(program.process.pid, how)
        else:
            program.process.send_signal(how)
        code = program.ended()
        assert code == (130 if how == signal.SIGINT else -how), program.said()
        assert not program.left()
        if how == signal.SIGINT:
            assert program.said().strip().splitlines()[-1] == "nad: error: interrupted"
        assert "Traceback" not in program.said()
