"""From messages to tokens and back: the chat template or raw text, the text of tokens, what ends a completion."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

from nad.engines.transformers.chat_template import ChatTemplate, Turn
from nad.errors import NadError, UsageError
from nad.thinking import KNOWN_TAGS, Tags
from nad.types import Message

_FOLD = "--fold-system (fold_system=True) puts it into the first user turn"


@runtime_checkable
class Detokenizer(Protocol):
    """What sampling needs of a tokenizer; prompts and texts need a whole one.

    It may have `eos_token_id` too, which transformers' own make when asked (`__getattr__`): from Python 3.12 on a check
    of the protocol would not see it.
    """

    chat_template: Any
    added_tokens_decoder: Any
    all_special_ids: Any

    def decode(self, token_ids: Any) -> str: ...


class ChatTokenizer:
    """A model's tokenizer as an engine uses it.

    `fold_system` puts a system message before the first user turn's text where the template takes none;
    `thinking_tags` names tags beside those the template has and the known ones.
    """

    def __init__(self, tokenizer: Detokenizer, fold_system: bool = False, thinking_tags: Sequence[Tags] = ()) -> None:
        self._tokenizer: Any = tokenizer
        self._fold_system = fold_system
        self._template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        found = self._template.thinking_tags() if self._template else None
        tags = dict.fromkeys([*thinking_tags, *([found] if found else [])])
        self.thinking_tags = tuple(pair for pair in tags if pair not in KNOWN_TAGS)
        self._hidden = _special(tokenizer) - _ids(tokenizer, [*KNOWN_TAGS, *self.thinking_tags])

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        """The prompt's tokens, through the chat template unless `raw`."""
        if raw:
            if not isinstance(prompt, str):
                raise UsageError("a raw prompt must be one text, not messages")
            if template_args:
                raise UsageError("template arguments need the chat template; drop --raw or --template-arg")
            ids = self._tokenizer(unicode(prompt))["input_ids"]
            return tuple(ids[1:] if self._doubles_start(prompt) else ids)
        if self._template is None:
            raise UsageError("the model has no chat template; pass --raw (raw=True) to send the prompt as it is")
        arguments = dict(template_args or {})
        self._check_arguments(arguments)
        return tuple(self._template.tokens(self._turns(prompt), arguments))

    def prompt_notes(self, prompt: str | Sequence[Message], raw: bool = False) -> tuple[str, ...]:
        """What a user should know about how this prompt is read."""
        if raw:
            doubled = isinstance(prompt, str) and self._doubles_start(prompt)
            return (f"the text begins with {self._tokenizer.bos_token}: none is put before it",) if doubled else ()
        folded = self._folds(prompt)
        return ("the chat template takes no system message: it stands in the first user turn",) if folded else ()

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """The tokens of a completion's text, without the tokens a tokenizer puts before a new text."""
        return tuple(self._tokenizer(unicode(text), add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, without special ones except those that open or close a thinking block."""
        return str(self._tokenizer.decode([token for token in tokens if token not in self._hidden]))

    def _doubles_start(self, text: str) -> bool:
        """Whether the tokenizer would put the token that begins texts before a text that begins with it."""
        start = self._tokenizer.bos_token_id
        return start is not None and list(self._tokenizer(unicode(text))["input_ids"][:2]) == [start, start]

    def _turns(self, prompt: str | Sequence[Message]) -> list[Turn]:
        messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
        if self._folds(messages):
            system, user, *rest = messages
            messages = [Message("user", f"{system.content}\n\n{user.content}"), *rest]
        elif messages and messages[0].role == "system" and self._template and not self._template.takes_system():
            raise UsageError(f"the model's chat template takes no system message; {_FOLD}")
        return [{"role": m.role, "content": unicode(m.content)} for m in messages]

    def _folds(self, prompt: str | Sequence[Message]) -> bool:
        if isinstance(prompt, str) or not self._fold_system or [m.role for m in prompt[:2]] != ["system", "user"]:
            return False
        return self._template is not None and not self._template.takes_system()

    def _check_arguments(self, arguments: Mapping[str, object]) -> None:
        """Raise UsageError for an argument the template does not read, or that is not for users to set."""
        # What goes to the method itself never reaches the template; tools and documents go to both.
        method = inspect.signature(self._tokenizer.apply_chat_template).parameters
        own = {"messages", *method} - {"tools", "documents"}
        taken = [name for name in arguments if name in own]
        if taken:
            raise UsageError(f"the chat template's {', '.join(taken)} is not for --template-arg to set")
        template = str(self._tokenizer.chat_template)
        unknown = [name for name in arguments if not re.search(rf"\b{re.escape(name)}\b", template)]
        if unknown:
            raise UsageError(f"the model's chat template has no argument {', '.join(unknown)}")


def end_tokens(model: nn.Module, tokenizer: Detokenizer) -> frozenset[int]:
    """Every token that ends a completion: those that the generation settings, the model and the tokenizer name, and the
    one that closes an assistant's turn in the chat template.
    """
    settings = getattr(model, "generation_config", None)
    found = [getattr(owner, "eos_token_id", None) for owner in (settings, model.config, tokenizer)]
    lists = [ids if isinstance(ids, list) else [ids] for ids in found]
    closing = ChatTemplate(tokenizer).closing_token() if tokenizer.chat_template else None
    named = [i for i in [*(i for ids in lists for i in ids), closing] if i is not None]
    if wrong := [i for i in named if not isinstance(i, int)]:
        raise NadError(
            f"the model's settings name {wrong[0]!r} as the token that ends an answer, which is not a number"
        )
    return frozenset(named)


def unicode(text: str) -> str:
    """The text, if it is one: bytes that are not UTF-8 reach Python as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not UTF-8 ({error.reason} at character {error.start})") from error
    return text


def _special(tokenizer: Detokenizer) -> frozenset[int]:
    """The tokens that are not text."""
    marked = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(marked | {i for i in tokenizer.all_special_ids if i is not None})


def _ids(tokenizer: Detokenizer, tags: Sequence[Tags]) -> frozenset[int]:
    texts = {text for pair in tags for text in pair}
    return frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token.content in texts)
