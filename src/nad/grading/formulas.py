"""Two formulas compared by algebra, exactly: latex2sympy reads them, sympy decides.

math-verify's own comparison rounds to six decimals and calls a difference below 1e-15 nothing; here two numbers are
equal when that is proved, different when that is, and else undecided.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex
from math_verify.errors import TimeoutException
from math_verify.utils import timeout
from sympy import Expr, I, MatrixBase, Rational, S, nsimplify, simplify, zoo
from sympy.core.evalf import PrecisionExhausted

from nad.grading.exact import decide_formulas, judged, words
from nad.grading.form_equality import Judge
from nad.grading.forms import Equation
from nad.grading.numbers import quantity, rounds, split_unit
from nad.grading.units import Unit, scale

LIMIT_S = 5
"""Longest time for reading a formula, and for comparing two."""

LONGEST_FORMULA = 300
"""Characters of the longest formula that is read; the longest answer of MATH-500 has 60."""

_DIGITS = 30
_CONFIG = NormalizationConfig(
    basic_latex=False, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
_FUNCTIONS = re.compile(
    r"(?<![\\A-Za-z])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt|pi|theta|alpha|beta|"
    r"infty|infinity|inf)(?![a-z])"
)
_CAPITAL = re.compile(r"\\[A-Za-z]+|([A-DF-HJ-Z])(?:_(?:(\w)|\{(\w+)\}))?(?![(_])")
"""latex2sympy turns capitals into small letters: R and r would be one variable."""

_POINTS = (Fraction(5, 7), Fraction(11, 13), Fraction(-23, 7))
"""Where formulas with variables are compared first: different there, they are different."""


class Unreadable(Exception):
    """What is not a formula."""


class TooLarge(Exception):
    """A formula that is longer, or a power of ten that is larger, than what is read here."""


def compare(gold: str, answer: str) -> bool | None:
    """Whether two answers are equal, with algebra for their formulas. Raises what sympy raises."""
    return judged(gold, answer, Judge(_same_formulas, _same_equations))


def _same_formulas(one: str, other: str) -> bool | None:
    decided = decide_formulas(one, other)
    if decided is not None:
        return decided
    complex_ = _has_i(one) or _has_i(other)
    try:
        a, unit, percent = _measured(one, complex_)
    except Unreadable:
        return None  # a right answer is a formula, whether it can be read or not
    try:
        b, other_unit, other_percent = _measured(other, complex_)
    except Unreadable:
        return False
    factor = scale(unit, other_unit)
    if factor is None:
        return False
    verdict = _equal(a * _rational(factor), b)
    if verdict is False and percent != other_percent:
        a, b = (a / 100, b) if percent else (a, b / 100)
        verdict = _equal(a, b)
    return True if verdict is False and _stands_for(one, other, a, b) else verdict


def _measured(text: str, complex_: bool) -> tuple[Any, Unit | None, bool]:
    """A formula, its unit, and whether it is a percentage. Raises what `parsed` raises."""
    if number := quantity(text):
        return _rational(number.value), number.unit, number.percent
    bare, unit, percent = split_unit(text)
    return parsed(bare, complex_), unit, percent


def _stands_for(first: str, second: str, a: Any, b: Any) -> bool:
    """Whether one is a decimal that the other's value rounds to; a value with a finite decimal has to be written."""
    for text, value in ((first, b), (second, a)):
        decimal = quantity(text)
        if decimal and decimal.digits and isinstance(value, Expr) and value.is_number and value.is_real:
            exact = value.evalf(_DIGITS + 20)
            if not value.is_rational and rounds(decimal, Fraction(str(exact)) + Fraction(1, 3 * 10**60)):
                return True
    return False


def _same_equations(one: Equation, other: Equation) -> bool | None:
    """Two equations are the same when one is the other times a number."""
    complex_ = any(map(_has_i, (one.left, one.right, other.left, other.right)))
    try:
        first, second = (parsed(e.left, complex_) - parsed(e.right, complex_) for e in (one, other))
    except Unreadable:
        return False
    if first.free_symbols != second.free_symbols:
        return False
    ratio = simplify(first / second)
    if not ratio.free_symbols:
        return bool(ratio.is_nonzero) if ratio.is_nonzero is not None else None
    return False if first.is_polynomial() and second.is_polynomial() else None


def _has_i(text: str) -> bool:
    return re.search(r"(?<![A-Za-z\\])i(?![A-Za-z])|\\imath", text) is not None


@lru_cache(maxsize=512)
def _parsed(text: str, complex_: bool) -> Any:
    """The formula, or why it cannot be read: a reading that took too long is not tried again."""
    if len(text) > LONGEST_FORMULA or re.search(r"\d[eE][-+]?\d", text):
        return TooLarge(text[:LONGEST_FORMULA])
    if words(text) is not None or re.search(r"(?<![\d_])\d+\s+[\d.]|\\ldots|[?]", text):
        return Unreadable(text)
    try:
        return timeout(LIMIT_S)(_read)(_latex(text), complex_)
    except TimeoutException as error:
        return error
    except Exception as error:  # latex2sympy has no error of its own for what is not LaTeX
        return Unreadable(str(error))


