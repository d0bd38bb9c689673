"""Text from tokens that arrive one by one."""

from collections.abc import Callable, Sequence


class TextStream:
    """Text from tokens that arrive one by one: nothing is shown that a later token could still change.

    A character of several bytes can be spread over tokens, and a token's text can depend on the one before it.
    So each piece is the difference of two decodings that start at the last settled token.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._settled = 0
        self._shown = 0

    def add(self, tokens: Sequence[int]) -> str:
        """The text these tokens complete, perhaps none."""
        self._tokens += tokens
        return self._advance(final=False)

    def end(self) -> str:
        """What is left, complete or not."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> str:
        before = self._decode(self._tokens[self._settled : self._shown])
        after = self._decode(self._tokens[self._settled :])
        if not final and (len(after) <= len(before) or after.endswith("\ufffd")):
            return ""
        self._settled, self._shown = self._shown, len(self._tokens)
        return after[len(before) :]
