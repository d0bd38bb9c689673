"""What of an engine is its tokenizer's: a client of replicas does it itself, it is asked too often to travel."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from nad.thinking import Tags
from nad.types import Message


@runtime_checkable
class Texts(Protocol):
    """Members as in Engine."""

    @property
    def thinking_tags(self) -> tuple[Tags, ...]: ...

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]: ...

    def prompt_notes(self, prompt: str | Sequence[Message], raw: bool = False) -> tuple[str, ...]: ...

    def encode_completion(self, text: str) -> tuple[int, ...]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class ReadsTexts:
    """An engine that leaves these to its `texts`."""

    texts: Texts

    @property
    def thinking_tags(self) -> tuple[Tags, ...]:
        return self.texts.thinking_tags

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        return self.texts.encode(prompt, raw, template_args)

    def prompt_notes(self, prompt: str | Sequence[Message], raw: bool = False) -> tuple[str, ...]:
        return self.texts.prompt_notes(prompt, raw)

    def encode_completion(self, text: str) -> tuple[int, ...]:
        return self.texts.encode_completion(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.texts.decode(tokens)
