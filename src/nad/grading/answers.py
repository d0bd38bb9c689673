"""From a text to the answer it ends with.

Every pattern here is linear in the text: what follows an unbounded repetition never makes it give back characters.
"""

import re
from collections import deque

from nad.grading.boxes import boxed, open_box
from nad.grading.numbers import quantity
from nad.thinking import after_thinking

SAID = 500
"""Characters after "the answer is" in which the answer is looked for."""

_SIGN = r"(?:(?<![\w)\]}%.])[-+]|(?<==)[-+] ?|(?<== )[-+] ?)?"
_NOT_INSIDE = r"(?<![A-Za-z0-9_^.])(?<![_^]\{)"
_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|,\\!)\d{3})+(?!\d)|\d{1,3}(?:(?: |\\,)\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_FRAC = r"\\[dtc]?frac ?(?:\{ ?-?[\d.,]{1,40} ?\}|\d) ?(?:\{ ?-?[\d.,]{1,40} ?\}|\d)"
NUMBER = (
    rf"{_SIGN}(?:(?:\\?\$|[€£¥₹])[-+]?)?{_NOT_INSIDE}(?:\d{{1,2}}:\d\d(?!\d)(?: ?[ap]\.?m\b)?"
    rf"|\d+ ?{_FRAC}|{_FRAC}|\d+ \d+/\d+"
    r"|\d*\.\d*(?:\\(?:overline|bar) ?\{\d{1,40}\}|\(\d{1,40}\))"
    rf"|{_DECIMAL}(?:/\d+(?:\.\d+)?|[eE][-+]?\d{{1,5}}(?!\w)| ?(?:\\times|\\cdot|\*) ?10 ?\^ ?(?:\{{ ?-?\d+ ?\}}|-?\d+)"
    r"|\^\{?-?\d+\}?)?)"
    r"(?: ?\\?%| (?:(?:hundred|thousand|million|billion|trillion|dozen)\b ?)+(?<! ))?"
)
"""A number as it may stand in a text, read from left to right without giving back more than a group of digits."""

_NUMBER = re.compile(NUMBER)
_SAME_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00a0\u202f\u2009\u2007", " "),
        "\u00d7": "*",
    }
)
"""One character for each, so that places in the text stay the same."""

