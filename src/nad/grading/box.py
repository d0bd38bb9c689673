"""One run of the judge: start it, read what it says until its time is up, and leave nothing of it running."""

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from nad.grading.cgroup import Group

_SPARE_S = 10  # after the judge's own limits, for its start and its end
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# When the machine has no memory left the kernel takes the program, not nad.
_FIRST_TO_GO = "{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null"


class Box:
    """A judge at work. Leaving the `with` kills it, bubblewrap and all they started, and waits until they are gone.

    `command` makes the command line from three descriptors: where bubblewrap writes the judge's process number, where
    it reads the filter of kernel calls, and where the judge sees that nad is gone.
    """

    def __init__(
        self,
        command: Callable[[int, int, int], Sequence[str]],
        environment: Mapping[str, str],
        job: bytes,
        calls: bytes,
        wall_s: float,
        most: int,
        folder: str,
        group: Group | None,
    ) -> None:
        self._deadline = time.monotonic() + wall_s + _SPARE_S
        self._most = most + (1 << 16)
        self._judge: int | None = None  # a pidfd: a number could be somebody else's by now
        with contextlib.ExitStack() as ours:
            self._info, info = os.pipe()
            life, self._life = os.pipe()
            ours.callback(os.close, info)
            ours.callback(os.close, life)
            stdin, rules = (ours.enter_context(_memory_file(data)) for data in (job, calls))
            enter = f"{_FIRST_TO_GO}; " + ("" if group is None else 'echo 0 >"$0" && ') + 'exec "$@"'
            place = "sh" if group is None else str(group.entrance)
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", enter, place, *command(info, rules, life)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**_ENVIRONMENT, **environment},
                cwd=folder,
                pass_fds=(info, rules, life),
                start_new_session=True,
            )

    def __enter__(self) -> "Box":
        return self

    def messages(self) -> Iterator[bytes]:
        """What the judge says, until it ends or its time is up."""
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while (head := self._exactly(stream, 8)) is not None:
            size = int.from_bytes(head, "big")
            if size > self._most or (message := self._exactly(stream, size)) is None:
                return
            self._find_judge()
            yield message

    def _exactly(self, stream: int, size: int) -> bytes | None:
        """None: the judge ended, or its time is up."""
        data = bytearray()
        while len(data) < size:
            left = self._deadline - time.monotonic()
            if left <= 0 or not _readable(stream, left):
                return None
            block = os.read(stream, min(size - len(data), 1 << 20))
            if not block:
                return None
            data += block
        return bytes(data)

    def _find_judge(self) -> None:
        """Take hold of the judge's process while it is surely bubblewrap's child."""
        if self._judge is not None or not _readable(self._info, 0):
            return
        said = re.search(rb'"child-pid": (\d+)', os.read(self._info, 1 << 16))
        if said is None:
            return
        with contextlib.suppress(OSError):  # it is gone already
            judge = os.pidfd_open(int(said[1]))
            if f"PPid:\t{self._process.pid}\n" in Path(f"/proc/{int(said[1])}/status").read_text():
                self._judge = judge
            else:
                os.close(judge)

    def __exit__(self, *raised: object) -> None:
        self._find_judge()
        if self._judge is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._judge, signal.SIGKILL)
            _readable(self._judge, _SPARE_S)  # once it has ended, and all inside with it
            os.close(self._judge)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # bubblewrap ends with it, and leaves no dead behind
        self._process.kill()
        self._process.wait()
        os.close(self._info)
        os.close(self._life)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()

    def complaint(self) -> str:
        """The end of what bubblewrap, or a judge that failed, wrote to its standard error."""
        assert self._process.stderr is not None
        stream = self._process.stderr.fileno()
        os.set_blocking(stream, False)
        with contextlib.suppress(BlockingIOError):
            return " ".join(os.read(stream, 1 << 16).decode(errors="replace").split())[-200:]
        return ""


def _readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, or an end, within some seconds. (select cannot take large descriptors.)"""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


@contextlib.contextmanager
def _memory_file(data: bytes) -> Iterator[int]:
    file = os.memfd_create("nad")
    try:
        with open(file, "wb", closefd=False) as writing:
            writing.write(data)
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)
