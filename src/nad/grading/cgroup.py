"""A control group (cgroup v2) of its own for each run: memory and processes of all of it together.

Where there is none to be had (no cgroup v2, no right to make one, its controllers not delegated) a run goes without:
then memory is limited per process, and the kernel takes the program first when the machine has none left.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CONTROLLERS = {"memory", "pids"}


@dataclass(frozen=True)
class Group:
    """One run's control group."""

    folder: Path

    @property
    def entrance(self) -> Path:
        """A process that writes 0 here is in it, with all it starts."""
        return self.folder / "cgroup.procs"


@contextlib.contextmanager
def own_group(memory: int, processes: int) -> Iterator[Group | None]:
    """A group with these limits; at the end all in it are killed and it is gone. None: there is none to be had."""
    group = _made(memory, processes)
    try:
        yield group
    finally:
        if group is not None:
            _remove(group.folder)


def _made(memory: int, processes: int) -> Group | None:
    parent = _delegated(_place())
    if parent is None:
        return None
    folder = parent / f"nad-{secrets.token_hex(8)}"
    try:
        folder.mkdir()
        for name, value in (("memory.max", memory), ("memory.oom.group", 1), ("pids.max", processes)):
            (folder / name).write_text(str(value))
        if (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0")
    except OSError:  # the group was ours to make, but not with these limits
        _remove(folder)
        return None
    return Group(folder)


def _remove(folder: Path) -> None:
    if not folder.exists():
        return None
    kill = folder / "cgroup.kill"
    if kill.exists():
        kill.write_text("1")
    deadline = time.monotonic() + 5
    while True:
        try:
            return folder.rmdir()
        except OSError:  # the kernel needs a moment for the dead
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def _place(proc: Path = Path("/proc/self")) -> tuple[Path, Path] | None:
    """Where cgroup v2 is mounted, and the folder of this process in it."""
    mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
    roots = [(m[3], Path(m[4])) for m in mounts if "cgroup2" in m[m.index("-") :]]
    own = [line[3:] for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0::")]
    if not roots or not own:
        return None
    shown, root = roots[0]
    return root, root / os.path.relpath(own[0], shown) if own[0].startswith(shown) else root


def _delegated(place: tuple[Path, Path] | None) -> Path | None:
    """The nearest group, from this process's own up, whose children have both controllers and are ours to make."""
    if place is None:
        return None
    root, own = place
    for folder in [own, *own.parents]:
        if not folder.is_relative_to(root):
            return None
        given = folder / "cgroup.subtree_control"
        if not given.is_file() or not set(given.read_text().split()) >= _CONTROLLERS:
            continue
        # Moving a process needs the right to write to the group that holds both its old and its new one.
        if os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK):
            return folder
    return None
