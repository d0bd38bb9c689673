"""When sampling stops and the choice is made (section 4.2; docs/decisions/0008-stop-rules.md)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from nad.errors import UsageError
from nad.prefixes import Level, PrefixTree
from nad.spec_grammar import parse_spec, spec_of

CHUNK = 32
"""The paper's chunk size and stop position B, in tokens."""


@dataclass(frozen=True)
class Progress:
    """Where sampling stands when every unfinished sample has `position` tokens.

    Of the `n` samples `unfinished` go on; they have `unfinished_prefixes` different prefixes. `distinct` counts the
    different prefixes of all samples, finished ones too. `computed` is the number of tokens computed for them so far.
    `tokens` holds each sample's tokens by its index. They are the engine's own lists, to be read and not kept: a sample
    may already have more than `position` of them.
    """

    n: int
    position: int
    distinct: int
    computed: int
    unfinished: int
    unfinished_prefixes: int
    tokens: Mapping[int, Sequence[int]] = field(default_factory=dict, repr=False, compare=False)


def progress_of(tree: PrefixTree) -> Iterator[Progress]:
    """The positions the samples in the tree have reached since the last call, one after the other."""
    for level in tree.levels():
        yield _progress(level, tree)


def _progress(level: Level, tree: PrefixTree) -> Progress:
    return Progress(
        n=len(tree.tokens),
        position=level.position,
        distinct=level.distinct,
        computed=level.computed,
        unfinished=level.unfinished,
        unfinished_prefixes=level.unfinished_prefixes,
        tokens=tree.tokens,
    )


@runtime_checkable
class StopRule(Protocol):
    """Says when all samples stop. `latest` is the position it must be able to reach, or None."""

    @property
    def latest(self) -> int | None: ...

    def reached(self, progress: Progress) -> bool: ...


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name} must be at least 1 token, got {value}")


@dataclass(frozen=True)
class At:
    """At a fixed position, the paper's rule."""

    tokens: int = field(default=CHUNK, metadata={"help": "the stop position"})

    def __post_init__(self) -> None:
        _positive("the stop position", self.tokens)

    @property
    def latest(self) -> int | None:
        return self.tokens

    def reached(self, progress: Progress) -> bool:
        return progress.position >= self.tokens


@dataclass(frozen=True)
class Never:
    """All samples run to their end; the choice is made on full answers."""

    latest = None

    def reached(self, progress: Progress) -> bool:
        return False


@dataclass(frozen=True)
class Distinct:
    """When the prefixes of all unfinished samples differ pairwise, at most at position `limit`."""

    limit: int = field(default=256, metadata={"help": "the last position it waits for"})

    def __post_init__(self) -> None:
        _positive("distinct:limit", self.limit)

    @property
    def latest(self) -> int | None:
        return None

    def reached(self, progress: Progress) -> bool:
        return progress.position >= self.limit or progress.unfinished_prefixes == progress.unfinished


@dataclass(frozen=True)
class Budget:
    """When the computed tokens reach `tokens`; 0 stands for n x 32, the tokens counted at the paper's position."""

    tokens: int = field(default=0, metadata={"help": "computed tokens; 0: n x 32"})

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise UsageError(f"budget:tokens must be at least 1, or 0 for n x {CHUNK}, got {self.tokens}")

    @property
    def latest(self) -> int | None:
        return None

    def reached(self, progress: Progress) -> bool:
        return progress.computed >= (self.tokens or progress.n * CHUNK)


STOP_RULES: Mapping[str, type[StopRule]] = {"at": At, "none": Never, "distinct": Distinct, "budget": Budget}


def parse_stop(spec: str) -> StopRule:
    """`32`, `none`, `distinct`, `distinct:128`, `budget`, `budget:1000`."""
    if re.fullmatch("-?[0-9]+", spec):
        return At(int(spec))
    named = {name: rule for name, rule in STOP_RULES.items() if name != "at"}
    if spec.partition(":")[0] not in named:
        raise UsageError(f"unknown stop rule {spec!r}; allowed: a position, {', '.join(named)}")
    return parse_spec(spec, named, "stop rule")


def check_reachable(stop: StopRule, max_tokens: int) -> None:
    """Raise UsageError for a stop position that completions of `max_tokens` never reach."""
    if stop.latest is not None and stop.latest > max_tokens:
        raise UsageError(f"the stop position {stop.latest} lies past max_tokens ({max_tokens})")


def stop_label(stop: StopRule) -> str:
    """The spec that gives this rule back."""
    return str(stop.tokens) if isinstance(stop, At) else spec_of(stop, STOP_RULES)


def stop_position(stop: StopRule, completions: Sequence[Sequence[int]]) -> int:
    """The position, in tokens, at which `stop` stops these complete answers; the longest one's length at most."""
    longest = max(map(len, completions))
    if isinstance(stop, Never):
        return longest
    if isinstance(stop, At):
        return min(stop.tokens, longest)
    tree = PrefixTree(len(completions))
    for i, tokens in enumerate(completions):
        tree.add(i, tokens, ended=True)
    return next((p.position for p in progress_of(tree) if stop.reached(p)), longest)
