"""Recording that is killed: what survives, what ends with it, and that a run goes on to the same end."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from planted import PlantedEngine, PlantedTask

from nad.runs.evaluate import evaluate
from nad.runs.records import ProblemRecord
from nad.runs.sampling import Settings
from nad.runs.store import PARTS, PENDING, SET_ASIDE, RunStore, open_run
from nad.types import SamplingParams

SCRIPT = """
import signal
import sys
from pathlib import Path
from nad.errors import NadError
from nad.runs.evaluate import evaluate
from nad.runs.sampling import Settings
from nad.types import SamplingParams
from planted import PlantedEngine, PlantedTask

if __name__ == "__main__":
    path, how, begun, grading, rollouts = sys.argv[1:]
    settings = Settings(n=5, params=SamplingParams(max_tokens=64))
    engine, task = PlantedEngine(seconds=0.002, rollouts=int(rollouts)), PlantedTask(size=12, seconds=float(grading))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    Path(begun).touch()
    try:
        evaluate(engine, task, path, settings, resume=how == "resume")
    except (NadError, KeyboardInterrupt) as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""
SETTINGS = Settings(n=5, params=SamplingParams(max_tokens=64))
PROBLEMS = 12


@dataclass
class Sitting:
    """A recording process, the leader of a group of its own."""

    process: subprocess.Popen[bytes]
    errors: Path

    def grader(self) -> psutil.Process | None:
        try:
            children = psutil.Process(self.process.pid).children()
            return next((c for c in children if "spawn_main" in " ".join(c.cmdline())), None)
        except psutil.Error:
            return None

    def group(self) -> list[psutil.Process]:
        """Who of its group still runs."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, ProcessLookupError):
                continue
        return found

    def said(self) -> str:
        return self.errors.read_text()


@contextmanager
def sitting(tmp_path: Path, path: Path, grading: float = 0.004, rollouts: int = 1) -> Iterator[Sitting]:
    script, begun, errors = tmp_path / "record.py", tmp_path / "begun", tmp_path / "errors"
    script.write_text(SCRIPT)
    begun.unlink(missing_ok=True)
    how = "resume" if (path / "manifest.json").exists() else "new"
    command = [sys.executable, str(script), str(path), how, str(begun), str(grading), str(rollouts)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with errors.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment, start_new_session=True)
    try:
        until(lambda: begun.exists() or process.poll() is not None)
        yield Sitting(process, errors)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(reached: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def timeless(records: list[ProblemRecord]) -> list[ProblemRecord]:
    return [
        replace(
            r, samples=tuple(replace(s, seconds=0.0, completion=replace(s.completion, signals=None)) for s in r.samples)
        )
        for r in records
    ]


def test_a_kill_loses_the_problem_in_hand_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with sitting(tmp_path, path) as running:
        until(lambda: list(path.glob(f"{PARTS}/000002-*")))
        running.process.kill()
        running.process.wait()
    store = RunStore.open(str(path))
    assert {*store.graded(), *store.pending()} >= {0, 1, 2}
    assert not store.damaged() and not store.damaged(PENDING)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_grader_ends_with_its_parent_without_a_word(how: signal.Signals, tmp_path: Path) -> None:
    """It is in the middle of a problem of 50 s: the run goes on at once, in another process."""
    path = tmp_path / "run"
    with sitting(tmp_path, path, grading=10) as running:
        until(lambda: (path / PENDING).is_dir() and running.grader())
        time.sleep(2)  # it reads its task, and begins
        running.process.send_signal(how)
        running.process.wait()
        until(lambda: not running.group(), 10)
        assert running.said() == ""
        with RunStore.open(str(path)).writing():
            pass


def test_nobody_writes_as_long_as_the_grader_might(tmp_path: Path) -> None:
    """The main process is killed while the grader is stopped: it holds the lock still."""
    path = tmp_path / "run"
    with sitting(tmp_path, path, grading=10) as running:
        until(lambda: (path / PENDING).is_dir() and running.grader())
        grader = running.grader()
        assert grader is not None
        grader.suspend()
        running.process.kill()
        running.process.wait()
        with pytest.raises(Exception, match="another process is writing"), RunStore.open(str(path)).writing():
            pass
        grader.resume()
        until(lambda: not running.group(), 10)
        with RunStore.open(str(path)).writing():
            pass


def kill_main(running: Sitting, chance: random.Random) -> None:
    running.process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))


def kill_grader(running: Sitting, chance: random.Random) -> None:
    if grader := running.grader():
        grader.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))


def kill_group(running: Sitting, chance: random.Random) -> None:
    os.killpg(running.process.pid, chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_runs_killed_100_times_end_like_one_that_was_not(tmp_path: Path) -> None:
    whole = evaluate(PlantedEngine(), PlantedTask(size=PROBLEMS), f"memory://{tmp_path.name}/whole", SETTINGS)
    expected, settings = timeless(list(whole)), whole.manifest.settings
    chance, kills, finished, codes = random.Random(0), 0, 0, list[int | None]()
    while kills < 100 or not finished:
        path = tmp_path / f"run{finished}"
        with sitting(tmp_path, path, rollouts=chance.choice([1, 4])) as running:
            if kills < 100:
                time.sleep(chance.choice([0.3, 1.5, 4.0]) * chance.random())
                if running.process.poll() is None:
                    chance.choice([kill_main, kill_grader, kill_group])(running, chance)
                    kills += 1
            codes.append(running.process.wait())
            assert "Traceback" not in running.said() and "terminate called" not in running.said(), running.said()
            if codes[-1] == 0:
                store = open_run(str(path))
                assert timeless(list(store)) == expected
                assert store.manifest.settings == settings
                assert not (path / SET_ASIDE).exists() and not list((path / PENDING).iterdir())
                finished += 1
    print(f"{kills} kills, {finished} runs to their end, exit codes {sorted(set(codes), key=str)}")


READ = """
import sys
from nad.runs.store import RunStore

store = RunStore.open(sys.argv[1])
next(iter(store))
store.grades()
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_readers_on_a_busy_machine_end_in_order(tmp_path: Path) -> None:
    path, environment = str(tmp_path / "run"), {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    evaluate(PlantedEngine(), PlantedTask(size=PROBLEMS), path, SETTINGS)
    command, codes = [sys.executable, "-c", READ, path], []
    for _ in range(50):
        readers = [subprocess.Popen(command, env=environment) for _ in range(4)]
        codes += [reader.wait() for reader in readers]
    assert codes == [0] * 200
