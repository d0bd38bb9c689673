"""Log-probabilities of the tokens a client sees, in OpenAI's two formats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nad.server.answer_schema import ChatLogprobs, TextLogprobs, TokenLogprob
from nad.text_stream import TextStream
from nad.types import Completion


@dataclass(frozen=True)
class ShownToken:
    """A token's part of the text, where it begins there, and its log-probability at temperature 1."""

    text: str
    offset: int
    logprob: float


def shown_tokens(completion: Completion, decode: Callable[[Sequence[int]], str]) -> list[ShownToken]:
    """The tokens that make the completion's text: joined, their texts are it.

    A token that ends inside a character has no text of its own; the one that completes it has the whole. Tokens after
    the end of the text (a stop token, a stop text) are left out.
    """
    if completion.signals is None:
        raise ValueError(f"completion {completion.index} has no signals")
    stream, found, offset = TextStream(decode), [], 0
    for i, token in enumerate(completion.tokens):
        if offset >= len(completion.text):
            break
        piece = stream.add([token]) + (stream.end() if i + 1 == len(completion.tokens) else "")
        piece = piece[: len(completion.text) - offset]
        found.append(ShownToken(piece, offset, float(completion.signals.logprob[i])))
        offset += len(piece)
    return found


def chat_logprobs(tokens: Sequence[ShownToken]) -> ChatLogprobs:
    content = [
        TokenLogprob(token=t.text, logprob=t.logprob, bytes=list(t.text.encode()) if t.text else None, top_logprobs=[])
        for t in tokens
    ]
    return ChatLogprobs(content=content, refusal=None)


def text_logprobs(tokens: Sequence[ShownToken]) -> TextLogprobs:
    return TextLogprobs(
        tokens=[t.text for t in tokens],
        token_logprobs=[t.logprob for t in tokens],
        top_logprobs=None,
        text_offset=[t.offset for t in tokens],
    )
