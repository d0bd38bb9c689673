"""300 rollouts of random sizes, stops, aborts and keeps over 8 threads: every answer right, and nothing left behind."""

import random
import threading
from typing import Any

import pytest
from sampled import sampled
from vllm_engines import OWN, RULE, assert_teacher_forced

from nad.neurons.activation import ActivationRule
from nad.stopping import At, Budget, Distinct, Never
from nad.types import Completion, SamplingParams

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(3600),
]
ROLLOUTS, THREADS = 300, 8
Answer = tuple[tuple[int, ...], list[Completion], ActivationRule | None]


def one(engine: Any, number: int) -> list[Answer]:
    """A rollout that stops, keeps and is left as its number says; what it answered with neurons."""
    dice = random.Random(number)
    prompt = tuple(dice.randrange(256) for _ in range(dice.randrange(1, 90)))
    params = SamplingParams(max_tokens=dice.randrange(2, 60), temperature=dice.choice([0.0, 0.6, 1.0]), seed=number)
    rule = dice.choice([RULE, OWN]) if dice.random() < 0.7 else None
    n = dice.randrange(1, 12)
    stop = dice.choice([At(dice.randrange(1, params.max_tokens + 1)), Budget(n * 8), Distinct(20), Never()])
    answers: list[Answer] = []
    with engine.start(prompt, n, params, rule, signals=dice.random() < 0.3) as rollout:
        for _ in rollout.until(stop):
            if dice.random() < 0.01:  # the client has left
                return answers
        group = rollout.group()
        answers.append((prompt, [c for c in group.completions if c.activations is not None], rule))
        kept = dice.sample(range(n), dice.randrange(1, n + 1))
        rollout.keep(kept, capture=dice.random() < 0.5)
        if dice.random() < 0.2:
            return answers
        for _ in rollout.until(At(group.position + 10)):
            pass
        answers.append((prompt, [c for c in rollout.group().completions if c.activations is not None], rule))
    return answers


def test_soak(cramped: Any, reference: Any) -> None:
    answers: list[Answer] = []
    errors: list[BaseException] = []
    memory: list[int] = []
    numbers = iter(range(ROLLOUTS))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                answers.extend(one(cramped, number))
            except BaseException as error:
                errors.append(error)
            if number % 50 == 0:
                memory.append(cramped.held()[0][1])

    sampled(cramped, (1, 2, 3), 8, SamplingParams(max_tokens=30), Never(), RULE)
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(len(completions) for _, completions, _ in answers) > ROLLOUTS
    for prompt, completions, rule in answers:
        if completions and rule is not None:
            assert_teacher_forced(reference, prompt, completions, rule)
    assert cramped.held()[0][0] == 0
    assert cramped._llm.get_num_unfinished_requests() == 0
    assert max(memory[1:]) < 1.05 * memory[1], f"the worker's memory grows: {memory}"
