"""What a GPU alone can show: CUDA graphs, both model runners, NCCL. Written without one: `pytest -m gpu` runs it."""

from typing import Any

import pytest
import torch
from sampled import sampled
from vllm_engines import assert_teacher_forced, started

from nad.engines import load_engine
from nad.engines.vllm.capture_op import Selection, keep_gates
from nad.neurons.activation import ActivationRule
from nad.stopping import At
from nad.types import SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def assert_right(engine: Any) -> None:
    """98 % of the neurons, in the mean, are those of the transformers engine: rounding differs in bfloat16."""
    reference = load_engine(dtype="bfloat16")
    prompt = engine.encode("A train travels 60 km in 45 minutes. What is its speed in km/h?")
    group = sampled(engine, prompt, 64, SamplingParams(max_tokens=32), At(32), ActivationRule(), signals=True)
    assert_teacher_forced(reference, prompt, group.completions, ActivationRule(), least=0.98)
    scored = engine.score(prompt, group.completions[0].tokens, ActivationRule())
    assert_teacher_forced(reference, prompt, [scored], ActivationRule(), least=0.98)


@pytest.mark.parametrize("runner", ["0", "1"], ids=["first-runner", "second-runner"])
@pytest.mark.parametrize("eager", ["true", "false"], ids=["eager", "graphs"])
def test_the_default_model(runner: str, eager: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", runner)
    engine = started(None, "bfloat16", enforce_eager=eager)
    try:
        assert_right(engine)
    finally:
        engine.close()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_stages() -> None:
    engine = started(None, "bfloat16", enforce_eager="false", pipeline_parallel_size=2)
    try:
        assert_right(engine)
    finally:
        engine.close()


def test_unused_slots_write_where_nobody_reads() -> None:
    device = torch.device("cuda")
    selection = Selection.of(4, trash=6, device=device)
    kept = torch.zeros(7, 3, device=device)
    merged = torch.arange(30.0, device=device).view(5, 6)
    selection.set([4, 1], [0, 5])
    keep_gates(merged, selection.rows, selection.slots, selection.count, kept)
    assert kept[[0, 5]].tolist() == merged[[4, 1], :3].tolist()
    assert not kept[1:5].any()
    selection.clear()
    before = kept[:6].clone()
    keep_gates(2 * merged, selection.rows, selection.slots, selection.count, kept)
    assert torch.equal(kept[:6], before)
