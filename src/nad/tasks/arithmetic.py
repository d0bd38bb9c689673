"""Arithmetic made from a seed: works offline, with exact answers.

Source: made here. `arithmetic` mixes three levels, level 1 the easiest. Sample item (level 2, seed 0):
    question "What is 8 * 7 + 96?", answer "152"
"""

import random
from collections.abc import Callable, Mapping

from nad.errors import UsageError
from nad.tasks.base import Options, Problem, Task
from nad.tasks.math import MathTask

PROBLEMS = 200


def _expression(level: int, draw: random.Random) -> str:
    """Level 1: one sum of two digits each; 2: a product and a sum; 3: parentheses and larger factors."""
    if level == 1:
        return f"{draw.randint(2, 49)} {draw.choice('+-')} {draw.randint(2, 49)}"
    if level == 2:
        return f"{draw.randint(2, 9)} * {draw.randint(2, 9)} {draw.choice('+-')} {draw.randint(10, 99)}"
    factors = f"({draw.randint(11, 99)} {draw.choice('+-')} {draw.randint(2, 99)}) * {draw.randint(3, 19)}"
    return f"{factors} {draw.choice('+-')} {draw.randint(100, 999)}"


def _problem(index: int, levels: tuple[int, ...], seed: int) -> Problem:
    """Problem `index` depends on the seed, the index and its level alone: a limit changes no problem."""
    level = levels[index % len(levels)]
    expression = _expression(level, random.Random(f"{seed}:{level}:{index}"))
    value = eval(expression, {"__builtins__": {}})  # an expression this module has just written
    return Problem(f"{seed}-{level}-{index}", f"What is {expression}?", str(value), {"level": level})


def _loader(name: str, levels: tuple[int, ...]) -> Callable[[Options], Task]:
    def load(options: Options) -> Task:
        if options.data is not None:
            raise UsageError(f"{name} makes its own problems; drop --data, or name another task")
        if options.everything:
            raise UsageError(f"--all has no use for {name}; allowed: lcb_v5")
        made = tuple(_problem(i, levels, options.seed) for i in range(options.limit or PROBLEMS))
        return MathTask(name, made, last_number=True)

    return load


TASKS: Mapping[str, Callable[[Options], Task]] = {
    "arithmetic": _loader("arithmetic", (1, 2, 3)),
    "arithmetic_1": _loader("arithmetic_1", (1,)),
    "arithmetic_2": _loader("arithmetic_2", (2,)),
    "arithmetic_3": _loader("arithmetic_3", (3,)),
}
