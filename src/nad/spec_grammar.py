"""One grammar for what is named with parameters: `knn`, `knn@tokens:k=5`, `budget:1000`."""

import math
from collections.abc import Mapping
from dataclasses import Field, fields
from importlib.metadata import entry_points
from typing import Any, TypeVar

from nad.errors import UsageError

T = TypeVar("T")


def parse_spec(spec: str, table: Mapping[str, type[T]], kind: str) -> T:
    """The value a spec names: `name`, `name:value` (the first parameter) or `name:key=value,...`.

    `table` maps names to frozen dataclasses; parameters take the type of the field's default. The parameter `of` is
    also written after the name: `name@value`. Raises UsageError for an unknown name, parameter or value.
    """
    head, _, rest = spec.partition(":")
    name, at, of = head.partition("@")
    if name not in table:
        raise UsageError(f"unknown {kind} {name!r}; allowed: {', '.join(table)}")
    cls = table[name]
    own = parameters(cls)
    known = {f.name: f.default for f in own}
    first = own[0].name if own and not own[0].kw_only else ""
    if at and "of" not in known:
        raise UsageError(f"{kind} {name!r} takes no @{of}; drop it")
    values: dict[str, Any] = {"of": of} if at else {}
    for part in filter(None, rest.split(",")):
        key, separator, text = part.partition("=")
        if not separator:
            key, text = first, part
        if key not in known:
            allowed = ", ".join(known) or "none"
            raise UsageError(f"{kind} {name!r} has no parameter {key!r}; allowed: {allowed}")
        if key in values:
            raise UsageError(f"{kind} {name}:{key} is given twice")
        values[key] = _convert(text, known[key], f"{kind} {name}:{key}")
    return cls(**values)


def parameters(cls: type) -> list[Field[Any]]:
    """The fields of a dataclass; those that must be given by name come last."""
    return sorted(fields(cls), key=lambda f: f.kw_only is True)


def with_entry_points(table: Mapping[str, type[T]], group: str) -> Mapping[str, type[T]]:
    """The table and what installed packages add to it through entry points of this group."""
    return {**table, **{point.name: point.load() for point in entry_points(group=group)}}


def _convert(text: str, default: object, where: str) -> object:
    kind = float if isinstance(default, float) else str if isinstance(default, str) else int
    try:
        value = kind(text)
    except ValueError:
        raise UsageError(f"{where} must be {kind.__name__}, got {text!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where} must be a finite number, got {text!r}")
    return value


def spec_of(value: object, table: Mapping[str, type]) -> str:
    """The spec that gives this value back: its name, and the parameters that differ from their defaults.

    A value of a class outside the table goes by the name of its class.
    """
    name = next((n for n, cls in table.items() if cls is type(value)), type(value).__name__)
    now = {f.name: (getattr(value, f.name), f.default) for f in parameters(type(value))}
    changed = {key: own for key, (own, default) in now.items() if own != default}
    if "of" in changed:
        name = f"{name}@{changed.pop('of')}"
    return f"{name}:{','.join(f'{key}={changed[key]}' for key in changed)}" if changed else name
