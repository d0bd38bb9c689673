"""What recording costs, and how fast a recorded run is selected from.

    python benchmarks/eval.py recording [--problems 4] [-n 16] [--max-tokens 128]
    python benchmarks/eval.py selection [--problems 100] [-n 64]

`recording` samples the same problems of the task arithmetic_1 with the default model twice, in turns: bare (neurons
and signals captured, nothing kept) and recorded (`nad eval`: stored, graded, synced to the disk). It prints the share
of the time that recording added, without the start of the grading process, which a run pays once.
`selection` makes a run of the default model's size (46,080 neurons) and tables every selector and baseline at 10
stops. It prints seconds and the peak memory of the process.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from nad.analysis.comparison import parse_stops, reselect
from nad.neurons.activation import ActivationRule, activation_set
from nad.runs.evaluate import evaluate
from nad.runs.records import GradedSample, Manifest, ProblemRecord
from nad.runs.sampling import Settings, sample_problem
from nad.runs.store import RunStore
from nad.runs.text_ends import Spans
from nad.selection import default_selectors
from nad.types import Completion, SamplingParams, Signals

STOPS = "32,64,96,128,192,256,384,budget,distinct,none"
NEURONS = 46_080


def recording(problems: int, n: int, max_tokens: int) -> dict[str, float]:
    """Seconds of sampling bare and recorded, and the share recording adds."""
    import torch

    from nad.engines import load_engine
    from nad.tasks import load_task

    engine, task = load_engine(), load_task("arithmetic_1", limit=problems)
    settings = Settings(n=n, params=SamplingParams(max_tokens=max_tokens))
    spans = Spans(engine.decode)

    def bare() -> float:
        begin = time.perf_counter()
        for problem in task.problems():
            sample_problem(engine, task, problem, settings, spans, lambda progress: None)
        return time.perf_counter() - begin

    def recorded() -> float:
        """From the first problem to the last grade, so that the start of the other process does not count."""
        with tempfile.TemporaryDirectory() as folder:
            ticks: list[float] = []
            evaluate(engine, task, f"{folder}/run", settings, watch=lambda p: ticks.append(time.perf_counter()))
            return time.perf_counter() - ticks[0]

    bare()
    rounds = [(bare(), recorded()) for _ in range(3)]
    seconds = [min(column) for column in zip(*rounds, strict=True)]
    return {
        "problems": problems,
        "n": n,
        "max_tokens": max_tokens,
        "threads": torch.get_num_threads(),
        "bare_s": round(seconds[0], 2),
        "recorded_s": round(seconds[1], 2),
        "added": round(seconds[1] / seconds[0] - 1, 4),
    }


def selection(problems: int, n: int) -> dict[str, float]:
    """Seconds and peak memory of the whole table over a made-up run."""
    with tempfile.TemporaryDirectory() as folder:
        store = _made_up_run(f"{folder}/run", problems, n)
        size = sum(part.stat().st_size for part in Path(folder).rglob("*.parquet"))
        begin, cpu = time.perf_counter(), time.process_time()
        rows = reselect(store, default_selectors(), parse_stops(STOPS)).rows
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "problems": problems,
        "n": n,
        "stops": STOPS.count(",") + 1,
        "methods": len(default_selectors()),
        "rows": len(rows),
        "run_mb": round(size / 1e6, 1),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_gb": round(peak, 2),
    }


def _made_up_run(path: str, problems: int, n: int) -> RunStore:
    manifest = Manifest(
        model="made up",
        engine="none",
        task="made up",
        data_sha256="",
        n=n,
        stop_at="none",
        params=SamplingParams(),
        rule=ActivationRule(),
        layers=30,
        neurons=NEURONS,
    )
    store = RunStore.create(path, manifest, [f"p{i}" for i in range(problems)])
    for i in range(problems):
        draw = np.random.default_rng(i)
        samples = tuple(_made_up_sample(index, draw) for index in range(n))
        store.write(i, ProblemRecord(f"p{i}", tuple(range(60)), samples, n * 400))
    return store


def _made_up_sample(index: int, draw: np.random.Generator) -> GradedSample:
    """300 to 512 tokens that begin alike, and neurons at rates spread as a model's are."""
    length = int(draw.integers(300, 513))
    shared = int(draw.integers(5, 60))
    tokens = (*range(shared), *draw.integers(0, 49_152, length - shared).tolist())
    first = draw.exponential(150 * np.exp(draw.normal(0, 1.6, NEURONS)))
    neuron = np.flatnonzero(first < length)
    found = activation_set(neuron, first[neuron].astype(int), draw.random(len(neuron)))
    rows = [draw.random(length).astype(np.float32) for _ in range(4)]
    signals = Signals(-rows[0], *rows[1:], np.full(-(-length // 32), 5000, np.uint16))
    ends = tuple(range(length))
    completion = Completion(index, tokens, "x" * length, "stop", found, signals, ends)
    answer = str(draw.integers(4))
    return GradedSample(completion, answer, answer == "0", 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["recording", "selection"])
    parser.add_argument("--problems", type=int)
    parser.add_argument("-n", type=int)
    parser.add_argument("--max-tokens", type=int, default=128)
    arguments = parser.parse_args()
    if arguments.what == "recording":
        found = recording(arguments.problems or 4, arguments.n or 16, arguments.max_tokens)
    else:
        found = selection(arguments.problems or 100, arguments.n or 64)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
