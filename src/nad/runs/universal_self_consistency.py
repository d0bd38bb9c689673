"""Universal self-consistency: the model itself is asked which of its answers is the most consistent."""

import re
from collections.abc import Mapping

from nad.engines.base import Engine
from nad.errors import UsageError
from nad.stopping import Never
from nad.types import Group, SamplingParams

_REPLY_TOKENS = 512
_VERDICT = re.compile(r"most consistent response is[\s*]*response[\s*]*(\d+)", re.IGNORECASE)


def consistency_prompt(question: str, texts: list[str]) -> str:
    """What the model is asked (Chen et al. 2023, "Universal self-consistency for large language model generation")."""
    responses = "\n\n".join(f"Response {i}: {text}" for i, text in enumerate(texts))
    return (
        f"I have generated the following responses to the question: {question}\n\n{responses}\n\n"
        "Evaluate these responses.\nSelect the most consistent response based on majority consensus.\n"
        'Start your answer with "The most consistent response is Response X" (without quotes).'
    )


def most_consistent(
    engine: Engine, question: str, group: Group, raw: bool, template_args: Mapping[str, object]
) -> int | None:
    """The sample the model names. None: the answers together do not fit its window, or it names none of them.

    It is asked as it was asked the question: through the chat template, or `raw`.
    """
    asked = consistency_prompt(question, [c.text for c in group.completions])
    tokens = engine.encode(asked, raw, template_args)
    greedy = SamplingParams(temperature=0, max_tokens=_REPLY_TOKENS)
    try:
        with engine.start(tokens, 1, greedy, None) as rollout:
            for _ in rollout.until(Never()):
                pass
            reply = rollout.group().completions[0].text
    except UsageError:  # longer than the context window
        return None
    return named_response(reply, len(group.completions))


def named_response(reply: str, n: int) -> int | None:
    """The number the reply names, when it is one of 0 .. n - 1."""
    found = _VERDICT.search(reply)
    return int(found[1]) if found and int(found[1]) < n else None
