"""`model.generate(custom_generate=nad.custom_generate)`: the tokens nad.generate chooses, as generate returns them."""

from typing import Any

import pytest
import torch
from sampled import sampled
from tiny import END, tiny_engine, tiny_model

import nad
from nad.errors import UsageError
from nad.selection import Candidates, parse_selector
from nad.stopping import At, Never
from nad.types import SamplingParams

PROMPT = [257, 71, 68, 75, 75, 78, 258]
OPTIONS: dict[str, Any] = {
    "custom_generate": nad.custom_generate,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 0,
    "max_new_tokens": 14,
    "n": 6,
    "stop_at": "5",
    "pad_token_id": 0,
}


def expected(selector: str) -> list[int]:
    engine = tiny_engine("llama", torch.float64)
    params = SamplingParams(max_tokens=14)
    group = sampled(engine, PROMPT, 6, params, At(5), nad.ActivationRule(), signals=True)
    choice = parse_selector(selector).choose(Candidates.of(group.completions, full=False))
    return list(sampled(engine, PROMPT, 6, params, Never(), None).completions[choice.index or 0].tokens)


@pytest.mark.parametrize("selector", ["knn", "medoid@tokens", "self-certainty"])
def test_it_returns_the_prompt_and_the_chosen_answer(selector: str) -> None:
    model = tiny_model("llama", torch.float64)
    out = model.generate(torch.tensor([PROMPT]), selector=selector, **OPTIONS)
    assert out.tolist() == [[*PROMPT, *expected(selector)]]


def test_prompts_of_a_batch_are_padded_as_generate_pads_them() -> None:
    model = tiny_model("llama", torch.float64)
    short = torch.tensor([[0, 0, *PROMPT[2:]], PROMPT])
    mask = (torch.arange(7) >= torch.tensor([[2], [0]])).long()
    out = model.generate(short, attention_mask=mask, return_dict_in_generate=True, **OPTIONS).sequences
    assert out[:, :7].tolist() == short.tolist()
    alone = model.generate(torch.tensor([PROMPT[2:]]), **OPTIONS)[0, 5:].tolist()
    assert out[0, 7 : 7 + len(alone)].tolist() == alone
    assert set(out[0, 7 + len(alone) :].tolist()) <= {0, END}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 50}, "cannot apply top_k"),
        ({"repetition_penalty": 1.2}, "cannot apply repetition_penalty"),
        ({"selector": "cons", "stop_at": "none"}, "reads answers in texts"),
        ({"stop_at": "20"}, r"lies past max_tokens \(14\)"),
        ({"selector": "shortest"}, "needs full answers: --stop-at none"),
    ],
)
def test_settings_it_would_have_to_ignore_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_model("llama").generate(torch.tensor([PROMPT]), **{**OPTIONS, **options})
