"""Going on with a run: what must be as it was, and what may be more (problems, and samples of each)."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

from nad.errors import UsageError
from nad.runs.records import Manifest, differences
from nad.runs.store import RunStore
from nad.stopping import Never, stop_label
from nad.tasks.base import Problem


class Plan(NamedTuple):
    """What a run is to hold: its settings, and its problems by id and by the digest of what they ask."""

    manifest: Manifest
    problems: Sequence[str]
    digests: Sequence[str]


def digest_of(problem: Problem) -> str:
    """Equal for problems that ask the same and have the same answer."""
    text = json.dumps(asdict(problem), sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def resumed(path: str, plan: Plan, report: Callable[[str], None]) -> RunStore:
    """The run at `path`, made as large as planned; what does not belong to it is moved aside and named to `report`.

    Raises UsageError where there is none, or one with other settings.
    """
    store = RunStore.open(path)
    if store.is_empty():
        return RunStore.create(path, *plan)
    old, new = store.manifest, plan.manifest
    if different := [*_differences(old.settings, new.settings), *_not_larger(store, plan)]:
        raise UsageError(
            f"{path} was recorded with other settings: {'; '.join(different)}; use those, or another --out"
        )
    for text in _differences(old.circumstances, new.circumstances):
        if text.startswith(("versions", "hardware")):
            report(f"going on with other {text}")
    grown = replace(old, n=new.n, limit=new.limit, data_sha256=new.data_sha256)
    if grown != old:
        store = store.grown(grown, plan.problems, plan.digests)
    for note in store.tidy():
        report(note)
    return store


def _differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """As they stand in files, where tuples are lists."""
    return differences(*(json.loads(json.dumps(values)) for values in (old, new)))


def _not_larger(store: RunStore, plan: Plan) -> list[str]:
    """What keeps the planned run from being the old one, grown."""
    old, new, found = store.manifest, plan.manifest, []
    if new.n < old.n or (new.n > old.n and not _samples_are_alone(new.stop_at)):
        found.append(f"n {old.n}, now {new.n}")
    had = list(zip(store.problems, store.digests, strict=True))
    asked = list(zip(plan.problems, plan.digests, strict=True))
    if len(asked) < len(had):
        return [*found, f"{len(had)} problems (limit {old.limit}), now {len(asked)} (limit {new.limit})"]
    for place, (before, now) in enumerate(zip(had, asked, strict=False)):
        if before != now:
            what = f"now {now[0]!r}" if before[0] != now[0] else "which now asks something else"
            return [*found, f"problem {place} {before[0]!r}, {what}"]
    if len(asked) == len(had) and old.data_sha256 != new.data_sha256:
        found.append(f"data_sha256 {old.data_sha256!r}, now {new.data_sha256!r}")
    return found


def _samples_are_alone(stop_at: str) -> bool:
    """Whether each sample's end is independent of the others, so that more samples can be drawn later."""
    return stop_at == stop_label(Never()) or stop_at.isdigit()
