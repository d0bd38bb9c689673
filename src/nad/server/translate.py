"""From a request of the API to one of the library, within the server's limits."""

import secrets
from dataclasses import dataclass

from nad.decoding import Request
from nad.errors import UsageError
from nad.schedules import samples_of
from nad.selection import Selector, parse_selector
from nad.server.names import ModelNames
from nad.server.refusals import Refusal
from nad.server.schema import ChatRequest, CompletionRequest, NadOptions
from nad.server.settings import Settings
from nad.stopping import At, Prune, StopRule, parse_stop
from nad.types import Message, SamplingParams


@dataclass(frozen=True)
class Method:
    """How many samples, where they stop, who chooses."""

    n: int
    stop: StopRule
    selector: Selector


def library_request(body: ChatRequest | CompletionRequest, names: ModelNames, settings: Settings) -> Request:
    """What `nad.decoding.stream` is asked for. Raises Refusal.

    A request without a seed draws one, so that asking again can give another answer; the report names it.
    """
    try:
        params = _params(body, settings)
        method = _method(body, names, settings, params.max_tokens)
        best = body.n or 1
        if best > method.n:
            raise Refusal(400, f"n ({best}) answers cannot be the best of nad.n ({method.n}) samples", "n")
        chat = isinstance(body, ChatRequest)
        return Request(
            prompt=_messages(body) if isinstance(body, ChatRequest) else body.text,
            n=method.n,
            stop=method.stop,
            selector=method.selector,
            params=params,
            rule=settings.rule,
            raw=not chat,
            template_args=dict(body.chat_template_kwargs or {}) if isinstance(body, ChatRequest) else {},
            best=best,
            signals=body.wants_logprobs,
        )
    except UsageError as error:
        raise Refusal(400, str(error), code="invalid_value") from None


def _messages(body: ChatRequest) -> list[Message]:
    """The conversation; `developer` is what newer clients call the system."""
    return [Message("system" if m.role == "developer" else m.role, m.text) for m in body.messages]


def _params(body: ChatRequest | CompletionRequest, settings: Settings) -> SamplingParams:
    defaults, most = settings.defaults, settings.limits.max_tokens
    if (body.token_limit or 0) > most:
        raise Refusal(400, f"at most {most} tokens are allowed, got {body.token_limit}", "max_tokens", "invalid_value")
    return SamplingParams(
        temperature=defaults.temperature if body.temperature is None else body.temperature,
        top_p=defaults.top_p if body.top_p is None else body.top_p,
        max_tokens=body.token_limit or most,
        seed=secrets.randbelow(2**32) if body.seed is None else body.seed,
        stop=body.stop_texts,
    )


def _method(body: ChatRequest | CompletionRequest, names: ModelNames, settings: Settings, max_tokens: int) -> Method:
    asked, named = body.nad or NadOptions(), names.options(body.model)
    for field in ("n", "selector"):
        own, other = getattr(asked, field), getattr(named, field)
        if None not in (own, other) and own != other:
            raise Refusal(400, f"the model's name says {field} {other}, nad.{field} says {own}", f"nad.{field}")
    n = asked.n or named.n or settings.defaults.n
    spec = asked.selector or named.selector
    selector = names.selector(spec or settings.defaults.selector, "nad.selector")
    if n == 1 and spec is None:  # nothing to choose: no neurons are needed, and its tokens stream from the first on
        selector, stop = parse_selector("first"), "1"
    elif "full" in selector.needs:
        stop = "none"
    else:
        stop = settings.defaults.stop
    rule = _stop(asked.stop_at, stop, selector, max_tokens)
    if isinstance(rule, Prune) and asked.n is None:
        n = samples_of(rule)
    if n > settings.limits.n:
        raise Refusal(400, f"nad.n must be at most {settings.limits.n}, got {n}", "nad.n", "invalid_value")
    return Method(n, rule, selector)


def _stop(asked: int | str | None, default: str, selector: Selector, max_tokens: int) -> StopRule:
    if asked is None:
        rule = parse_stop(default)
        return At(min(rule.tokens, max_tokens)) if isinstance(rule, At) else rule
    try:
        rule = parse_stop(str(asked))
    except UsageError as error:
        raise Refusal(400, str(error), "nad.stop_at", "invalid_value") from None
    if "full" in selector.needs and str(asked) != "none":
        raise Refusal(400, "this selector needs full answers: leave nad.stop_at out, or none", "nad.stop_at")
    if rule.latest is not None and rule.latest > max_tokens:
        raise Refusal(400, f"nad.stop_at {rule.latest} lies past max_tokens ({max_tokens})", "nad.stop_at")
    return rule
