"""Runs that were damaged, mixed up or made up: nothing is believed, nothing is deleted, each gives one clear line."""

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from planted import PlantedEngine, PlantedTask

from nad.errors import NadError, UsageError
from nad.runs.evaluate import evaluate
from nad.runs.parts import checksum, parsed
from nad.runs.sampling import Settings
from nad.runs.store import PARTS, SET_ASIDE, RunStore, open_run
from nad.types import SamplingParams

SETTINGS = Settings(n=2, params=SamplingParams(max_tokens=64))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded(tmp_path / "run")


def recorded(path: Path, settings: Settings = SETTINGS, task: PlantedTask = PlantedTask()) -> Path:
    """A run on disk, graded in this process by way of a run in memory: quicker than a process for each."""
    made = evaluate(PlantedEngine(), task, f"memory://{path}", settings)
    store = RunStore.create(str(path), made.manifest, made.problems, made.digests)
    for index, problem in enumerate(made):
        store.write(index, problem)
    return path


def tokens(path: Path) -> list[object]:
    return [(r.problem, [s.completion.tokens for s in r.samples]) for r in open_run(str(path))]


def part(run: Path, index: int) -> Path:
    (found,) = (run / PARTS).glob(f"{index:06d}-*")
    return found


def other_temperature(run: Path) -> Path:
    """The part of another run, of the same problem; its name and bytes are in order."""
    other = recorded(run.parent / "other", replace(SETTINGS, params=SamplingParams(temperature=1, max_tokens=64)))
    part(run, 1).unlink()
    return Path(shutil.copy(part(other, 1), run / PARTS))


def more_samples(run: Path) -> Path:
    other = recorded(run.parent / "other", replace(SETTINGS, n=3))
    part(run, 1).unlink()
    return Path(shutil.copy(part(other, 1), run / PARTS))


def renamed_to_n(run: Path) -> Path:
    """One of more samples that calls itself one of n."""
    found = more_samples(run)
    return found.rename(found.with_name(found.name.replace("-3-", "-2-")))


def past_the_end(run: Path) -> Path:
    other = recorded(run.parent / "other", task=PlantedTask(size=9))
    return Path(shutil.copy(part(other, 8), run / PARTS))


def another_gold(run: Path) -> Path:
    other = recorded(run.parent / "other", task=PlantedTask(golds="x"))
    part(run, 1).unlink()
    return Path(shutil.copy(part(other, 1), run / PARTS))


def pipe(run: Path) -> Path:
    name = part(run, 1)
    name.unlink()
    os.mkfifo(name)
    return name


def folder(run: Path) -> Path:
    name = part(run, 1)
    name.unlink()
    name.mkdir()
    return name


def no_parquet(run: Path) -> Path:
    old = part(run, 1)
    name = parsed(old.name)
    assert name is not None
    old.unlink()
    new = old.with_name(str(replace(name, checksum=checksum(b"PAR1 and no more"))))
    new.write_bytes(b"PAR1 and no more")
    return new


def thesis(run: Path) -> Path:
    (run / PARTS / "thesis.parquet").write_text("mine")
    return run / PARTS / "thesis.parquet"


