"""Parts whose name and bytes are in order, and whose values are not: each is refused in one line, and set aside."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import PlantedEngine, PlantedTask

from nad.errors import NadError
from nad.runs.evaluate import evaluate
from nad.runs.parts import checksum, parsed
from nad.runs.sampling import Settings
from nad.runs.store import PARTS, RunStore
from nad.types import SamplingParams

SETTINGS = Settings(n=2, params=SamplingParams(max_tokens=64))


@pytest.fixture(scope="module")
def made() -> RunStore:
    return evaluate(PlantedEngine(), PlantedTask(), "memory://made-up-parts", SETTINGS)


@pytest.fixture
def run(made: RunStore, tmp_path: Path) -> Path:
    store = RunStore.create(str(tmp_path / "run"), made.manifest, made.problems, made.digests)
    for index, problem in enumerate(made):
        store.write(index, problem)
    return tmp_path / "run"


def change(run: Path, column: str, values: Callable[[list], list]) -> None:
    """Write another part in place of problem 1's, with other values in a column."""
    (old,) = (run / PARTS).glob("000001-*")
    table = pq.read_table(old)
    place = table.schema.get_field_index(column)
    new = pa.array(values(table.column(column).to_pylist()), table.schema.field(place).type)
    file = io.BytesIO()
    pq.write_table(table.set_column(place, table.schema.field(place), new), file)
    name = parsed(old.name)
    assert name is not None
    old.unlink()
    (run / PARTS / str(replace(name, checksum=checksum(file.getvalue())))).write_bytes(file.getvalue())


def every(value: object) -> Callable[[list], list]:
    return lambda rows: [value for _ in rows]


def inner(value: object) -> Callable[[list], list]:
    return lambda rows: [[value for _ in row] for row in rows]


MADE_UP: dict[str, tuple[str, Callable[[list], list], str]] = {
    "a neuron past the model's": ("neuron", lambda rows: [[*r[:-1], 2**32 - 1] for r in rows], "neuron 4294967295"),
    "a neuron that is none": ("neuron", inner(None), "holes"),
    "neurons in no order": ("neuron", lambda rows: [r[::-1] for r in rows], "sorted"),
    "a first token past the end": ("first_token", inner(64), "first token lies past"),
    "a peak that is no number": ("peak", inner(float("nan")), "16 bits"),
    "a peak too large": ("peak", inner(1e30), "16 bits"),
    "a token below 0": ("tokens", inner(-1), "no tokens, or negative"),
    "no tokens": ("tokens", every([]), "no tokens"),
    "a token that is none": ("tokens", inner(None), "holes"),
    "ends outside the text": ("text_end", inner(10**6), "text_end"),
    "ends that go back": ("text_end", lambda rows: [r[::-1] for r in rows], "text_end"),
    "samples of one number": ("sample", every(1), "its number is 1"),
    "two problems": ("problem", lambda rows: [rows[0], "another"], "more than one problem"),
    "an end of another kind": ("finish_reason", every("bored"), "bored"),
    "no time": ("seconds", every(float("nan")), "nan seconds"),
    "tokens computed below 0": ("computed_tokens", every(-1), "negative"),
    "a verdict on no sample": ("consistent", every(2), "cannot be 2"),
    "a token without signals": ("tokens", lambda rows: [[*r, 1] for r in rows], "signals"),
    "a signal that is no number": ("logprob", inner(float("nan")), "signals are not numbers"),
    "no signal among others": ("logprob", every(None), "some are missing"),
    "too many chunks": ("chunk_neurons", every([1] * 99), "signals"),
}


@pytest.mark.parametrize(("column", "values", "said"), MADE_UP.values(), ids=MADE_UP.keys())
def test_values_that_make_no_record_are_refused_and_done_again(column, values, said, run: Path) -> None:
    change(run, column, values)
    with pytest.raises(NadError, match=said) as caught:
        list(RunStore.open(str(run)))
    assert "\n" not in str(caught.value) and "resume" in str(caught.value)
    (note,) = RunStore.open(str(run)).tidy()
    assert said in note and RunStore.open(str(run)).missing() == ["p1"]


def test_what_a_run_may_hold_is_believed(run: Path) -> None:
    """The checks do not ask for more than the schema does: no ends of tokens known, no verdict, an open end."""
    for column, values in (("text_end", every([])), ("consistent", every(1)), ("finish_reason", every(None))):
        change(run, column, values)
        assert RunStore.open(str(run)).read(1).problem == "p1"
