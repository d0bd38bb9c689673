"""What can be decided about two formulas without algebra: numbers, words, times of day, ratios, digits in a base."""

import re
from fractions import Fraction
from functools import lru_cache

from nad.grading.form_equality import Judge, same
from nad.grading.forms import TooDeep, read
from nad.grading.notation import LONGEST, plain, spelling, unwrapped_text
from nad.grading.numbers import quantity, same_number, split_unit

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arcsec arccsc arccot asin acos atan sqrt log ln "
    "exp pi min max gcd lcm det infty infinity inf mod theta alpha beta lambda phi frac"
)
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_SYMBOL = re.compile(r"\(?(?:[A-DF-HJ-Za-df-hj-z]|\\(?:alpha|beta|gamma|theta|lambda|phi|emptyset))\)?")
_NO_SOLUTION = frozenset(("no solution", "no solutions", "empty set", "no real solutions", "no real solution"))
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?(?::00)?\s?(?:([ap])\.?\s?m\b\.?)?", re.IGNORECASE)
_RATIO = re.compile(r"\d+(?:\.\d+)?(?:\s?(?::|\bto\b)\s?\d+(?:\.\d+)?)+")
_IN_BASE = re.compile(r"([0-9A-Z]+)_\{?\s?(?:\\text\s?\{)?\s?(\w+)\s?\}{0,2}")
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve"
_BASES = {name: str(base) for base, name in enumerate(_BASE_NAMES.split(), 2)}


def decide(gold: str, answer: str) -> bool | None:
    """Whether two answers are equal, as far as that can be told without algebra. None: ask for more."""
    if (spelled := spelling(gold)) == spelling(answer) and spelled:
        return True
    if max(len(gold), len(answer)) > LONGEST:
        return None
    return judged(gold, answer, Judge(decide_formulas, lambda one, other: None))


def judged(gold: str, answer: str, judge: Judge) -> bool | None:
    """Whether two answers are equal by their shapes and a judge of their formulas."""
    if (_whole(gold) or _whole(answer)) and decide_formulas(plain(gold), plain(answer)):
        return True
    try:
        return same(read(unwrapped_text(gold)), read(unwrapped_text(answer)), judge)
    except TooDeep:
        return None


def _whole(answer: str) -> bool:
    """What is one thing although it has commas or "and" in it: a number, words."""
    return quantity(answer) is not None or words(plain(answer)) is not None


def decide_formulas(one: str, other: str) -> bool | None:
    """Two formulas in plain notation; None where only algebra can tell."""
    if spelling(one) == spelling(other):
        return bool(one)
    if not one or not other:
        return False
    said = (verdict for compare in _COMPARISONS if (verdict := compare(one, other)) is not None)
    return next(said, None)


@lru_cache(maxsize=4096)
def words(text: str) -> str | None:
    """The words a text is made of, in small letters; None for a formula, or a number with its unit.

    A run of letters is a word, and not a product of variables, if \\text encloses it, or if it is long or has a vowel.
    """
    if quantity(text) is not None:
        return None
    text = re.sub(r"\\(?:begin|end)\s?\{\w+\*?\}", " ", split_unit(text)[0])
    bare = re.sub(r"\\text\s?\{([^{}]*)\}", r" \1 ", text)
    enclosed = any(len(inner.strip(" ()")) > 1 for inner in re.findall(r"\\text\s?\{([^{}]*)\}", text))
    runs = re.findall(r"(?<![\\A-Za-z])[A-Za-z]+", re.sub(r"\\[a-zA-Z]+", " ", bare))
    if not enclosed and not any(map(_is_word, runs)):
        return None
    found = " ".join(re.sub(r"[^\w\s\\^+*/=<>%$.:-]", " ", bare).lower().split()).strip(" .-")
    found = re.sub(r"^(?:the|an?) (?=\w)", "", found)
    return "\\emptyset" if found in _NO_SOLUTION else found


