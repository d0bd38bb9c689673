"""Recorded runs on disk: what goes in comes out, and what was damaged on the way is named."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import manifest, record, sample

from nad.errors import NadError, UsageError
from nad.neurons.activation import activation_set
from nad.runs.parquet import SCHEMA, pack, unpack
from nad.runs.records import GradedSample, ProblemRecord
from nad.runs.store import PARTS, PENDING, DamagedPart, RunStore, open_run
from nad.types import Completion, Signals


def same(a: ProblemRecord, b: ProblemRecord) -> bool:
    """Equal in every field; signals are compared bit for bit."""
    bare = [replace(r, samples=tuple(_bare(s) for s in r.samples)) for r in (a, b)]
    pairs = [(x.completion.signals, y.completion.signals) for x, y in zip(a.samples, b.samples, strict=True)]
    return bare[0] == bare[1] and all(_same_signals(x, y) for x, y in pairs)


def _bare(graded: GradedSample) -> GradedSample:
    return replace(graded, completion=replace(graded.completion, signals=None))


def _same_signals(a: Signals | None, b: Signals | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


SETTINGS = {"model": "planted", "params": {"seed": 3}}
floats = st.floats(width=32, allow_nan=False)
text = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def graded_samples(draw: st.DrawFn, index: int, with_signals: bool) -> GradedSample:
    tokens = draw(st.lists(st.integers(0, 200_000), min_size=1, max_size=40))
    neurons = sorted(draw(st.sets(st.integers(0, 2**32 - 1), max_size=30)))
    m, chunks = len(neurons), -(-len(tokens) // 32)
    first = draw(st.lists(st.integers(0, len(tokens) - 1), min_size=m, max_size=m))
    peak = draw(st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=m, max_size=m))
    columns = [np.array(draw(st.lists(floats, min_size=len(tokens), max_size=len(tokens))), np.float32) for _ in "1234"]
    counts = np.array(draw(st.lists(st.integers(0, 65535), min_size=chunks, max_size=chunks)), np.uint16)
    written = draw(text)
    ends = st.lists(st.integers(0, len(written)), min_size=len(tokens), max_size=len(tokens)).map(sorted)
    found = activation_set(np.array(neurons, np.int64), np.array(first, np.int64), np.array(peak))
    completion = Completion(
        index,
        tuple(tokens),
        written,
        draw(st.sampled_from(["stop", "length", None])),
        found,
        Signals(*columns, counts) if with_signals else None,
        tuple(draw(st.just([]) | ends)),
    )
    grade = draw(st.none() | text), draw(st.none() | st.booleans()), draw(st.floats(0, 1e6)), draw(st.none() | text)
    return GradedSample(completion, *grade)


@st.composite
def records(draw: st.DrawFn) -> ProblemRecord:
    with_signals = draw(st.booleans())
    samples = [draw(graded_samples(i, with_signals)) for i in range(draw(st.integers(1, 4)))]
    return ProblemRecord(
        problem=draw(text),
        prompt_tokens=tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=8))),
        samples=tuple(samples),
        computed_tokens=draw(st.integers(0, 2**40)),
        prompt=draw(text),
        seed=draw(st.none() | st.integers(0, 2**64 - 1)),
        consistent=draw(st.none() | st.integers(0, len(samples) - 1)),
    )


# beartype, which checks the signatures of nad in the tests, draws which elements it looks at
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(records())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_what_is_packed_is_unpacked(problem: ProblemRecord) -> None:
    record, settings = unpack(pack(problem, SETTINGS))
    assert same(record, problem) and settings == SETTINGS


def test_a_problem_is_one_row_a_sample_with_plain_columns(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(
        pack(record("p0", [sample(0, [4, 2, 0], {3: 1, 9: 0}, True, "4"), sample(1, [5, 0], {}, False)]), {})
    )
    table = pq.read_table(path)
    assert table.schema.names == SCHEMA.names
    assert table["neuron"].to_pylist() == [[3, 9], []]
    assert table["first_token"].to_pylist() == [[1, 0], []]
    assert table["peak"].to_pylist() == [[0.5, 1.5], []]
    assert table["correct"].to_pylist() == [True, False]
    assert table["answer"].to_pylist() == ["4", None]


def test_bytes_that_are_no_part_are_refused() -> None:
    with pytest.raises(NadError, match="not a Parquet file"):
        unpack(b"PAR1 and nothing else")


def test_another_schema_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(record("p0", [sample(0, [1, 0], {})]), {})
    monkeypatch.setattr("nad.runs.parquet.SCHEMA_VERSION", 4)
    with pytest.raises(NadError, match="schema version 3, but this nad reads version 4"):
        unpack(data)


def test_a_quarter_million_neurons_take_half_a_megabyte_a_sample() -> None:
    """Neurons that light up at rates spread over orders of magnitude, in a text of 20,000 tokens."""
    draw = np.random.default_rng(0)
    first = draw.exponential(4000 * np.exp(draw.normal(0, 1.6, 350_000)))
    neuron = np.flatnonzero(first < 20_000)
    assert len(neuron) > 240_000
    found = activation_set(neuron, first[neuron].astype(int), np.exp(draw.normal(-2, 0.6, len(neuron))))
    whole = replace(sample(0, [1, 0], {}).completion, activations=found)
    without = replace(whole, activations=activation_set(neuron, first[neuron].astype(int), np.zeros(len(neuron))))
    sizes = [len(pack(record("p", [GradedSample(c, None, None, 0.0)]), {})) for c in (without, whole)]
    scale = 250_000 / len(neuron)
    assert sizes[0] * scale <= 0.5e6
    assert sizes[1] * scale <= 1.0e6


def filled(path: str, problems: int = 3) -> RunStore:
    store = RunStore.create(path, manifest(n=1), [f"p{i}" for i in range(problems)])
    for i in range(problems):
        store.write(i, record(f"p{i}", [sample(0, [i + 1, 0], {i: 0}, i == 0)]))
    return store


@pytest.fixture(params=["folder", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "folder" else f"memory://{tmp_path.name}-{os.getpid()}/run"


def test_a_run_is_read_back_in_the_order_of_the_task(address: str) -> None:
    filled(address)
    run = open_run(address)
    assert run.manifest == manifest(n=1)
    assert [r.problem for r in run] == ["p0", "p1", "p2"]
    assert [r.problem for r in run] == ["p0", "p1", "p2"]  # each pass reads anew
    assert len(run) == 3
    assert run.grades() == [(True, "stop", None), (False, "stop", None), (False, "stop", None)]


def test_a_graded_problem_is_no_longer_pending(address: str) -> None:
    store = RunStore.create(address, manifest(n=1), ["p0", "p1"])
    store.write(1, record("p1", [sample(0, [1, 0], {})]), PENDING)
    assert (store.pending(), store.graded(), store.missing()) == ([1], [], ["p0", "p1"])
    store.write(1, record("p1", [sample(0, [1, 0], {}, True)]))
    assert (store.pending(), store.graded(), store.missing()) == ([], [1], ["p0"])


def test_an_unfinished_run_names_what_it_lacks(address: str) -> None:
    store = filled(address, 5)
    for index in (1, 3):
        store.remove(index, PARTS)
    with pytest.raises(NadError, match=r"lacks 2 of 5 problems \(p1, p3\)"):
        open_run(address)
    assert [r.problem for r in open_run(address, partial=True)] == ["p0", "p2", "p4"]


def the_part(path: str, index: int) -> Path:
    (found,) = Path(path, PARTS).glob(f"{index:06d}-*.parquet")
    return found


@pytest.mark.parametrize("harm", ["one bit", "truncated", "empty", "another problem's"])
def test_a_damaged_part_is_named_and_never_skipped(tmp_path: Path, harm: str) -> None:
    path = str(tmp_path / "run")
    store = filled(path)
    part = the_part(path, 1)
    data = part.read_bytes()
    if harm == "one bit":
        part.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif harm == "another problem's":
        part.unlink()
        other = the_part(path, 2)
        part = part.with_name(part.name[:-40] + other.name[-40:])  # with its checksum
        part.write_bytes(other.read_bytes())
    else:
        part.write_bytes(data[: len(data) // 2] if harm == "truncated" else b"")
    with pytest.raises(
        DamagedPart, match=r"000001-[\w-]+.parquet (is damaged \(checksum; problem p1\)|holds problem p2, not p1)"
    ):
        list(store)
    assert list(store.damaged()) == [part.name]


def test_where_there_is_a_run_or_something_else_none_is_made(tmp_path: Path) -> None:
    filled(str(tmp_path / "run"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    for name in ("run", "other", "other/thesis.txt"):
        with pytest.raises(UsageError, match="exists; continue a run with --resume"):
            RunStore.create(str(tmp_path / name), manifest(), ["p0"])


def test_no_run_and_a_damaged_manifest_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run at"):
        RunStore.open(str(tmp_path))
    filled(str(tmp_path / "run"))
    manifest_file = tmp_path / "run" / "manifest.json"
    manifest_file.write_text(manifest_file.read_text()[:-20])
    with pytest.raises(NadError, match=r"manifest\.json is damaged"):
        RunStore.open(str(tmp_path / "run"))


def test_an_address_of_no_known_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot open"):
        RunStore.open("nosuchprotocol://x")


def test_a_full_disk_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "run")
    store = filled(path)
    for index in (1, 2):
        store.remove(index, PARTS)
    store.write(1, record("p1", [sample(0, [2, 0], {1: 0})]), PENDING)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NadError, match=r"no space left for .*: of 3 problems 1 are stored and 1 more sampled; free"):
        store.write(2, record("p2", [sample(0, [3, 0], {})]))
    assert sorted(p.name[:6] for p in (tmp_path / "run" / PARTS).iterdir()) == ["000000"]


def test_a_second_writer_is_refused_and_leftovers_go(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "run"))
    leftover = tmp_path / "run" / PARTS / ".partial-1-000009-x.parquet"
    leftover.touch()
    with store.writing():
        assert not leftover.exists()
        with pytest.raises(NadError, match="another process is writing"), RunStore.open(store.path).writing():
            pass


THREADS = """
import os, sys, time
import numpy, pyarrow.parquet
from nad.runs.store import RunStore

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
store = RunStore.open(sys.argv[1])
store.write(0, list(store)[0])
store.grades()
end = time.monotonic() + 20
while threads() > before and time.monotonic() < end:
    time.sleep(0.01)  # the thread that read ahead is Python's own, and over
assert threads() == before, (before, threads())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_of_the_reader_is_left_that_could_meet_a_python_that_ends(tmp_path: Path) -> None:
    """Such a thread aborted the process at its exit, 4 times in 80 on a busy machine."""
    filled(str(tmp_path / "run"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", THREADS, str(tmp_path / "run")], check=True, env=environment)


def test_parts_from_before_a_setting_could_be_chosen_are_the_runs(tmp_path: Path) -> None:
    store = RunStore.create(str(tmp_path / "run"), manifest(n=1), ["p0"])
    older = {name: value for name, value in store._settings.items() if name != "experts"}
    older["rule"] = {name: value for name, value in older["rule"].items() if name != "router"}
    store._settings = older
    store.write(0, record("p0", [sample(0, [4, 0], {3: 1})]))
    assert [r.problem for r in RunStore.open(store.path)] == ["p0"]
    store._settings = {**older, "experts": 8}
    store.write(0, record("p0", [sample(0, [4, 0], {3: 1}, answer="4")]))
    with pytest.raises(NadError, match=r"experts 8, now 1"):
        list(RunStore.open(store.path))
