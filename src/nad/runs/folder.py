"""Where a run's files lie: a local folder, or any address fsspec knows (s3://..., memory://...)."""

import os
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from nad.errors import NadError, UsageError
from nad.whole_files import PARTIAL, write_whole

_PATIENCE = 2.0
"""Seconds to wait for the lock: another process needs that long to see that its parent was killed."""


class Folder:
    """The files below a path or an address. Names are relative to it; those that begin with a dot are not listed."""

    def __init__(self, path: str) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(path)
        except (ValueError, ImportError) as error:
            raise UsageError(f"cannot open {path!r}: {error}") from error
        self.path, self._root = path, root.rstrip("/")

    @property
    def shared(self) -> bool:
        """Whether other processes see what this one writes here."""
        return "memory" not in self._fs.protocol

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, in order; nothing where there is none."""
        place = self._place(folder)
        if not self._fs.isdir(place):
            return []
        found = (posixpath.basename(name.rstrip("/")) for name in self._fs.ls(place, detail=False, refresh=True))
        return sorted(name for name in found if name and not name.startswith("."))

    def is_other_than_a_folder(self) -> bool:
        return bool(self._fs.exists(self._root)) and not self._fs.isdir(self._root)

    def is_file(self, name: str) -> bool:
        """Whether it can be read; a pipe, for example, would be waited for without end."""
        return bool(self._fs.isfile(self._place(name)))

    def read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._place(name)))

    def open(self, name: str) -> Any:
        """A file of bytes, to read."""
        return self._fs.open(self._place(name), "rb")

    def write(self, name: str, data: bytes, new: bool = False) -> None:
        """Write a file that is there whole or not at all.

        With `new` it must not be there: FileExistsError. Local folders, S3 and GCS promise that of two writers at the
        same moment only one succeeds; other object stores may not.
        """
        if isinstance(self._fs, LocalFileSystem):
            write_whole(Path(self._place(name)), data, new)
        else:
            # Object stores publish whole objects.
            self._fs.pipe_file(self._place(name), data, mode="create" if new else "overwrite")

    def move(self, name: str, to: str) -> None:
        """Move a file or a folder; nothing that lies there already is replaced."""
        target, number = self._place(to), 0
        while self._fs.lexists(target):
            number += 1
            target = f"{self._place(to)}.{number}"
        if isinstance(self._fs, LocalFileSystem):
            os.makedirs(posixpath.dirname(target), exist_ok=True)
            os.rename(self._place(name), target)
        else:
            self._fs.mv(self._place(name), target, recursive=True)

    def remove(self, name: str) -> None:
        self._fs.rm_file(self._place(name))

    @contextmanager
    def only_writer(self) -> Iterator[int | None]:
        """Be the folder's only writer on this machine; what killed writers left half written is removed.

        Gives the lock's descriptor: as long as any process has it open, nobody else writes. Object stores have no
        lock: None. Raises NadError when another process writes.
        """
        if not isinstance(self._fs, LocalFileSystem):
            yield None
            return
        root = Path(self._root)
        if self.is_other_than_a_folder():
            raise UsageError(f"{self.path} exists and is not a folder; name another place with --out")
        new = [p for p in (root, *root.parents) if not p.exists()]
        lock = _locked(root, self.path)
        try:
            for leftover in root.rglob(f"{PARTIAL}*"):
                leftover.unlink(missing_ok=True)
            yield lock
        finally:
            _remove_unused(new)
            os.close(lock)

    def _place(self, name: str) -> str:
        return posixpath.join(self._root, name) if name else self._root


def _locked(root: Path, path: str) -> int:
    """The descriptor of the lock file, locked."""
    import fcntl

    end = time.monotonic() + _PATIENCE
    while True:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / ".writer", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, root / ".writer"):
                return lock
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(lock)
                raise NadError(f"another process is writing to {path}; wait for it, or stop it") from None
            time.sleep(0.05)
        os.close(lock)


def _is_at(lock: int, place: Path) -> bool:
    """Whether this is still the lock file: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), place.stat())
    except FileNotFoundError:
        return False


def _remove_unused(folders: list[Path]) -> None:
    """Remove new folders, innermost first, in which nothing was written: a call that failed leaves no trace."""
    for folder in folders:
        names = [p.name for p in folder.iterdir()]
        if names not in ([], [".writer"]):
            return
        for name in names:
            (folder / name).unlink()
        folder.rmdir()
