"""`nad score`: what it reads, what it prints, and that its sets are the engine's."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import jaccard
from sampled import sampled
from tiny import LAYERS, NEURONS, VOCABULARY, tiny_engine, tiny_model, tiny_tokenizer

from nad.cli.main import main
from nad.cli.score_lines import Line, ScoreOptions, read_lines, score_lines
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule, parse_rule
from nad.selection.agreement import Medoid
from nad.stopping import Never
from nad.types import Message, SamplingParams

RULE = ActivationRule(k=30, per_layer=16)


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return tiny_engine("llama", torch.float64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def score(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Score these lines on the command line: exit code, standard output and standard error."""

    def run(lines: list[dict[str, Any]], *options: str) -> tuple[int, str, str]:
        file = tmp_path / "lines.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        small = ("--activation", "top_k:k=30,per_layer=16", "--dtype", "float64")
        code = main(["score", str(file), "--model", model, *small, *options])
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("position", ["emitting", "own"])
def test_sets_of_sampled_tokens_are_the_sampled_sets(engine: TransformersEngine, score: Any, position: str) -> None:
    spec = f"top_k:k=30,per_layer=16,position={position}"
    prompt = engine.encode("hello")
    group = sampled(engine, prompt, 4, SamplingParams(max_tokens=10), Never(), parse_rule(spec))
    lines = [{"prompt_tokens": prompt, "completion_tokens": c.tokens} for c in group.completions]
    code, out, err = score(lines, "--neurons", "--activation", spec)
    assert (code, err) == (0, "")
    for number, (line, c) in enumerate(zip(out.splitlines(), group.completions, strict=True), 1):
        assert json.loads(line) == {
            "line": number,
            "tokens": 10,
            "activated": len(c.activations),
            "neurons": c.activations.neuron.tolist(),
            "first_token": c.activations.first_token.tolist(),
        }


def test_texts_go_through_the_template(engine: TransformersEngine) -> None:
    as_text = Line(1, "hello", "world")
    as_tokens = Line(1, engine.encode("hello"), engine.encode_completion("world"))
    options = ScoreOptions(RULE, neurons=True)
    assert list(score_lines(engine, [as_text], options)) == list(score_lines(engine, [as_tokens], options))


def test_without_options_only_counts_are_printed(score: Any) -> None:
    code, out, _ = score([{"prompt": "hello", "completion": "é"}])
    assert code == 0
    assert list(json.loads(out)) == ["line", "tokens", "activated"]
    assert json.loads(out)["tokens"] == 2


def test_the_choice_is_made_among_the_lines_of_each_prompt(engine: TransformersEngine, score: Any) -> None:
    texts = [("a", "one"), ("b", "x"), ("a", "two"), ("a", "ten"), ("b", "y")]
    code, out, _ = score([{"prompt": p, "completion": c} for p, c in texts], "--selector", "medoid", "--neurons")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [r["line"] for r in records] == [1, 2, 3, 4, 5]
    for members in ([0, 2, 3], [1, 4]):
        sets = [set(records[i]["neurons"]) for i in members]
        sums = [sum(jaccard(a, b) for b in sets) for a in sets]
        assert [records[i]["score"] for i in members] == pytest.approx(sums)
        assert [records[i]["selected"] for i in members] == [i == int(np.argmax(sums)) for i in range(len(members))]


def test_scores_that_are_not_finite_are_null(engine: TransformersEngine, score: Any) -> None:
    _, out, _ = score([{"prompt": "a", "completion": c} for c in ("one", "two", "ten")], "--selector", "consensus-min")
    scores = [json.loads(line)["score"] for line in out.splitlines()]
    assert None in scores
    assert any(isinstance(s, float) for s in scores)


