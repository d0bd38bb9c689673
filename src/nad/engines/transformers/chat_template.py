"""A model's chat template: applied to messages, tried within bounds first, and read for how the model's turns look."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from nad.engines.transformers import template_trial
from nad.errors import NadError, UsageError
from nad.thinking import Tags

_WAIT_SECONDS = 4 * template_trial.SECONDS
"""On a busy machine the trial's seconds of computing take longer."""
_MARK = "nad7f3a"
"""A content no template writes itself: what stands around it is the template's."""
_TAG = r"<[^<>\s]+>|\[[^\[\]\s]+\]|◁[^◁▷\s]+▷"

Turn = Mapping[str, str]
"""`role` and `content`, and whatever else a template may ask for."""


@dataclass(frozen=True)
class ChatTemplate:
    """The template of a tokenizer that has one. Every call first tries it on turns of the same roles, in a process with
    bounds on time and memory. A template that misbehaves only for a certain content is not stopped by that.
    """

    tokenizer: PreTrainedTokenizerBase

    def text(self, turns: Sequence[Turn], arguments: Mapping[str, object], answer: bool = True) -> str:
        """The conversation as the model reads it; `answer` opens the assistant's turn. UsageError if it is refused."""
        self._try(turns, answer, arguments)
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(turns), add_generation_prompt=answer, tokenize=False, **arguments
                )
            )
        except Exception as error:  # a template is somebody else's program and raises what it likes
            raise UsageError(f"the model's chat template refuses these messages: {error}") from error

    def tokens(self, turns: Sequence[Turn], arguments: Mapping[str, object]) -> list[int]:
        """The tokens of `text`: a template writes the special tokens itself."""
        return list(self.tokenizer(self.text(turns, arguments), add_special_tokens=False)["input_ids"])

    def takes_system(self) -> bool:
        """Whether a system message reaches the model: some templates refuse it, some leave it out."""
        try:
            return _MARK in self.text([{"role": "system", "content": _MARK}, {"role": "user", "content": "Hi"}], {})
        except UsageError:
            return False

    def closing_token(self) -> int | None:
        """The token that closes an assistant's turn, where the template writes one."""
        after = self._around("content")[1].lstrip()
        marked = {token.content: i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return next((marked[text] for text in sorted(marked, key=len, reverse=True) if after.startswith(text)), None)

    def thinking_tags(self) -> Tags | None:
        """What the template writes around an assistant's thoughts, where these are a pair of tags."""
        before, after = self._around("reasoning_content")
        opening, closing = re.search(rf"({_TAG})\s*$", before), re.match(rf"\s*({_TAG})", after)
        if opening and closing and _are_pair(opening[1], closing[1]):
            return opening[1], closing[1]
        return None

    def _around(self, field: str) -> tuple[str, str]:
        """What stands before and after a field of the last assistant's message; nothing where it is not shown."""
        answer = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm", field: _MARK}
        if field == "content":
            del answer["reasoning_content"]
        try:
            text = self.text([{"role": "user", "content": "Hi"}, answer], {}, answer=False)
        except UsageError:  # it refuses such a conversation
            return "", ""
        before, mark, after = text.rpartition(_MARK)
        return (before, after) if mark else ("", "")

    def _try(self, turns: Sequence[Turn], answer: bool, arguments: Mapping[str, object]) -> None:
        alike = [{name: value if name == "role" else "text" for name, value in turn.items()} for turn in turns]
        tokens = {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()}
        given = {"messages": alike, "add_generation_prompt": answer, **tokens, **arguments}
        _try(str(self.tokenizer.get_chat_template()), json.dumps(given, default=str))


def _are_pair(opening: str, closing: str) -> bool:
    """Whether two tags differ only in what says that one opens and the other closes."""

    def name(tag: str) -> str:
        return re.sub(r"begin|start|open|prefix|end|close|stop|suffix|[\W_]", "", tag, flags=re.IGNORECASE).lower()

    return opening != closing and name(opening) == name(closing) != ""


@lru_cache(maxsize=256)
def _try(template: str, arguments: str) -> None:
    """Raise NadError for a template that does not end, or takes too much memory, in a process of its own."""
    command = [sys.executable, "-I", template_trial.__file__]
    given = json.dumps({"template": template, "arguments": json.loads(arguments)})
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode < 0:
        raise NadError(f"the model's chat template does not end within {template_trial.SECONDS} s: {_REFUSED}")
    if done.returncode == template_trial.TOO_LARGE:
        raise NadError(f"the model's chat template takes more than {template_trial.MEGABYTES} MB: {_REFUSED}")
    if done.returncode:
        raise NadError(f"the model's chat template cannot be tried: {done.stderr.strip().splitlines()[-1]}")


_REFUSED = "it is damaged or hostile; take the model from a source you trust"
