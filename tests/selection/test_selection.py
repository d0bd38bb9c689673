"""The one table of selectors: names and specs, what each needs, what applies before sampling; length and chance."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from made import candidates

from nad import spec_grammar
from nad.errors import UsageError
from nad.selection import (
    NEEDS,
    SELECTORS,
    Candidates,
    Choice,
    NotApplicable,
    Selector,
    all_selectors,
    check_applies,
    default_selectors,
    parse_selector,
    selector_spec,
)


def chosen(spec: str, given: Candidates) -> int | None:
    return parse_selector(spec).choose(given).index


@pytest.mark.parametrize(("spec", "index"), [("first", 0), ("shortest", 1), ("longest", 2)])
def test_what_length_and_place_choose(spec: str, index: int) -> None:
    assert chosen(spec, candidates()) == index


def test_lengths_of_prefixes_say_nothing() -> None:
    for spec in ("shortest", "longest"):
        with pytest.raises(NotApplicable, match="needs full answers"):
            chosen(spec, candidates(full=False))


def test_random_depends_on_the_problem_and_covers_all() -> None:
    draws = [chosen("random", candidates(problem=f"p{i}")) for i in range(60)]
    assert draws == [chosen("random", candidates(problem=f"p{i}")) for i in range(60)]
    assert {*draws} == {0, 1, 2}
    assert draws != [chosen("random:1", candidates(problem=f"p{i}")) for i in range(60)]


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_is_a_value_with_needs_and_a_line_about_it(name: str) -> None:
    selector = parse_selector(name)
    assert isinstance(selector, Selector)
    assert selector.needs <= {*NEEDS}
    assert selector == SELECTORS[name]()
    assert selector_spec(selector) == name
    assert (type(selector).__doc__ or "").splitlines()[0].strip()
    for field in fields(selector):  # type: ignore[arg-type]
        assert field.metadata["help"]


@pytest.mark.parametrize("spec", ["nosuch", "cons@tokens", "deepconf:median", "deepconf-vote:0", "soft:max", "knn:k=0"])
def test_unknown_names_and_parameters_are_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        parse_selector(spec)


def test_the_default_comparison_holds_every_selector_and_the_control_on_texts() -> None:
    specs = [selector_spec(selector) for selector in default_selectors()]
    assert {*specs} >= {*SELECTORS, "knn@tokens", "medoid@bigrams", "dbscan@tokens", "deepconf:measure=tail"}
    assert len({*specs}) == len(specs)
    assert [parse_selector(spec) for spec in specs] == default_selectors()


@pytest.mark.parametrize(
    ("spec", "full", "said"),
    [
        ("cons", False, "cons needs full answers: --stop-at none"),
        ("deepconf-vote:0.1", False, "deepconf-vote:keep=0.1 needs full answers: --stop-at none"),
        ("shortest", False, "shortest needs full answers: --stop-at none"),
        ("universal", True, "only `nad eval --consistency` records"),
        ("universal", False, "only `nad eval --consistency` records"),
    ],
)
def test_what_cannot_apply_is_refused_before_sampling(spec: str, full: bool, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_applies(parse_selector(spec), full)
    assert said in str(caught.value)


def test_all_others_apply() -> None:
    for selector in default_selectors():
        if "verdict" not in selector.needs:
            check_applies(selector, full=True)
        if not selector.needs & {"verdict", "full"}:
            check_applies(selector, full=False)


@dataclass(frozen=True)
class Last:
    """The last sample: what a package of its own adds."""

    back: int = 1
    needs = frozenset[str]()

    def choose(self, candidates: Candidates) -> Choice:
        return Choice(candidates.n - self.back, np.arange(candidates.n, dtype=float))


@pytest.fixture
def looked_up_anew() -> Iterator[None]:
    all_selectors.cache_clear()
    yield
    all_selectors.cache_clear()


@pytest.mark.usefixtures("looked_up_anew")
def test_installed_packages_add_selectors(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("last", f"{__name__}:Last", "nad.selectors")
    monkeypatch.setattr(spec_grammar, "entry_points", lambda group: [point] if group == "nad.selectors" else [])
    selector = parse_selector("last:back=2")
    assert selector.choose(candidates()).index == 1
    assert selector_spec(selector) == "last:back=2"
    assert selector_spec(default_selectors()[-1]) == "last"