def test_neuron_ids_count_layer_by_layer(engine: TransformersEngine) -> None:
    everything = ScoreOptions(ActivationRule(k=10**6, per_layer=10**6), neurons=True)
    (record,) = score_lines(engine, [Line(1, (5,), (6,))], everything)
    assert record["neurons"] == list(range(LAYERS * NEURONS))
    assert record["first_token"] == [0] * (LAYERS * NEURONS)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"prompt": "a", "completion": "b"}\n'
    (tmp_path / "lines").write_text(text, encoding="utf-8-sig")
    assert read_lines(str(tmp_path / "lines")) == [Line(1, "a", "b")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff" + text))
    assert read_lines("-") == [Line(1, "a", "b")]


def test_a_prompt_of_chat_messages(engine: TransformersEngine, score: Any) -> None:
    """One user message is the prompt as a text; with --system, or with turns before it, they come first."""

    def neurons(prompt: Any, *options: str) -> list[int]:
        code, out, _ = score([{"prompt": prompt, "completion": "x"}], "--neurons", *options)
        assert code == 0
        return json.loads(out)["neurons"]

    user = {"role": "user", "content": "hi"}
    assert neurons([user]) == neurons("hi")
    system = {"role": "system", "content": "s"}
    assert neurons([system, user]) == neurons("hi", "--system", "s") == neurons([user], "--system", "s")
    turns = [user, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "so"}]
    expected = engine.encode([Message("user", "hi"), Message("assistant", "yes"), Message("user", "so")])
    (record,) = score_lines(engine, [Line(1, expected, "x")], ScoreOptions(RULE, neurons=True))
    assert neurons(turns) == record["neurons"]


def test_messages_and_options_that_exclude_each_other(score: Any) -> None:
    line = {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}], "completion": "b"}
    for options, said in ((("--system", "t"), "drop --system"), (("--raw",), "one text, not messages")):
        code, _, err = score([line], *options)
        assert code == 2
        assert err.startswith("nad: error: line 1: ") and said in err


def test_lines_of_the_same_messages_are_one_prompt(score: Any) -> None:
    asked = [{"role": "user", "content": "a"}]
    lines = [{"prompt": asked, "completion": c} for c in ("one", "one", "ten")]
    _, out, _ = score(lines, "--selector", "knn:k=1")
    assert [json.loads(line)["selected"] for line in out.splitlines()] == [True, False, False]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("shortest", 2), ("longest", 1), ("first", 0), ("cons", 0), ("knn@tokens:k=1", 0), ("knn:weight=peak", None)],
)
def test_every_kind_of_selector_chooses_among_texts(selector: str, expected: int | None, score: Any) -> None:
    texts = ["so the answer is 7", "one more: the answer is 7", "the answer is 8"]
    code, out, _ = score([{"prompt": "a", "completion": c} for c in texts], "--selector", selector)
    selected = [json.loads(line)["selected"] for line in out.splitlines()]
    assert code == 0 and sum(selected) == 1
    assert expected is None or selected[expected]


def test_signals_are_computed_where_the_selector_needs_them(engine: TransformersEngine, score: Any) -> None:
    texts = ["one", "two", "ten"]
    prompt = engine.encode("a")
    found = [engine.score(prompt, engine.encode_completion(t), RULE, signals=True).signals for t in texts]
    means = [float(s.logprob.mean()) for s in found if s is not None]
    _, out, _ = score([{"prompt": "a", "completion": t} for t in texts], "--selector", "logprob")
    assert [json.loads(line)["score"] for line in out.splitlines()] == pytest.approx(means)


def test_chance_differs_from_prompt_to_prompt(score: Any) -> None:
    lines = [{"prompt": f"p{i}", "completion": c} for i in range(12) for c in ("a", "b", "c")]
    _, out, _ = score(lines, "--selector", "random")
    chosen = [i % 3 for i, line in enumerate(out.splitlines()) if json.loads(line)["selected"]]
    assert len(chosen) == 12 and {*chosen} == {0, 1, 2}


def test_a_failed_vote_selects_nothing(score: Any) -> None:
    lines = [{"prompt": "a", "completion": f"the answer is {i}"} for i in (1, 2)]
    _, out, _ = score(lines, "--selector", "cons")
    assert [json.loads(line)["selected"] for line in out.splitlines()] == [False, False]


def test_a_verdict_is_not_there_for_given_texts(score: Any) -> None:
    code, out, err = score([{"prompt": "a", "completion": "b"}], "--selector", "universal")
    assert (code, out) == (2, "")
    assert "nad eval --consistency" in err


def test_options_reach_the_prompt(engine: TransformersEngine) -> None:
    def record(prompt: str | tuple[int, ...], **options: Any) -> dict[str, object]:
        (found,) = score_lines(engine, [Line(1, prompt, "x")], ScoreOptions(RULE, neurons=True, **options))
        return found

    assert record("hi", raw=True) == record((71, 72))
    assert record("hi", system="s") == record((259, 82, 257, 71, 72, 258))
    assert record("hi", template_args={"enable_thinking": True}) == record((257, 71, 72, 258, 260))


