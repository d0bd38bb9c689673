"""Numbers as people and models write them, read exactly: 1,234.50, 2 1/2, 1.2e6, 70 thousand, $18/day, 90 degrees."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from nad.grading.notation import LONGEST, unwrapped_text
from nad.grading.units import Unit, scale, unit

ENOUGH_DIGITS = 6
"""Significant digits from which a decimal may stand for a number that has no finite decimal (1/3, the root of 2)."""

_LARGEST_EXPONENT = 400

_ORDINALS = ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_SCALES: Mapping[str, Fraction] = {
    "hundred": Fraction(100),
    "thousand": Fraction(10**3),
    "million": Fraction(10**6),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12),
    "dozen": Fraction(12),
    "hundredths": Fraction(1, 100),
    "thousandths": Fraction(1, 1000),
    "millionths": Fraction(1, 10**6),
    **{f"{name}s": Fraction(1, part) for part, name in enumerate(_ORDINALS, 3)},
}
_PARTS_OF_ONE = {"half": Fraction(1, 2), "quarter": Fraction(1, 4)}
"""Of one only: five quarters are coins, and two halves are those of a match."""

_AFTER_CURRENCY = {"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9}
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_ONES += " seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {
    **{word: value for value, word in enumerate(_ONES.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), 2)},
}

_HEAD = re.compile(
    r"(?:(?:approximately|approx\.?|about|roughly|around|\\approx|\\sim)\s?)?"
    r"(?P<sign>(?:negative|minus)\s|[-+]?)\s?(?P<currency>(?:US|USD )?\$|[€£¥₹]|EUR |USD )?\s?(?P<sign2>[-+]?)\s?"
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+|\.(?!\d))?|\.\d+)"
_PART = rf"(?:\{{\s?(-?{_DECIMAL})\s?\}}|(\d))"
_FRACTION = re.compile(rf"\\frac\s?{_PART}\s?{_PART}|({_DECIMAL})\s?/\s?({_DECIMAL})(?![\d.])")
_MIXED = re.compile(r"(\d+)(?:\s?(?=\\frac)|\s(?:and\s)?(?=\d+\s?/)|\s?\+\s?(?=\\frac|\d+\s?/))")
_RECURRING = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s?(?:\{(\d+)\}|(\d))|\((\d+)\)|(\d)\u0305)")
_PLAIN = re.compile(_DECIMAL)
_POWER_OF_TEN = re.compile(
    r"[eE]([-+]?\d{1,5})(?!\d)|\s?(?:\\times|\\cdot|\*)\s?10\s?\^\s?(?:\{\s?([-+]?\d{1,5})\s?\}|(\d))"
)
_FORMULA_AND_UNIT = re.compile(
    r"(.*(?:[\d)}!|\]]|\\pi))\s?((?:\\text\s?\{[^{}]*\}|[A-Za-z/ .°%])+(?:\^\{?[23]\}?)?)", re.DOTALL
)
_VARIABLE_AND_UNIT = re.compile(r"(.*[A-Za-z])(?:\s?\\text\s?\{([A-Za-z/ ]+)\}|\s([A-Za-z]{2,}))(?:\^\{?([23])\}?)?")
_UNIT_POWER = re.compile(r"\s?\^\s?\{?([23])\}?(?=$|\s|/)")


@dataclass(frozen=True)
class Quantity:
    """A number with what stands around it. `digits` and `step`: its significant digits and the worth of the last one,
    where it is a decimal that may be rounded; `cut`: it ends in dots.
    """

    value: Fraction
    unit: Unit | None = None
    percent: bool = False
    digits: int = 0
    step: Fraction = Fraction(0)
    cut: bool = False


@lru_cache(maxsize=4096)
def quantity(answer: str) -> Quantity | None:
    """The number an answer is, exactly; None where it is something else."""
    if len(answer) > LONGEST:
        return None
    text = unwrapped_text(answer)
    head = _HEAD.match(text)
    assert head  # it may be empty
    rest = text[head.end() :]
    read = _number(rest) or _in_words(rest)
    if read is None:
        return None
    number, tail = read
    if head["sign"] not in ("", "+") or head["sign2"] == "-":
        number = Quantity(-number.value, None, False, number.digits, number.step)
    return _with_tail(number, tail, (head["currency"] or "").strip())


def _number(text: str) -> tuple[Quantity, str] | None:
    """The number a text begins with, and the rest."""
    if mixed := _MIXED.match(text):
        fraction = _FRACTION.match(text, mixed.end())
        part = _fraction(fraction) if fraction else None
        return (Quantity(int(mixed[1]) + part), text[fraction.end() :]) if fraction and part and 0 < part < 1 else None
    if fraction := _FRACTION.match(text):
        value = _fraction(fraction)
        return None if value is None else (Quantity(value), text[fraction.end() :])
    if recurring := _RECURRING.match(text):
        return Quantity(_recurring(recurring)), text[recurring.end() :]
    if found := _PLAIN.match(text):
        return _decimal(found[0], text[found.end() :])
    return None


def _decimal(written: str, rest: str) -> tuple[Quantity, str] | None:
    """A decimal with its power of ten."""
    bare = written.replace(",", "").replace(" ", "").rstrip(".")
    whole, _, places = bare.partition(".")
    exponent = 0
    if power := _POWER_OF_TEN.match(rest):
        exponent, rest = int(power[1] or power[2] or power[3]), rest[power.end() :]
        if abs(exponent) > _LARGEST_EXPONENT:
            return None
    scaled = Fraction(10) ** exponent
    digits = len((whole + places).lstrip("0")) if places else 0
    number = Quantity(
        Fraction(bare) * scaled, digits=digits, step=scaled / 10 ** len(places) if places else Fraction(0)
    )
    return number, rest


def _fraction(found: re.Match[str]) -> Fraction | None:
    above, below = found[1] or found[2] or found[5], found[3] or found[4] or found[6]
    numerator, denominator = (Fraction(part.replace(",", "").replace(" ", "").rstrip(".")) for part in (above, below))
    return numerator / denominator if denominator else None


def _recurring(found: re.Match[str]) -> Fraction:
    """0.1666... = (16 - 1) / 90."""
    whole, fixed, block = found[1] or "0", found[2], found[3] or found[4] or found[5] or found[6]
    more, fewer = int(whole + fixed + block), int(whole + fixed)
    return Fraction(more - fewer, (10 ** len(block) - 1) * 10 ** len(fixed))


def _in_words(text: str) -> tuple[Quantity, str] | None:
    """A number in words at the beginning: twelve, one hundred and five, half a million, a dozen."""
    words = re.fullmatch(r"[A-Za-z -]{3,80}", re.sub(r"\\text\s?\{([^{}]*)\}", r" \1 ", text).strip())
    tokens = re.findall(r"[a-z]+", words[0].lower()) if words else []
    total, group, used = Fraction(0), Fraction(0), 0
    half = tokens[:1] == ["half"] and tokens[1:2] == ["a"]
    tokens = tokens[2:] if half else tokens[1:] if tokens[:1] in (["a"], ["an"]) and _is_scale(tokens[1:2]) else tokens
    for word in tokens:
        if word in _WORDS:
            group += _WORDS[word]
        elif word in ("hundred", "dozen"):
            group = (group or 1) * _SCALES[word]
        elif word in ("thousand", "million", "billion", "trillion"):
            total, group = total + (group or 1) * _SCALES[word], Fraction(0)
        elif word != "and" or not used:
            break
        used += 1
    if not used or (half and not _is_scale(tokens[:1])):
        return None
    rest = tokens[used:] if tokens[used - 1] != "and" else tokens[used - 1 :]
    return Quantity((total + group) / (2 if half else 1)), " ".join(["", *rest])


def _is_scale(words: list[str]) -> bool:
    return bool(words) and words[0] in ("hundred", "thousand", "million", "billion", "trillion", "dozen")


def _with_tail(number: Quantity, tail: str, currency: str) -> Quantity | None:
    """The number with what follows it: dots, a scale, a percent sign, a unit; None where something else follows."""
    if not currency and re.match(r"[A-Za-z](?:\^|$)", tail):
        return None  # 5m is a product, 5 m a length
    rest = " ".join(re.sub(r"\\text\s?\{([^{}]*)\}", r" \1 ", tail).split())
    cut = rest.startswith("\\ldots") and number.digits > 0
    rest = rest.removeprefix("\\ldots").strip() if cut else re.sub(r"\s?\([A-Za-z ,.]+\)$", "", rest)
    value, step = number.value, number.step
    word = re.match(r"[A-Za-z]+", rest)
    if currency and word and word[0].lower() in _AFTER_CURRENCY:
        factor = _AFTER_CURRENCY[word[0].lower()]
        value, step, rest = value * factor, step * factor, rest[word.end() :].strip()
    while word := re.match(r"-?([A-Za-z]+)(?: of)?(?![A-Za-z])", rest):
        name = word[1].lower()
        of_one = _PARTS_OF_ONE.get(name) or _SCALES.get(f"{name}s") if value == 1 else None
        found = _SCALES.get(name) or _SCALES.get(name.removesuffix("s")) or of_one
        if found is None:
            break
        value, step, rest = value * found, step * found, rest[word.end() :].strip()
    percent = re.match(r"%|per ?cent(?:age)?(?: points?)?(?![a-z])", rest)
    rest = rest[percent.end() :].strip() if percent else rest
    measured = unit(f"{currency} {rest}") if currency and rest.startswith(("/", "per ")) else _unit(rest)
    if (rest and measured is None) or (cut and rest):
        return None
    if currency and (measured is None or not measured.kind):
        measured = unit(currency) or measured
    return Quantity(value, measured, bool(percent), number.digits, step, cut)


def _unit(written: str) -> Unit | None:
    """The unit after a number, with its power."""
    if power := _UNIT_POWER.search(written):
        return unit(written[: power.start()] + written[power.end() :], int(power[1]))
    return unit(written) if written else None


def split_unit(text: str) -> tuple[str, Unit | None, bool]:
    """A formula in front of its unit: the formula, the unit, and whether a percent sign follows."""
    if variable := _VARIABLE_AND_UNIT.fullmatch(text):
        measured = unit(" ".join((variable[2] or variable[3]).split()), int(variable[4] or 1))
        return (variable[1], measured, False) if measured and measured.kind else (text, None, False)
    found = _FORMULA_AND_UNIT.fullmatch(text)
    words = re.sub(r"\\text\s?\{([^{}]*)\}", r" \1 ", found[2]).strip() if found else ""
    if not found or not words:
        return text, None, False
    if words in ("%", "percent"):
        return found[1], None, True
    tight = re.fullmatch(r"[A-Za-z]{1,2}", found[2]) is not None  # 2ab is a product
    measured = None if tight else _unit(" ".join(words.split()))
    return (text, None, False) if measured is None else (found[1].strip(), measured, False)


def same_number(one: Quantity, other: Quantity) -> bool:
    """Whether two numbers are equal; 18% is 18 as well as 0.18, and 0.333333 may stand for 1/3."""
    factor = scale(one.unit, other.unit)
    if factor is None:
        return False
    ones = {one.value * factor}
    others = {other.value}
    if one.percent != other.percent:
        ones |= {v / 100 for v in ones} if one.percent else set()
        others |= {v / 100 for v in others} if other.percent else set()
    if ones & others:
        return True
    return rounds(one, other.value / factor) or rounds(other, one.value * factor)


def rounds(decimal: Quantity, value: Fraction) -> bool:
    """Whether a decimal is a number without a finite one, rounded or cut at its last digit."""
    enough = ENOUGH_DIGITS // 2 if decimal.cut else ENOUGH_DIGITS
    return decimal.digits >= enough and not _finite(value) and abs(decimal.value - value) < decimal.step


def _finite(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
