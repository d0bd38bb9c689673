"""What tables, figures and the report need of a run, read in one pass: small enough to keep for every problem."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Int

from nad.analysis.outcomes import FULL, Outcome, Sheet, Tally, tallies
from nad.errors import NadError
from nad.neurons.activation import ActivationSet
from nad.neurons.agreement import consensus_curve
from nad.runs.records import GradedSample, Manifest, ProblemRecord, Run
from nad.selection import parse_selector
from nad.selection.base import SETS
from nad.stopping import CHUNK, At

AGREEMENT = (
    *("knn", "medoid", "dbscan", "minact", "maxact", "consensus-min", "consensus-max"),
    *("knn@tokens", "medoid@tokens", "dbscan@tokens"),
)
"""The selectors of tables, figures and the report; the last three are a control that does not read neurons."""
VOTE = "cons"
STRONGEST = (2_000, 20_000, 200_000)
"""The sequence-level top-k of Fig. 7; the whole set stands beside them."""


@dataclass(frozen=True, eq=False)
class ProblemDigest:
    """One problem's samples at its stop positions: 32, 64, 128, ... and, last, its longest sample.

    `correct` is 1, 0 or nan (not graded); `entropy` is each sample's mean in nats, nan without signals; `outcomes` says
    what each method did, by method and stop (a position before the last, or "none"); `text_end` is how many characters
    of a text stand there, None when that is not recorded; `growth` holds each sample's unique neurons at the end of
    each chunk; `chunks` holds unique neurons, mean entropy and mean self-certainty of each whole chunk; `strongest` is
    each sample's mean agreement with the others on its k strongest neurons, a row for each k of STRONGEST, None without
    peaks.
    """

    problem: str
    prompt: str
    texts: tuple[str, ...]
    text_end: Int[np.ndarray, "p n"] | None
    answers: tuple[str | None, ...]
    lengths: Int[np.ndarray, " n"]
    correct: Float[np.ndarray, " n"]
    entropy: Float[np.ndarray, " n"]
    positions: Int[np.ndarray, " p"]
    sizes: Int[np.ndarray, "p n"]
    similarity: Float32[np.ndarray, "p n n"]
    outcomes: Mapping[tuple[str, str], Outcome]
    distinct: Int[np.ndarray, " p"]
    computed: Int[np.ndarray, " p"]
    growth: tuple[Int[np.ndarray, " _"], ...]
    chunks: Float32[np.ndarray, "c 3"]
    strongest: Float[np.ndarray, "k n"] | None

    @property
    def n(self) -> int:
        return len(self.lengths)

    def outcome(self, method: str, position: int | None = None) -> Outcome:
        """What the method did at one of `positions`. None, or a position after all answers, stands for their end."""
        full = position is None or position >= self.positions[-1]
        return self.outcomes[method, FULL if full else str(position)]

    def chosen(self, method: str) -> list[int | None]:
        """The sample it picks at each of `positions`."""
        return [self.outcome(method, int(position)).index for position in self.positions]


def tallies_of(problems: Sequence[ProblemDigest], asked: Iterable[tuple[str, int | None]]) -> list[Tally]:
    """What these methods did at these stop positions, over these problems; None is the end of all answers."""
    return tallies([[problem.outcome(*pair) for problem in problems] for pair in asked])


@dataclass(frozen=True, eq=False)
class RunDigest:
    """A run's manifest and the digests of its problems."""

    manifest: Manifest
    problems: tuple[ProblemDigest, ...]

    @property
    def label(self) -> str:
        return f"{self.manifest.task}, {self.manifest.model}"

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """All stop positions of the run, up to its longest sample."""
        longest = max(int(p.positions[-1]) for p in self.problems)
        return (*_doubling(longest), longest)


def _doubling(longest: int) -> list[int]:
    positions = [CHUNK]
    while positions[-1] < longest:
        positions.append(2 * positions[-1])
    return positions[:-1]


def digest(run: Run, characters: int = 0, watch: Callable[[str], None] = lambda text: None) -> RunDigest:
    """Read a run once. Each text is kept up to `characters`, its middle left out when it is longer."""
    found = []
    for number, record in enumerate(run, 1):
        watch(f"reading {run.manifest.task}, {run.manifest.model}: problem {number} of {len(run)}")
        found.append(digest_problem(record, run.manifest, characters))
    problems = tuple(found)
    if not problems:
        raise NadError(f"the run of {run.manifest.task} holds no problems yet; record some with nad eval")
    return RunDigest(run.manifest, problems)


