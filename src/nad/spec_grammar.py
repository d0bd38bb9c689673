"""One grammar for everything that is named on the command line with parameters: `knn`, `knn:k=5`, `budget:1000`."""

from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any, TypeVar

from nad.errors import UsageError

T = TypeVar("T")


def parse_spec(spec: str, table: Mapping[str, type[T]], kind: str) -> T:
    """The value a spec names: `name`, `name:value` (the first parameter) or `name:key=value,...`.

    `table` maps names to frozen dataclasses; parameters take the type of the field's default.
    Raises UsageError for an unknown name, parameter or value.
    """
    name, _, rest = spec.partition(":")
    if name not in table:
        raise UsageError(f"unknown {kind} {name!r}; allowed: {', '.join(table)}")
    cls = table[name]
    known = {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, separator, text = part.partition("=")
        if not separator:
            key, text = next(iter(known), ""), part
        if key not in known:
            allowed = ", ".join(known) or "none"
            raise UsageError(f"{kind} {name!r} has no parameter {key!r}; allowed: {allowed}")
        if key in values:
            raise UsageError(f"{kind} {name}:{key} is given twice")
        values[key] = _convert(text, known[key], f"{kind} {name}:{key}")
    return cls(**values)


def with_entry_points(table: Mapping[str, type[T]], group: str) -> Mapping[str, type[T]]:
    """The table and what installed packages add to it through entry points of this group."""
    return {**table, **{point.name: point.load() for point in entry_points(group=group)}}


def _convert(text: str, default: object, where: str) -> object:
    kind = float if isinstance(default, float) else str if isinstance(default, str) else int
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{where} must be {kind.__name__}, got {text!r}") from None


def spec_of(value: object, table: Mapping[str, type]) -> str:
    """The spec that gives this value back: its name, and the parameters that differ from their defaults.

    A value of a class outside the table goes by the name of its class.
    """
    name = next((n for n, cls in table.items() if cls is type(value)), type(value).__name__)
    changed = [
        f"{f.name}={getattr(value, f.name)}"
        for f in fields(value)  # type: ignore[arg-type]
        if getattr(value, f.name) != f.default
    ]
    return f"{name}:{','.join(changed)}" if changed else name
