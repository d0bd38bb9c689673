"""Grading beside the sampling, in a process of its own: it turns pending parts of a run into graded ones."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nad.errors import NadError
from nad.grading.votes import ballots
from nad.runs.records import GradedSample, ProblemRecord
from nad.runs.store import PARTS, PENDING, RunStore
from nad.tasks.base import Problem, Task
from nad.thinking import Tags, as_read


@runtime_checkable
class Grader(Protocol):
    """Grades the pending problem at a place of a run, sooner or later."""

    def submit(self, index: int) -> None: ...


def grade_part(store: RunStore, task: Task, problem: Problem, index: int) -> None:
    """Grade one problem, pending or graded before, and store it for good."""
    folder = PENDING if index in store.pending() else PARTS
    store.write(index, graded(task, problem, store.read(index, folder), store.manifest.thinking_tags))


def graded(task: Task, problem: Problem, record: ProblemRecord, tags: Sequence[Tags] = ()) -> ProblemRecord:
    """The record with answers and grades; equal texts are graded once, unfinished samples not at all.

    Where answers can be voted on, a sample's answer is that of the first sample whose answer is equal.
    A task knows only the known thinking tags, so others (`tags`) are written as one of these.
    """
    texts = {s.completion.text for s in record.samples if s.completion.finish_reason is not None}
    verdicts = {text: verdict(task, problem, as_read(text, record.thinking, tags)) for text in sorted(texts)}
    unfinished = Verdict(None, None, None)

    def judged(sample: GradedSample) -> GradedSample:
        finished = sample.completion.finish_reason is not None
        return replace(sample, **(verdicts[sample.completion.text] if finished else unfinished)._asdict())

    samples = [judged(sample) for sample in record.samples]
    answers = [sample.answer for sample in samples]
    labels = ballots(answers) if task.votes else answers
    return replace(record, samples=tuple(replace(s, answer=a) for s, a in zip(samples, labels, strict=True)))


class Verdict(NamedTuple):
    """What a sample is graded with; the names are GradedSample's."""

    answer: str | None
    correct: bool | None
    not_graded: str | None


def verdict(task: Task, problem: Problem, text: str) -> Verdict:
    """The text's answer and grade. A text on which the task breaks is not graded; a NadError concerns all texts."""
    answer = None
    try:
        answer = task.answer(problem, text)
        return Verdict(answer, task.grade(problem, text), None)
    except NadError:
        raise
    except Exception as error:  # a task's code and what it calls can raise anything
        what = " ".join(str(error).split())[:200]
        return Verdict(answer, None, f"{type(error).__name__}: {what}")


@contextmanager
def grader_of(task: Task, store: RunStore, lock: int | None = None) -> Iterator[Grader]:
    """A grader for this run. Leaving the block waits for what was submitted; an error inside it does not wait.

    The process holds the run's `lock` too, so that nobody else writes as long as it may, and ends with this one.
    Raises NadError when grading fails. A store in this process's memory, and a task that cannot be sent to another
    (a class of a notebook), are graded in this process.
    """
    if not store.local or not _travels(task):
        yield _Here(task, store)
        return
    ours, process = _started(task, store.path, lock)
    grader = _Beside(ours)
    try:
        yield grader
        grader.wait()
        ours.close()
        process.join()
    finally:
        ours.close()
        if process.is_alive():
            process.terminate()  # parts appear whole or not at all, so nothing half written stays
        process.join()


def _travels(task: Task) -> bool:
    """Whether another process can be given the task."""
    if type(task).__module__ == "__main__":
        return False
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _started(task: Task, path: str, lock: int | None) -> tuple[Connection, BaseProcess]:
    """The grading process, and our end of the pipe to it."""
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of torch, and their locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, _Inherited(lock)), daemon=False)
    resource_tracker.ensure_running()  # its start would let go of the signal held back below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the process can ignore it
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        # Not as its argument: a process whose parent dies before it has read its arguments prints a traceback.
        ours.send((task, path))
    except (BrokenPipeError, ConnectionError) as error:
        process.join()
        raise NadError("the grading process died at its start; go on with --resume") from error
    return ours, process


class _Inherited:
    """A descriptor that a spawned process gets as its own."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return None if self.descriptor is None else reduction.DupFd(self.descriptor)

    def __setstate__(self, handle: Any) -> None:
        self.descriptor = None if handle is None else handle.detach()


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


def _serve(pipe: Connection, lock: _Inherited) -> None:
    """Grade what the other end names, until it closes. When the other process is killed, this one ends at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the other end decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task, path = pipe.recv()
        store, problems = RunStore.open(path), task.problems()
        while True:
            index = pipe.recv()
            pipe.send(_failure(store, task, problems[index], index))
    except (EOFError, ConnectionError):  # the other end is closed
        return


def _failure(store: RunStore, task: Task, problem: Problem, index: int) -> str:
    """Grade a problem; returns what went wrong, if anything: the parent process raises it."""
    try:
        grade_part(store, task, problem, index)
    except NadError as error:
        return str(error)
    except Exception as error:
        return f"grading problem {problem.id} failed: {type(error).__name__}: {error}"
    return ""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
