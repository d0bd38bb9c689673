"""The extract in memory: what each method chooses from it, whether that is right, and what it costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from agreements import AT_THE_END, EVERYWHERE
from extract import FOLDER, POSITIONS, SIGNALS, mean_of
from jaxtyping import Float, Int

from nad.analysis.statistics import Estimate, auroc, estimates
from nad.selection.agreement import DBSCAN, KNN, Medoid
from nad.selection.base import Consensus, best
from nad.stopping import At, Look, Schedule

END = len(POSITIONS) - 1


@dataclass(frozen=True, eq=False)
class Problem:
    """One problem's samples. The first axis of `activated`, `signals`, `agreement` and `means` is the place in
    POSITIONS.

    Of many samples the extract has matrices of full answers alone, and `means`: how far each agrees with all.
    `chunks` has the unique neurons, the mean entropy and the mean self-certainty of every chunk of 32 tokens.
    """

    name: str
    correct: Float[np.ndarray, " n"]
    vote: Int[np.ndarray, " n"]
    length: Int[np.ndarray, " n"]
    shared: Int[np.ndarray, "n n"]
    activated: Int[np.ndarray, "positions n"]
    signals: Mapping[str, Float[np.ndarray, "positions n"]]
    agreement: Mapping[str, Float[np.ndarray, "positions n n"]]
    means: Mapping[str, Float[np.ndarray, "positions n"]]
    chunks: Float[np.ndarray, "chunks 3"]

    @property
    def n(self) -> int:
        return len(self.length)

    def similarity(self, of: str, place: int) -> Float[np.ndarray, "n n"]:
        """How far the samples agree at this place of POSITIONS; what is kept for full answers only, there alone."""
        matrices = self.agreement[of]
        if len(matrices) == 1 and place != END:
            raise KeyError(f"{of} is kept for full answers only")
        return matrices[place if len(matrices) > 1 else 0]

    def among(self, samples: Sequence[int]) -> "Problem":
        """The same problem with these samples alone."""
        if len(samples) == self.n:
            return self
        pairs = np.ix_(samples, samples)
        return replace(
            self,
            correct=self.correct[samples],
            vote=self.vote[samples],
            length=self.length[samples],
            shared=self.shared[pairs],
            activated=self.activated[:, samples],
            signals={name: means[:, samples] for name, means in self.signals.items()},
            agreement={name: matrices[:, *pairs] for name, matrices in self.agreement.items()},
            means={},
        )

    def computed(self, position: int, begin: int = 0) -> int:
        """Tokens computed after `begin` and up to `position`, identical prefixes once."""
        known = np.tril(self.shared, k=-1).max(axis=1, initial=0)
        return int((np.minimum(self.length, position) - np.clip(known, begin, position)).clip(min=0).sum())

    def distinct(self, position: int) -> int:
        """Pairwise different prefixes."""
        same = self.shared >= np.minimum(np.maximum(self.length[:, None], self.length[None, :]), position)
        return int((~np.triu(same.T, k=1).any(axis=0)).sum())


def load(name: str, folder: Path = FOLDER) -> list[Problem]:
    """The problems of an extract, in the task's order."""
    return [_problem(row) for row in pq.read_table(folder / f"{name}.parquet").to_pylist()]


