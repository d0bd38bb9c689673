"""Names with parameters, as the command line writes them."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from nad.cli.options import messages, parse_template_args, read_prompt
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule, parse_rule
from nad.selection import SELECTORS
from nad.selection.agreement import DBSCAN, KNN, Medoid
from nad.spec_grammar import parse_spec, spec_of
from nad.stopping import At, Budget, Distinct, Never, parse_stop, stop_label
from nad.types import Message, SamplingParams


def selector(spec: str) -> Any:
    return parse_spec(spec, SELECTORS, "selector")


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("knn", KNN()),
        ("knn:k=5", KNN(5)),
        ("knn:5", KNN(5)),
        ("medoid", Medoid()),
        ("medoid@bigrams", Medoid(of="bigrams")),
        ("knn@tokens:k=5", KNN(5, of="tokens")),
        ("knn@neurons:5,weight=peak", KNN(5, weight="peak")),
        ("dbscan:quantile=0.5,min_samples=2", DBSCAN(0.5, 2)),
        ("dbscan:0.5,min_samples=2", DBSCAN(0.5, 2)),
    ],
)
def test_specs_name_values(spec: str, value: object) -> None:
    assert selector(spec) == value


@pytest.mark.parametrize("name", SELECTORS)
def test_a_name_alone_is_its_own_spec(name: str) -> None:
    assert spec_of(selector(name), SELECTORS) == name


def test_changed_parameters_are_in_the_spec() -> None:
    assert spec_of(DBSCAN(0.5), SELECTORS) == "dbscan:quantile=0.5"
    assert selector(spec_of(DBSCAN(0.5, 2), SELECTORS)) == DBSCAN(0.5, 2)
    assert spec_of(KNN(5, of="tokens"), SELECTORS) == "knn@tokens:k=5"
    assert spec_of(KNN(weight="peak"), SELECTORS) == "knn:weight=peak"
    assert spec_of(Medoid(of="neurons"), SELECTORS) == "medoid"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vote", "unknown selector 'vote'; allowed: knn, medoid, dbscan, minact, maxact, consensus-min, "),
        ("", "unknown selector ''"),
        ("knn:n=3", "selector 'knn' has no parameter 'n'; allowed: k, of, weight"),
        ("minact@tokens", "selector 'minact' takes no @tokens; drop it"),
        ("knn@", "of='' is unknown; allowed: neurons, tokens, bigrams"),
        ("knn@tokens:of=bigrams", "selector knn:of is given twice"),
        ("medoid:3", "selector 'medoid' has no parameter"),
        ("knn:k=three", "selector knn:k must be int, got 'three'"),
        ("knn:k=1.5", "selector knn:k must be int, got '1.5'"),
        ("knn:k=0", "k must be at least 1, got 0"),
        ("knn:k=3,k=5", "selector knn:k is given twice"),
        ("knn:3,5", "selector knn:k is given twice"),
        ("dbscan:quantile=2", r"quantile must be in [0, 1], got 2.0"),
        ("dbscan:quantile=nan", "selector dbscan:quantile must be a finite number, got 'nan'"),
        ("dbscan:quantile=-inf", "selector dbscan:quantile must be a finite number, got '-inf'"),
        ("dbscan:1e999", "selector dbscan:quantile must be a finite number, got '1e999'"),
        ("dbscan:min_samples=0", "min_samples must be at least 1"),
    ],
)
def test_specs_that_are_wrong(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        selector(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ("32", At(32)),
        ("1", At(1)),
        ("none", Never()),
        ("distinct", Distinct(256)),
        ("distinct:128", Distinct(128)),
        ("budget", Budget(0)),
        ("budget:1000", Budget(1000)),
    ],
)
def test_stop_rules_by_name(spec: str, rule: object) -> None:
    assert parse_stop(spec) == rule
    assert stop_label(parse_stop(spec)) == spec.replace(":", ":limit=" if "distinct" in spec else ":tokens=")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("0", "the stop position must be at least 1 token, got 0"),
        ("-3", "the stop position must be at least 1 token, got -3"),
        ("--3", "unknown stop rule '--3'; allowed: a position, none, distinct, budget"),
        ("²", "unknown stop rule"),
        ("soon", "unknown stop rule 'soon'"),
        ("at", "unknown stop rule 'at'"),
        ("3.5", "unknown stop rule '3.5'"),
        ("distinct:0", "distinct:limit must be at least 1"),
        ("budget:-1", "budget:tokens must be at least 1"),
        ("none:5", "stop rule 'none' has no parameter"),
    ],
)
def test_stop_rules_that_are_wrong(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_stop(spec)
    assert message in str(caught.value)


def test_activation_rules_by_name() -> None:
    assert parse_rule("top_k") == ActivationRule()
    assert parse_rule("top_k:k=20,per_layer=4,per=chunk,chunk=8") == ActivationRule("top_k", 20, 4, "chunk", 8)
    assert parse_rule("top_k:20,per_layer=4") == ActivationRule("top_k", 20, 4)
    assert parse_rule("eta:k=20") == ActivationRule("eta", 20)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("top", "unknown activation rule 'top'; allowed: top_k, eta"),
        ("top_k:many", "must be int, got 'many'"),
        ("top_k:keep=eta", "given twice"),
        ("eta:per=chunk", "per token only"),
    ],
)
def test_activation_rules_that_are_wrong(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rule(spec)
    assert message in str(caught.value)


def test_template_arguments_are_json_or_text() -> None:
    pairs = ["a=true", "b=3", "c=text", 'd="3"', "e=x=y", "f="]
    assert parse_template_args(pairs) == {"a": True, "b": 3, "c": "text", "d": "3", "e": "x=y", "f": ""}
    assert parse_template_args(None) == {}
    odd = {"n": "NaN", "i": "[Infinity]", "d": "[" * 5000, "l": "9" * 5000}
    assert parse_template_args([f"{key}={value}" for key, value in odd.items()]) == odd


@pytest.mark.parametrize("pair", ["enable_thinking", "=false", ""])
def test_template_arguments_that_are_wrong(pair: str) -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_template_args([pair])


def test_a_system_message_needs_the_template() -> None:
    assert messages("p", None, raw=True) == "p"
    assert messages("p", "s", raw=False) == [Message("system", "s"), Message("user", "p")]
    with pytest.raises(UsageError, match="--system needs the chat template"):
        messages("p", "s", raw=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SamplingParams(temperature=-0.1),
        lambda: SamplingParams(temperature=float("nan")),
        lambda: SamplingParams(temperature=float("inf")),
        lambda: SamplingParams(top_p=0.0),
        lambda: SamplingParams(top_p=1.1),
        lambda: SamplingParams(top_p=float("nan")),
        lambda: SamplingParams(max_tokens=0),
        lambda: SamplingParams(seed=-1),
        lambda: SamplingParams(seed=2**64),
    ],
)
def test_sampling_parameters_outside_their_range(make: Callable[[], SamplingParams]) -> None:
    with pytest.raises(UsageError, match="must be"):
        make()


def test_the_end_of_the_last_line_is_not_part_of_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert read_prompt("-") == "two\nlines"
    assert read_prompt("as it is\n") == "as it is\n"


@pytest.mark.parametrize(
    "spec", ["self-certainty-vote:power=nan", "deepconf-vote:keep=inf", "self-certainty-vote:-Infinity"]
)
def test_no_method_takes_what_is_no_finite_number(spec: str) -> None:
    with pytest.raises(UsageError, match="must be a finite number, got"):
        selector(spec)
