"""The judge's and the program's processes: what they may use, and how they end."""

import contextlib
import ctypes
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from nad.grading.judging.wire import GLANCE_S, ProgramLost

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1


def confine(job: dict[str, Any]) -> None:
    """Leave root and its keys, hide this process's memory and descriptors from others, set the limits."""
    if job["uid"] is not None:
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    if job["boxed"]:  # a new keyring without a name; ENOSYS: this kernel has no keys
        done = _LIBC.syscall(_KEYCTL[os.uname().machine], _JOIN_SESSION_KEYRING, None)
        if done < 0 and ctypes.get_errno() != 38:
            raise OSError(ctypes.get_errno(), "keyctl")
    if job["boxed"]:  # (else `end_without` ends it, and what it started)
        end_with_parent()  # again: changing the user has cleared it
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans become this process's children, as they do for process 1
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 gets no signal it does not handle: it cannot be killed
    limits = job["limits"]
    _limit(resource.RLIMIT_AS, limits["memory"])
    _limit(resource.RLIMIT_CPU, limits["cpu_s"])
    _limit(resource.RLIMIT_NOFILE, limits["files"])
    _limit(resource.RLIMIT_CORE, 0)


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_without(life: int) -> None:
    """End, and all of the sandbox with this process, once nobody holds the other end of a pipe any more.

    Of a nad that was root the death signal does not arrive: bubblewrap may not send it to another user.
    """

    def look(*_: object) -> None:
        if select.select([life], [], [], 0)[0]:
            _end_all()
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, GLANCE_S, GLANCE_S)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class Watch:
    """How long a program may still run: until `wall_s` are over, or it has made too many files.

    The memory that holds a file's name is in no limit of its own, so files are counted whenever somebody waits.
    """

    def __init__(self, limits: dict[str, int], folders: Sequence[str]) -> None:
        self._deadline = time.monotonic() + limits["wall_s"]
        self._inodes, self._folders = limits["inodes"], folders

    def left(self) -> float:
        """The seconds that are left, above 0; ProgramLost if there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ProgramLost("no time left")
        for folder in self._folders:
            state = os.statvfs(folder)
            if state.f_files - state.f_ffree > self._inodes:
                raise ProgramLost("more files than allowed")
        return left


def fork(body: Callable[[], NoReturn], limits: dict[str, int], descriptors: Sequence[int], keep: int = 2) -> int:
    """Start the program's process, with `descriptors` as its first three and nothing else of the judge's but `keep`."""
    pid = os.fork()
    if pid:
        return pid
    try:
        end_with_parent()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.setsid()
        for target, source in enumerate(descriptors):
            os.dup2(source, target)
        os.closerange(3, keep)
        os.closerange(keep + 1, limits["files"])
        _limit(resource.RLIMIT_NPROC, limits["processes"])
        _limit(resource.RLIMIT_FSIZE, limits["file"])
        body()
    finally:
        os._exit(1)


def end(pid: int) -> int:
    """End the program and all it started, until none is left; the program's exit status."""
    sweep()
    status = os.waitpid(pid, 0)[1]
    _end_all()
    return status


def _end_all() -> None:
    with contextlib.suppress(ChildProcessError):  # until there are no more; the dead count as processes too
        while True:
            sweep()
            os.waitpid(-1, 0)


def sweep() -> None:
    """Kill all that runs in the sandbox but this process; without one, its children, to whom orphans are added."""
    if os.getpid() == 1:
        everybody = [-1]
    else:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            everybody = [int(pid) for pid in file.read().split()]
    for pid in everybody:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def empty(folder: str) -> None:
    """Remove all there is; what nests is first moved up, so that no depth and no length of a path stops this."""
    moved = f"{folder}/.moved-{os.urandom(8).hex()}-"
    count = 0
    while names := os.listdir(folder):
        for path in (f"{folder}/{name}" for name in names):
            if not _is_folder(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                if _is_folder(f"{path}/{inner}"):
                    os.chmod(f"{path}/{inner}", 0o700)  # moving one writes to it
                count += 1
                os.rename(f"{path}/{inner}", f"{moved}{count}")
            os.rmdir(path)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
