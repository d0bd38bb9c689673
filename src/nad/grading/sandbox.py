"""Running programs that nobody has read: bubblewrap around a judge and the program it judges.

The program has no network, an own user, process and key space, a read-only system without the home folder, an empty
environment, a small private /tmp, and limits on CPU time, wall time, memory, processes, files and output. A filter of
kernel calls (seccomp.py) keeps it from what reaches past these walls. Its own calls return values to the judge
(judging/), and only the judge, which is process 1 and cannot be killed from inside, holds the verdict's channel. So
these do not pass: ending early with status 0, printing what a test might print, patching assert, builtins, sys or os,
values that equal everything, searching frames, descriptors or memory. When a run ends, its time is up or nad is killed,
all of it is killed.

What it does not stop:
- an exploit of the kernel or of Python's unpickler in the judge (which reads data only); a kernel call newer than the
  filter that opens a door again;
- answers written down for the very calls the tests make, or a program that knows the benchmark by heart;
- a test that hands the expected value to the program itself: in a call, as a list that the program may change, or to a
  method of its result (`f(x).startswith("a")`), which then says what it likes; and a test that compares two values of
  the program's own classes, as their own `__eq__` does;
- memory: without a control group to be had (cgroup.py) it is limited per process, and a program can take `processes`
  times `memory`; then the kernel, when the machine has none left, takes the program first;
- time: a busy machine makes a slow program fail (the CPU limit is per process, the wall limit is for everything);
  what two programs that run at once can tell of each other from the load they make.
What tests cannot do: lists, dictionaries and the like that come out of the program are copies, so changing one does not
change the program's; `type(x) is C` for a class of the program's (== and isinstance work), and what asks the type
itself (`dataclasses.asdict`, `match` with a class, a class derived from the program's, weakref, json of a subclass of
list); passing objects of their own classes to it (such a program is not graded), or files (io.StringIO goes as a copy);
telling it what parameters a function of theirs has; seeing what it prints, or answering its input(); calling each other
through it more than some 100 times deep; async functions that only go on when another one does.
With `unsafe` there is no bubblewrap: the limits and the judge stay, but the program runs as you, with your files and
the network, and could find the judge and forge its verdict.
Programs have the standard library of the Python that runs nad, and the packages that the task names, nothing else.
"""

import contextlib
import functools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nad.errors import NadError
from nad.grading.box import Box
from nad.grading.cgroup import own_group
from nad.grading.packages import package_binds, package_environment
from nad.grading.seccomp import seccomp_filter