def _problem(row: dict[str, list[float]]) -> Problem:
    n, places = len(row["length"]), len(POSITIONS)

    def matrices(name: str, diagonal: float | np.ndarray) -> np.ndarray:
        flat = np.array(row[name], dtype=float).reshape(-1, n * (n - 1) // 2)
        full = np.zeros((len(flat), n, n))
        full[:, *np.triu_indices(n, k=1)] = flat
        full += full.transpose(0, 2, 1)
        full[:, np.arange(n), np.arange(n)] = diagonal
        return full

    length = np.array(row["length"], dtype=int)
    return Problem(
        name=str(row["problem"]),
        correct=np.array([np.nan if c is None else float(c) for c in row["correct"]]),
        vote=np.array(row["vote"], dtype=int),
        length=length,
        shared=matrices("shared", length)[0].astype(int),
        activated=np.array(row["activated"], dtype=int).reshape(places, n),
        signals={name: np.array(row[name], dtype=float).reshape(places, n) for name in SIGNALS},
        agreement={name: matrices(name, 1.0) for name in (*EVERYWHERE, *AT_THE_END) if name in row},
        means={name: np.array(row[mean_of(name)]).reshape(places, n) for name in EVERYWHERE if mean_of(name) in row},
        chunks=np.array(row.get("chunks", []), dtype=float).reshape(-1, 3),
    )


Method = Callable[[Problem, int], Float[np.ndarray, " n"]]
"""The scores of a problem's samples at a place of POSITIONS; the first of the largest is chosen."""


def knn(of: str = "neurons", k: int = 3) -> Method:
    return lambda problem, place: _tied(KNN(k=k), problem, of, place)


def medoid(of: str = "neurons") -> Method:
    def scores(problem: Problem, place: int) -> Float[np.ndarray, " n"]:
        if of in problem.means:
            return problem.means[of][place]
        return Medoid().among(_consensus(problem, of, place)).scores

    return scores


def dbscan(of: str = "neurons", quantile: float = 0.3) -> Method:
    return lambda problem, place: DBSCAN(quantile=quantile).among(_consensus(problem, of, place)).scores


def mixed(*parts: tuple[str, float]) -> Method:
    """The medoid of a weighted sum of agreements."""

    def scores(problem: Problem, place: int) -> Float[np.ndarray, " n"]:
        return sum(weight * problem.similarity(of, place).sum(axis=1) for of, weight in parts)  # type: ignore[return-value]

    return scores


def _consensus(problem: Problem, of: str, place: int) -> Consensus:
    return Consensus(problem.similarity(of, place), problem.activated[place])


def _tied(selector: KNN, problem: Problem, of: str, place: int) -> Float[np.ndarray, " n"]:
    """kNN's scores with its own choice first among equal ones."""
    choice = selector.among(_consensus(problem, of, place))
    scores = choice.scores.copy()
    scores[choice.index] += 1e-9
    return scores


METHODS: Mapping[str, Method] = {
    "knn": knn(),
    "medoid": medoid(),
    "dbscan": dbscan(),
    "knn@tokens": knn("tokens"),
    "medoid@tokens": medoid("tokens"),
    "dbscan@tokens": dbscan("tokens"),
    "medoid@bigrams": medoid("bigrams"),
    "minact": lambda p, place: -p.activated[place].astype(float),
    "maxact": lambda p, place: p.activated[place].astype(float),
    "shortest": lambda p, place: -p.length.astype(float),
    "logprob": lambda p, place: p.signals["logprob"][place],
    "entropy": lambda p, place: -p.signals["entropy"][place],
    "self-certainty": lambda p, place: p.signals["self_certainty"][place],
    "deepconf": lambda p, place: p.signals["confidence"][place],
}

AT_STOPS = [name for name in METHODS if name not in ("medoid@bigrams", "shortest")]
"""What can be read of prefixes from the extract; all prefixes are of one length."""


def accuracy(problems: Sequence[Problem], method: Method, place: int = END) -> Float[np.ndarray, " problems"]:
    """Whether what the method chooses is right, problem by problem."""
    return np.array([p.correct[best(method(p, place))] for p in problems])


def average(problems: Sequence[Problem]) -> Float[np.ndarray, " problems"]:
    """Avg@n."""
    return np.array([np.nanmean(p.correct) for p in problems])


def majority(problems: Sequence[Problem]) -> Float[np.ndarray, " problems"]:
    """Cons@n: whether the most frequent answer is right; a tie fails."""
    found = []
    for problem in problems:
        votes = problem.vote[problem.vote >= 0]
        counts = np.bincount(votes) if len(votes) else np.zeros(1, dtype=int)
        first = np.flatnonzero(counts == counts.max())
        right = len(first) == 1 and counts.max() > 0 and problem.correct[problem.vote == first[0]].any()
        found.append(float(right))
    return np.array(found)


def difference(a: Float[np.ndarray, " problems"], b: Float[np.ndarray, " problems"]) -> Estimate:
    """The mean of a - b over problems, with its 95 % interval."""
    return estimates((a - b)[:, None])[0]


def cost(problems: Sequence[Problem], method: Method, place: int) -> Float[np.ndarray, " problems"]:
    """Tokens computed for the prefixes and the winner's rest, as a share of those of all full answers."""
    shares = []
    for problem in problems:
        position = POSITIONS[place]
        winner = best(method(problem, place))
        rest = max(0, int(problem.length[winner]) - position)
        shares.append((problem.computed(position) + rest) / problem.computed(POSITIONS[END]))
    return np.array(shares)


@dataclass(frozen=True)
class Followed:
    """Where a schedule's choice stands: whether it is right, and its cost as a share of all full answers' tokens."""

    correct: float
    share: float
    position: int


def follow(problem: Problem, method: Method, schedule: Schedule) -> Followed:
    """A schedule whose positions are all in POSITIONS."""
    looks: list[Look] = []
    samples, position, computed = list(range(problem.n)), 0, 0
    longest = int(problem.length.max())
    while step := schedule.step(looks):
        if step.keep is not None and looks:
            samples = sorted(looks[-1].best(step.keep))
        assert isinstance(step.stop, At)
        some, begin = problem.among(samples), position
        position = step.stop.tokens
        computed += some.computed(position, begin)
        scores = method(some, POSITIONS.index(position))
        winner = samples[best(scores)]
        looks.append(Look(min(position, longest), computed, some.distinct(position), tuple(samples), scores, winner))
    winner = looks[-1].chosen
    rest = max(0, int(problem.length[winner]) - position)
    return Followed(problem.correct[winner], (computed + rest) / problem.computed(POSITIONS[END]), position)


def right_wrong_auroc(problem: Problem, scores: Float[np.ndarray, " n"]) -> float:
    """How well the scores rank right samples above wrong ones; nan where all are one or the other."""
    return auroc(scores[problem.correct == 1], scores[problem.correct == 0])
