"""One problem's record as the bytes of a Parquet file, and back (docs/run-schema.md).

The encodings are Parquet's own, so that every Parquet reader reads them: sorted neuron ids as packed differences,
first tokens, peaks and signals with their bytes split into streams, all of it under zstd. At 250,000 neurons a sample
takes about 0.5 MB, and 0.9 MB with its peaks (docs/decisions/0015-run-format.md).
"""

import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nad.errors import NadError
from nad.neurons.activation import ActivationSet
from nad.runs.record_checks import check_record
from nad.runs.records import GradedSample, ProblemRecord
from nad.types import Completion, Signals

SCHEMA_VERSION = 3
_VERSION_KEY, _SETTINGS_KEY = b"nad_schema", b"nad_settings"
_SIGNALS = ("logprob", "entropy", "self_certainty", "confidence", "chunk_neurons")

SCHEMA = pa.schema(
    [
        pa.field("problem", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("computed_tokens", pa.int64(), nullable=False),
        pa.field("seed", pa.uint64()),
        pa.field("consistent", pa.int32()),
        pa.field("thinking", pa.bool_(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_end", pa.list_(pa.int32()), nullable=False),
        pa.field("finish_reason", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("correct", pa.bool_()),
        pa.field("not_graded", pa.string()),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("logprob", pa.list_(pa.float32())),
        pa.field("entropy", pa.list_(pa.float32())),
        pa.field("self_certainty", pa.list_(pa.float32())),
        pa.field("confidence", pa.list_(pa.float32())),
        pa.field("chunk_neurons", pa.list_(pa.uint16())),
        pa.field("neuron", pa.list_(pa.uint32()), nullable=False),
        pa.field("first_token", pa.list_(pa.uint32()), nullable=False),
        # float16 values, exactly, in the narrowest float that all Parquet readers take byte-split
        pa.field("peak", pa.list_(pa.float32()), nullable=False),
    ],
    metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()},
)

_DELTA = ("neuron", "text_end")
_SPLIT = ("first_token", "peak", "logprob", "entropy", "self_certainty", "confidence")
_DICTIONARY = ["problem", "prompt", "prompt_tokens.list.element", "tokens.list.element", "finish_reason", "answer"]
_ENCODINGS = {f"{name}.list.element": "DELTA_BINARY_PACKED" for name in _DELTA} | {
    f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in _SPLIT
}


def pack(record: ProblemRecord, settings: Mapping[str, object]) -> bytes:
    """A Parquet file with one row a sample; its metadata says what it was made with."""
    _import_pandas()
    out = io.BytesIO()
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, _SETTINGS_KEY: json.dumps(settings, sort_keys=True).encode()})
    pq.write_table(
        pa.table(_columns(record), schema=schema),
        out,
        compression="zstd",
        compression_level=1,
        use_dictionary=_DICTIONARY,
        column_encoding=_ENCODINGS,
        write_statistics=False,
    )
    return out.getvalue()


@cache
def _import_pandas() -> None:
    """pyarrow imports pandas for the first array it makes, where there is one, and loses a Ctrl-C that comes then."""
    if find_spec("pandas"):
        import_module("pandas")


def _columns(record: ProblemRecord) -> dict[str, pa.Array | list]:
    samples, n = record.samples, len(record.samples)
    completions = [s.completion for s in samples]
    activations = [c.activations for c in completions if c.activations is not None]
    if len(activations) < n:
        raise NadError(f"problem {record.problem} has samples without their neurons, which no run can hold")
    signals = {name: [getattr(c.signals, name) if c.signals else None for c in completions] for name in _SIGNALS}
    return {
        "problem": [record.problem] * n,
        "prompt": [_utf8(record.prompt)] * n,
        "prompt_tokens": [record.prompt_tokens] * n,
        "computed_tokens": [record.computed_tokens] * n,
        "seed": [record.seed] * n,
        "consistent": [record.consistent] * n,
        "thinking": [record.thinking] * n,
        "sample": [c.index for c in completions],
        "tokens": _lists("tokens", [np.array(c.tokens, np.int32) for c in completions]),
        # A lone half of a surrogate pair can stand in no file; models write such text only by accident.
        "text": [_utf8(c.text) for c in completions],
        "text_end": _lists("text_end", [np.array(c.text_end, np.int32) for c in completions]),
        "finish_reason": [c.finish_reason for c in completions],
        "answer": [_utf8(s.answer) for s in samples],
        "correct": [s.correct for s in samples],
        "not_graded": [_utf8(s.not_graded) for s in samples],
        "seconds": [s.seconds for s in samples],
        **signals,
        "neuron": _lists("neuron", [a.neuron for a in activations]),
        "first_token": _lists("first_token", [a.first_token for a in activations]),
        "peak": _lists("peak", [a.peak.astype(np.float32) for a in activations]),
    }


def _utf8(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode()


def _lists(name: str, arrays: Sequence[np.ndarray]) -> pa.Array:
    """A list column over one buffer: no Python object for each of its millions of values."""
    kind = SCHEMA.field(name).type
    offsets = pa.array(np.cumsum([0, *map(len, arrays)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(arrays), kind.value_type)).cast(kind)


def unpack(data: bytes) -> tuple[ProblemRecord, dict[str, object]]:
    """The record a part holds, and the settings it was made with.

    Raises NadError when it is not a part, or is one of another schema version.
    """
    table = _read(pa.BufferReader(data))
    columns = {name: _values(table.column(name).combine_chunks()) for name in SCHEMA.names}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows:
        raise NadError("it holds no sample")
    try:
        return _record(rows), dict(json.loads(table.schema.metadata[_SETTINGS_KEY]))
    except (AttributeError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise NadError(f"its values do not make a record ({type(error).__name__}: {error})") from error


def _record(rows: Sequence[dict]) -> ProblemRecord:
    first = rows[0]
    if any(row["problem"] != first["problem"] or row["prompt"] != first["prompt"] for row in rows):
        raise ValueError("it holds more than one problem")
    record = ProblemRecord(
        problem=first["problem"],
        prompt_tokens=tuple(first["prompt_tokens"].tolist()),
        samples=tuple(_sample(row) for row in rows),
        computed_tokens=first["computed_tokens"],
        prompt=first["prompt"],
        seed=first["seed"],
        consistent=first["consistent"],
        thinking=first["thinking"],
    )
    check_record(record)
    return record


def unpack_grades(file: Any) -> list[tuple[bool | None, str | None, str | None]]:
    """Each sample's grade, finish reason, and why it was not graded; the other columns are not read."""
    names = ["correct", "finish_reason", "not_graded"]
    columns = _read(file, names).to_pydict()
    return list(zip(*(columns[name] for name in names), strict=True))


def _read(source: Any, columns: list[str] | None = None) -> pa.Table:
    """The table, read in this thread alone.

    Buffering ahead starts threads of Arrow that hold what belongs to Python, here the file. A thread that lets go of it
    while Python ends takes the process down: "terminate called without an active exception".
    """
    try:
        with pq.ParquetFile(source, pre_buffer=False) as file:
            schema = file.schema_arrow
            version = (schema.metadata or {}).get(_VERSION_KEY, b"?").decode("utf-8", "replace")
            if version != str(SCHEMA_VERSION):
                raise NadError(f"schema version {version}, but this nad reads version {SCHEMA_VERSION}")
            if not schema.equals(SCHEMA):
                raise NadError("its columns are not those of a part")
            return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise NadError(f"not a Parquet file ({str(error).splitlines()[0]})") from error


def _values(column: pa.Array) -> list:
    """A column's values; those of a list column are arrays, or None."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0)
    if not pa.types.is_list(column.type):
        return column.to_pylist()
    if column.values.null_count:
        raise NadError("its lists have holes")
    values, offsets = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
    missing = column.is_null().to_numpy(zero_copy_only=False)
    pieces = [values[a:b] for a, b in pairwise(offsets.tolist())]
    return [None if gone else piece for gone, piece in zip(missing, pieces, strict=True)]


def _sample(row: dict) -> GradedSample:
    found = [row[name] for name in _SIGNALS]
    if len({values is None for values in found}) > 1:
        raise ValueError("of its signals some are missing")
    signals = None if found[0] is None else Signals(*found)
    if not np.all(np.abs(row["peak"]) <= np.finfo(np.float16).max):
        raise ValueError("peaks must be numbers of 16 bits")
    neurons = ActivationSet(row["neuron"], row["first_token"], row["peak"].astype(np.float16))
    completion = Completion(
        row["sample"],
        tuple(row["tokens"].tolist()),
        row["text"],
        row["finish_reason"],
        neurons,
        signals,
        tuple(row["text_end"].tolist()),
    )
    return GradedSample(completion, row["answer"], row["correct"], row["seconds"], row["not_graded"])