def parsed(text: str, complex_: bool) -> Any:
    """A formula as sympy has it. Raises Unreadable, TooLarge, or TimeoutException when it takes too long."""
    found = _parsed(text, complex_)
    if isinstance(found, BaseException):
        raise found
    return found


def _read(latex: str, complex_: bool) -> Any:
    found = latex2sympy(
        normalize_latex(latex, _CONFIG), is_real=not complex_, convert_degrees=False, normalization_config=None
    )
    found = found.doit()
    if not isinstance(found, Expr | MatrixBase) or found.has(zoo, S.NaN):
        raise Unreadable(latex)
    return found.subs({symbol: I for symbol in found.free_symbols if str(symbol) == "i"})


def _latex(text: str) -> str:
    """Plain notation as latex2sympy wants it: its functions as commands, decimals as fractions, products written."""
    text = re.sub(r"\\text\s?\{\s?([A-Za-z])\s?\}", r"\1", text.replace("°", "").replace("$", ""))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = _CAPITAL.sub(lambda found: _renamed(found) if found[1] else found[0], text)
    text = _FUNCTIONS.sub(lambda found: "\\infty " if found[1].startswith("inf") else f"\\{found[1]} ", text)
    text = re.sub(r"\\sqrt\s?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\^\s?(-?\d+|-[A-Za-z])(?![\d}])", r"^{\1}", text)
    text = re.sub(r"(?<![\d.])(\d*)\.(\d+)", _as_fraction, text)
    text = re.sub(r"(?<=[\d)])\s?(?=\()", r" \\cdot ", text)
    text = re.sub(r"(?<=[\d)}])\s?:\s?(?=[\d(\\])", "/", text)
    return re.sub(r"(\d)\s?(\\frac)(?=\s?(?:\d|\{\s?\d+\s?\}))", r"\1 \\cdot \2", text).replace("*", " \\cdot ")


def _renamed(capital: re.Match[str]) -> str:
    return f"{capital[1].lower()}_{{9{capital[2] or capital[3] or ''}}}"


def _as_fraction(found: re.Match[str]) -> str:
    return rf"\frac{{{int(found[1] + found[2])}}}{{{10 ** len(found[2])}}}"


def _rational(value: Fraction) -> Rational:
    return Rational(value.numerator, value.denominator)


def _equal(a: Any, b: Any) -> bool | None:
    """Whether two expressions or matrices are equal; None where neither is proved."""
    if isinstance(a, MatrixBase) or isinstance(b, MatrixBase):
        if getattr(a, "shape", None) != getattr(b, "shape", None):
            return False
        verdicts = [_equal(x, y) for x, y in zip(a, b, strict=True)]
        return False if False in verdicts else None if None in verdicts else True
    if a == b:
        return True
    if a.is_infinite or b.is_infinite:
        return False
    if a.is_Rational and b.is_Rational:
        return False
    if a.free_symbols | b.free_symbols and _different_somewhere(a, b):
        return False
    return timeout(LIMIT_S)(_decided)(a - b)


def _decided(difference: Expr) -> bool | None:
    """Whether a difference is zero: seen from its value where it has one, else proved by algebra."""
    if not difference.free_symbols and _surely_nonzero(difference):
        return False
    exact = nsimplify(difference, rational=True) if difference.is_number else difference
    if simplify(exact) == 0:
        return True
    zero = exact.equals(0)
    return None if zero is None else bool(zero)


def _surely_nonzero(number: Expr) -> bool:
    try:
        return bool(abs(number.evalf(_DIGITS, maxn=400, strict=True)).evalf() > 0)
    except (PrecisionExhausted, TypeError, ValueError):  # too close to zero to tell, or not a number
        return False


@lru_cache(maxsize=2048)
def _values(formula: Expr) -> tuple[Any, ...]:
    """The formula's value at a few points; each variable has values of its own, by its name."""
    names = sorted(formula.free_symbols, key=str)
    found = []
    for shift, point in enumerate(_POINTS):
        values = {name: _rational(point + Fraction(sum(map(ord, str(name))) % 97, 89 + shift)) for name in names}
        found.append(formula.subs(values).evalf(_DIGITS))
    return tuple(found)


def _different_somewhere(a: Expr, b: Expr) -> bool:
    """Whether two formulas have clearly different values at one of the points."""
    for one, other in zip(_values(a), _values(b), strict=True):
        apart, size = abs(one - other).evalf(), (1 + abs(one) + abs(other)).evalf()
        if apart.is_comparable and size.is_comparable and apart > Rational(1, 10**15) * size:
            return True
    return False