_PHRASE = re.compile(
    r"^[ \t]*####|(?:^[^\w\n]*|\b(?:the|my|our|your|final|correct|right)[ \t]{1,5})answer\b"
    r"(?:[ \t]{1,5}(?:to|of|for)[ \t][^.:=\n]{1,60}?)?[\W_]{0,9}?(?:is|are|would be|will be|must be|:|=)(?!\w)"
    r"[ \t:=*_]{0,9}",
    re.IGNORECASE | re.MULTILINE,
)
_MARKUP = " \t\r\n\f\v*_>`"
_FORMULA = re.compile(r"(?<!\\)\$\$?((?:\\.|[^$\\])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_CLAUSE = re.compile(r"[.!?](?:\s|$)|[,;:]? (?:because|since|where|when|so|as|which|but|not)\b|[\d%\w$] ?\((?=[a-z])")

_CHAIN = re.compile(r"[^\d=]*=|[\s*$\\(\[]*[-+.\d€£]")
"""9 * 2 = 18, or total = 18; not "Janet sells 16 = ", whose number belongs to the sentence."""


def extract_answer(text: str, last_number: bool = False) -> str | None:
    """The answer a text ends with, as it is written; None if it has none.

    In this order: the last \\boxed{...} that holds something; the last `#### x` or "the answer is x"; with
    `last_number`, the last number. A text that was cut inside its only box has none.
    """
    final = after_thinking(text)
    if final is None:
        return None
    if (answer := boxed(final)) is not None or open_box(final):
        return answer
    said = [s for s in (_line(final, found.end()) for found in _PHRASE.finditer(final)) if s]
    answer = (_number_said(said[-1]) if last_number else _said(said[-1])) if said else None
    return answer or (_last_number(final) if last_number else None)


def _line(text: str, start: int) -> str:
    """The line in which an answer is said, which may be the next one; a formula of its own lines is one line."""
    rest = text[start : start + SAID].lstrip(_MARKUP)
    if rest.startswith(("\\[", "$$")) and (formula := _FORMULA.match(rest)):
        return formula[0]
    return rest.partition("\n")[0].strip()


def _said(line: str) -> str | None:
    """The formula of the line that says the answer, or else its first sentence."""
    formula = _formula(line)
    if formula is None:
        end = re.search(r"[.!?]\s", line)
        formula = (line[: end.start()] if end else line).strip(" *`\"'").rstrip(".,;").strip(" *`\"'")
    return _result(formula) or None


def _formula(line: str) -> str | None:
    """The first formula of a line; two prices with words between them are none."""
    found = _FORMULA.search(line)
    inner = (found[1] or found[2] or found[3]).strip() if found else ""
    words = re.sub(r"\\[a-zA-Z]+(?: ?\{[^{}]*\})?", "", inner)
    return inner if inner and not re.search(r"[A-Za-z]{3}", words) else None


def _result(written: str) -> str:
    """9 * 2 = 18 says 18: what follows the last equals sign, where nothing but arithmetic precedes it."""
    before, equals, last = written.rpartition("=")
    arithmetic = re.fullmatch(
        r"(?:[\d\s.,+\-*/^()=${}\u00d7÷\u00b7%]|\\(?:times|cdot|div|frac|dfrac|left|right|[,!;$]))+", before
    )
    return last.strip() if equals and last.strip() and arithmetic else written


def _number_said(line: str) -> str | None:
    """The number a line begins with, or the one after its last equals sign; else a formula, or a number in words."""
    same = line.translate(_SAME_SIGNS)
    clause = same[: end.start() + 1] if (end := _CLAUSE.search(same)) else same
    chain = clause.split("=")[1:] if _CHAIN.match(clause) else []
    for part in reversed(chain):
        if (number := _at_start(part)) and not re.match(
            r"[\s$]*(?:[-+*/^(]|\\(?:times|cdot|div))", part[number.end() :]
        ):
            return number[1]
    if number := _at_start(same):
        goes_on = re.match(r"\\(?:sqrt|pi)|[A-Za-z](?![A-Za-z])", same[number.end() :])
        return (_formula(line) if goes_on else None) or number[1]
    in_words = clause.strip(" *`\"'.,;")
    return _formula(line) or (in_words if re.match("[A-Za-z]", in_words) and quantity(in_words) else None)


def _at_start(text: str) -> re.Match[str] | None:
    return re.match(rf"(?:[\s*_`\"']|\\[(\[]|\$(?=[-+\\.\d\s*])|\\approx|about |approximately )*({NUMBER})", text)


def _last_number(text: str) -> str | None:
    found = deque(_NUMBER.finditer(text.translate(_SAME_SIGNS)), maxlen=1)
    if not found:
        return None
    last = found[0]
    closes = text[last.end() : last.end() + 1] == "$"  # then the first one was not a price
    return last[0].removeprefix("$") if closes else last[0]


def letter(text: str, allowed: str) -> str | None:
    """The letter a text chooses, as a capital; None if it names none of `allowed`, or two.

    In this order: the last \\boxed{L}; the last "answer: L"; the last "the correct option is L"; a last line that is
    nothing but a capital.
    """
    final = after_thinking(text)
    if final is None:
        return None
    content = boxed(final)
    if content is not None and (chosen := _chosen(content, allowed)):
        return chosen
    for phrase in (_PHRASE, _OPTION):
        found = [c for c in (_chosen(final[m.end() : m.end() + SAID], allowed) for m in phrase.finditer(final)) if c]
        if found:
            return found[-1]
    line = final.rstrip()[-20:].rpartition("\n")[2]
    alone = re.fullmatch(rf"\W*([{allowed}])\W*", line)
    return alone[1] if alone else None


_OPTION = re.compile(
    r"(?:^[^\w\n]*|\b(?:the|my|correct|right|best|final)[ \t]{1,5})(?:option|choice)[ \t*_]{0,5}(?:is|:|=)(?!\w)"
    r"[ \t:=*_]{0,9}",
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE_LETTER = re.compile(
    r"(?:[\s*_`'\"“\u2018(\[{<$]|\\[(\[]|\\(?:text|mathrm|mathbf|textbf|mathit|textit|boxed|mathsf|rm|bf)(?![a-zA-Z])"
    r"|(?:the |final |correct )?(?:option|choice|answer|letter)\b(?: is\b)?:?)*",
    re.IGNORECASE,
)
_AND_ANOTHER = r"[\s*_`'\")\]}.$]{0,6}(?:,|/|&|\band\b|\bor\b)[\s*_`'\"(\[{$]{0,6}(?:option )?"
_GOES_ON = re.compile(r"(?:because|since|as|is|with|for|due|which|but|where|so|given|if|although)\b")


def _chosen(text: str, allowed: str) -> str | None:
    """The letter a text begins with. "A large planet" has an article, "A or B" two letters, "Because" is a word."""
    before = _BEFORE_LETTER.match(text)
    rest = text[before.end() :] if before else text
    if not (found := re.match(rf"([{allowed}])(?!['\u2019]?\w)", rest, re.IGNORECASE)):
        return None
    after = rest[found.end() :]
    another = re.match(rf"{_AND_ANOTHER}([{allowed}])(?!['\u2019]?\w)", after, re.IGNORECASE)
    if another and another[1].upper() != found[1].upper():
        return None
    word = re.match(r"[ \t]([A-Za-z]\w*)", after)
    article = found[1] in "Aa" and word and word[1][0].islower() and not _GOES_ON.match(word[1])
    return None if article else found[1].upper()
