"""Model names that carry the method, for clients that cannot send the field `nad`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nad.errors import UsageError
from nad.selection import Selector
from nad.server.refusals import Refusal
from nad.server.schema import NadOptions
from nad.spec_grammar import parse_spec

PLAIN = "plain"


@dataclass(frozen=True)
class ModelNames:
    """MODEL is the server's default method, nad-SELECTOR/MODEL chooses by that selector, plain/MODEL samples once.

    `selectors` is the table of what can be named; SELECTOR may have parameters, `nad-knn:k=5/MODEL`.
    """

    model: str
    selectors: Mapping[str, type[Any]]

    def all(self) -> list[str]:
        """The names /v1/models lists."""
        return [self.model, f"{PLAIN}/{self.model}", *(f"nad-{name}/{self.model}" for name in self.fresh())]

    def fresh(self) -> list[str]:
        """The selectors that can choose among fresh samples."""
        return [name for name, selector in self.selectors.items() if "verdict" not in selector().needs]

    def options(self, name: str) -> NadOptions:
        """What the name says of the method. Raises Refusal for a model that is not served."""
        method, _, model = ("", "", name) if name == self.model else name.partition("/")
        if model == self.model and method in ("", PLAIN):
            return NadOptions(n=1) if method else NadOptions()
        if model == self.model and method.startswith("nad-"):
            selector = method.removeprefix("nad-")
            self.selector(selector, "model")
            return NadOptions(selector=selector)
        raise Refusal(
            404, f"the model {name[:200]!r} is not served here; GET /v1/models lists names", "model", "model_not_found"
        )

    def selector(self, spec: str, param: str) -> Selector:
        """The selector a spec names. Raises Refusal."""
        try:
            selector: Selector = parse_spec(spec, self.selectors, "selector")
        except UsageError as error:
            raise Refusal(400, str(error), param, "invalid_value") from None
        if "verdict" in selector.needs:
            raise Refusal(400, f"the selector {spec} chooses in recorded runs only", param, "invalid_value")
        return selector
