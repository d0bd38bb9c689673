"""What the capture costs inside vLLM, and what early stopping is worth there: plain and captured in turns, medians.

    python benchmarks/vllm_engine.py [--model M] [--rounds 5] [-n 64] [--tokens 32] [--answer 512] [--many 16]
    python benchmarks/vllm_engine.py --eval 32 [--model M] [--rounds 3] [-n 8] [--answer 128]

`capture_ratio`: n samples of so many tokens, with neurons recorded and read, over the same without.
`continuation_ratio`: seconds a token of the one sample that goes on to --answer tokens, where its beginning was
recorded, over one where it was not. `first_*`: seconds to the first position. `nad_over_one`: n prefixes, a choice and
the winner's rest, over one plain answer of that length. `many_ratio`: so many such requests at once, a thread each,
over full answers of all their samples.

With --eval nothing else: `nad eval` of so many problems of arithmetic, n answers each, with as many in flight as the
engine takes (`in_flight_s`) and one at a time (`in_turn_s`), in turns; `eval_ratio` is the second over the first.
(It is not called vllm.py: Python would find it instead of vLLM.)
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from nad.engines import load_engine
from nad.engines.base import Engine
from nad.neurons.activation import ActivationRule
from nad.runs.evaluate import evaluate
from nad.runs.sampling import Settings
from nad.selection import Candidates, parse_selector
from nad.stopping import At, Never
from nad.tasks import load_task
from nad.types import SamplingParams

PROMPT = "Once upon a time there was a miller who had three sons, and"
"""Continued as it is: an answer that seldom ends early."""


@dataclass(frozen=True)
class Times:
    """Seconds of a rollout: to the first position, to the stop with its read, of the rest; and the rest's tokens."""

    first: float
    prefixes: float
    rest: float
    tokens: int

    @property
    def a_token(self) -> float:
        return self.rest / max(1, self.tokens)


def timed(engine: Engine, n: int, stop: int, length: int, record: bool, seed: int, choose: bool = False) -> Times:
    """One rollout stopped at `stop`; the first sample, or with `choose` the chosen one, goes on to `length`."""
    prompt = engine.encode(PROMPT, raw=True)
    begin = time.perf_counter()
    params = SamplingParams(max_tokens=length, seed=seed)
    with engine.start(prompt, n, params, ActivationRule() if record else None) as rollout:
        first = 0.0
        for _ in rollout.until(At(stop)):
            first = first or time.perf_counter() - begin
        group = rollout.group()
        index = 0
        if choose:
            index = parse_selector("knn").choose(Candidates.of(group.completions, full=False)).index or 0
        stopped = time.perf_counter()
        tokens = 0
        if length > stop:
            rollout.keep([index], capture=False)
            for progress in rollout.until(Never()):
                tokens = progress.position - stop
        end = time.perf_counter()
    return Times(first, stopped - begin, end - stopped, tokens)


def in_turns(rounds: int, *runs: Callable[[int], float]) -> list[float]:
    """Each run's median, after one round that does not count."""
    for run in runs:
        run(0)
    found: list[list[float]] = []
    for seed in range(1, rounds + 1):
        found.append([run(seed) for run in runs])
        print("round", seed, *(f"{seconds:.3f}" for seconds in found[-1]), file=sys.stderr, flush=True)
    return [statistics.median(column) for column in zip(*found, strict=True)]


def at_once(many: int, work: Callable[[int], object]) -> float:
    begin = time.perf_counter()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def measured(engine: Engine, rounds: int, n: int, tokens: int, answer: int, many: int) -> dict[str, float]:
    plain, captured = in_turns(
        rounds,
        lambda seed: timed(engine, n, tokens, tokens, False, seed).prefixes,
        lambda seed: timed(engine, n, tokens, tokens, True, seed).prefixes,
    )
    first, first_captured = in_turns(
        rounds,
        lambda seed: timed(engine, n, 1, 1, False, seed).first,
        lambda seed: timed(engine, n, 1, 1, True, seed).first,
    )
    bare, after = in_turns(
        rounds,
        lambda seed: timed(engine, 4, tokens, answer, False, seed).a_token,
        lambda seed: timed(engine, 4, tokens, answer, True, seed).a_token,
    )
    one = in_turns(rounds, lambda seed: timed(engine, 1, 1, answer, False, seed).a_token)[0] * answer
    chosen = in_turns(rounds, lambda seed: timed(engine, n, tokens, tokens + 1, True, seed, choose=True).prefixes)[0]
    found = {
        "plain_s": plain,
        "plain_tokens_per_s": n * tokens / plain,
        "captured_s": captured,
        "capture_ratio": captured / plain,
        "first_plain_s": first,
        "first_captured_s": first_captured,
        "continuation_ratio": after / bare,
        "one_answer_s": one,
        "nad_over_one": (chosen + after * (answer - tokens)) / one,
    }
    if many:
        requests = at_once(many, lambda i: timed(engine, n, tokens, answer, True, i, choose=True))
        full = at_once(many, lambda i: timed(engine, n, answer, answer, False, i))
        found |= {"many_nad_s": requests, "many_full_s": full, "many_ratio": full / requests}
    return {name: round(value, 3) for name, value in found.items()}


def recorded(engine: Engine, at_once: int, problems: int, n: int, answer: int, seed: int) -> float:
    """Seconds that a run takes with so many problems in flight."""
    settings = Settings(n=n, params=SamplingParams(max_tokens=answer, seed=seed))
    rollouts, engine.rollouts = engine.rollouts, at_once  # type: ignore[misc]
    begin = time.perf_counter()
    try:
        with TemporaryDirectory() as folder:
            evaluate(engine, load_task("arithmetic", limit=problems), f"{folder}/run", settings)
    finally:
        engine.rollouts = rollouts  # type: ignore[misc]
    return time.perf_counter() - begin


def measured_eval(engine: Engine, rounds: int, problems: int, n: int, answer: int) -> dict[str, float]:
    most = engine.rollouts
    in_flight, in_turn = in_turns(
        rounds,
        lambda seed: recorded(engine, most, problems, n, answer, seed),
        lambda seed: recorded(engine, 1, problems, n, answer, seed),
    )
    found = {"in_flight_s": in_flight, "in_turn_s": in_turn, "eval_ratio": in_turn / in_flight}
    rate = {"problems_at_once": most, "samples_per_s": problems * n / in_flight}
    return {name: round(value, 3) for name, value in {**rate, **found}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="bfloat16")
    for name, default in (
        ("--rounds", 5),
        ("-n", 64),
        ("--tokens", 32),
        ("--answer", 512),
        ("--many", 0),
        ("--eval", 0),
    ):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--engine-arg", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    arguments = dict(pair.split("=", 1) for pair in given.engine_arg)
    engine = load_engine(given.model, "vllm", dtype=given.dtype, arguments=arguments)
    if given.eval:
        found = measured_eval(engine, given.rounds, given.eval, given.n, given.answer)
    else:
        found = measured(engine, given.rounds, given.n, given.tokens, given.answer, given.many)
    print(json.dumps({"model": engine.name, **found}, indent=1))
    engine.close()


if __name__ == "__main__":
    main()
