"""What runs inside the sandbox; sandbox.py sends this file's text to a bare interpreter, so it imports nothing of nad.

Two processes. The *judge* (process 1 of the sandbox) holds the tests and the verdict's channel. The *program* is
forked from it before the tests arrive, with every descriptor closed but one socket. The tests run in the judge; where
they call the program, the call goes through the socket and comes back as plain data. So the program has no part in a
comparison, and neither the tests nor the expected values ever lie in its memory.
"""

import atexit
import builtins
import ctypes
import io
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

PLAIN = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, type(None))
ITERATE = "list(...)"  # no name a program could give
CONTAINERS: tuple[Any, ...] = (list, tuple, set, frozenset)
SCALARS: tuple[Any, ...] = (int, float, str, bytes)
REBUILT = {t.__name__: t for t in PLAIN if t not in (bool, type(None))}


class ProgramLost(BaseException):
    """The program ended, hung or broke the protocol; no `except Exception` of a test may catch it."""


class NotPlain(BaseException):
    """A test passes what is no plain data: the judge cannot run it, so the program is not graded."""


class Remote:
    """Something that lives in the program: it can be called and handed back, and equals nothing but itself."""

    def __init__(self, judge: "Judge", index: int | str) -> None:
        self._judge, self._index = judge, index

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._judge.call(self._index, args, kwargs)

    def __iter__(self) -> Iterator[object]:
        """What a generator or the like would give; `list` runs in the program."""
        found = self._judge.call(ITERATE, (self,), {})
        return iter(found if type(found) is list else [])


class Packer(pickle.Pickler):
    """Pickles plain data; `keep` gets anything else and returns the number that stands for it."""

    def __init__(self, file: io.BytesIO, keep: Callable[[object], int | str]) -> None:
        super().__init__(file, protocol=5)
        self._keep = keep

    def persistent_id(self, obj: object) -> int | str | None:
        plain = isinstance(obj, PLAIN) or any(obj is known for known in REBUILT.values())
        return None if plain else self._keep(obj)

    def reducer_override(self, obj: Any) -> Any:
        """A subclass of a plain type crosses as that type, so that it brings no __eq__ along."""
        if isinstance(obj, dict):
            return dict, (list(dict.items(obj)),)
        for container in CONTAINERS:
            if isinstance(obj, container):
                return container, (list(container.__iter__(obj)),)
        for scalar in SCALARS:
            if isinstance(obj, scalar):
                return scalar, scalar.__getnewargs__(obj)
        return NotImplemented


class Unpacker(pickle.Unpickler):
    """Reads plain data only: no name but those of plain types is looked up, so no code of the program's runs."""

    def __init__(self, file: io.BytesIO, found: Callable[[Any], object]) -> None:
        super().__init__(file)
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" and name in REBUILT:
            return REBUILT[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no plain type")

    def persistent_load(self, pid: Any) -> object:
        return self._found(pid)


def pack(value: object, keep: Callable[[object], int | str]) -> bytes:
    file = io.BytesIO()
    Packer(file, keep).dump(value)
    return file.getvalue()


def send(channel: socket.socket, data: bytes) -> None:
    channel.sendall(struct.pack(">Q", len(data)) + data)


def receive(channel: socket.socket, most: int) -> bytes:
    (size,) = struct.unpack(">Q", _exactly(channel, 8))
    if size > most:
        raise ProgramLost("more output than allowed")
    return _exactly(channel, size)


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        block = channel.recv(min(size - len(data), 1 << 20))
        if not block:
            raise ProgramLost("the program ended")
        data += block
    return bytes(data)


class Judge:
    """The tests' side of the socket."""

    def __init__(self, channel: socket.socket, limits: dict[str, int]) -> None:
        self._channel, self._limits = channel, limits
        self._deadline = time.monotonic() + limits["wall_s"]

    def call(self, target: int | str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        self._limit_time()
        try:
            send(self._channel, pack((target, args, kwargs), _index_of))
        except OSError as error:
            raise ProgramLost(f"the program does not listen: {error}") from None
        return self.reply()

    def _limit_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ProgramLost("no time left")
        self._channel.settimeout(left)

    def reply(self) -> object:
        """The program's next reply; raises what the program raised, if that is a built-in exception."""
        self._limit_time()
        try:
            data = receive(self._channel, self._limits["output"])
            outcome, value = Unpacker(io.BytesIO(data), lambda pid: Remote(self, pid)).load()
        except TimeoutError:
            raise ProgramLost("no time left") from None
        except ProgramLost:
            raise
        except Exception as error:  # whatever a hostile pickle makes of the unpickler
            raise ProgramLost(f"unreadable reply: {error}") from None
        if outcome == "ok":
            return value
        kind = getattr(builtins, str(value), None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = RuntimeError
        raise kind("raised by the program")


def _index_of(value: object) -> int | str:
    if isinstance(value, Remote):
        return value._index
    raise NotPlain(f"a test passes a {type(value).__name__}")


def serve(program: str, channel: socket.socket) -> NoReturn:
    """The program's side: run it, then answer calls until the judge hangs up."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    kept: list[object] = []

    def keep(value: object) -> int:
        kept.append(value)
        return len(kept) - 1

    def work(target: int | str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if target == ITERATE:
            return list(args[0])  # type: ignore[call-overload]
        found: Any = module.__dict__[target] if isinstance(target, str) else kept[target]
        return found(*args, **kwargs)

    def run(work: Callable[[], object]) -> None:
        try:
            reply = pack(("ok", work()), keep)
        except BaseException as error:
            reply = pack(("error", type(error).__name__), keep)
        send(channel, reply)

    run(lambda: exec(compile(program, "program.py", "exec"), module.__dict__))
    while True:
        request = _exactly(channel, struct.unpack(">Q", _exactly(channel, 8))[0])
        found = Unpacker(io.BytesIO(request), lambda pid: module.__dict__[pid] if isinstance(pid, str) else kept[pid])
        asked = found.load()
        run(lambda asked=asked: work(*asked))  # type: ignore[misc]


def fork(body: Callable[[], object], limits: dict[str, int], stdin: int, stdout: int, keep: int) -> int:
    """Start the program's process, with nothing of the judge's open but `keep`."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for source, target in ((stdin, 0), (stdout, 1), (os.open(os.devnull, os.O_WRONLY), 2)):
            os.dup2(source, target)
        os.closerange(3, keep)
        os.closerange(keep + 1, limits["files"])
        resource.setrlimit(resource.RLIMIT_NPROC, (limits["processes"],) * 2)
        body()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(0)
    except SystemExit as error:
        sys.stdout.flush()
        os._exit(0 if error.code in (None, 0) else 1)
    except BaseException:
        os._exit(1)


def sweep(pid: int) -> None:
    """End the program and all it started."""
    for end in [lambda: os.killpg(pid, signal.SIGKILL), *([lambda: os.kill(-1, 9)] if os.getpid() == 1 else [])]:
        try:
            end()
        except ProcessLookupError:
            continue


def judge_tests(job: dict[str, Any]) -> dict[str, object]:
    limits = job["limits"]
    mine, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    pid = fork(lambda: serve(job["program"], theirs), limits, null, null, theirs.fileno())
    theirs.close()
    tests = read_message()  # only now: the program was forked without them
    try:
        return _verdict(Judge(mine, limits), tests)
    finally:
        sweep(pid)
        os.waitpid(pid, 0)


def _verdict(judge: Judge, tests: dict[str, Any]) -> dict[str, object]:
    """What the tests say of the program at the judge's other end."""
    try:
        judge.reply()
    except (Exception, ProgramLost) as error:
        return {"passed": False, "reason": f"the program does not load: {type(error).__name__}: {error}"}
    try:
        code = compile(tests["source"], "tests.py", "exec")
    except SyntaxError as error:
        return {"passed": None, "reason": f"the tests are no Python: {error}"}
    try:
        names: dict[str, object] = {"__name__": "tests"}
        exec(tests["before"], names)
        names.update({name: Remote(judge, name) for name in tests["names"]})
        exec(code, names)
    except NotPlain as error:
        return {"passed": None, "reason": str(error)}
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:200]}
    return {"passed": True, "reason": ""}


def run_script(program: str) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(program, "program.py", "exec"), module.__dict__)


