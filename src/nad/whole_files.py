"""Files that are there whole or not at all: written aside, synced, and renamed to their place."""

import errno
import os
from pathlib import Path

PARTIAL = ".partial-"
"""What the names of files under way begin with; a writer that is killed leaves such a file."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer."""


def write_whole(target: Path, data: bytes, new: bool = False) -> None:
    """Put `data` at `target`; a crash or a full disk leaves the old file or the new one.

    With `new` the file must not be there yet: raises FileExistsError, and of two writers only one succeeds.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{PARTIAL}{os.getpid()}-{target.name}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (_link if new else os.replace)(partial, target)
    except OSError as error:
        error.filename, error.filename2 = str(target), None  # the file the caller knows of
        raise
    finally:
        partial.unlink(missing_ok=True)
    _sync(target.parent)


def _link(partial: Path, target: Path) -> None:
    """Give the file its name, unless something has it: a rename would take the name from the other."""
    try:
        os.link(partial, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(partial, target)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
