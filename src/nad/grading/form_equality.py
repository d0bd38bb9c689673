"""Whether two answers are equal: their shapes are, and so are the formulas at the same places.

There are three verdicts: True, False, and None for what could not be decided.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nad.grading.forms import Equation, Form, Group, Leaf, Listing, Matrix, Named, Union, bracketed, letters, parts

MOST_ITEMS = 60
"""Items of the longest list that is compared in any order."""


@dataclass(frozen=True)
class Judge:
    """What decides about formulas: whether two are equal, and whether two equations are."""

    formulas: Callable[[str, str], bool | None]
    equations: Callable[[Equation, Equation], bool | None]


def same(one: Form, other: Form, judge: Judge) -> bool | None:
    """Whether two forms are equal."""
    if isinstance(one, Named | Equation) or isinstance(other, Named | Equation):
        return _same_named(one, other, judge)
    if isinstance(one, Listing) or isinstance(other, Listing):
        return _same_listing(one, other, judge)
    if isinstance(one, Union) or isinstance(other, Union):
        return _matched(parts(one), parts(other), judge)
    if isinstance(one, Matrix) or isinstance(other, Matrix):
        return _same_matrix(one, other, judge)
    if isinstance(one, Group) and isinstance(other, Group):
        brackets = (one.opened, one.closed) == (other.opened, other.closed)
        return _in_order(one.items, other.items, judge) if brackets else False
    if isinstance(one, Leaf) and isinstance(other, Leaf):
        return judge.formulas(one.text, other.text)
    return False


def _same_named(one: Form, other: Form, judge: Judge) -> bool | None:
    """x = 5 answers what 5 answers, and not what y = 5 does. An equation is not a number, unless it says the value
    of an expression of several unknowns, as m + n = 5 does.
    """
    if isinstance(one, Named) and isinstance(other, Named):
        if _spelled(one.name) == _spelled(other.name):
            return same(one.value, other.value, judge)
        if isinstance(one.value, Leaf) and isinstance(other.value, Leaf):
            if letters(one.name) & letters(other.value.text):
                return judge.equations(_as_equation(one), _as_equation(other))
            return False
        return False
    if isinstance(one, Named | Equation) and isinstance(other, Named | Equation):
        return judge.equations(_as_equation(one), _as_equation(other))
    if not isinstance(one, Named | Equation):
        one, other = other, one
    if isinstance(one, Named):
        if isinstance(other, Listing) and isinstance(one.value, Group):
            return _as_tuple(other, one.value, judge, re.findall(r"[A-Za-z]", one.name))
        if isinstance(other, Listing):
            return _same_listing(Listing((one,)), other, judge)
        return same(one.value, other, judge)
    assert isinstance(one, Equation)
    says_value = len(letters(one.left)) > 1 and not letters(one.right) and one.right != "0"
    return same(bracketed(one.right), other, judge) if says_value else False


def _spelled(name: str) -> str:
    return re.sub(r"\\text|[\s{}]", "", name)


def _as_equation(form: Named | Equation) -> Equation:
    if isinstance(form, Equation):
        return form
    return Equation(form.name, form.value.text if isinstance(form.value, Leaf) else "")


def _same_listing(one: Form, other: Form, judge: Judge) -> bool | None:
    """Items in any order; without braces they may be meant as a tuple, in their order."""
    if not isinstance(one, Listing):
        one, other = other, one
    assert isinstance(one, Listing)
    if isinstance(other, Leaf) and re.fullmatch(r"-?\d+(?:,-?\d+)+", other.text):
        other = Listing(tuple(map(Leaf, other.text.split(","))))
    if isinstance(other, Group):
        return _as_tuple(one, other, judge)
    if isinstance(other, Listing):
        if any(isinstance(i, Leaf) and "\\ldots" in i.text for i in (*one.items, *other.items)):
            return _in_order(one.items, other.items, judge)
        return _matched(one.items, other.items, judge)
    return _all(same(item, other, judge) for item in one.items) if one.bare and not isinstance(other, Union) else False


def _as_tuple(listing: Listing, group: Group, judge: Judge, order: Sequence[str] = ()) -> bool | None:
    """x = 1, y = 2 for (1, 2): by the order of the names, which has to be the order in which they stand, or is told."""
    if not listing.bare or (group.opened, group.closed) != ("(", ")"):
        return False
    values = {item.name: item.value for item in listing.items if isinstance(item, Named)}
    if not values:
        return _in_order(listing.items, group.items, judge)
    if len(values) < len(listing.items):
        return False
    if order and sorted(order) != sorted(values):
        return False
    if not order and list(values) != sorted(values):
        return None
    return _in_order([values[name] for name in order or values], group.items, judge)


def _same_matrix(one: Form, other: Form, judge: Judge) -> bool | None:
    """Matrices entry by entry; a column is a vector, as a tuple is."""
    if not isinstance(one, Matrix):
        one, other = other, one
    assert isinstance(one, Matrix)
    if isinstance(other, Matrix):
        if [len(row) for row in one.rows] != [len(row) for row in other.rows]:
            return False
        return _all(
            same(a, b, judge) for x, y in zip(one.rows, other.rows, strict=True) for a, b in zip(x, y, strict=True)
        )
    column = all(len(row) == 1 for row in one.rows) and len(one.rows) > 1
    if isinstance(other, Group) and other.opened == "(" and column:
        return _in_order([row[0] for row in one.rows], other.items, judge)
    return None if isinstance(other, Leaf) and "matrix" in other.text else False


def _in_order(ones: Sequence[Form], others: Sequence[Form], judge: Judge) -> bool | None:
    if len(ones) != len(others):
        return False
    return _all(same(one, other, judge) for one, other in zip(ones, others, strict=True))


def _matched(ones: Sequence[Form], others: Sequence[Form], judge: Judge) -> bool | None:
    """Whether each item has its equal on the other side, in any order."""
    if len(ones) != len(others):
        return False
    if len(ones) > MOST_ITEMS:
        return True if _in_order(ones, others, judge) else None
    left, undecided = list(others), False
    for one in ones:
        verdicts = [same(one, other, judge) for other in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """True if all are true, False if one is false, else undecided."""
    undecided = False
    for verdict in verdicts:
        if verdict is False:
            return False
        undecided = undecided or verdict is None
    return None if undecided else True