ATTACKS: dict[Callable[[Path], Path], str] = {
    other_temperature: r"was made with other settings \(params.temperature 1, now 0.6; problem p1\)",
    more_samples: r"holds 3 samples, not 2 \(problem p1\)",
    renamed_to_n: r"holds 3 samples, not 2 \(problem p1\)",
    past_the_end: "is of a problem this run does not have",
    another_gold: "is of a problem this run does not have",
    pipe: r"is not a file \(problem p1\)",
    folder: r"is not a file \(problem p1\)",
    no_parquet: r"is damaged \(not a Parquet file",
    thesis: "is not a part of a run of this schema",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_is_not_of_the_run_is_set_aside_and_named(attack: Callable[[Path], Path], run: Path) -> None:
    before = tokens(run)
    foreign = attack(run)
    kind, inode = foreign.stat().st_mode, foreign.stat().st_ino
    notes: list[str] = []
    evaluate(PlantedEngine(), PlantedTask(), str(run), SETTINGS, resume=True, report=notes.append)
    (note,) = notes
    assert foreign.name in note and "\n" not in note
    assert re.search(ATTACKS[attack], note), note
    kept = run / SET_ASIDE / PARTS / foreign.name
    assert (kept.stat().st_mode, kept.stat().st_ino) == (kind, inode)
    assert tokens(run) == before


@pytest.mark.parametrize("attack", [other_temperature, renamed_to_n, pipe, folder, no_parquet])
def test_what_is_not_of_the_run_is_not_read(attack: Callable[[Path], Path], run: Path) -> None:
    attack(run)
    store = RunStore.open(str(run))
    for read in (list, RunStore.grades) if attack in (pipe, folder, no_parquet) else (list,):
        with pytest.raises(NadError) as caught:
            read(store)
        assert "\n" not in str(caught.value)


def test_parts_are_set_aside_at_any_address(tmp_path: Path) -> None:
    path = f"memory://{tmp_path.name}/run"
    store = evaluate(PlantedEngine(), PlantedTask(), path, SETTINGS)
    other = evaluate(PlantedEngine(), PlantedTask(), f"{path}-other", replace(SETTINGS, n=3))
    (good,) = [name for name in store._folder.names(PARTS) if name.startswith("000001")]
    data = store._folder.read(f"{PARTS}/{good}")
    for _ in range(2):
        store._folder.write(f"{PARTS}/{good}", data[:-1])
        notes: list[str] = []
        evaluate(PlantedEngine(), PlantedTask(), path, SETTINGS, resume=True, report=notes.append)
        assert len(notes) == 1 and good in notes[0]
    assert store._folder.names(f"{SET_ASIDE}/{PARTS}") == [good, f"{good}.1"]
    assert store._folder.read(f"{SET_ASIDE}/{PARTS}/{good}.1") == data[:-1]
    assert len(list(store)) == 4
    with pytest.raises(UsageError, match="exists; continue a run"):
        RunStore.create(path, other.manifest, other.problems, other.digests)


def test_two_parts_of_one_problem_are_one_too_many(run: Path) -> None:
    store = RunStore.open(str(run))
    one = store.read(1)
    graded_otherwise = replace(one, samples=tuple(replace(s, correct=None) for s in one.samples))
    good = part(run, 1)
    data = good.read_bytes()
    store.write(1, graded_otherwise)
    other = part(run, 1)
    good.write_bytes(data)
    assert len(store) == 4
    notes = store.tidy()
    first, second = sorted([good.name, other.name])
    assert [note.partition("; moved")[0] for note in notes] == [
        f"{run}/{PARTS}/{first} holds problem p1, as does {second}"
    ]
    assert (run / SET_ASIDE / PARTS / first).exists() and part(run, 1).name == second


def test_a_manifest_in_another_order_loses_no_part(run: Path) -> None:
    before = tokens(run)
    place = run / "manifest.json"
    document = json.loads(place.read_text())
    document["problems"].reverse()
    place.write_text(json.dumps(document))
    assert tokens(run) == before[::-1]
    with pytest.raises(UsageError, match="problem 0 'p3', now 'p0'"):
        evaluate(PlantedEngine(), PlantedTask(), str(run), SETTINGS, resume=True)
    notes: list[str] = []
    store = RunStore.open(str(run))
    assert store.tidy() == notes and len(store) == 4


MANIFESTS: dict[str, Callable[[dict], object]] = {
    "a list": lambda d: [],
    "deep": lambda d: "[" * 100_000 + "]" * 100_000,
    "a long number": lambda d: '{"schema": ' + "9" * 10_000 + "}",
    "no problems": lambda d: {k: v for k, v in d.items() if k != "problems"},
    "ids alone": lambda d: d | {"problems": ["p0"]},
    "a number for an id": lambda d: d | {"problems": [[1, ""]]},
    "an id twice": lambda d: d | {"problems": d["problems"][:1] * 2},
    "n as text": lambda d: d | {"manifest": d["manifest"] | {"n": "2"}},
    "n as truth": lambda d: d | {"manifest": d["manifest"] | {"n": True}},
    "no samples": lambda d: d | {"manifest": d["manifest"] | {"n": 0}},
    "params as list": lambda d: d | {"manifest": d["manifest"] | {"params": []}},
    "hot": lambda d: d | {"manifest": d["manifest"] | {"params": {"temperature": -1}}},
    "unknown": lambda d: d | {"manifest": d["manifest"] | {"colour": "red"}},
    "without a model": lambda d: d | {"manifest": {k: v for k, v in d["manifest"].items() if k != "model"}},
    "no manifest": lambda d: d | {"manifest": None},
    "shortened": lambda d: json.dumps(d)[:-40],
    "another schema": lambda d: d | {"schema": 99},
    "bytes": lambda d: "\udcff\udcfe",
}


@pytest.mark.parametrize("harm", MANIFESTS)
@pytest.mark.parametrize("resume", [True, False])
def test_a_damaged_manifest_is_one_line(harm: str, resume: bool, run: Path) -> None:
    place = run / "manifest.json"
    changed = MANIFESTS[harm](json.loads(place.read_text()))
    text = changed if isinstance(changed, str) else json.dumps(changed)
    place.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(NadError) as caught:
        evaluate(PlantedEngine(), PlantedTask(), str(run), SETTINGS, resume=True) if resume else open_run(str(run))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert "damaged" in str(caught.value) or "schema version 99" in str(caught.value)
    assert len(list((run / PARTS).iterdir())) == 4


def test_a_manifest_that_is_a_pipe_is_none(run: Path) -> None:
    (run / "manifest.json").unlink()
    os.mkfifo(run / "manifest.json")
    with pytest.raises(UsageError, match="no run at"):
        RunStore.open(str(run))


def test_of_two_starts_at_one_place_one_is_refused(tmp_path: Path) -> None:
    for attempt in range(5):
        path = str(tmp_path / f"run{attempt}")
        temperatures = (0.6, 1.0)

        def start(temperature: float, path: str = path) -> float | Exception:
            settings = replace(SETTINGS, params=SamplingParams(temperature, max_tokens=64))
            try:
                evaluate(PlantedEngine(), PlantedTask(), path, settings)
            except NadError as error:
                return error
            return temperature

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(start, temperatures))
        (winner,) = [f for f in found if isinstance(f, float)]
        (refused,) = [f for f in found if isinstance(f, NadError)]
        assert "another process is writing" in str(refused) or "exists; continue" in str(refused)
        assert RunStore.open(path).manifest.params.temperature == winner
        assert len(list(open_run(path))) == 4


def test_a_call_that_fails_leaves_nothing_that_blocks_the_next(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run"
    broken = PlantedEngine(fails=("question 0",))
    with pytest.raises(NadError, match="the model broke"):
        evaluate(broken, PlantedTask(), str(path), SETTINGS)
    for resume in (False, True):
        with pytest.raises(NadError, match="the model broke"):
            evaluate(broken, PlantedTask(), str(path), replace(SETTINGS, n=3), resume=resume)
    evaluate(PlantedEngine(), PlantedTask(), str(path), SETTINGS)
    assert len(tokens(path)) == 4


def test_a_refused_call_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run at"):
        evaluate(PlantedEngine(), PlantedTask(), str(tmp_path / "a" / "b"), SETTINGS, resume=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="exists and is not a folder"):
        evaluate(PlantedEngine(), PlantedTask(), str(tmp_path / "file"), SETTINGS)