def test_lines_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('\n{"prompt": "a", "completion": "b"}\r\n \n'))
    assert read_lines("-") == [Line(2, "a", "b")]


def test_tokens_count_where_a_line_has_both(tmp_path: Path) -> None:
    both = {"prompt": "a", "completion": "b", "prompt_tokens": [1], "completion_tokens": [2, 3]}
    (tmp_path / "lines").write_text(json.dumps(both))
    assert read_lines(str(tmp_path / "lines")) == [Line(1, (1,), (2, 3))]


def test_separators_inside_a_text_do_not_end_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\x85c"
    (tmp_path / "lines").write_text(json.dumps({"prompt": text, "completion": text}, ensure_ascii=False), "utf-8")
    assert read_lines(str(tmp_path / "lines")) == [Line(1, text, text)]


FORMS = "must be {"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no lines"),
        ("\n \n", "has no lines"),
        ('{"prompt": "a", "completion": "b"}\nnot json\n', "line 2 is not JSON"),
        ('{"prompt": "a"', "line 1 is not JSON"),
        ('{"prompt_tokens": [' + "1" * 5000 + '], "completion_tokens": [1]}', "line 1 cannot be read as JSON"),
        ("[" * 100_000, "line 1 cannot be read as JSON"),
        ("[1, 2]", FORMS),
        ('"text"', FORMS),
        ("{}", FORMS),
        ('{"prompt": "a"}', FORMS),
        ('{"prompt": "a", "completion": ""}', FORMS),
        ('{"prompt": "", "completion": "b"}', FORMS),
        ('{"prompt": 1, "completion": "b"}', FORMS),
        ('{"prompt": [], "completion": "b"}', FORMS),
        ('{"prompt": ["a"], "completion": "b"}', FORMS),
        ('{"prompt": [{"role": "user"}], "completion": "b"}', FORMS),
        ('{"prompt": [{"role": "user", "content": ["a"]}], "completion": "b"}', FORMS),
        ('{"prompt_tokens": [1], "completion_tokens": []}', FORMS),
        ('{"prompt_tokens": [1], "completion_tokens": [true]}', FORMS),
        ('{"prompt_tokens": [1.5], "completion_tokens": [1]}', FORMS),
        ('{"prompt_tokens": [-1], "completion_tokens": [1]}', FORMS),
        ('{"prompt_tokens": [1], "completion": "b"}', FORMS),
    ],
)
def test_lines_that_are_wrong(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "lines").write_text(content)
    with pytest.raises(UsageError) as caught:
        read_lines(str(tmp_path / "lines"))
    assert message in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(UsageError, match="not UTF-8 text"):
        read_lines(str(tmp_path / "lines"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a" * 300, "completion": "b"}, "line 2: the prompt and the completion have 303 tokens"),
        ({"prompt_tokens": [1], "completion_tokens": [VOCABULARY]}, f"line 2: no token {VOCABULARY}"),
        ({"prompt": "\ud800", "completion": "b"}, "line 2: the text is not UTF-8"),
        ({"prompt": "a", "completion": "\ud800"}, "line 2: the text is not UTF-8"),
    ],
)
def test_lines_the_model_cannot_read_are_named(score: Any, line: dict[str, Any], message: str) -> None:
    """What came before is printed; the error names the line."""
    code, out, err = score([{"prompt": "a", "completion": "b"}, line])
    assert code == 2
    assert len(out.splitlines()) == 1
    assert message in err
    assert err.count("\n") == 1


def test_a_selector_prints_all_or_nothing(score: Any) -> None:
    bad = {"prompt_tokens": [1], "completion_tokens": [VOCABULARY]}
    code, out, _ = score([{"prompt": "a", "completion": "b"}, bad], "--selector", "knn")
    assert (code, out) == (2, "")


def test_the_selector_of_the_library_and_of_the_command_line_agree(engine: TransformersEngine, score: Any) -> None:
    lines = [Line(i, "hello", text) for i, text in enumerate(("one", "two", "ten"), 1)]
    direct = list(score_lines(engine, lines, ScoreOptions(RULE, Medoid())))
    _, out, _ = score([{"prompt": "hello", "completion": line.completion} for line in lines], "--selector", "medoid")
    assert [json.loads(line) for line in out.splitlines()] == direct
