"""Several problems at once: as many as the engine takes, written from one thread, and all ended when one is."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import PlantedEngine, PlantedTask

from nad.errors import NadError
from nad.runs.evaluate import EvalProgress, evaluate
from nad.runs.in_flight import Stopped, in_flight
from nad.runs.sampling import Settings
from nad.runs.store import RunStore, open_run
from nad.types import SamplingParams

SETTINGS = Settings(n=3, params=SamplingParams(max_tokens=64))
TASK = PlantedTask(size=10)


@pytest.fixture
def memory(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/run"


def tokens(path: str) -> list[object]:
    return [(r.problem, r.seed, [s.completion.tokens for s in r.samples]) for r in open_run(path)]


def test_four_at_once_record_what_one_at_a_time_records(memory: str) -> None:
    one, four = PlantedEngine(), PlantedEngine(rollouts=4, seconds=0.001)
    evaluate(one, TASK, memory, SETTINGS)
    seen: list[EvalProgress] = []
    evaluate(four, TASK, f"{memory}-4", SETTINGS, watch=seen.append)
    assert tokens(f"{memory}-4") == tokens(memory)
    assert (max(one.most), max(four.most)) == (1, 4)
    assert max(p.in_hand for p in seen) == 4
    assert sorted({p.done for p in seen}) == list(range(11))
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].seconds_left == 0


def test_the_store_is_written_by_the_thread_that_called(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writers, write = set(), RunStore.write

    def noted(self: RunStore, *arguments: object) -> None:
        writers.add(threading.current_thread())
        write(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RunStore, "write", noted)
    evaluate(PlantedEngine(rollouts=4), TASK, memory, SETTINGS)
    assert writers == {threading.current_thread()}


@pytest.mark.parametrize("rollouts", [1, 4])
def test_an_error_in_one_ends_all_and_keeps_what_is_done(rollouts: int, memory: str) -> None:
    engine = PlantedEngine(rollouts=rollouts, seconds=0.005, fails=("question 7",))
    before = threading.active_count()
    with pytest.raises(NadError, match="the model broke"):
        evaluate(engine, TASK, memory, SETTINGS)
    assert not engine.open and threading.active_count() == before
    stored = RunStore.open(memory).graded()
    assert 7 not in stored and len(stored) >= 4
    whole = evaluate(PlantedEngine(rollouts=rollouts), TASK, memory, SETTINGS, resume=True)
    assert len(whole) == 10


def test_ctrl_c_ends_all(memory: str) -> None:
    engine = PlantedEngine(rollouts=4, seconds=0.005)

    def interrupt(progress: EvalProgress) -> None:
        if progress.done == 3 and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(engine, TASK, memory, SETTINGS, watch=interrupt)
    assert not engine.open
    assert len(RunStore.open(memory).graded()) == 3


def test_no_more_than_asked_are_made_ahead_of_the_reader() -> None:
    begun: list[int] = []

    def make(job: int, check: Callable[[], None]) -> int:
        begun.append(job)
        return job * job

    results = in_flight(make, range(9), 3)
    first = next(results)
    time.sleep(0.05)
    assert len(begun) == 3 and first[1] == first[0] ** 2
    results.close()  # type: ignore[attr-defined]
    assert len(begun) == 3


def test_a_closed_iterator_stops_what_is_under_way() -> None:
    ends: list[bool] = []

    def make(job: int, check: Callable[[], None]) -> int:
        try:
            while job:
                check()
                time.sleep(0.001)
        except Stopped:
            ends.append(True)
            raise
        return job

    results = in_flight(make, [0, 1, 2], 3)
    assert next(results) == (0, 0)
    results.close()  # type: ignore[attr-defined]
    assert ends == [True, True]


def test_one_at_once_needs_no_thread() -> None:
    threads = [thread for _, thread in in_flight(lambda job, check: threading.current_thread(), range(3), 1)]
    assert threads == [threading.current_thread()] * 3
