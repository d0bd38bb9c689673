"""Which of three given answers do the neurons agree on? Run: python examples/score_texts.py"""

from nad import ActivationRule, load_engine
from nad.neurons import consensus_matrix

PROMPT = "What is the capital of France?"
ANSWERS = ["The capital of France is Paris.", "The capital is Paris, on the Seine.", "France has no capital."]


def main() -> None:
    engine = load_engine()
    prompt = engine.encode(PROMPT)
    scored = [engine.score(prompt, engine.encode_completion(answer), ActivationRule()) for answer in ANSWERS]
    for answer, row in zip(ANSWERS, consensus_matrix([s.activations for s in scored]), strict=True):
        print(" ".join(f"{agreement:.2f}" for agreement in row), answer)


if __name__ == "__main__":
    main()
