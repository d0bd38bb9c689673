"""What the OpenAI API answers, as far as this server fills it in. `nad` is there when a report was asked for."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

FinishReason = Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens the client sees: the prompt's once, and those of all returned answers, stop tokens included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TokenLogprob(BaseModel):
    """A token's text and its log-probability at temperature 1; `bytes` is null inside a character of several tokens."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[Any]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class _Answer(BaseModel):
    id: str
    created: int
    model: str


class ChatCompletion(_Answer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    nad: Annotated[dict[str, Any], Field(description="what `nad generate --json` prints")] = {}


class Delta(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(_Answer):
    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: Usage | None = None
    nad: dict[str, Any] = {}


class TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None
    text_offset: list[int]


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class TextCompletion(_Answer):
    """A completion, or one chunk of it."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None
    nad: dict[str, Any] = {}


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["nad"]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class Health(BaseModel):
    status: Literal["ok", "shutting down"]
