"""What 64 samples of 32 tokens cost, against `model.generate` of transformers on the same model.

Run: python benchmarks/sampling.py [--rounds 5] [--model M] [--prompts 10]

For each of ten prompts, alternating in one process, medians over the rounds:
- ours / generate: 64 x 32 tokens with the capture of all layers and the selection, against
  generate(num_return_sequences=64) without any capture, on a separately loaded, untouched model;
- capture: the same (the selection included) against our own loop without any capture;
- continuation: seconds per token of one continued answer, against generate of one sequence;
- computed: tokens forwarded for the 64 x 32 sampled ones; distinct: different prefixes at position 32.
At the end: peak memory of both over a long prompt, each in a process of its own (the prompt's keys and values are
kept once here), and the time from the command to the first token. Ratios mean something on a noisy machine, seconds
do not.
"""

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import psutil
import torch
from transformers import PreTrainedModel

from nad.engines import load_engine
from nad.engines.base import Engine
from nad.engines.model_files import locate
from nad.engines.transformers.auto_classes import read_stock, unpack
from nad.engines.transformers.loading import choose_device, choose_dtype
from nad.neurons.activation import ActivationRule
from nad.selection import Candidates, parse_selector
from nad.stopping import At, Never
from nad.types import Group, SamplingParams

N, TOKENS, CONTINUED = 64, 32, 48
LONG = "The committee met again on Tuesday and went through every open point of the plan, one after the other. " * 20
PROMPTS = {
    "math: train": "A train travels 60 km in 45 minutes. What is its speed in km/h?",
    "math: word problem": "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether in April and May? Think step by step.",
    "math: algebra": "Solve for x: 3x^2 - 12x + 9 = 0. Show your work.",
    "code: palindrome": "Write a Python function is_palindrome(s) that ignores case and punctuation.",
    "code: sql": "Write a SQL query that lists the ten customers with the highest total of orders in 2023.",
    "chat: greeting": "Hi! How are you today?",
    "chat: holiday": "I have three free days in October and like mountains and good food. Where should I go?",
    "fact: one word": "What is the capital of France?",
    "story": "Tell me a short story about a lighthouse keeper who finds a letter.",
    "long: minutes": f"{LONG}\n\nSummarise these minutes in one sentence.",
}


def sample(
    engine: Engine, prompt: tuple[int, ...], rule: ActivationRule | None, n: int = N, tokens: int = TOKENS
) -> Group:
    with engine.start(prompt, n, SamplingParams(max_tokens=tokens + CONTINUED), rule) as rollout:
        for _ in rollout.until(At(tokens)):
            pass
        return rollout.group()


def sample_and_select(engine: Engine, prompt: tuple[int, ...]) -> Group:
    group = sample(engine, prompt, ActivationRule())
    parse_selector("knn").choose(Candidates.of(group.completions, full=False))
    return group


def load_stock(name: str | None) -> PreTrainedModel:
    """The same model as transformers loads it."""
    device = choose_device("auto")
    model, _ = read_stock(locate(name, unpack, print), choose_dtype("auto", device))
    return model.to(device).eval()


def stock(model: PreTrainedModel, prompt: tuple[int, ...], n: int, tokens: int, least: int = 0) -> None:
    """transformers' own sampling of up to `tokens` tokens, `least` at least."""
    ids = torch.tensor([prompt], device=model.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_return_sequences=n,
        max_new_tokens=tokens,
        min_new_tokens=least,
        do_sample=True,
        temperature=0.6,
        top_p=0.9,
        top_k=0,
        pad_token_id=0,
    )


def per_token(engine: Engine, prompt: tuple[int, ...]) -> float:
    """Seconds per token of a continuation, the dropping of the losers included; 0 when the answer had ended."""
    with engine.start(prompt, N, SamplingParams(max_tokens=TOKENS + CONTINUED), None) as rollout:
        for _ in rollout.until(At(TOKENS)):
            pass
        winner = max(rollout.group().completions, key=lambda c: c.finish_reason is None)
        begin = time.perf_counter()
        rollout.keep([winner.index], capture=False)
        written = sum(1 for _ in rollout.until(Never()))
        return (time.perf_counter() - begin) / max(1, written)


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def measure(engine: Engine, model: PreTrainedModel, prompt: str, rounds: int) -> list[float]:
    """Medians for one prompt: seconds of generate, and the columns of the table."""
    tokens = engine.encode(prompt)
    group = sample_and_select(engine, tokens)
    columns = []
    for _ in range(rounds):
        ours = seconds(lambda: sample_and_select(engine, tokens))
        theirs = seconds(lambda: stock(model, tokens, N, TOKENS))
        bare = seconds(lambda: sample(engine, tokens, None))
        alone = seconds(lambda: stock(model, tokens, 1, CONTINUED, CONTINUED)) / CONTINUED
        columns.append((theirs, ours / theirs, ours / bare, per_token(engine, tokens) / alone))
    medians = [statistics.median(column) for column in zip(*columns, strict=True)]
    return [*medians, group.computed_tokens / (N * TOKENS), group.distinct]


def peak_mb(model: str | None, who: str) -> None:
    """Print by how much 64 samples after a long prompt raise this process' memory at most, in MB (not a GPU's)."""
    engine = load_engine(model)
    tokens = engine.encode(LONG)
    if who == "ours":
        few = partial(sample, engine, tokens[:20], None, 8, 2)
        many = partial(sample_and_select, engine, tokens)
    else:
        untouched = load_stock(model)
        few, many = partial(stock, untouched, tokens[:20], 8, 2), partial(stock, untouched, tokens, N, 4)
    few()
    process, done = psutil.Process(), threading.Event()
    before = largest = process.memory_info().rss

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.01):
            largest = max(largest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    many()
    done.set()
    watcher.join()
    print((largest - before) / 1e6)


def start_up(model: list[str], rounds: int) -> float:
    """Seconds of a whole process that writes one token."""
    one_token = ["generate", "Hello", "-n", "1", "--stop-at", "1", "--max-tokens", "1"]
    command = [sys.executable, "-c", "from nad.cli.main import entry; entry()", *one_token, *model]
    runs = [seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(rounds)]
    return statistics.median(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--model")
    parser.add_argument("--peak", choices=["ours", "generate"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak_mb(args.model, args.peak)
        return
    engine, untouched = load_engine(args.model), load_stock(args.model)
    print(f"{engine.name}, {untouched.dtype}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    print(f"{'prompt':<20} tokens  generate  ours/generate  capture  continuation  computed  distinct")
    rows = []
    for label, prompt in list(PROMPTS.items())[: args.prompts]:
        rows.append(measure(engine, untouched, prompt, args.rounds))
        show(label, len(engine.encode(prompt)), rows[-1])
    show("median", 0, [statistics.median(column) for column in zip(*rows, strict=True)])
    model = ["--model", args.model] if args.model else []
    for who in ("ours", "generate"):
        command = [sys.executable, __file__, "--peak", who, *model]
        grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"peak memory, 64 samples of {len(engine.encode(LONG))} prompt tokens, {who}: +{grown:,.0f} MB")
    print(f"command to first token: {start_up(model, args.rounds):.1f} s")


def show(label: str, tokens: int, row: list[float]) -> None:
    generate, ours, capture, continuation, computed, distinct = row
    print(
        f"{label:<20} {tokens:>6}  {generate:>6.2f} s  {ours:>13.3f}  {capture:>7.2f}  {continuation:>12.2f}"
        f"  {computed:>8.0%}  {distinct:>8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
