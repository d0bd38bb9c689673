"""Which answers of one problem are one vote."""

import time
from collections.abc import Sequence

from nad.grading.exact import decide
from nad.grading.math_equality import equivalent
from nad.grading.notation import spelling

PATIENCE_S = 120.0
"""Time that failed comparisons of one problem may take; the rest of its answers are then compared without algebra."""


def ballots(answers: Sequence[str | None]) -> list[str | None]:
    """A label for each answer: two answers have the same exactly when `equivalent` says they are equal.

    The label is the first such answer, as it is written; None, no answer, stays None. What cannot be decided is
    different. `equivalent` is not an equivalence: a bare 5 equals both x = 5 and y = 5, 1/3 equals 0.333333. Such
    an answer has the label of the first that it equals.
    """
    groups: dict[str, str] = {}  # the first answer of each group, by its spelling
    labels: dict[str, str] = {}  # of each spelling
    wasted = 0.0
    for answer in answers:
        if answer is None or (spelled := spelling(answer) or answer) in labels:
            continue
        labels[spelled] = answer
        for first in groups.values():
            begin = time.monotonic()
            same = (equivalent if wasted < PATIENCE_S else decide)(first, answer)
            wasted += time.monotonic() - begin if same is None else 0.0
            if same:
                labels[spelled] = first
                break
        else:
            groups[spelled] = answer
    return [None if answer is None else labels[spelling(answer) or answer] for answer in answers]
