"""When sampling stops and the choice is made (section 4.2; docs/decisions/0008-stop-rules.md)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

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


@dataclass(frozen=True, eq=False)
class Look:
    """The choice as it would fall at one stop, among the samples that are left; scores are larger for better ones.

    Samples are named by their index. `computed` is the number of tokens computed so far, for the dropped ones too.
    """

    position: int
    computed: int
    distinct: int
    samples: tuple[int, ...]
    scores: Float[np.ndarray, " left"]
    chosen: int

    def best(self, count: int) -> list[int]:
        """The chosen sample and the next best, best first."""
        order = [self.samples[place] for place in np.argsort(-self.scores, kind="stable")]
        return [self.chosen, *(sample for sample in order if sample != self.chosen)][:count]


@dataclass(frozen=True)
class Step:
    """Go on to `stop` with the `keep` best samples of the last look; with all of them where it is None."""

    stop: StopRule
    keep: int | None = None


@runtime_checkable
class Schedule(StopRule, Protocol):
    """A stop rule that looks at the choice on the way; `latest` and `reached` bound it for those who do not look."""

    def step(self, looks: Sequence[Look]) -> Step | None:
        """What to do after these looks, one for each step so far; None: the last one's choice stands."""


@dataclass(frozen=True)
class Prune:
    """Drop samples step by step: of `stages` (samples, position) each goes on with so many samples to a position.

    `64:32,16:128,4:512` samples 64 to 32 tokens, then the 16 best of them to 128, then the 4 best of those to 512.
    """

    stages: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        counts, positions = zip(*self.stages, strict=True)
        if any(a <= b for a, b in pairwise(counts)) or counts[-1] < 1:
            raise UsageError(f"prune {self}: each stage must have fewer samples than the one before, at least 1")
        if any(a >= b for a, b in pairwise(positions)) or positions[0] < 1:
            raise UsageError(f"prune {self}: each stage must stop later than the one before, at token 1 or later")

    def __str__(self) -> str:
        return ",".join(f"{samples}:{position}" for samples, position in self.stages)

    @property
    def latest(self) -> int | None:
        return self.stages[-1][1]

    def reached(self, progress: Progress) -> bool:
        return progress.position >= self.stages[-1][1]

    def step(self, looks: Sequence[Look]) -> Step | None:
        if len(looks) == len(self.stages):
            return None
        samples, position = self.stages[len(looks)]
        return Step(At(position), keep=samples)


@dataclass(frozen=True)
class Settled:
    """When the choice has settled: looks at 16, 24, 32, 48, 64, ... tokens, and stops where `window` of them in a row
    chose the same sample while at least the share `distinct` of the prefixes differed.

    It also stops before the look at which the computed tokens could exceed `tokens`; 0 stands for n x 64.
    """

    window: int = field(default=2, metadata={"help": "looks in a row that choose the same sample"})
    distinct: float = field(default=0.5, metadata={"help": "share of the prefixes that must differ"})
    tokens: int = field(default=0, metadata={"help": "computed tokens at most; 0: n x 64"})

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UsageError(f"auto:window must be at least 1 look, got {self.window}")
        if not 0 <= self.distinct <= 1:
            raise UsageError(f"auto:distinct must be in [0, 1], got {self.distinct}")
        if self.tokens < 0:
            raise UsageError(f"auto:tokens must be at least 1, or 0 for n x {2 * CHUNK}, got {self.tokens}")

    @property
    def latest(self) -> int | None:
        return None

    def reached(self, progress: Progress) -> bool:
        return progress.computed >= (self.tokens or progress.n * 2 * CHUNK)

    def step(self, looks: Sequence[Look]) -> Step | None:
        if not looks:
            return Step(At(CHUNK // 2))
        last = looks[-1]
        n, later = len(last.samples), _next_look(last.position)
        costly = last.computed + n * (later - last.position) > (self.tokens or n * 2 * CHUNK)
        ended = len(looks) > 1 and looks[-2].position == last.position
        return None if costly or ended or self._settled(looks) else Step(At(later))

    def _settled(self, looks: Sequence[Look]) -> bool:
        window = looks[-self.window :]
        differ = all(look.distinct >= self.distinct * len(look.samples) for look in window)
        return len(window) == self.window and differ and len({look.chosen for look in window}) == 1


def _next_look(position: int) -> int:
    """16, 24, 32, 48, 64, ...: two looks each time the number of tokens doubles."""
    power = 1 << (position.bit_length() - 1)
    return 3 * power // 2 if position < 3 * power // 2 else 2 * power


STOP_RULES: Mapping[str, type[StopRule]] = {
    "at": At,
    "none": Never,
    "distinct": Distinct,
    "budget": Budget,
    "auto": Settled,
}


def parse_stop(spec: str) -> StopRule:
    """`32`, `none`, `distinct`, `distinct:128`, `budget`, `budget:1000`, `64:32,16:128`."""
    if re.fullmatch("-?[0-9]+", spec):
        return At(int(spec))
    if re.match("[0-9]+:", spec):
        return parse_prune(spec)
    named = {name: rule for name, rule in STOP_RULES.items() if name != "at"}
    if spec.partition(":")[0] not in named:
        raise UsageError(f"unknown stop rule {spec!r}; allowed: a position, {', '.join(named)}")
    return parse_spec(spec, named, "stop rule")


def parse_prune(spec: str) -> Prune:
    """`64:32,16:128,4:512`: SAMPLES:POSITION, stage by stage."""
    stages = [re.fullmatch("([0-9]+):([0-9]+)", stage.strip()) for stage in spec.split(",")]
    if not all(stages):
        raise UsageError(f"prune {spec!r} must be SAMPLES:POSITION,...; e.g. 64:32,16:128,4:512")
    return Prune(tuple((int(stage[1]), int(stage[2])) for stage in stages if stage))


def check_reachable(stop: StopRule, max_tokens: int) -> None:
    """Raise UsageError for a stop position that completions of `max_tokens` never reach."""
    if stop.latest is not None and stop.latest > max_tokens:
        raise UsageError(f"the stop position {stop.latest} lies past max_tokens ({max_tokens})")


def stop_label(stop: StopRule) -> str:
    """The spec that gives this rule back."""
    if isinstance(stop, Prune):
        return str(stop)
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
