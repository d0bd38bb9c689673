"""Grading beside the sampling, in a process of its own: it turns pending parts of a run into graded ones."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Protocol, runtime_checkable

from nad.errors import NadError
from nad.grading.thinking import THINKING, Tags, in_known_tags
from nad.runs.records import GradedSample, ProblemRecord
from nad.runs.store import PENDING, RunStore
from nad.tasks.base import Problem, Task


@runtime_checkable
class Grader(Protocol):
    """Grades the pending problem at a place of a run, sooner or later."""

    def submit(self, index: int) -> None: ...


def grade_part(store: RunStore, task: Task, problem: Problem, index: int) -> None:
    """Grade one pending problem and store it for good."""
    store.write(index, graded(task, problem, store.read(index, PENDING), store.manifest.thinking_tags))


def graded(task: Task, problem: Problem, record: ProblemRecord, tags: Sequence[Tags] = ()) -> ProblemRecord:
    """The record with answers and grades; equal texts are graded once, unfinished samples not at all.

    A task knows the known thinking tags alone, so others (`tags`) are written as one of these.
    """
    opened = THINKING if record.thinking else ""
    texts = {s.completion.text for s in record.samples if s.completion.finish_reason is not None}
    read = {text: opened + in_known_tags(text, tags) for text in sorted(texts)}
    verdicts = {text: (task.answer(problem, seen), task.grade(problem, seen)) for text, seen in read.items()}

    def verdict(sample: GradedSample) -> GradedSample:
        finished = sample.completion.finish_reason is not None
        answer, correct = verdicts[sample.completion.text] if finished else (None, None)
        return replace(sample, answer=answer, correct=correct)

    return replace(record, samples=tuple(map(verdict, record.samples)))


@contextmanager
def grader_of(task: Task, store: RunStore) -> Iterator[Grader]:
    """A grader for this run. Leaving the block waits for what was submitted; an error inside it does not wait.

    Raises NadError when grading fails. A store in this process's memory is graded in this process.
    """
    if not store.local:
        yield _Here(task, store)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of torch, and their locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, task, store.path), daemon=False)
    process.start()
    theirs.close()
    grader = _Beside(ours)
    try:
        yield grader
        grader.wait()
        ours.close()
        process.join()
    finally:
        ours.close()
        if process.is_alive():
            process.terminate()  # parts appear whole or not at all, so nothing half written stays behind
        process.join()


class _Here:
    def __init__(self, task: Task, store: RunStore) -> None:
        self._task, self._store, self._problems = task, store, task.problems()

    def submit(self, index: int) -> None:
        grade_part(self._store, self._task, self._problems[index], index)


class _Beside:
    """This process's end of the pipe to the grading one."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._waiting = pipe, deque[int]()

    def submit(self, index: int) -> None:
        """Hand over a problem. Failures of earlier ones are raised here."""
        while self._pipe.poll():
            self._receive()
        self._pipe.send(index)
        self._waiting.append(index)

    def wait(self) -> None:
        while self._waiting:
            self._receive()

    def _receive(self) -> None:
        try:
            failure = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise NadError("the grading process died; nothing sampled is lost: go on with --resume") from error
        self._waiting.popleft()
        if failure:
            raise NadError(failure)


def _serve(pipe: Connection, task: Task, path: str) -> None:
    """Grade what the other end names until it closes, which a killed process does too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the other end decides
    store, problems = RunStore.open(path), task.problems()
    while True:
        try:
            index = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            grade_part(store, task, problems[index], index)
            failure = ""
        except NadError as error:
            failure = str(error)
        except Exception as error:  # a process has one way to tell its parent: the parent raises it
            failure = f"grading problem {problems[index].id} failed: {type(error).__name__}: {error}"
        pipe.send(failure)
