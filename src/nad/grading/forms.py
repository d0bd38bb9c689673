"""The shape of an answer: a list, a pair, an interval, an equation, a matrix, around the formulas it is made of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

DEEPEST = 30
"""Depth of nested brackets from which on an answer is not read."""


@dataclass(frozen=True)
class Leaf:
    """A formula, a number or words."""

    text: str


@dataclass(frozen=True)
class Listing:
    """Items in any order: solutions, a set. `bare`: without braces, so that it may have been meant as a tuple."""

    items: "tuple[Form, ...]"
    bare: bool = True


@dataclass(frozen=True)
class Group:
    """Items in their order between brackets: a point, a vector, an interval."""

    opened: str
    items: "tuple[Form, ...]"
    closed: str


@dataclass(frozen=True)
class Union:
    """Sets joined, in any order."""

    parts: "tuple[Form, ...]"


@dataclass(frozen=True)
class Matrix:
    rows: "tuple[tuple[Form, ...], ...]"


@dataclass(frozen=True)
class Named:
    """What stands for something by name: x = 5, f(x) = 2x, x in [1, 2], 1 < x < 2."""

    name: str
    value: "Form"


@dataclass(frozen=True)
class Equation:
    """An equation whose left side is not a name."""

    left: str
    right: str


Form = Leaf | Listing | Group | Union | Matrix | Named | Equation


class TooDeep(Exception):
    """Brackets within brackets within brackets."""


_OPEN, _CLOSE = "([{", ")]}"
_SPECIAL_OPEN = ("\\{", "\\langle")
_SPECIAL_CLOSE = ("\\}", "\\rangle")
_TOKEN = re.compile(r"\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_LISTED = re.compile(r"-?\d{1,3}(?:,\d{3})+")
_LABEL = re.compile(
    r"(?:\\text\s?\{([A-Za-z ]+):\s?\}|\\text\s?\{([A-Za-z ]+)\}\s?:|([A-Za-z][A-Za-z ]{2,}):)\s?(.+)", re.DOTALL
)
_MATRIX = re.compile(r"\\begin\{([pb]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_ARGUMENT = r"(?:[A-Za-z]|-?\d+)"
_NAME = re.compile(
    r"(?:(?:\\angle|\\triangle|(?!(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt)\b)[A-Za-z]+)\s?)?(?:\\[a-zA-Z]+|[A-Za-z])'*"
    rf"(?:_(?:\w|\{{\w+\}}))?'*(?:\^\{{?-1\}}?)?(?:\({_ARGUMENT}(?:,\s?{_ARGUMENT})*\))?|P\([^()]*\)"
)
_SYMBOL = re.compile(r"\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?")
_RELATIONS = ("=", "<", ">", "\\leq", "\\geq", "\\in", "\\to", "\\equiv", "\\approx")
_FLIPPED = {"<": ">", ">": "<", "\\leq": "\\geq", "\\geq": "\\leq"}


def read(text: str) -> Form:
    """The form of an answer in plain notation. Raises TooDeep."""
    _check_depth(text)
    if _LISTED.fullmatch(text) or re.search(r"[(\[]|\\\{", text):
        return Leaf(text) if _LISTED.fullmatch(text) else _listing(text)
    return _listing(_GROUPED.sub(lambda found: found[0].replace(",", ""), text))


def _check_depth(text: str) -> None:
    depth = 0
    for sign in text:
        depth += (sign in _OPEN) - (sign in _CLOSE)
        if depth > DEEPEST:
            raise TooDeep


def _split(text: str, separators: Sequence[str]) -> tuple[list[str], list[str]]:
    """The parts of a text between separators outside all brackets, and the separators."""
    parts, found, depth, environments, start = [], [], 0, 0, 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        environments += sign.startswith("\\begin") - sign.startswith("\\end{")
        if sign in _SPECIAL_OPEN or (len(sign) == 1 and sign in _OPEN):
            depth += 1
        elif sign in _SPECIAL_CLOSE or (len(sign) == 1 and sign in _CLOSE):
            depth -= 1
        elif depth == 0 and environments == 0 and sign in separators:
            parts.append(text[start : token.start()].strip())
            found.append(sign)
            start = token.end()
    return [*parts, text[start:].strip()], found


def _listing(text: str) -> Form:
    """Items separated by commas, semicolons, "and" and "or"."""
    marked = re.sub(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", "\x00", text)
    pieces, _ = _split(marked, (",", ";", "\x00"))
    items = tuple(_union(piece) for piece in pieces if piece)
    if len(items) < 2:
        return items[0] if items else Leaf("")
    if all(isinstance(i, Named) and isinstance(i.value, Group | Union) and _is_set(i.value) for i in items):
        named = [i for i in items if isinstance(i, Named)]
        return Named(named[0].name, Union(tuple(p for i in named for p in parts(i.value))))
    return Listing(tuple(one for item in items for one in spread(item)))


def _is_set(form: Form) -> bool:
    return isinstance(form, Union) or (isinstance(form, Group) and len(form.items) == 2)


def parts(form: Form) -> tuple[Form, ...]:
    return form.parts if isinstance(form, Union) else (form,)


def spread(form: Form) -> tuple[Form, ...]:
    """x = 1, 2 without braces is two items, and so is 1 plus or minus 2."""
    if isinstance(form, Named) and isinstance(form.value, Listing):
        return tuple(Named(form.name, value) for value in form.value.items)
    return form.items if isinstance(form, Listing) and form.bare else (form,)


def _union(text: str) -> Form:
    parts, found = _split(text, ("\\cup",))
    return Union(tuple(_relation(part) for part in parts)) if found else _relation(text)


def _relation(text: str) -> Form:
    """A chain of relations: a value with its name, an interval, or an equation."""
    if label := _LABEL.fullmatch(text):
        return Named(label[1] or label[2] or label[3], bracketed(label[4]))
    sides, signs = _split(text, _RELATIONS)
    if not signs or not all(sides):
        return bracketed(text)
    if all(sign in _FLIPPED for sign in signs):
        return _interval(sides, signs) or Leaf(text)
    if all(sign in ("=", "\\approx", "\\equiv") for sign in signs):
        return _equation(sides)
    if signs == ["\\in"] and _NAME.fullmatch(sides[0]):
        return Named(sides[0], bracketed(sides[1]))
    return Leaf(text)


def _equation(sides: list[str]) -> Form:
    first, last = sides[0], sides[-1]
    if is_name(first):
        value = bracketed(last)
        named = Named(first, value)
        items = spread(named)
        return named if len(items) == 1 else Listing(items)
    if not letters(first):
        return bracketed(first if letters(last) or _is_plain(first) else last)
    return Equation(first, last)


def is_name(side: str) -> bool:
    """Whether the left side of an equation only names the right one: x, f(x), AB, the area, (x, y)."""
    if re.fullmatch(r"\((?:[A-Za-z](?:,\s?)?)+\)", side) or _NAME.fullmatch(side):
        return True
    return bool(re.fullmatch(r"(?:\\text\s?\{[^{}]*\}|[A-Za-z ]{4,})(?:_(?:\w|\{\w+\}))?", side))


def _is_plain(side: str) -> bool:
    return re.fullmatch(r"-?[\d.]+", side) is not None


def letters(text: str) -> set[str]:
    """The letters of a formula that may stand for something; commands left out."""
    return set(re.findall(r"[A-Za-z]", re.sub(r"\\(?:text\s?\{[^{}]*\}|[a-zA-Z]+)", " ", text)))


def _interval(sides: list[str], signs: list[str]) -> Form | None:
    """a < x <= b as (a, b], and a < x as (a, oo)."""
    if signs[0] in (">", "\\geq"):
        sides, signs = sides[::-1], [_FLIPPED[s] for s in reversed(signs)]
    if not all(sign in ("<", "\\leq") for sign in signs):
        return None
    opened = "(" if signs[0] == "<" else "["
    if len(sides) == 3 and _SYMBOL.fullmatch(sides[1]):
        closed = ")" if signs[1] == "<" else "]"
        return Named(sides[1], Group(opened, (bracketed(sides[0]), bracketed(sides[2])), closed))
    if len(sides) == 2 and _SYMBOL.fullmatch(sides[1]):
        return Named(sides[1], Group(opened, (bracketed(sides[0]), Leaf("\\infty")), ")"))
    if len(sides) == 2 and _SYMBOL.fullmatch(sides[0]):
        closed = ")" if signs[0] == "<" else "]"
        return Named(sides[0], Group("(", (Leaf("-\\infty"), bracketed(sides[1])), closed))
    return None


def bracketed(text: str) -> Form:
    """What one pair of brackets encloses; what none does is a formula."""
    if matrix := _MATRIX.fullmatch(text):
        rows = [row for row in _split(matrix[2].replace("\\\\", "\x00"), ("\x00",))[0] if row.strip("\\hline ")]
        return Matrix(tuple(tuple(_listing(cell) for cell in _split(row, ("&",))[0]) for row in rows))
    for opened, closed in (("\\{", "\\}"), ("\\langle", "\\rangle"), ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")")):
        if text.startswith(opened) and text.endswith(closed) and _one_pair(text):
            inner = text[len(opened) : -len(closed)].strip()
            if opened == "\\{":
                return _set(inner)
            items = [part for part in _split(inner, (",", ";"))[0] if part]
            if len(items) > 1:
                ends = ("(", ")") if opened == "\\langle" else (opened, closed)
                return Group(ends[0], tuple(_relation(item) for item in items), ends[1])
            return _listing(inner) if closed == _CLOSE[_OPEN.find(opened)] and items else Leaf(text)
    if text.startswith("{") and text.endswith("}") and _one_pair(text):
        return _listing(text[1:-1].strip())
    return _signed(text)


def _one_pair(text: str) -> bool:
    """Whether the bracket a text begins with closes at its end."""
    depth = 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        depth += sign in _SPECIAL_OPEN or (len(sign) == 1 and sign in _OPEN)
        depth -= sign in _SPECIAL_CLOSE or (len(sign) == 1 and sign in _CLOSE)
        if depth == 0:
            return token.end() == len(text)
    return False


def _set(inner: str) -> Form:
    if not inner:
        return Leaf("\\emptyset")
    form = _listing(inner)
    return replace(form, bare=False) if isinstance(form, Listing) else Listing((form,), bare=False)


def _signed(text: str) -> Form:
    """1 \\pm 2 is 1 + 2 and 1 - 2."""
    if text.count("\\pm") != 1:
        return Leaf(text)
    plus = re.sub(r"^\s?\+\s?", "", text.replace("\\pm", "+").replace("\\mp", "-"))
    return Listing((Leaf(plus), Leaf(text.replace("\\pm", "-").replace("\\mp", "+"))))
