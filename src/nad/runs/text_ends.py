"""Where in a completion's text each of its tokens ends."""

from collections.abc import Callable, Sequence

from nad.text_stream import TextStream


class Spans:
    """Finds the ends with `decode`, and remembers what it learned of each token: most texts need no decoding at all."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._pieces: dict[int, str] = {}
        self._anchor: int | None = None

    def ends(self, tokens: Sequence[int], text: str) -> tuple[int, ...]:
        """For each token the number of characters of `text` that stand once it is written."""
        pieces = [self._decode(tokens[:1]), *(self._piece(token) for token in tokens[1:])]
        if "".join(pieces) != text:
            # Characters spread over tokens, or texts that depend on their neighbours: ask for every token.
            stream = TextStream(self._decode)
            pieces = [stream.add([token]) for token in tokens]
        ends, end = [], 0
        for piece in pieces:
            end = min(end + len(piece), len(text))
            ends.append(end)
        return (*ends[:-1], len(text))

    def _piece(self, token: int) -> str:
        """A token's text after another token, where tokenizers do not strip its leading space."""
        if token not in self._pieces:
            if self._anchor is None:
                self._anchor = token
            anchor = self._anchor  # read once: another thread may set another one meanwhile, and any will do
            before = self._decode([anchor])
            self._pieces[token] = self._decode([anchor, token])[len(before) :]
        return self._pieces[token]
