"""How memory grows with the length of answers: peak of a process against what it must hold.

Run: python benchmarks/memory.py [--tokens 500,1000,2000,4000] [-n 1,4] [--model M]

Each line is a process of its own that samples n answers of so many tokens, end tokens ignored, without capture. What it
must hold are the weights, their packed copies and the keys and values of prompt and answers; `ratio` is the peak above
the memory of a process that has only imported everything, as a multiple of that. The goal is 1.5.
"""

import argparse
import resource
import subprocess
import sys

import psutil

PROMPT = "Write a very long story about a lighthouse keeper."


def sample(model: str | None, n: int, tokens: int) -> None:
    """Print the memory before the model is loaded, what must be held, and the peak, in MB."""
    from nad.engines import load_engine
    from nad.engines.transformers.engine import TransformersEngine
    from nad.stopping import At
    from nad.types import SamplingParams

    process = psutil.Process()
    before = process.memory_info().rss
    engine = load_engine(model)
    assert isinstance(engine, TransformersEngine)
    engine.eos = frozenset()
    config = engine._model.config.get_text_config()
    prompt = engine.encode(PROMPT)
    weights = sum(p.nbytes for p in engine._model.parameters())
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * engine._model.dtype.itemsize
    packed = weights if engine.notes and "packed" in engine.notes[0] else 0
    held = weights + packed + token * (len(prompt) + n * tokens)
    with engine.start(prompt, n, SamplingParams(max_tokens=tokens, temperature=1.0), None) as rollout:
        for _ in rollout.until(At(tokens)):
            pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(before / 1e6, held / 1e6, peak / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", default="500,1000,2000,4000")
    parser.add_argument("-n", default="1,4")
    parser.add_argument("--model")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        sample(args.model, *args.one)
        return
    model = ["--model", args.model] if args.model else []
    print(f"{'n':>3} {'tokens':>7} {'must hold':>10} {'peak':>9} {'ratio':>6}")
    for n in map(int, args.n.split(",")):
        for tokens in map(int, args.tokens.split(",")):
            command = [sys.executable, __file__, "--one", str(n), str(tokens), *model]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            before, held, peak = map(float, out.split())
            print(f"{n:>3} {tokens:>7} {held:>7.0f} MB {peak:>6.0f} MB {(peak - before) / held:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
