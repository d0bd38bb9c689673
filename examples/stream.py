"""The answer as it is written. Run: python examples/stream.py"""

import nad


def main() -> None:
    engine = nad.load_engine()
    request = nad.Request("Why is the sky blue?", n=8, params=nad.SamplingParams(max_tokens=96))
    for event in nad.stream(engine, request):
        if isinstance(event, nad.Selection):
            print(f"[{event.group.distinct} distinct prefixes, sample {event.choice.index} goes on]")
        elif isinstance(event, nad.Result):
            print(f"\n[{event.continued_tokens} tokens written after the choice]")
        else:
            print(event, end="", flush=True)


if __name__ == "__main__":
    main()
