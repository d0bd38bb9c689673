"""The judge: process 1 of the sandbox. It alone has the tests, and the channel that the verdict goes through.

The program is forked from it before the tests arrive, with every descriptor closed but one socket. The tests run in the
judge; where they call the program, the call goes through the socket (wire.py), and what it returns is looked at from
here (mirror.py). So the program has no part in a comparison, and neither the tests nor what they expect ever lie in its
memory. A program that reads standard input has no tests: what it printed goes out, and is compared outside.
"""

import json
import os
import socket
import sys
from typing import Any, NoReturn

from nad.grading.judging.processes import Watch, confine, end, end_without, fork
from nad.grading.judging.program import Program
from nad.grading.judging.scripts import judge_inputs
from nad.grading.judging.tests import Judge
from nad.grading.judging.wire import Channel


def main() -> None:
    """Read a job, say that it is ready, and then what came of it; each message begins with > (output) or = (JSON)."""
    life = int(sys.argv[1])
    os.closerange(3, life)
    os.closerange(life + 1, 1024)
    end_without(life)
    verdict = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    job = _read_message()
    confine(job)

    def tell(mark: bytes, message: bytes) -> None:
        with open(verdict, "wb", closefd=False) as file:
            file.write((len(message) + 1).to_bytes(8, "big") + mark + message)

    tell(b"=", b"{}")
    result = judge_inputs(job, lambda output: tell(b">", output)) if "inputs" in job else _judge_tests(job, null)
    tell(b"=", json.dumps(result).encode())
    os._exit(0)


def _judge_tests(job: dict[str, Any], null: int) -> dict[str, object]:
    limits = job["limits"]
    mine, theirs = socket.socketpair()

    def start() -> NoReturn:
        Program(Channel(theirs, 1 << 40, lambda: 3600.0)).serve(job["program"])

    pid = fork(start, limits, (null, null, null), theirs.fileno())
    theirs.close()
    watch = Watch(limits, job["fresh"] if job["boxed"] else ())
    tests = _read_message()  # only now: the program was forked without them
    try:
        return Judge(Channel(mine, limits["output"], watch.left), tests).verdict()
    finally:
        end(pid)


def _read_message() -> Any:
    """The next message of standard input, and not a byte of the one after it."""
    return json.loads(_read(int.from_bytes(_read(8), "big")))


def _read(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        block = os.read(0, size - len(data))
        if not block:
            raise EOFError("standard input ended early")
        data += block
    return bytes(data)
