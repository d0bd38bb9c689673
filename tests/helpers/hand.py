"""A planted run of three problems small enough to work out by hand, and what comes out of it.

Every sample has 64 tokens, the first 16 of them common; "4+1" is 4 shared and 1 private neuron a token.

| problem | sample 0 | sample 1 | sample 2 | sample 3 |
| a | right "7", 4+1, cluster 0 | as 0 | as 0 | wrong "8", 2+1, cluster 1 |
| b | right "9", 2+1, cluster 1 | wrong "1", 4+1, cluster 0 | wrong "1", as 1 | wrong "2", as 1 |
| c | right "7", 4+1, cluster 0 | as 0 | right "8", as 0 | wrong "8", 4+3, cluster 1 |

Right samples have 320 neurons, but 192 in b; wrong ones 192 in a, 320 in b, 448 in c.
The mean accuracies are 3/4, 1/4, 3/4. Votes: a right, b wrong, c a tie. Agreement chooses from cluster 0: right, wrong,
right. The fewest neurons: wrong, right, right; the most: right, wrong, wrong. All tokens after the common ones differ,
so the agreement of texts is the same for all pairs and its tie goes to sample 0, which is right in all three.
"""

from dataclasses import replace

from nad.analysis.summary import RunDigest, digest
from nad.runs.records import MemoryRun
from nad.testing.planted_runs import PlantedSample, planted_problem, planted_run

MANY = PlantedSample(common=16, answer="7", entropy=(0.1, 0.2), chunk_neurons=(100, 200))
FEW = replace(MANY, shared=2, cluster=1)
WRONG = {"correct": False, "answer": "8"}


def hand_run(task: str = "planted") -> MemoryRun:
    a = [MANY, MANY, MANY, replace(FEW, **WRONG)]
    b = [replace(FEW, answer="9"), *(replace(MANY, correct=False, answer=answer) for answer in ("1", "1", "2"))]
    c = [MANY, MANY, replace(MANY, answer="8"), replace(MANY, private=3, cluster=1, **WRONG)]
    return planted_run([planted_problem(name, samples) for name, samples in zip("abc", (a, b, c), strict=True)], task)


def named(run: MemoryRun, model: str, **changes: object) -> MemoryRun:
    """The run as if it were of this model."""
    return replace(run, manifest=replace(run.manifest, model=model, **changes))


def hand_digest(task: str = "planted", model: str = "planted") -> RunDigest:
    return digest(named(hand_run(task), model), characters=1000)
