"""Which answers of one problem are one vote."""

from collections.abc import Sequence

from nad.grading.math_equality import equivalent


def ballots(answers: Sequence[str | None]) -> list[str | None]:
    """A label for each answer: the first answer it equals, as it is written; None, no answer, stays None."""
    labels: dict[str, str] = {}
    firsts: list[str] = []
    for answer in answers:
        if answer is None or answer in labels:
            continue
        labels[answer] = next((first for first in firsts if equivalent(first, answer)), answer)
        if labels[answer] == answer:
            firsts.append(answer)
    return [None if answer is None else labels[answer] for answer in answers]