INSIDE = ("wire", "mirror", "tests", "program", "processes", "scripts", "judge")
_INTERPRETER = os.path.realpath(sys.executable)
_FOLDER = "/run/program"  # the script and what it reads, and where /dev/stdin and /dev/stdout lead
_START = """
import sys, types
for name, source in {sources!r}:
    name = "nad.grading.judging." + name
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.main()
"""


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes and counts.

    Of each process: `cpu_s`, `memory` (of all together where there is a control group), `files` open. Of each file:
    `file`. Of /tmp and of /dev/shm: `disk`, `inodes`. Of the run (one input's, or all calls of the tests): `wall_s`,
    `output`, `processes`; threads are processes.
    """

    wall_s: int = 60
    cpu_s: int = 20
    memory: int = 1 << 30
    processes: int = 64
    files: int = 64
    file: int = 16 << 20
    disk: int = 32 << 20
    inodes: int = 10_000
    output: int = 16 << 20


@dataclass(frozen=True)
class Tests:
    """Assertions, run outside the program's process.

    `source` is what must run without an exception; there, the `names` are the program's; `before` defines what else
    it needs. Of a function's result the tests have a copy where it is data (numbers, texts, lists, dates and the like),
    else a handle, which asks the program. How a handle compares with what is not the program's own, its plain data
    decides; only for instances of the `classes` among the names do the program's own operators (but == and !=).
    """

    __test__ = False  # no test case of pytest's

    source: str
    names: tuple[str, ...]
    before: str = ""
    classes: tuple[str, ...] = ()


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
    with _judging({"program": program}, asdict(tests), limits, limits.wall_s, unsafe, packages) as box:
        return _verdict(box, box.messages())


def check_inputs(
    program: str,
    inputs: Sequence[str],
    accepts: Callable[[int, str], bool],
    limits: Limits = Limits(),
    unsafe: bool = False,
    packages: Sequence[str] = (),
) -> Verdict:
    """Whether `accepts(i, output)` holds for what a program, which may import `packages`, prints for each input.

    It runs as a script. Outputs are looked at as they come, one at a time; the first not accepted ends the run.
    """
    job: dict[str, object] = {"program": program, "inputs": list(inputs)}
    with _judging(job, None, limits, limits.wall_s * max(1, len(inputs)), unsafe, packages) as box:
        return _verdict(box, box.messages(), accepts)


def run_inputs(
    program: str,
    inputs: Sequence[str],
    limits: Limits = Limits(),
    unsafe: bool = False,
    packages: Sequence[str] = (),
) -> tuple[list[str] | None, Verdict]:
    """What a program prints for each input; None if it fails on one or prints more than `output` in all, and why."""
    outputs: list[str] = []

    def keep(number: int, output: str) -> bool:
        outputs.append(output)
        return sum(map(len, outputs)) <= limits.output

    verdict = check_inputs(program, inputs, keep, limits, unsafe, packages)
    if verdict.passed:
        return outputs, verdict
    small = sum(map(len, outputs)) <= limits.output
    return None, verdict if small else Verdict(False, "more output than allowed, all inputs together")


def _verdict(
    box: Box, messages: Iterator[bytes], accepts: Callable[[int, str], bool] = lambda i, output: True
) -> Verdict:
    """One that never got ready could not judge; one that got lost later was the program's doing."""
    if next(messages, None) is None:
        return Verdict(None, box.complaint() or "no reply")
    for number, message in enumerate(messages):
        if message[:1] == b"=":
            said = json.loads(message[1:])
            next(messages, None)  # it ends
            return Verdict(said["passed"], said["reason"])
        if not accepts(number, message[1:].decode(errors="replace")):
            return Verdict(False, f"input {number}: not what was expected")
    return Verdict(False, "the judge ended or ran out of time")


@contextlib.contextmanager
def _judging(
    job: dict[str, object],
    tests: dict[str, object] | None,
    limits: Limits,
    wall_s: int,
    unsafe: bool,
    packages: Sequence[str],
) -> Iterator[Box]:
    root = os.geteuid() == 0 and not unsafe
    # A user number nobody has, so that the process limit, which counts a user's processes, counts this run's.
    uid = (1 << 30) + secrets.randbelow(1 << 30) if root else None
    with contextlib.ExitStack() as stack:
        folder = _FOLDER
        if unsafe:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        job |= {"limits": asdict(limits), "uid": uid, "boxed": not unsafe, "folder": folder}
        job["fresh"] = [folder] if unsafe else ["/tmp", "/dev/shm", folder]
        message = _frame(job) + (b"" if tests is None else _frame(tests))
        # What the judge needs comes on top; so do the names of processes that bubblewrap and the judge are.
        group = stack.enter_context(own_group(limits.memory + limits.disk + (256 << 20), limits.processes + 8))

        def command(info: int, rules: int, life: int) -> list[str]:
            wrapped = [] if unsafe else _bubblewrap(limits, root, packages, info, rules, len(message))
            return [*wrapped, _INTERPRETER, "-s", "-S", "-P", "-c", _start(), str(life)]

        calls = b"" if unsafe else seccomp_filter()
        cwd, environment = folder if unsafe else "/", package_environment(packages, unsafe)
        yield stack.enter_context(Box(command, environment, message, calls, wall_s, limits.output, cwd, group))


def _frame(message: dict[str, object]) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(8, "big") + data


@functools.lru_cache(None)
def _start() -> str:
    """The judge's files, as text: the interpreter inside has neither nad nor the right to read its folder."""
    folder = Path(__file__).with_name("judging")
    return _START.format(sources=[(name, (folder / f"{name}.py").read_text()) for name in INSIDE])


@functools.lru_cache(None)
def _knows(option: str) -> bool:
    """Whether this bubblewrap has an option."""
    return option in subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False).stdout


def _bubblewrap(limits: Limits, root: bool, packages: Sequence[str], info: int, rules: int, room: int) -> list[str]:
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
        binds += [*_folders(prefix.parent), "--ro-bind", str(prefix), str(prefix)]
    own_user = ["--unshare-user", *(["--disable-userns"] if _knows("--disable-userns") else [])]
    if root:
        own_user = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [
        *("bwrap", "--die-with-parent", "--new-session", "--as-pid-1", "--info-fd", str(info), "--seccomp", str(rules)),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", *own_user),  # no cgroup to mount
        *binds,
        *package_binds(packages),
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--dev", "/dev", "--remount-ro", "/dev"),
        *(word for at in ("/tmp", "/dev/shm") for word in _memory_disk(at, limits.disk)),
        *(*_folders(Path("/run")), *_memory_disk(_FOLDER, room + (1 << 20))),
        *_folders(Path("/proc/self/fd")),  # there is no /proc, but /dev/stdin leads here
        *(x for n, to in enumerate((f"{_FOLDER}/stdin", f"{_FOLDER}/stdout", "/dev/null")) for x in _link(n, to)),
        *("--remount-ro", "/", "--chdir", "/tmp", "--"),
    ]


def _folders(folder: Path) -> list[str]:
    """Make a folder and its parents; else they are root's alone, and nobody else gets past them."""
    chain = [folder, *folder.parents][-2::-1]
    return [word for each in chain for word in ("--perms", "0755", "--dir", str(each))]


def _memory_disk(folder: str, size: int) -> tuple[str, ...]:
    return "--perms", "1777", "--size", str(size), "--tmpfs", folder


def _link(descriptor: int, target: str) -> tuple[str, ...]:
    return "--symlink", target, f"/proc/self/fd/{descriptor}"
