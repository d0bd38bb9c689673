"""One notation for what is written in several: Unicode signs and LaTeX commands that mean the same."""

import re
from functools import lru_cache

LONGEST = 1000
"""Characters of the longest answer that is read; a longer one equals only what is spelled the same."""

_SIGNS = {
    **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011\u2012\ufe63\uff0d", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    **{sign: f"^{power}" for power, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{sign: f"_{index}" for index, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **{sign: f" {a}/{b}" for sign, a, b in zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "112131234151357", "233445555668888", strict=True)},
    **dict(zip("÷\u2044\u2215\uff05\uff04\uff1a\uff0c\uff0e\uff1d\uff0b", "///%$:,.=+", strict=True)),
    **dict.fromkeys("\u00d7✕", r"\times "),
    **dict.fromkeys("\u00b7⋅∙", r"\cdot "),
    **dict.fromkeys("≤⩽", r"\leq "),
    **dict.fromkeys("≥⩾", r"\geq "),
    **dict.fromkeys("“”„″\uff02", '"'),
    **dict.fromkeys("\u2018\u2019\u2032", "'"),
    **dict.fromkeys("º˚", "°"),
    "≠": r"\neq ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∞": r"\infty ",
    "\u222a": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "…": r"\ldots ",
    "≈": r"\approx ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "π": r"\pi ",
    "θ": r"\theta ",
    "\u03b1": r"\alpha ",
    "β": r"\beta ",
    "λ": r"\lambda ",
    "φ": r"\phi ",
}
_TABLE = str.maketrans(_SIGNS)

_COMMANDS = [
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"√\s?(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}"),
        (r"√\s?\(([^()]*)\)", r"\\sqrt{\1}"),
        (r",\\!\s?|\{\s?,\s?\}", ","),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z])\s?|\\!", ""),
        (r"\\(?:quad|qquad|thinspace|hfill)(?![a-zA-Z])|\\[,;: ]|~", " "),
        (r"\\([$%#&])", r"\1"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:mbox|hbox|textrm|textbf|textit|textsf|texttt|textnormal|textsc|emph|operatorname\*?)\s?\{", r"\\text{"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|mathtt|mathbb|boldsymbol|bm|underline)\s?\{([^{}]?)\}", r"\1"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|mathtt|mathbb|boldsymbol|bm|underline)\s?\{", r"\\text{"),
        (
            r"\^\s?\\(?:circ|degree)(?![a-zA-Z])|\^\s?\{\s?\\(?:circ|degree)\s?\}|\^\s?\{\s?(?:\\text\s?\{\s?o\s?\}|o)\s?\}|\\degrees?(?![a-zA-Z])|\\textdegree(?![a-zA-Z])",
            "°",
        ),
        (r"\\(?:varnothing|empty)(?![a-zA-Z])|\\\{\s?\\\}", r"\\emptyset"),
        (r"\\(?:c?dots[cbmi]?|ldots)(?![a-zA-Z])|\.\.\.", r"\\ldots "),
        (r"\\(?:leqslant|leqq|le)(?![a-zA-Z])|<=", r"\\leq "),
        (r"\\(?:geqslant|geqq|ge)(?![a-zA-Z])|>=", r"\\geq "),
        (r"\\ne(?![a-zA-Z])|!=", r"\\neq "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"\\(?:lbrack|lbrack)(?![a-zA-Z])", "["),
        (r"\\rbrack(?![a-zA-Z])", "]"),
        (r"\\text\s?\{\s?(and|or)\s?\}", r" \1 "),
        (r"\*\*", "^"),
    )
]
_ROWS = re.compile(r"\\begin\s?\{")
_NEW_ROW = "\x00"
_TIGHT = re.compile(r"(?<![\w.])\s+|\s+(?![\w.\\])|(?<=[A-Za-z])\s+(?=\\)")
_WRAPPERS = ' \t\n\r\f\v*`"“”.,;'


@lru_cache(maxsize=4096)
def plain(answer: str) -> str:
    """The answer in one notation, without the dollars, stars, quotes and full stop around it."""
    text = _unwrapped(answer.translate(_TABLE))
    if not _ROWS.search(text):
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)  # a command that was escaped twice
    text = text.replace("\\\\", _NEW_ROW)
    for pattern, meaning in _COMMANDS:
        text = pattern.sub(meaning, text)
    return _unwrapped(" ".join(text.split()).replace(_NEW_ROW, "\\\\"))


def unwrapped_text(answer: str) -> str:
    """The answer in one notation, without a \\text around the whole of it."""
    text = plain(answer)
    whole = re.fullmatch(r"\\text\s?\{([^{}]*)\}", text)
    return plain(whole[1]) if whole else text


def _unwrapped(text: str) -> str:
    """Without formatting around the whole; ".5" keeps its point, "...", which leaves something out, its dots."""
    before = None
    while text != before:
        before = text
        text = text.lstrip(' \t\n\r\f\v*`"“”,;').rstrip(_WRAPPERS.replace(".", ""))
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
        if len(text) > 2 and text[0] == text[-1] == "'":
            text = text[1:-1]
        for opened, closed in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            inner = text[len(opened) : -len(closed)]
            if len(text) > 2 * len(opened) and text == opened + inner + closed and opened not in inner:
                text = inner
    return text


def spelling(answer: str) -> str:
    """What two answers share that are written the same, up to spaces that mean nothing and braces around one sign."""
    if len(answer) > LONGEST:
        return answer.strip()
    text = re.sub(r"\\text\s?\{([^{}]*)\}", r"\1", plain(answer))
    text = re.sub(r"([\^_])\{(\w)\}(?!\w)", r"\1\2", text)
    text = re.sub(r"^\s*\(([A-Za-z])\)\s*$", r"\1", text)  # (B) is the choice B
    return _TIGHT.sub("", text.replace("{}", "")).strip()
