"""The requests of the OpenAI API, strictly: each field works or is refused by name, none is ignored.

A standard field that does not work here may be null, or have the value that changes nothing; then it is as good as
absent.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

_MESSAGE: Mapping[str, tuple[object, ...]] = {
    "name": (),
    "refusal": (),
    "audio": (),
    "tool_calls": ([],),
    "function_call": (),
    "annotations": ([],),
}
_BOTH: Mapping[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}
_CHAT: Mapping[str, tuple[object, ...]] = {
    **_BOTH,
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "store": (False,),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "moderation": (),
    "safety_identifier": (),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
}
_COMPLETION: Mapping[str, tuple[object, ...]] = {**_BOTH, "echo": (False,), "suffix": ("",), "best_of": (1,)}


def _unsupported(name: str, why: str = "is not supported by this server; leave it out") -> PydanticCustomError:
    return PydanticCustomError("unsupported", "{param} {why}", {"param": name, "why": why})


class _Strict(BaseModel):
    """No field beyond those named here, no value of another type; `unsupported` may only have these values, or null."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    unsupported: ClassVar[Mapping[str, tuple[object, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_unsupported(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        for name, neutral in cls.unsupported.items():
            if body.get(name) is not None and body[name] not in neutral:
                raise _unsupported(name)
        return {key: value for key, value in body.items() if key not in cls.unsupported}


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class ChatMessage(_Strict):
    unsupported = _MESSAGE

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @field_validator("content", mode="before")
    @classmethod
    def _texts_only(cls, content: Any) -> Any:
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type", "text") != "text":
                raise _unsupported("messages.content", "must be text: this server takes no images, sound or files")
        return content

    @property
    def text(self) -> str:
        """The parts' texts are one text, as they stand."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class NadOptions(_Strict):
    """How the answer is chosen: n samples, where they stop, and who chooses. {"n": 1} is a plain sample."""

    n: Annotated[int, Field(ge=1)] | None = None
    stop_at: Annotated[
        Annotated[int, Field(ge=1)] | Annotated[str, Field(max_length=100)] | None,
        Field(description='a position in tokens, "none", "budget", "distinct", "auto" or "64:32,16:128"'),
    ] = None
    selector: Annotated[
        Annotated[str, Field(max_length=200)] | None, Field(description="as for `nad generate --selector`")
    ] = None
    report: Annotated[bool | None, Field(description="add what `nad generate --json` prints")] = None


class StreamOptions(_Strict):
    include_usage: bool | None = None


_StopText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Sampled(_Strict):
    """What both kinds of completions take."""

    model: Annotated[str, Field(max_length=500)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[
        Annotated[int, Field(ge=1)] | None, Field(description="how many of the best ranked answers to return")
    ] = None
    stop: _StopText | Annotated[list[_StopText], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[
        Annotated[str, Field(max_length=200)] | None, Field(description="is written to the server's log")
    ] = None
    nad: NadOptions | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> "Sampled":
        if self.stream_options is not None and not self.stream:
            raise _unsupported("stream_options", "needs stream: true")
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens

    @property
    def stop_texts(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Sampled):
    """POST /v1/chat/completions"""

    unsupported = _CHAT

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    chat_template_kwargs: Annotated[
        dict[str, JsonValue] | None, Field(description="arguments of the chat template")
    ] = None

    @model_validator(mode="after")
    def _one_limit(self) -> "ChatRequest":
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise _unsupported("max_tokens", "differs from max_completion_tokens; give one of them")
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)


class CompletionRequest(Sampled):
    """POST /v1/completions: the prompt goes to the model as it is, without the chat template."""

    unsupported = _COMPLETION

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0)] | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_text(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and (len(prompt) != 1 or not isinstance(prompt[0], str)):
            raise _unsupported("prompt", "must be one text: send a request for each, and text in place of token ids")
        return prompt

    @field_validator("logprobs")
    @classmethod
    def _chosen_tokens_only(cls, logprobs: int | None) -> int | None:
        if logprobs:
            raise _unsupported("logprobs", "must be 0: the most likely other tokens are not recorded")
        return logprobs

    @property
    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None
