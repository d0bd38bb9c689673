"""Recorded runs on disk: a manifest and one Parquet part a problem (docs/run-schema.md).

A part's name carries the checksum of its bytes, so one rename publishes both: a part is there whole, or it is not.
Nothing that was recorded is deleted: what is damaged, or not of this run, is moved to `set-aside/`.
"""

import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from nad.errors import NadError, UsageError
from nad.runs.folder import Folder
from nad.runs.manifest_file import OtherSchema, manifest_text, read_manifest
from nad.runs.parquet import pack, unpack, unpack_grades
from nad.runs.parts import PartName, checksum, parsed, problem_key
from nad.runs.records import Manifest, ProblemRecord, differences, with_defaults

PARTS, PENDING, SET_ASIDE = "parts", "pending", "set-aside"
_MANIFEST = "manifest.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DamagedPart(NadError):
    """A part whose bytes are not those that were written, or that is not of this run."""


class _Wrong(Exception):
    """What is wrong with a file among the parts, in words that follow its name."""


class RunStore:
    """A recorded run in a folder: a local path, or any address fsspec knows (s3://..., memory://...).

    `parts/` holds the graded problems, `pending/` those sampled and not graded yet. Iterating reads the graded ones in
    the run's order, each anew, and checks each one; a damaged part raises DamagedPart. `digests` are of what the
    problems ask, where that is known.
    """

    def __init__(self, path: str, manifest: Manifest, problems: Sequence[str], digests: Sequence[str] = ()) -> None:
        self.path, self.manifest, self.problems = path, manifest, tuple(problems)
        if len(set(self.problems)) < len(self.problems):
            raise NadError(f"task {manifest.task} has problems with the same id; ids must differ")
        self.digests = tuple(digests) or ("",) * len(self.problems)
        keys = map(problem_key, self.problems, self.digests)
        self._index = {key: index for index, key in enumerate(keys)}
        self._key = list(self._index)
        self._settings = json.loads(json.dumps(manifest.settings))
        self._folder = Folder(path)

    @classmethod
    def create(cls, path: str, manifest: Manifest, problems: Sequence[str], digests: Sequence[str] = ()) -> "RunStore":
        """A new run. Raises UsageError where there is one, or where a file or a folder with other content lies.

        A run that holds no problem yet does not count: another takes its place.
        """
        store = cls(path, manifest, problems, digests)
        taken = UsageError(f"{path} exists; continue a run with --resume, or name another folder with --out")
        names = store._folder.names()
        if store._folder.is_other_than_a_folder() or set(names) - {_MANIFEST, PARTS, PENDING} or store._occupied():
            raise taken
        try:
            store._publish(_MANIFEST, store._text(), new=_MANIFEST not in names)
        except FileExistsError:
            raise taken from None
        return store

    @classmethod
    def open(cls, path: str) -> "RunStore":
        """A run as it stands, finished or not. Raises UsageError where there is none."""
        folder = Folder(path)
        if not folder.is_file(_MANIFEST):
            raise UsageError(f"no run at {path}: it has no {_MANIFEST}; record one with `nad eval --out {path}`")
        try:
            return cls(path, *read_manifest(folder.read(_MANIFEST)))
        except OtherSchema as error:
            raise NadError(f"{path} has {error}; record it again") from error
        except ValueError as error:
            raise NadError(f"{path}/{_MANIFEST} is damaged ({error}); restore it, or record the run again") from error

    def grown(self, manifest: Manifest, problems: Sequence[str], digests: Sequence[str]) -> "RunStore":
        """The same run made larger: more problems after those it has, more samples a problem."""
        store = RunStore(self.path, manifest, problems, digests)
        store._publish(_MANIFEST, store._text())
        return store

    def __len__(self) -> int:
        return len(self._parts(PARTS))

    def __iter__(self) -> Iterator[ProblemRecord]:
        parts = self._parts(PARTS)
        with ThreadPoolExecutor(1) as ahead:  # the next part is read while the last one is worked on
            reading = None
            for index in sorted(parts):
                begun = ahead.submit(self._read, PARTS, parts[index])
                if reading is not None:
                    yield reading.result()
                reading = begun
            if reading is not None:
                yield reading.result()

    @property
    def local(self) -> bool:
        """Whether other processes see what this one writes to the same path."""
        return self._folder.shared

    def writing(self) -> AbstractContextManager[int | None]:
        """Be the run's only writer on this machine (see Folder.only_writer)."""
        return self._folder.only_writer()

    def graded(self) -> list[int]:
        """Places of the problems that are sampled and graded, in the run's order."""
        return sorted(self._parts(PARTS))

    def pending(self) -> list[int]:
        """Places of the problems that are sampled and not graded yet."""
        return sorted(self._parts(PENDING).keys() - self._parts(PARTS).keys())

    def missing(self) -> list[str]:
        """Ids of the problems without a graded part of all n samples."""
        stored = self._parts(PARTS)
        return [problem for index, problem in enumerate(self.problems) if index not in stored]

    def read(self, index: int, folder: str = PARTS) -> ProblemRecord:
        """The problem at this place. Raises DamagedPart when its part is not what this run wrote."""
        return self._read(folder, self._parts(folder)[index])

    def smaller(self, index: int) -> ProblemRecord | None:
        """What was recorded of a problem while the run had fewer samples, if anything."""
        for folder in (PARTS, PENDING):
            if part := _best(self._every(folder)).get(self._key[index]):
                return self._read(folder, part)
        return None

    def grades(self) -> list[tuple[bool | None, str | None, str | None]]:
        """Every sample's grade, finish reason, and why it was not graded; the rest of the parts is not read."""
        return [grade for _, part in sorted(self._parts(PARTS).items()) for grade in self._grades(part)]

    def with_failed_grades(self) -> list[int]:
        """Places of the graded problems with a sample on which the grader broke."""
        parts = sorted(self._parts(PARTS).items())
        return [index for index, part in parts if any(reason for _, _, reason in self._grades(part))]

    def write(self, index: int, record: ProblemRecord, folder: str = PARTS) -> None:
        """Store a problem. What it replaces is removed: the same one pending, or with fewer samples or other grades."""
        data = pack(record, self._settings)
        name = PartName(index, self._key[index], len(record.samples), checksum(data))
        self._publish(f"{folder}/{name}", data)
        if folder == PARTS:
            self._remove_replaced([name])

    def remove(self, index: int, folder: str) -> None:
        """Remove a problem's part, if there is one."""
        if part := self._parts(folder).get(index):
            self._folder.remove(f"{folder}/{part}")

    def damaged(self, folder: str = PARTS) -> dict[str, str]:
        """What is wrong with each file that is not a part of the run, by name; of two parts of a problem one is not."""
        found, intact = {}, list[PartName]()
        for name in self._folder.names(folder):
            part = parsed(name)
            try:
                if part is None:
                    raise _Wrong("is not a part of a run of this schema")
                self._inspected(folder, part)
                intact.append(part)
            except _Wrong as error:
                found[name] = f"{self.path}/{folder}/{name} {error}"
        best = _best(intact)
        for part in intact:
            if part != (kept := best[part.key]) and part.samples == kept.samples:
                found[str(part)] = f"{self.path}/{folder}/{part} holds problem {self._problem(part)}, as does {kept}"
        return found

    def tidy(self) -> list[str]:
        """Move what is not of this run to `set-aside/`; returns a line on each. Completes what a kill interrupted."""
        notes = []
        for folder in (PARTS, PENDING):
            for name, what in self.damaged(folder).items():
                self._folder.move(f"{folder}/{name}", f"{SET_ASIDE}/{folder}/{name}")
                notes.append(f"{what}; moved to {SET_ASIDE}/{folder}")
        self._remove_replaced(self._parts(PARTS).values())
        return notes

    def is_empty(self) -> bool:
        """Whether nothing has been recorded yet."""
        return not self._occupied() and not self._folder.names(SET_ASIDE)

    def _occupied(self) -> bool:
        return any(self._folder.names(folder) for folder in (PARTS, PENDING))

    def _text(self) -> bytes:
        return manifest_text(self.manifest, self.problems, self.digests)

    def _every(self, folder: str) -> list[PartName]:
        """The names in a folder that are those of parts of this run's problems."""
        names = filter(None, map(parsed, self._folder.names(folder)))
        return [part for part in names if part.key in self._index]

    def _parts(self, folder: str) -> dict[int, PartName]:
        """The parts of all n samples by the problem's place in the run."""
        whole = [part for part in self._every(folder) if part.samples == self.manifest.n]
        return {self._index[key]: part for key, part in _best(whole).items()}

    def _grades(self, part: PartName) -> list[tuple[bool | None, str | None, str | None]]:
        if not self._folder.is_file(f"{PARTS}/{part}"):
            self._read(PARTS, part)  # says so
        with self._folder.open(f"{PARTS}/{part}") as file:
            return unpack_grades(file)

    def _remove_replaced(self, graded: Iterable[PartName]) -> None:
        """Remove what these hold too: the same problems pending, with fewer samples, or graded before."""
        whole = {part.key: part for part in graded}
        for folder in (PARTS, PENDING):
            for old in self._every(folder):
                new = whole.get(old.key)
                if new and old.samples <= new.samples and (folder, old) != (PARTS, new):
                    self._folder.remove(f"{folder}/{old}")

    def _problem(self, part: PartName) -> str:
        return self.problems[self._index[part.key]]

    def _read(self, folder: str, part: PartName) -> ProblemRecord:
        try:
            return self._inspected(folder, part)
        except _Wrong as error:
            raise DamagedPart(f"{self.path}/{folder}/{part} {error}; `nad eval --resume` does it again") from error

    def _inspected(self, folder: str, part: PartName) -> ProblemRecord:
        """The part's record, when it is one of this run; raises _Wrong."""
        if part.key not in self._index:
            raise _Wrong("is of a problem this run does not have")
        problem, name = self._problem(part), f"{folder}/{part}"
        if not self._folder.is_file(name):
            raise _Wrong(f"is not a file (problem {problem})")
        data = self._folder.read(name)
        if checksum(data) != part.checksum:
            raise _Wrong(f"is damaged (checksum; problem {problem})")
        try:
            record, settings = unpack(data)
        except NadError as error:
            raise _Wrong(f"is damaged ({error}; problem {problem})") from error
        if record.problem != problem:
            raise _Wrong(f"holds problem {record.problem}, not {problem}")
        if different := differences(with_defaults(settings), self._settings):
            raise _Wrong(f"was made with other settings ({'; '.join(different)}; problem {problem})")
        if (past := record.largest_neuron) >= self.manifest.neurons:
            raise _Wrong(f"has neuron {past}, but the model's are below {self.manifest.neurons} (problem {problem})")
        if not len(record.samples) == part.samples <= self.manifest.n:
            raise _Wrong(f"holds {len(record.samples)} samples, not {self.manifest.n} (problem {problem})")
        return record

    def _publish(self, name: str, data: bytes, new: bool = False) -> None:
        try:
            self._folder.write(name, data, new)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise NadError(
                f"no space left for {self.path}: of {len(self.problems)} problems {len(self)} are stored and "
                f"{len(self.pending())} more sampled; free some space and go on with --resume"
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


def _best(parts: Iterable[PartName]) -> dict[str, PartName]:
    """The part of each problem that has the most samples."""
    return {part.key: part for part in sorted(parts, key=lambda part: (part.samples, str(part)))}
