"""Running programs that nobody has read: bubblewrap around a judge and the program it judges.

The program has no network, an own user and process space, a read-only system without the home folder, an empty
environment, a small private /tmp, and limits on CPU time, wall time, memory, processes, file size and output. Its own
calls return values to the judge (sandbox_judge.py), and only the judge, which is process 1 and cannot be killed from
inside, holds the verdict's channel. So these do not pass: ending early with status 0, printing what a test might
print, patching assert, builtins, sys or os, values that equal everything, searching frames, descriptors or memory.

What it does not stop:
- an exploit of the kernel or of Python's unpickler in the judge (which reads plain data only);
- answers written down for the very calls the tests make, or a program that knows the benchmark by heart;
- memory is limited per process: a program can take `processes` times `memory`;
- time: a busy machine makes a slow program fail (the CPU limit is per process, the wall limit is for everything);
- tests see copies: a program that changes its arguments in place does not change the tests' own values, and a result
  that is no plain data (a Fraction, an array) equals nothing.
With `unsafe` there is no bubblewrap: the limits and the judge stay, but the program runs as you, with your files and
the network, and could find the judge and forge its verdict.
Programs have the standard library of the Python that runs nad, and the packages that the task names, nothing else.
"""

import json
import os
import secrets
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nad.errors import NadError
from nad.grading.packages import package_binds, package_environment

_CHILD = Path(__file__).with_name("sandbox_judge.py")
_INTERPRETER = os.path.realpath(sys.executable)
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes and counts; `cpu_s` and `memory` of each process, `disk` of /tmp, `wall_s` of one run."""

    wall_s: int = 60
    cpu_s: int = 20
    memory: int = 1 << 30
    processes: int = 8
    files: int = 64
    file: int = 16 << 20
    disk: int = 32 << 20
    output: int = 16 << 20


@dataclass(frozen=True)
class Tests:
    """Assertions, run outside the program's process.

    `source` is what must run without an exception; there, the `names` are the program's; `before` defines what else
    it needs. Of a function's result the tests see plain data (numbers, texts, lists, tuples, sets, dictionaries).
    """

    __test__ = False  # no test case of pytest's

    source: str
    names: tuple[str, ...]
    before: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed; None: it could not be judged. `reason` says why not."""

    passed: bool | None
    reason: str


def check_sandbox(unsafe: bool) -> None:
    """Raise NadError, with what to do, unless programs can be run."""
    if not unsafe and shutil.which("bwrap") is None:
        raise NadError(
            "programs run inside bubblewrap, and there is no bwrap here: install it (apt-get install bubblewrap, "
            "dnf install bubblewrap), or pass --unsafe-code-execution to run them unprotected"
        )
    verdict = run_tests("def f(x): return x", Tests("assert f(1) == 1", ("f",)), unsafe=unsafe)
    if not verdict.passed:
        raise NadError(
            f"the sandbox does not start: {verdict.reason}; bubblewrap needs user namespaces "
            "(or root with CAP_SYS_ADMIN); or pass --unsafe-code-execution to run programs unprotected"
        )


def run_tests(
    program: str, tests: Tests, limits: Limits = Limits(), unsafe: bool = False, packages: Sequence[str] = ()
) -> Verdict:
    """Whether all tests hold for a program, which may import `packages`."""
    reply = _run({"program": program}, asdict(tests), limits, limits.wall_s, unsafe, packages)
    passed = reply["passed"]
    return Verdict(passed if passed is None else bool(passed), str(reply["reason"]))


def run_inputs(
    program: str,
    inputs: Sequence[str],
    limits: Limits = Limits(),
    unsafe: bool = False,
    packages: Sequence[str] = (),
) -> tuple[list[str] | None, Verdict]:
    """What a program, which may import `packages`, prints for each input, run as a script; None if it fails on one."""
    job: dict[str, object] = {"program": program, "inputs": list(inputs)}
    reply = _run(job, None, limits, limits.wall_s * max(1, len(inputs)), unsafe, packages)
    outputs, passed = reply.get("outputs"), reply.get("passed", False)
    if isinstance(outputs, list):
        return [str(output) for output in outputs], Verdict(True, "")
    return None, Verdict(passed if passed is None else bool(passed), str(reply["reason"]))


def _run(
    job: dict[str, object],
    tests: dict[str, object] | None,
    limits: Limits,
    wall_s: int,
    unsafe: bool,
    packages: Sequence[str],
) -> dict[str, object]:
    """The judge's reply. One that never got ready could not judge; one that got lost later was the program's doing."""
    root = os.geteuid() == 0 and not unsafe
    # A user number nobody has, so that the process limit, which counts a user's processes, counts this run's.
    uid = (1 << 30) + secrets.randbelow(1 << 30) if root else None
    message = _frame({**job, "limits": asdict(limits), "uid": uid}) + (b"" if tests is None else _frame(tests))
    process = subprocess.Popen(
        [
            *([] if unsafe else _bubblewrap(limits, root, packages)),
            _INTERPRETER,
            "-s",
            "-S",
            "-P",
            "-c",
            _CHILD.read_text(),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**_ENVIRONMENT, **package_environment(packages, unsafe)},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(message, timeout=wall_s + 10)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in out.splitlines()]
    if not lines:
        return {"passed": None, "reason": " ".join(err.decode(errors="replace").split())[-200:] or "no reply"}
    return lines[1] if len(lines) > 1 else {"passed": False, "reason": "the judge ended or ran out of time"}


def _frame(message: dict[str, object]) -> bytes:
    data = json.dumps(message).encode()
    return struct.pack(">Q", len(data)) + data


def _bubblewrap(limits: Limits, root: bool, packages: Sequence[str]) -> list[str]:
    """The command before the interpreter. Root needs no user namespace: the judge leaves root itself (`uid`)."""
    binds: list[str] = []
    for folder in ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        path = Path(folder)
        if path.is_symlink():
            binds += ["--symlink", os.readlink(path), folder]
        elif path.is_dir():
            binds += ["--ro-bind", folder, folder]
    prefix = Path(sys.base_prefix)
    if not prefix.is_relative_to("/usr"):
        for parent in list(prefix.parents)[-2::-1]:  # else they are root's alone, and nobody else gets past them
            binds += ["--perms", "0755", "--dir", str(parent)]
        binds += ["--ro-bind", str(prefix), str(prefix)]
    own_user = (
        ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user"]
    )
    return [
        *("bwrap", "--die-with-parent", "--new-session", "--as-pid-1"),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try", *own_user),
        *binds,
        *package_binds(packages),
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--dev", "/dev", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/tmp"),
        *("--remount-ro", "/", "--chdir", "/tmp", "--"),
    ]
