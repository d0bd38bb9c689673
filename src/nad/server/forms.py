"""The two shapes of an answer: chat.completion and text_completion, whole or in chunks."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import BaseModel

from nad.result_json import result_json
from nad.server.answer_schema import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    Delta,
    FinishReason,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    Usage,
)
from nad.server.logprobs import chat_logprobs, shown_tokens, text_logprobs
from nad.types import Completion, Result


@dataclass(frozen=True)
class Asked:
    """What a client wants back. `id` names the answer; `model` is the name it used."""

    id: str
    model: str
    stream: bool
    usage: bool
    report: bool
    logprobs: bool
    decode: Callable[[Sequence[int]], str]
    created: int = field(default_factory=lambda: int(time.time()))

    def frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def reported(self, result: Result) -> Mapping[str, Any]:
        return {"nad": result_json(result)} if self.report else {}


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def usage_of(result: Result) -> Usage:
    """What the client sees, not what was sampled: that is in the report."""
    prompt, written = len(result.group.prompt_tokens), sum(len(c.tokens) for c in result.completions)
    return Usage(prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written)


def _reason(completion: Completion) -> FinishReason:
    return cast(FinishReason, completion.finish_reason)


@runtime_checkable
class Form(Protocol):
    """How one endpoint writes an answer: `whole`, or in chunks: `opening` for each rank, `piece`s, `closing` for each.

    `counted` is the chunk after the last that carries the usage.
    """

    def whole(self, asked: Asked, result: Result) -> BaseModel: ...

    def opening(self, asked: Asked, rank: int) -> BaseModel | None: ...

    def piece(self, asked: Asked, rank: int, text: str) -> BaseModel: ...

    def closing(self, asked: Asked, rank: int, result: Result) -> BaseModel: ...

    def counted(self, asked: Asked, result: Result) -> BaseModel: ...


class ChatForm:
    """/v1/chat/completions"""

    def whole(self, asked: Asked, result: Result) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=rank,
                message=AnswerMessage(role="assistant", content=c.text, refusal=None),
                logprobs=self._logprobs(asked, c),
                finish_reason=_reason(c),
            )
            for rank, c in enumerate(result.completions)
        ]
        frame = asked.frame("chat.completion")
        return ChatCompletion(**frame, choices=choices, usage=usage_of(result), **asked.reported(result))

    def opening(self, asked: Asked, rank: int) -> ChatChunk:
        return self._chunk(asked, rank, Delta(role="assistant", content=""))

    def piece(self, asked: Asked, rank: int, text: str) -> ChatChunk:
        return self._chunk(asked, rank, Delta(content=text))

    def closing(self, asked: Asked, rank: int, result: Result) -> ChatChunk:
        end = result.completions[rank]
        choice = ChunkChoice(index=rank, delta=Delta(), logprobs=self._logprobs(asked, end), finish_reason=_reason(end))
        last = rank + 1 == len(result.completions)
        report = asked.reported(result) if last else {}
        return ChatChunk(**asked.frame("chat.completion.chunk"), choices=[choice], **report)

    def counted(self, asked: Asked, result: Result) -> ChatChunk:
        return ChatChunk(**asked.frame("chat.completion.chunk"), choices=[], usage=usage_of(result))

    def _chunk(self, asked: Asked, rank: int, delta: Delta) -> ChatChunk:
        choice = ChunkChoice(index=rank, delta=delta, logprobs=None, finish_reason=None)
        return ChatChunk(**asked.frame("chat.completion.chunk"), choices=[choice])

    def _logprobs(self, asked: Asked, completion: Completion) -> ChatLogprobs | None:
        return chat_logprobs(shown_tokens(completion, asked.decode)) if asked.logprobs else None


class TextForm:
    """/v1/completions"""

    def whole(self, asked: Asked, result: Result) -> TextCompletion:
        choices = [self._choice(asked, rank, c.text, c) for rank, c in enumerate(result.completions)]
        return self._answer(asked, choices, usage=usage_of(result), **asked.reported(result))

    def opening(self, asked: Asked, rank: int) -> None:
        """A text begins with its first piece."""

    def piece(self, asked: Asked, rank: int, text: str) -> TextCompletion:
        return self._answer(asked, [TextChoice(index=rank, text=text, logprobs=None, finish_reason=None)])

    def closing(self, asked: Asked, rank: int, result: Result) -> TextCompletion:
        last = rank + 1 == len(result.completions)
        choice = self._choice(asked, rank, "", result.completions[rank])
        return self._answer(asked, [choice], **(asked.reported(result) if last else {}))

    def counted(self, asked: Asked, result: Result) -> TextCompletion:
        return self._answer(asked, [], usage=usage_of(result))

    def _answer(self, asked: Asked, choices: list[TextChoice], **more: Any) -> TextCompletion:
        return TextCompletion(**asked.frame("text_completion"), choices=choices, **more)

    def _choice(self, asked: Asked, rank: int, text: str, end: Completion) -> TextChoice:
        found: TextLogprobs | None = text_logprobs(shown_tokens(end, asked.decode)) if asked.logprobs else None
        return TextChoice(index=rank, text=text, logprobs=found, finish_reason=_reason(end))
