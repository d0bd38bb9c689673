"""What the server does by default, and the most that a request may ask for."""

from dataclasses import dataclass

from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.selection import parse_selector
from nad.server.auth import Keys
from nad.stopping import parse_stop
from nad.types import SamplingParams


@dataclass(frozen=True)
class Defaults:
    """What a request gets that does not say otherwise; those of `nad generate`."""

    n: int = 64
    stop: str = "32"
    selector: str = "knn"
    temperature: float = 0.6
    top_p: float = 0.9

    def __post_init__(self) -> None:
        parse_stop(self.stop)
        parse_selector(self.selector)
        SamplingParams(self.temperature, self.top_p)
        if self.temperature > 2:
            raise UsageError(f"temperature must be between 0 and 2, got {self.temperature}")
        if self.n < 1:
            raise UsageError(f"n must be at least 1, got {self.n}")


@dataclass(frozen=True)
class Limits:
    """The most a request may ask for; `max_tokens` is also what one gets that does not say.

    `running` requests at once (None: as many as the engine can), `waiting` more in the queue. A request has `seconds`
    from its arrival to its last token, and `body_s` to send its body. At shutdown running ones have `grace_s` left.
    """

    n: int = 128
    max_tokens: int = 2048
    prompt_tokens: int = 16384
    body_bytes: int = 1 << 20
    body_s: float = 30.0
    running: int | None = None
    waiting: int = 32
    seconds: float = 600.0
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("n", "max_tokens", "prompt_tokens", "body_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"the limit {name} must be at least 1, got {getattr(self, name)}")
        for name in ("body_s", "seconds"):
            if not getattr(self, name) > 0:
                raise UsageError(f"the limit {name} must be above 0 seconds, got {getattr(self, name)}")
        if self.running is not None and self.running < 1:
            raise UsageError(f"at least 1 request must be able to run, got {self.running}")
        if self.waiting < 0 or self.grace_s < 0:
            raise UsageError("the queue and the grace time must not be negative")


@dataclass(frozen=True)
class Settings:
    """How a server behaves. `rule` says which neurons count.

    With `keys` every request but /health, the schema and the page's files needs one. `hosts` are the names it answers
    to (any, if empty), `origins` the other sites whose pages may call it. While a stream has nothing to say it sends a
    comment every `keep_alive_s`. `page` serves the page at /.
    """

    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    rule: ActivationRule = ActivationRule()
    keys: Keys = Keys()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    keep_alive_s: float = 1.0
    log_prompts: bool = False
    page: bool = True

    def __post_init__(self) -> None:
        if self.defaults.n > self.limits.n:
            raise UsageError(f"the default n ({self.defaults.n}) is above the limit ({self.limits.n})")
