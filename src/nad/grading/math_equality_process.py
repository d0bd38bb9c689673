"""The process that compares formulas for grading.py: JSON Lines in, JSON Lines out.

{"gold", "answer"} -> true, false or null (it failed); {"answer"} -> its canonical spelling, or null.
Its replies are read one by one, so that a hang is seen; math-verify's own limit (an alarm) comes first.
"""

import json
import logging
import re
import sys
from typing import Any

from math_verify import parse, verify
from math_verify.errors import TimeoutException
from math_verify.utils import timeout
from sympy import Equality, Expr, nsimplify, simplify

LIMIT_S = 5


def _parsed(text: str) -> list[object]:
    """What math-verify reads in an answer: a formula and its spelling, or nothing."""
    return list(parse(f"\\boxed{{{_plain(text)}}}", parsing_timeout=LIMIT_S, raise_on_error=True))


def _plain(text: str) -> str:
    """What math-verify misreads, out of the way: thin spaces in numbers, dollars, a full stop, a unit in words."""
    bare = re.sub(r"\\[,!]|\\?\$", "", text).strip().rstrip(".")
    return re.sub(r"^([-+\d.,]+)(?:\s+[A-Za-z]{3,})+$", r"\1", bare)


def _spelling(text: str) -> str:
    return "".join(_plain(text).split())


def _equal(gold: str, answer: str) -> bool:
    if _spelling(gold) == _spelling(answer):
        return True
    right = _parsed(gold)
    given = _parsed(answer)
    return bool(verify(right, given, timeout_seconds=LIMIT_S, raise_on_error=True))


def _canonical(answer: str) -> str:
    """The simplified formula as sympy writes it, decimals as fractions; the bare spelling of what is no formula."""
    formulas = [f for f in _parsed(answer) if not isinstance(f, str)]
    return str(timeout(LIMIT_S)(_simplified)(formulas[0])) if formulas else _spelling(answer)


def _simplified(formula: Any) -> Any:
    if isinstance(formula, Equality) and formula.lhs.is_Symbol:
        formula = formula.rhs  # x = 5 answers what 5 answers
    return simplify(nsimplify(formula, rational=True) if isinstance(formula, Expr) and formula.is_number else formula)


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
