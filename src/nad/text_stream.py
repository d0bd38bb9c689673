"""Text from tokens that arrive one by one."""

from collections.abc import Callable, Sequence


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    return text[: min((place for s in stop if (place := text.find(s)) >= 0), default=len(text))]


class TextStream:
    """Text from tokens that arrive one by one: nothing is shown that a later token could still change.

    A character of several bytes can be spread over tokens, and a token's text can depend on the one before it.
    So each piece is the difference of two decodings that start at the last settled token. Nothing is shown from a
    stop text on (`stopped` says that there was one), nor what could be the beginning of one.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, stop
        self._tokens: list[int] = []
        self._settled = 0
        self._shown = 0
        self._held = ""
        self.stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """The text these tokens complete, perhaps none."""
        self._tokens += tokens
        return self._let_go(self._advance(final=False))

    def end(self) -> str:
        """What is left, complete or not."""
        piece = self._let_go(self._advance(final=True))
        held, self._held = self._held, ""
        return piece + ("" if self.stopped else held)

    def _advance(self, final: bool) -> str:
        before = self._decode(self._tokens[self._settled : self._shown])
        after = self._decode(self._tokens[self._settled :])
        if not final and (len(after) <= len(before) or after.endswith("\ufffd")):
            return ""
        self._settled, self._shown = self._shown, len(self._tokens)
        return after[len(before) :]

    def _let_go(self, piece: str) -> str:
        """The piece after what was held back, as far as no stop text begins in it."""
        if self.stopped:
            return ""
        text = self._held + piece
        before = cut_at(text, self._stop)
        self.stopped = before != text
        longest = max((_begun(text, s) for s in self._stop), default=0)
        shown = before if self.stopped else text[: len(text) - longest]
        self._held = "" if self.stopped else text[len(shown) :]
        return shown


def _begun(text: str, stop: str) -> int:
    """How many characters of a stop text the text ends with."""
    return next((k for k in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:k])), 0)
