"""The best of 16 answers, and what the choice was made from. Run: python examples/best_of_n.py"""

import nad


def main() -> None:
    engine = nad.load_engine()  # the default model is tiny and weak; name a better one here
    result = nad.generate(
        engine,
        "Name three prime numbers larger than 20.",
        n=16,
        stop=nad.Budget(),
        params=nad.SamplingParams(max_tokens=128),
    )
    print(result.text)
    print(f"\n{result.group.distinct} of 16 prefixes distinct after {result.group.position} tokens")
    for completion, score in zip(result.group.completions, result.scores, strict=True):
        chosen = "*" if completion.index == result.selected else " "
        print(f"{chosen} {score:.3f} {len(completion.activations):6,} neurons  {completion.text[:60]!r}")


if __name__ == "__main__":
    main()