def _is_word(run: str) -> bool:
    """Whether letters are a word: "listen", "no", "red"; not "xy", "abc", "sin"."""
    low = run.lower()
    if len(run) < 2 or low in _FUNCTIONS or any(len(run) <= 5 and low.startswith(f) for f in ("sin", "cos", "log")):
        return False
    in_a_row = any("".join(sorted(low)) in row for row in ("abcdef", "uvwxyz"))
    return len(run) > 4 or (any(vowel in low for vowel in "aeiou") and not in_a_row and not run.isupper())


def _same_words(one: str, other: str) -> bool | None:
    first, second = words(one), words(other)
    if first == "\\emptyset" or second == "\\emptyset":
        return (first or one) == (second or other)
    return None if first is None and second is None else first == second


def _clock(text: str) -> tuple[int, int, str] | None:
    """Hour, minute, and a or p (or nothing) of a time of day: 6:00, 6 pm, 18:30."""
    bare = re.sub(r"\\text\s?\{([^{}]*)\}", r" \1", text)
    found = _CLOCK.fullmatch(" ".join(bare.split()))
    if not found or not (found[2] or found[3]):
        return None
    hour, minute = int(found[1]), int(found[2] or 0)
    return (hour, minute, (found[3] or "").lower()) if hour < 25 and minute < 60 else None


def _same_times(one: str, other: str) -> bool | None:
    """6:00 is 6 pm, where nobody says which half of the day, and 6; 3:20 is a time and not the ratio 6:40."""
    first, second = _clock(one), _clock(other)
    if first and second:
        afternoon = {first[2], second[2]} == {"p", ""} and abs(first[0] - second[0]) == 12
        return first[1] == second[1] and (afternoon or _same_hours(first, second))
    if not first and not second:
        return None
    time, number = first or second, quantity(one if second else other)
    return None if number is None or time is None else time[1] == 0 and number.value == time[0]


def _same_hours(one: tuple[int, int, str], other: tuple[int, int, str]) -> bool:
    return one[0] == other[0] and (not one[2] or not other[2] or one[2] == other[2])


def _same_numbers(one: str, other: str) -> bool | None:
    first, second = quantity(one), quantity(other)
    return None if first is None or second is None else same_number(first, second)


def _ratio(text: str) -> tuple[Fraction, ...] | None:
    """The terms of a ratio, with 1 for the last of them; a number is a ratio to 1."""
    if _RATIO.fullmatch(text):
        terms = [Fraction(term) for term in re.findall(r"\d+(?:\.\d+)?", text)]
        return tuple(term / terms[-1] for term in terms) if all(terms) else None
    number = quantity(text)
    return None if number is None else (number.value, Fraction(1))


def _same_ratios(one: str, other: str) -> bool | None:
    """3:2 is 6:4, 6 to 4, and the fraction 3/2; against a formula it is left to algebra, and 5 to 10 is a range."""
    if ":" not in one + other:
        return None
    first, second = _ratio(one), _ratio(other)
    return None if first is None or second is None else first == second


def _in_base(text: str) -> tuple[str, str] | None:
    """Digits with the base they are written in."""
    found = _IN_BASE.fullmatch(text)
    base = _BASES.get(found[2].lower(), found[2]) if found else ""
    return (found[1].lstrip("0"), base) if found and base.isdigit() and re.search(r"\d", found[1]) else None


def _same_digits(one: str, other: str) -> bool | None:
    """204_5 is 204 in base five, and 204 where the base is left out."""
    first, second = _in_base(one), _in_base(other)
    if first and second:
        return first == second
    if not first and not second:
        return None
    digits, bare = (first, other) if first else (second, one)
    return digits is not None and digits[0] == bare.lstrip("0") if quantity(bare) else None


def _same_symbols(one: str, other: str) -> bool | None:
    """Two letters that are not the same, or a letter and a number."""
    numbers, symbols = [quantity(t) for t in (one, other)], [_SYMBOL.fullmatch(spelling(t)) for t in (one, other)]
    return False if all(n or s for n, s in zip(numbers, symbols, strict=True)) else None


_COMPARISONS = (_same_times, _same_numbers, _same_ratios, _same_digits, _same_words, _same_symbols)
"""In their order: the first that has something to say decides."""