def judge_inputs(job: dict[str, Any]) -> dict[str, object]:
    """What the program prints for each input; ends at the first that fails."""
    outputs: list[str] = []
    for text in job["inputs"]:
        source = os.memfd_create("input")
        with open(source, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(source, 0, os.SEEK_SET)
        reading, writing = os.pipe()
        pid = fork(lambda: run_script(job["program"]), job["limits"], source, writing, 2)
        os.close(writing)
        os.close(source)
        output, reason = collect(pid, reading, job["limits"])
        os.close(reading)
        if reason:
            return {"outputs": None, "reason": f"input {len(outputs)}: {reason}"}
        outputs.append(output)
    return {"outputs": outputs, "reason": ""}


def collect(pid: int, reading: int, limits: dict[str, int]) -> tuple[str, str]:
    """The output of one process, and why it failed; processes it left behind end with it."""
    data, reason = bytearray(), ""
    deadline = time.monotonic() + limits["wall_s"]
    ended = os.pidfd_open(pid)
    waiting = [reading, ended]
    while waiting and not reason:
        ready = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))[0]
        reason = "" if ready else "no time left"
        if ended in ready:
            sweep(pid)  # what it left behind holds its output open
            waiting.remove(ended)
        if reading in ready:
            block = os.read(reading, 1 << 16)
            data += block
            if not block:
                waiting.remove(reading)
            elif len(data) > limits["output"]:
                reason = "more output than allowed"
    sweep(pid)
    os.close(ended)
    status = os.waitpid(pid, 0)[1]
    return data.decode(errors="replace"), reason or (f"exit status {status}" if status else "")


def read_message() -> Any:
    """The next message of standard input, and not a byte of the one after it."""
    (size,) = struct.unpack(">Q", _read(8))
    return json.loads(_read(size))


def _read(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        block = os.read(0, size - len(data))
        if not block:
            raise EOFError("standard input ended early")
        data += block
    return bytes(data)


def confine(job: dict[str, Any]) -> None:
    """Leave root, hide this process's memory and descriptors from others, set the limits."""
    if job["uid"] is not None:
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    PR_SET_DUMPABLE = 4
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 gets no signal it does not handle: it cannot be killed
    limits = job["limits"]
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def main() -> None:
    verdict = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    job = read_message()
    confine(job)
    os.write(verdict, b'{"ready": true}\n')
    result = judge_inputs(job) if "inputs" in job else judge_tests(job)
    with open(verdict, "w") as file:
        file.write(json.dumps(result) + "\n")
    os._exit(0)


if __name__ == "__main__":
    main()