def digest_problem(record: ProblemRecord, manifest: Manifest, characters: int = 0) -> ProblemDigest:
    completions = [s.completion for s in record.samples]
    lengths = np.array([len(c.tokens) for c in completions])
    longest = int(lengths.max())
    positions = np.array([*_doubling(longest), longest])
    sheet = Sheet(record, manifest, {str(position): At(position) for position in _doubling(longest)})
    selectors = {spec: parse_selector(spec) for spec in (*AGREEMENT, VOTE)}
    consensus = [sheet.consensus("neurons")[position] for position in positions.tolist()]
    sets = SETS["neurons"](completions)
    growth = [a.growth(int(length)) for a, length in zip(sets, lengths, strict=True)]
    prefixes = record.group.prefixes
    return ProblemDigest(
        problem=record.problem,
        prompt=shortened(record.prompt, characters),
        text_end=_text_ends(record.samples, positions),
        texts=tuple(shortened(c.text, characters) for c in completions),
        answers=tuple(s.answer for s in record.samples),
        lengths=lengths,
        correct=np.array([np.nan if s.correct is None else float(s.correct) for s in record.samples]),
        entropy=np.array([np.nan if c.signals is None else float(c.signals.entropy.mean()) for c in completions]),
        positions=positions,
        sizes=np.stack([c.activated for c in consensus]),
        similarity=np.stack([c.similarity for c in consensus]).astype(np.float32),
        outcomes=sheet.outcomes(selectors, sheet.position),
        distinct=prefixes.distinct[positions - 1],
        computed=prefixes.computed[positions - 1],
        growth=tuple(np.append(g[CHUNK - 1 :: CHUNK], g[-1:] if len(g) % CHUNK else []).astype(int) for g in growth),
        chunks=chunk_signals(record.samples),
        strongest=_strongest_agreement(sets),
    )


def shortened(text: str, characters: int) -> str:
    """The text, or its beginning and end with a note of what was left out between them."""
    if len(text) <= characters:
        return text
    head, tail = characters - characters // 3, characters // 3
    note = f"\n[... {len(text) - head - tail:,} characters left out ...]\n"
    return text[:head] + note + text[len(text) - tail :] if characters else ""


def chunk_signals(samples: Iterable[GradedSample]) -> Float32[np.ndarray, "c 3"]:
    """Of every chunk of 32 tokens its unique neurons, its mean entropy and its mean self-certainty.

    The last chunk of a sample is left out when it is not whole: fewer tokens have fewer neurons; so is what was not
    captured.
    """
    rows = [np.zeros((0, 3))]
    for sample in samples:
        signals = sample.completion.signals
        if signals is None:
            continue
        whole = min(len(sample.completion.tokens) // CHUNK, len(signals.chunk_neurons))
        means = [x[: whole * CHUNK].reshape(-1, CHUNK).mean(1) for x in (signals.entropy, signals.self_certainty)]
        rows.append(np.stack([signals.chunk_neurons[:whole], *means], axis=1))
    return np.concatenate(rows).astype(np.float32)


def _text_ends(samples: Iterable[GradedSample], positions: Int[np.ndarray, " p"]) -> Int[np.ndarray, "p n"] | None:
    ends = [np.array(s.completion.text_end) for s in samples]
    if any(len(end) == 0 for end in ends):
        return None
    return np.stack([end[np.minimum(positions, len(end)) - 1] for end in ends], axis=1)


def _strongest_agreement(sets: Sequence[ActivationSet]) -> Float[np.ndarray, "k n"] | None:
    """Ranks instead of first tokens: the first k ranks are the k strongest neurons."""
    if len(sets) < 2 or not any(s.peak.any() for s in sets):
        return None
    largest = max(map(len, sets))
    ranked = [ActivationSet(s.neuron, _rank(s.peak), s.peak) for s in sets]
    similarity = consensus_curve(ranked, [min(k, largest) for k in STRONGEST])
    return (similarity.sum(axis=2) - 1) / (len(sets) - 1)


def _rank(peak: np.ndarray) -> np.ndarray:
    """0 for the largest peak; ties go to the smaller neuron id, as in ActivationSet.strongest."""
    rank = np.empty(len(peak), dtype=np.uint32)
    rank[np.argsort(-peak.astype(np.float32), kind="stable")] = np.arange(len(peak), dtype=np.uint32)
    return rank
