"""A mixture of experts from a folder through every command: generate, eval, select, tables, figures, report, score."""

import json
from pathlib import Path

import pytest
from mixtures import MIXTURES, WIDTH, neurons_of, tiny_mixture
from tiny import LAYERS, tiny_tokenizer

from nad.cli.main import main
from nad.runs.store import open_run

pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install 'nad[report]'")
FAMILIES = ["qwen3-moe", "deepseek-v3", "gpt-oss"]
SMALL = ["--dtype", "float32", "-n", "4", "--max-tokens", "40"]
TASK = ["--task", "arithmetic_1", "--limit", "2"]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The family's name; its model lies in a folder of that name, and commands run beside it."""
    monkeypatch.chdir(tmp_path)
    tiny_mixture(request.param).save_pretrained(request.param)
    tiny_tokenizer().save_pretrained(request.param)
    return request.param


def test_from_a_folder_to_a_report(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *TASK, *SMALL, "--model", f"./{family}", "--out", "run"]) == 0
    run = open_run("run")
    slots = MIXTURES[family].slots
    assert (run.manifest.layers, run.manifest.experts, run.manifest.neurons) == (LAYERS, slots, neurons_of(family))
    assert run.manifest.neurons == LAYERS * slots * WIDTH
    for record in run:
        for sample in record.samples:
            found = sample.completion.activations
            assert found is not None and len(found) > 0 and found.neuron[-1] < run.manifest.neurons
    again = ["eval", *TASK, *SMALL[2:], "--engine", "replay", "--model", "run", "--out", "again"]
    assert main(again) == 0
    replayed = open_run("again")
    assert replayed.manifest.experts == slots
    for one, other in zip(run, replayed, strict=True):
        assert [s.completion.activations for s in one.samples] == [s.completion.activations for s in other.samples]
    assert main(["select", "run", "--at", "8,none", "--json"]) == 0
    for command in (["tables", "run"], ["figures", "run"], ["report", "run", "--out", "out"]):
        assert main(command) == 0
    assert family in Path("out/report.html").read_text()
    capsys.readouterr()


def test_an_answer_and_its_score(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", f"./{family}", "--activation", "top_k:router=off"]
    assert main(["generate", "hi", *SMALL, "--stop-at", "8", *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert all(candidate["activated"] > 0 for candidate in answer["candidates"])
    Path("lines.jsonl").write_text(json.dumps({"prompt": "hi", "completion": "four"}))
    found = {}
    for rule in ("top_k:k=20", "top_k:k=20,router=off"):
        assert main(["score", "lines.jsonl", *SMALL[:2], *options[:2], "--activation", rule, "--neurons"]) == 0
        found[rule] = json.loads(capsys.readouterr().out)["neurons"]
    weighted, unweighted = found.values()
    assert weighted != unweighted
    assert max(weighted + unweighted) < neurons_of(family)
