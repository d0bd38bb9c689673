"""Recorded runs on disk: a manifest and one Parquet part a problem (docs/run-schema.md).

A part's name carries the checksum of its bytes, so one rename publishes both: a part is there whole, or it is not.
"""

import errno
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.runs.parquet import SCHEMA_VERSION, pack, unpack, unpack_grades
from nad.runs.records import Manifest, ProblemRecord
from nad.types import SamplingParams

_DIGITS = 32
"""Hexadecimal digits of the sha256 in a part's name."""
_PART_NAME = re.compile(rf"\d{{6,}}-[0-9a-f]{{{_DIGITS}}}\.parquet")
PARTS, PENDING = "parts", "pending"


class DamagedPart(NadError):
    """A part whose bytes are not those that were written."""


class RunStore:
    """A recorded run in a folder: a local path, or any address fsspec knows (s3://..., memory://...).

    `parts/` holds the graded problems, `pending/` those sampled and not graded yet. Iterating reads the graded ones in
    the task's order, each anew, and checks each one's sum; a damaged part raises DamagedPart.
    """

    def __init__(self, path: str, manifest: Manifest, problems: Sequence[str]) -> None:
        self.path, self.manifest, self.problems = path, manifest, tuple(problems)
        self._fs, self._root = _locate(path)

    @classmethod
    def create(cls, path: str, manifest: Manifest, problems: Sequence[str]) -> "RunStore":
        """A new run. Raises UsageError where there is one, or where a file or a folder with other content lies."""
        store = cls(path, manifest, problems)
        if store._occupied():
            raise UsageError(f"{path} exists; continue a run with --resume, or name another folder with --out")
        document = {"schema": SCHEMA_VERSION, "manifest": asdict(manifest), "problems": list(problems)}
        store._publish("manifest.json", json.dumps(document, indent=1, ensure_ascii=False).encode())
        return store

    @classmethod
    def open(cls, path: str) -> "RunStore":
        """A run as it stands, finished or not. Raises UsageError where there is none."""
        fs, root = _locate(path)
        place = posixpath.join(root, "manifest.json")
        if not fs.isfile(place):
            raise UsageError(f"no run at {path}: it has no manifest.json; record one with `nad eval --out {path}`")
        try:
            document = json.loads(fs.cat_file(place))
            if document["schema"] != SCHEMA_VERSION:
                raise NadError(f"{path} has schema version {document['schema']}, this nad reads {SCHEMA_VERSION}")
            return cls(path, _manifest(document["manifest"]), document["problems"])
        except (ValueError, KeyError, TypeError) as error:
            raise NadError(f"{path}/manifest.json is damaged ({error}); restore it, or record the run again") from error

    def __len__(self) -> int:
        return len(self._names(PARTS))

    def __iter__(self) -> Iterator[ProblemRecord]:
        with ThreadPoolExecutor(1) as ahead:  # the next part is read while the last one is worked on
            reading = None
            for index in self.graded():
                begun = ahead.submit(self.read, index)
                if reading is not None:
                    yield reading.result()
                reading = begun
            if reading is not None:
                yield reading.result()

    @property
    def local(self) -> bool:
        """Whether other processes see what this one writes to the same path."""
        return "memory" not in self._fs.protocol

    def graded(self) -> list[int]:
        """Places of the problems that are sampled and graded, in the task's order."""
        return sorted(self._names(PARTS))

    def pending(self) -> list[int]:
        """Places of the problems that are sampled and not graded yet."""
        return sorted(set(self._names(PENDING)) - set(self._names(PARTS)))

    def missing(self) -> list[str]:
        """Ids of the problems without a graded part."""
        stored = self._names(PARTS)
        return [problem for index, problem in enumerate(self.problems) if index not in stored]

    def read(self, index: int, folder: str = PARTS) -> ProblemRecord:
        """The problem at this place. Raises DamagedPart when its bytes are not those that were written."""
        name = self._names(folder)[index]
        data = self._fs.cat_file(self._join(folder, name))
        intact = _digest(data) == name.removesuffix(".parquet").partition("-")[2]
        record = unpack(data) if intact else None
        if record is None or record.problem != self.problems[index]:
            raise DamagedPart(
                f"{self.path}/{folder}/{name} is damaged (checksum; problem {self.problems[index]}); "
                "`nad eval --resume` does it again"
            )
        return record

    def grades(self) -> list[tuple[bool | None, str | None]]:
        """Every sample's grade and finish reason, without reading the rest of the parts."""
        found = []
        for name in self._names(PARTS).values():
            with self._fs.open(self._join(PARTS, name), "rb") as file:
                found += unpack_grades(file)
        return found

    def write(self, index: int, record: ProblemRecord, folder: str = PARTS) -> None:
        """Store a problem; one that was graded is no longer pending."""
        data = pack(record)
        name = f"{index:06d}-{_digest(data)}.parquet"
        self._publish(posixpath.join(folder, name), data)
        if folder == PARTS:
            self.remove(index, PENDING)

    def remove(self, index: int, folder: str) -> None:
        """Remove a problem's part, if there is one."""
        if name := self._names(folder).get(index):
            self._fs.rm_file(self._join(folder, name))

    def damaged(self, folder: str = PARTS) -> dict[int, str]:
        """What is wrong with the parts whose bytes are not those that were written, by place."""
        found = {}
        for index in sorted(self._names(folder)):
            try:
                self.read(index, folder)
            except DamagedPart as error:
                found[index] = str(error)
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the run's only writer on this machine; what killed writers left half written is removed."""
        if not isinstance(self._fs, LocalFileSystem):
            yield
            return
        import fcntl

        with (Path(self._root) / ".writer").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NadError(f"another process is writing to {self.path}; wait for it, or stop it") from None
            for leftover in Path(self._root).rglob(".partial-*"):
                leftover.unlink(missing_ok=True)
            yield

    def _occupied(self) -> bool:
        """Whether something lies at the path; what a killed writer left half written does not count."""
        if not self._fs.isdir(self._root):
            return bool(self._fs.exists(self._root))
        names = (posixpath.basename(name.rstrip("/")) for name in self._fs.ls(self._root, detail=False))
        return any(not name.startswith(".") for name in names)

    def _join(self, *names: str) -> str:
        return posixpath.join(self._root, *names)

    def _names(self, folder: str) -> dict[int, str]:
        """File names by the problem's place."""
        place = self._join(folder)
        if not self._fs.isdir(place):
            return {}
        names = (posixpath.basename(name.rstrip("/")) for name in self._fs.ls(place, detail=False, refresh=True))
        return {int(name.partition("-")[0]): name for name in sorted(names) if _PART_NAME.fullmatch(name)}

    def _publish(self, name: str, data: bytes) -> None:
        """Write a file that is there whole or not at all."""
        try:
            if isinstance(self._fs, LocalFileSystem):
                _write_local(Path(self._join(name)), data)
            else:
                self._fs.pipe_file(self._join(name), data)  # object stores publish whole objects
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NadError(
                f"no space left for {self.path}: {len(self)} of {len(self.problems)} problems are stored; "
                "free some space and go on with --resume"
            ) from error


def open_run(path: str, partial: bool = False) -> RunStore:
    """A run to read from. Unless `partial`, every problem must be there: raises NadError that names the missing."""
    store = RunStore.open(path)
    missing = store.missing()
    if missing and not partial:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise NadError(
            f"{path} lacks {len(missing)} of {len(store.problems)} problems ({shown}); "
            "finish it with `nad eval --resume`, or read it as it is with --partial"
        )
    if not len(store):
        raise NadError(f"{path} holds no problem yet; go on with `nad eval --resume`")
    return store


def _locate(path: str) -> tuple[Any, str]:
    try:
        fs, root = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UsageError(f"cannot open {path!r}: {error}") from error
    return fs, root.rstrip("/")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _manifest(values: dict[str, Any]) -> Manifest:
    params = {**values["params"], "stop": tuple(values["params"]["stop"])}
    made = {
        "params": SamplingParams(**params),
        "rule": ActivationRule(**values["rule"]),
        "thinking_tags": tuple((opening, closing) for opening, closing in values.get("thinking_tags", ())),
    }
    return Manifest(**{**values, **made})


def _write_local(target: Path, data: bytes) -> None:
    """Write to a temporary name, sync, rename, sync the folder: what a crash leaves is the old state or the new."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
