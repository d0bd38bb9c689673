"""The connection to Ray: to a cluster of nad's own on this machine, which ends with it, or to one that runs already."""

import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nad.engines.cluster.shares import Machine
from nad.errors import NadError, UsageError

_STORE_BYTES = 1 << 30
"""Of results on their way; more than that waits on the disk, in the cluster's folder."""
_REACH_S = 5.0
_LONGEST_FOLDER = 40
"""Ray's sockets lie 65 characters deeper, and a socket's path has 107 at most."""
_PREFIX = "nad-ray-"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what Ray says of workers that died goes to standard output otherwise
    "RAY_SCHEDULER_EVENTS": "0",
}
_OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: it listens on the loopback address alone
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one into the home folder
    "RAY_worker_niceness": "0",  # replicas are what nad does, not something that runs beside it
    "RAY_memory_monitor_refresh_ms": "0",  # it kills replicas for what other programs take
}

_lock = threading.Lock()
_users = 0
"""Engines that use the connection nad made; the last one to leave ends it."""
_end: Callable[[], None] | None = None
_address: str | None = None


def join(address: str | None) -> Callable[[], None]:
    """Connect this process to the cluster at `address`, or (None) to one of its own. Returns what leaves it again.

    A connection that there is already is used, and one that nad did not make is left alone. Raises NadError where there
    is no cluster, UsageError for a missing package and for a second cluster.
    """
    global _users, _end, _address
    if find_spec("ray") is None:
        raise UsageError('replicas need Ray: pip install "nad[cluster]"')
    if address is not None:
        _check_reachable(address)
    with _lock:
        with _set_for_now(_QUIET if address else {**_QUIET, **_OWN}):
            import ray

            if not ray.is_initialized():
                _end, _address = _connected(ray, address), address
            elif _end is None:  # the user's own
                return lambda: None
            elif address != _address:
                raise UsageError("this process uses another Ray cluster already; close its engines first")
        _users += 1
    once = iter([_leave])
    return lambda: next(once, lambda: None)()


def _leave() -> None:
    global _users, _end
    with _lock:
        _users -= 1
        if not _users and _end is not None:
            end, _end = _end, None
            end()


def machines() -> list[Machine]:
    """What the cluster's nodes have."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(found.get("CPU", 0)), int(found.get("GPU", 0))) for found in alive]


def own_cores() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _connected(ray: Any, address: str | None) -> Callable[[], None]:
    """Make the connection; returns what ends it."""
    folder = None if address else _new_folder()
    own = {
        "num_cpus": len(own_cores()),
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_temp_dir": folder,
    }
    options = {"logging_level": "ERROR", "log_to_driver": False, **({} if address else own)}
    before = signal.getsignal(signal.SIGTERM)

    def end() -> None:
        ray.shutdown()
        _answer_sigterm(before)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    try:
        _in_a_thread_that_stays(lambda: ray.init(address=address or "local", **options))
    except BaseException as error:
        end()
        if not isinstance(error, Exception):
            raise
        what = f"the Ray cluster at {address} cannot be used" if address else "Ray could not start"
        raise NadError(f"{what}: {in_a_line(error)}") from error
    _answer_sigterm(_end_in_order if before == signal.SIG_DFL else before)
    return end


def _in_a_thread_that_stays(work: Callable[[], object]) -> None:
    """Do it in the main thread or in one that never ends: Ray's processes end with the thread that started them."""
    if threading.current_thread() is threading.main_thread():
        work()
        return
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
        threading.Event().wait()

    threading.Thread(target=run, name="nad-ray", daemon=True).start()
    done.result()


def _end_in_order(*_: object) -> None:
    """On SIGTERM; Ray's own way prints stacks."""
    raise SystemExit(128 + signal.SIGTERM)


def _answer_sigterm(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread() and handler is not None:  # None: set by no Python
        signal.signal(signal.SIGTERM, handler)


def _new_folder() -> str:
    """A folder for a cluster's sockets and logs. Those of processes that were killed are removed."""
    place = Path(tempfile.gettempdir())
    if len(str(place)) > _LONGEST_FOLDER and os.path.isdir("/tmp"):
        place = Path("/tmp")
    for leftover in place.glob(f"{_PREFIX}*"):
        try:
            os.kill(int(leftover.name.removeprefix(_PREFIX).split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(leftover, ignore_errors=True)
        except (ValueError, PermissionError):
            continue
    return tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)


def _check_reachable(address: str) -> None:
    """Raise for an address that nobody answers at: Ray itself would try for minutes."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or "/" in host:
        raise UsageError(f"--ray-address must be HOST:PORT of the cluster's head, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, OverflowError) as error:
        raise NadError(
            f"no Ray cluster at {address} ({getattr(error, 'strerror', None) or error}); start one with "
            "`ray start --head`, and name its address"
        ) from error


@contextmanager
def _set_for_now(values: Mapping[str, str]) -> Iterator[None]:
    """The environment with these values, where the user has not set them. What Ray adds goes with them."""
    before = {name for name in os.environ if name.startswith("RAY_")}
    os.environ.update({name: value for name, value in values.items() if name not in before})
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("RAY_") and name not in before]:
            del os.environ[name]


def in_a_line(error: BaseException) -> str:
    """What an error says, without the advice of many lines that Ray adds."""
    text = " ".join(str(error).split()) or type(error).__name__
    for mark in (" Some common causes", " To troubleshoot", "The actor died unexpectedly before finishing this task. "):
        text = text.partition(mark)[0] or text
    return text[:300]


def why_dead(error: BaseException) -> str:
    """Why an actor died, out of Ray's account of it."""
    text = " ".join(str(error).split())
    return in_a_line(Exception(text.rpartition("Worker exit detail: ")[2]))
