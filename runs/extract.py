"""From recorded runs to the compact extract that RESULTS.md is made from.

    python runs/extract.py RUN...     writes NAME.parquet and NAME.json (its manifest) to runs/extract

A row is a problem. Matrices are symmetric with a diagonal of ones: their upper triangle is kept, in float16. They grow
with the square of n: of runs with more than MOST samples only the two main ones are kept, for full answers, and how far
each sample agrees with all at every position. Of runs with another activation rule the two main ones are kept alone.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from agreements import AT_THE_END, EVERYWHERE, Problem
from jaxtyping import Float, Num

from nad.analysis.summary import chunk_signals
from nad.neurons.activation import ActivationRule
from nad.runs.records import GradedSample, Manifest, ProblemRecord, Run
from nad.runs.store import open_run

POSITIONS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 1 << 20)
"""Where agreements are kept; the last is the end of all answers."""
MOST = 32
"""Samples of which all agreements are kept."""
SIGNALS = ("logprob", "entropy", "self_certainty", "confidence")
FOLDER = Path(__file__).parent / "extract"


def mean_of(agreement: str) -> str:
    """The column of how far each sample agrees with all."""
    return f"{agreement}, mean"


def triangle(matrix: Num[np.ndarray, "*p n n"]) -> Num[np.ndarray, "*p pairs"]:
    """What is kept of symmetric matrices."""
    i, j = np.triu_indices(matrix.shape[-1], k=1)
    return matrix[..., i, j]


def background(run: Run) -> Float[np.ndarray, "2 neurons"]:
    """The share of samples that activate each neuron: of the problems at even places, and of those at odd ones."""
    counts, samples = np.zeros((2, run.manifest.neurons)), np.zeros((2, 1))
    for place, record in enumerate(run):
        for sample in record.samples:
            assert sample.completion.activations is not None
            counts[place % 2, sample.completion.activations.neuron] += 1
            samples[place % 2] += 1
    return counts / np.maximum(samples, 1)


def row(record: ProblemRecord, manifest: Manifest, common: Float[np.ndarray, " neurons"]) -> dict[str, object]:
    """What is kept of one problem."""
    completions = [s.completion for s in record.samples]
    problem = Problem.of(completions, manifest.layers, manifest.neurons, common)
    kept: dict[str, object] = {
        "problem": record.problem,
        "correct": [s.correct for s in record.samples],
        "vote": _votes(record.samples) if manifest.votes else [-1] * len(completions),
        "length": [len(c.tokens) for c in completions],
        "shared": triangle(problem.shared).astype(np.uint16),
        "activated": np.stack([(problem.first < t).sum(axis=1) for t in POSITIONS]).astype(np.uint32).ravel(),
    }
    kept["chunks"] = chunk_signals(record.samples).astype(np.float16).ravel()
    for name in SIGNALS:
        kept[name] = _means(record.samples, name).astype(np.float16).ravel()
    end = max(len(c.tokens) for c in completions)
    positions = [min(t, end) for t in POSITIONS]
    for name, agreement in EVERYWHERE.items():
        matrices = agreement(problem, positions)
        if len(completions) > MOST:
            kept[mean_of(name)] = matrices.mean(axis=2).astype(np.float32).ravel()
            matrices = matrices[-1:]
        kept[name] = triangle(matrices).astype(np.float16).ravel()
    if len(completions) <= MOST and manifest.rule == ActivationRule():
        for name, agreement in AT_THE_END.items():
            kept[name] = triangle(agreement(problem, [end])).astype(np.float16).ravel()
    return kept


def _votes(samples: Sequence[GradedSample]) -> list[int]:
    """Each answer's number among the problem's answers, -1 for none."""
    answers = sorted({s.answer for s in samples if s.answer is not None})
    return [-1 if s.answer is None else answers.index(s.answer) for s in samples]


def _means(samples: Sequence[GradedSample], name: str) -> Float[np.ndarray, "positions n"]:
    """The signal's mean over the tokens before each position."""
    signals = [getattr(s.completion.signals, name) for s in samples]
    return np.array([[x[:t].mean() for x in signals] for t in POSITIONS])


def write(run: Run, name: str, folder: Path = FOLDER) -> Path:
    """The run's extract: its table and its manifest."""
    manifest, other = run.manifest, background(run)
    rows = [row(record, manifest, other[1 - place % 2]) for place, record in enumerate(run)]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd", compression_level=19)
    described = {**manifest.settings, **manifest.circumstances, "n": manifest.n, "data_sha256": manifest.data_sha256}
    described.pop("command")  # it names local paths
    file.with_suffix(".json").write_text(json.dumps(described, indent=1, default=vars) + "\n")
    return file


def main(paths: Iterable[str]) -> None:
    for path in paths:
        file = write(open_run(path, partial=True), Path(path).name)
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
