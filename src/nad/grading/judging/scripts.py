"""Programs that read standard input: each input a run of a fresh interpreter, with fresh folders."""

import os
import select
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from nad.grading.judging.processes import Watch, empty, end, fork, sweep
from nad.grading.judging.wire import GLANCE_S, ProgramLost

# As `python program.py` does, but for python -S, which leaves out the packages of this machine, and quit() and exit().
_START = """
import site, sys
site.setquit(); site.setcopyright(); site.sethelper()
sys.argv = [{path!r}]
__file__ = {path!r}
del site, sys
with open(__file__, "rb") as _:
    _ = compile(_.read(), __file__, "exec")
exec(_)
"""


def judge_inputs(job: dict[str, Any], tell: Callable[[bytes], None]) -> dict[str, object]:
    """Tell what the program prints for each input, as soon as it has; ends at the first that fails."""
    for number, text in enumerate(job["inputs"]):
        for folder in job["fresh"]:
            empty(folder)
        output, reason = _run(job, text)
        if reason:
            return {"passed": False, "reason": f"input {number}: {reason}"}
        tell(output)
    return {"passed": True, "reason": ""}


def _run(job: dict[str, Any], text: str) -> tuple[bytes, str]:
    """What the program prints, and why it failed."""
    script, source, printed = (f"{job['folder']}/{name}" for name in ("program.py", "stdin", "stdout"))
    for path, content in ((script, job["program"]), (source, text)):
        with open(path, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(content)
    os.mkfifo(printed)
    reading = os.open(printed, os.O_RDONLY | os.O_NONBLOCK)

    def start() -> NoReturn:
        os.execv(sys.executable, [sys.executable, "-s", "-S", "-P", "-c", _START.format(path=script)])

    try:
        # Held until the program has ended: it may close its output, and open it again.
        with open(printed, "wb", 0) as writing:
            with open(source, "rb", 0) as given, open(os.devnull, "wb", 0) as null:
                pid = fork(start, job["limits"], [file.fileno() for file in (given, writing, null)])
            return _collect(pid, reading, writing.close, job)
    finally:
        os.close(reading)


def _collect(pid: int, reading: int, stop_writing: Callable[[], None], job: dict[str, Any]) -> tuple[bytes, str]:
    """The output of one process, and why it failed; processes it left behind end with it."""
    watch = Watch(job["limits"], job["fresh"] if job["boxed"] else ())
    data, reason = bytearray(), ""
    ended = os.pidfd_open(pid)
    waiting = [reading, ended]
    try:
        while waiting:
            ready = select.select(waiting, [], [], min(watch.left(), GLANCE_S))[0]
            if ended in ready:
                sweep()  # what it left behind holds its output open
                stop_writing()
                waiting.remove(ended)
            if reading in ready:
                block = os.read(reading, 1 << 16)
                data += block
                if not block:
                    waiting.remove(reading)
                elif len(data) > job["limits"]["output"]:
                    raise ProgramLost("more output than allowed")
    except ProgramLost as lost:
        reason = str(lost)
    os.close(ended)
    status = end(pid)
    return bytes(data), reason or (f"exit status {status}" if status else "")
