"""Whether two answers are the same.

Numbers, words and what is spelled the same are decided here (exact.py). Formulas that need algebra are compared in a
process of its own (math_equality_process.py): sympy may hang on a hostile formula, and a time limit within it is a
signal, which works in a main thread only. So everything here may be called from any thread.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from nad.errors import NadError
from nad.grading.exact import decide
from nad.grading.notation import LONGEST

TIMEOUT_S = 20.0
"""Longest wait for one comparison; its process is then replaced and the answer is not graded."""


def equivalent(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the right one as mathematics; None if that could not be decided."""
    decided = decide(gold, answer)
    if decided is not None or max(len(gold), len(answer)) > LONGEST:
        return decided
    result = _ask({"gold": gold, "answer": answer})
    return None if result is None else bool(result)


_lock = threading.Lock()
_process: subprocess.Popen[str] | None = None


def _ask(question: dict[str, str]) -> object:
    """The comparing process's reply; None if it failed, died or took too long."""
    global _process
    with _lock:
        if _process is None:
            _process = _start()
        answered = False
        try:
            assert _process.stdin and _process.stdout
            _process.stdin.write(json.dumps(question) + "\n")
            _process.stdin.flush()
            if select.select([_process.stdout], [], [], TIMEOUT_S)[0] and (line := _process.stdout.readline()):
                answered = True
                return json.loads(line)
        except BrokenPipeError:
            return None
        finally:
            if not answered:  # also when interrupted: its reply would be taken for the next question's
                _stop()
        return None


def require_math_verify() -> None:
    """Raise NadError, with what to do, unless formulas can be compared: before a run, not in the midst of it."""
    if find_spec("math_verify") is None:
        raise NadError("grading mathematics needs the package math-verify: pip install 'nad[eval]'")


def _start() -> "subprocess.Popen[str]":
    require_math_verify()
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "nad.grading.math_equality_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for the run to handle: it grades what it has, then stops
    )
    assert process.stdout
    if process.stdout.readline() != "ready\n":
        process.kill()
        raise NadError(
            "the process that compares formulas does not start; "
            "run python -m nad.grading.math_equality_process to see why"
        )
    return process


def _stop() -> None:
    global _process
    if _process is not None:
        _process.kill()
        _process.wait()
        for pipe in (_process.stdin, _process.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
    _process = None


atexit.register(_stop)
