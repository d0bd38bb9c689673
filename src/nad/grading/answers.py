"""From a text to the answer it ends with."""

import re

from nad.thinking import after_thinking

_NUMBER = r"[-+]?\$?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?"
_PHRASE = re.compile(
    r"(?:^|\n)(?:\s*####|(?:.*\b(?:the|my|final|correct)\s|\W*)answer\W{0,2}\s*(?:is|:|=)+\s*:?)\s*(.+)", re.IGNORECASE
)


def extract_answer(text: str, last_number: bool = False) -> str | None:
    """The answer a text ends with, as it is written; None if it has none.

    In this order: the last \\boxed{...}; the last `#### x` or "the answer is x"; with `last_number`, the last number.
    """
    final = after_thinking(text)
    if final is None:
        return None
    if (start := max(final.rfind("\\boxed"), final.rfind("\\fbox"))) >= 0:
        return _boxed(final[start:])
    phrases = _PHRASE.findall(final)
    said = _phrase(phrases[-1], last_number) if phrases else None
    return said or (_last_number(final) if last_number else None)


def _boxed(text: str) -> str | None:
    """The content of the box a text begins with; None for an empty box or one that never closes."""
    after = text.split("boxed" if text.startswith("\\boxed") else "fbox", 1)[1].lstrip()
    if not after.startswith("{"):
        return after.split()[0].rstrip(".,$") if after.split() else None
    depth = 0
    for position, character in enumerate(after):
        escaped = position > 0 and after[position - 1] == "\\"
        depth += 0 if escaped else {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return after[1:position].strip() or None
    return None


def _phrase(text: str, last_number: bool) -> str | None:
    """What the line after "the answer is" begins with: a number, if numbers are asked for; a formula; a text."""
    if last_number and (number := re.match(rf"[\s*$\\(]*({_NUMBER})", text)):
        return number[1]
    if formula := re.search(r"\$([^$]+)\$|\\\((.+?)\\\)", text):
        return (formula[1] or formula[2]).strip()
    return None if last_number else text.strip(" *`\"'").rstrip(".,;").strip(" *`\"'") or None


def _last_number(text: str) -> str | None:
    numbers = re.findall(_NUMBER, text)
    return numbers[-1] if numbers else None


def letter(text: str, allowed: str) -> str | None:
    """The letter a text chooses; None if it names none of `allowed`.

    In this order: the last \\boxed{L}; the last "answer: L" or "answer is L"; a text that is nothing but a letter.
    """
    final = after_thinking(text)
    if final is None:
        return None
    one = rf"[\s*(\[{{]*(?:(?i:option|choice)\s)?[\s*(]*(?:\\text(?:bf)?{{)?[\s(]*([{allowed}])(?![A-Za-z0-9'])"
    for pattern in (rf"\\boxed{{{one}", rf"(?i:answer|choice|option)(?:\*\*)?\s*(?i:is|:|=)+\s*:?(?:\*\*)?\s*\$?{one}"):
        if found := re.findall(pattern, final):
            return str(found[-1])
    alone = re.fullmatch(rf"\W*([{allowed}])\W*", final)
    return alone[1] if alone else None
