"""The answer as it is written. Run: python examples/stream.py"""

import nad


def main() -> None:
    engine = nad.load_engine()
    request = nad.Request("Why is the sky blue?", n=8, params=nad.SamplingParams(max_tokens=96))
    for event in nad.stream(engine, request):
        match event:
            case nad.Selected(group, choice):
                print(f"[{group.distinct} distinct prefixes, sample {choice.index} goes on]")
            case nad.Text(text):
                print(text, end="", flush=True)
            case nad.Finished(result):
                print(f"\n[{result.continued_tokens} tokens written after the choice]")


if __name__ == "__main__":
    main()
