"""The process that compares formulas for grading.py: JSON Lines in, JSON Lines out.

{"gold", "answer"} -> true, false or null (it failed); {"answer"} -> its canonical spelling, or null.
Its replies are read one by one, so that a hang is seen; math-verify's own limit (an alarm) comes first.
"""

import json
import logging
import sys

from math_verify import parse, verify
from math_verify.errors import TimeoutException

LIMIT_S = 5


def _parsed(text: str) -> list[object]:
    """What math-verify reads in an answer: a formula and its spelling, or nothing."""
    return list(parse(f"\\boxed{{{_plain(text)}}}", parsing_timeout=LIMIT_S, raise_on_error=True))


def _plain(text: str) -> str:
    """Thousands separators that math-verify takes for products, and units of money, out of the way."""
    return text.replace("\\,", "").replace("\\!", "").replace("\\$", "").replace("$", "").strip()


def _spelling(text: str) -> str:
    return "".join(_plain(text).split())


def _equal(gold: str, answer: str) -> bool:
    if _spelling(gold) == _spelling(answer):
        return True
    right = _parsed(gold)
    try:
        given = _parsed(answer)
    except (ArithmeticError, AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError):
        return False  # no mathematics, and not spelled like the right answer
    return bool(verify(right, given, timeout_seconds=LIMIT_S, raise_on_error=True))


def _canonical(answer: str) -> str:
    """The formula as sympy writes it, decimals as fractions; the bare spelling of what is no formula."""
    from sympy import Basic, nsimplify

    formulas = [f for f in _parsed(answer) if isinstance(f, Basic)]
    if not formulas:
        return _spelling(answer)
    formula = formulas[0]
    return str(nsimplify(formula, rational=True) if formula.is_number else formula.doit())


def main() -> None:
    logging.disable(logging.CRITICAL)
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            gold = question.get("gold")
            reply = _canonical(question["answer"]) if gold is None else _equal(gold, question["answer"])
        except (Exception, TimeoutException):  # the grader failed, whatever it raised: "not graded"
            reply = None
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
