"""manifest.json: what a run was made with and its problems, as text and back, with every value's type checked."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nad.runs.parquet import SCHEMA_VERSION
from nad.runs.records import Manifest


class OtherSchema(ValueError):
    """A manifest of another schema version."""


def manifest_text(manifest: Manifest, problems: Sequence[str], digests: Sequence[str]) -> bytes:
    """The file: the schema's version, the manifest, and the id of each problem with the digest of what it asks."""
    listed = [list(pair) for pair in zip(problems, digests, strict=True)]
    document = {"schema": SCHEMA_VERSION, "manifest": asdict(manifest), "problems": listed}
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "replace")


def read_manifest(data: bytes) -> tuple[Manifest, tuple[str, ...], tuple[str, ...]]:
    """Manifest, ids and digests. Raises ValueError that says what is wrong."""
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("its brackets are too deep") from error
    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    if missing := {"schema", "manifest", "problems"} - document.keys():
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    if document["schema"] != SCHEMA_VERSION:
        raise OtherSchema(f"schema version {document['schema']}, but this nad reads version {SCHEMA_VERSION}")
    listed = _typed(tuple[tuple[str, str], ...], document["problems"], "problems")
    ids, digests = tuple(id for id, _ in listed), tuple(digest for _, digest in listed)
    if twice := {id for id in ids if ids.count(id) > 1} if len(set(ids)) < len(ids) else set():
        raise ValueError(f"problems: {min(twice)!r} stands there twice")
    manifest = _typed(Manifest, document["manifest"], "manifest")
    if manifest.n < 1:
        raise ValueError(f"manifest.n must be at least 1, got {manifest.n}")
    return manifest, ids, digests


def _typed(kind: Any, value: Any, name: str) -> Any:
    """The JSON value as this type has it: tuples for lists, dataclasses for objects. Raises ValueError."""
    if is_dataclass(kind):
        return _object(kind, value, name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return _typed(kind, value, name)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_typed(arguments[0], part, f"{name}[{i}]") for i, part in enumerate(value))
        if len(value) == len(arguments):
            return tuple(_typed(a, part, name) for a, part in zip(arguments, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _typed(arguments[1], part, f"{name}.{key}") for key, part in value.items()}
    if origin is Literal and value in arguments:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if origin is None and (kind is object or type(value) is kind):
        return value
    raise ValueError(f"{name} cannot be {json.dumps(value)[:40]}")


def _object(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object")
    hints = get_type_hints(kind)
    if unknown := value.keys() - {f.name for f in fields(kind)}:
        raise ValueError(f"{name} has {min(unknown)!r}, which this nad does not know")
    try:
        return kind(**{key: _typed(hints[key], part, f"{name}.{key}") for key, part in value.items()})
    except TypeError as error:
        raise ValueError(f"{name}: {str(error).partition('() ')[2] or error}") from error
