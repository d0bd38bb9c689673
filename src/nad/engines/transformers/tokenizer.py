"""From messages to tokens: the chat template, and the tokens that end a completion."""

import inspect
import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jinja2
from torch import nn
from transformers import PreTrainedTokenizerBase

from nad.errors import UsageError
from nad.types import Message


@runtime_checkable
class Detokenizer(Protocol):
    """What sampling needs of a tokenizer; prompts and texts need a whole one."""

    eos_token_id: Any

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str: ...


def end_tokens(model: nn.Module, tokenizer: Detokenizer) -> frozenset[int]:
    """Every token that ends a completion: the generation settings', the model's and the tokenizer's."""
    settings = getattr(model, "generation_config", None)
    found = [getattr(owner, "eos_token_id", None) for owner in (settings, model.config, tokenizer)]
    lists = [ids if isinstance(ids, list) else [ids] for ids in found]
    return frozenset(int(i) for ids in lists for i in ids if i is not None)


def unicode(text: str) -> str:
    """The text, if it is one: bytes that are not UTF-8 reach Python as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not UTF-8 ({error.reason} at character {error.start})") from error
    return text


def apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template_args: dict[str, object]
) -> list[int]:
    template = tokenizer.chat_template
    if template is None:
        raise UsageError("the model has no chat template; pass --raw (raw=True) to send the prompt as it is")
    # What goes to the method itself never reaches the template; tools and documents go to both.
    own = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters} - {"tools", "documents"}
    taken = [name for name in template_args if name in own]
    if taken:
        raise UsageError(f"the chat template's {', '.join(taken)} is not for --template-arg to set")
    unknown = [name for name in template_args if not re.search(rf"\b{re.escape(name)}\b", str(template))]
    if unknown:
        raise UsageError(f"the model's chat template has no argument {', '.join(unknown)}")
    turns = [{"role": m.role, "content": unicode(m.content)} for m in messages]
    try:
        encoded = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, **template_args
        )
    except jinja2.TemplateError as error:
        raise UsageError(f"the model's chat template refuses these messages: {error}") from error
    return encoded["input_ids"]
