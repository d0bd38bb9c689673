"""The same sets compiled, in bfloat16, and with the model split among workers; what is refused; a worker that dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sampled import sampled
from tiny import built, tiny_tokenizer
from transformers import AutoConfig
from vllm_engines import OWN, RULE, assert_teacher_forced, in_four_bits, started, tiny_folder

from nad.engines import load_engine
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.stopping import At, Never
from nad.types import SamplingParams

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]
PROMPT = (257, 71, 68, 75, 75, 78, 258)


@contextmanager
def engine_of(folder: str | None, dtype: str = "float32", **arguments: Any) -> Iterator[Any]:
    engine = started(folder, dtype, **arguments)
    try:
        yield engine
    finally:
        engine.close()


def assert_right(engine: Any, reference: Any, least: float = 0.9999, signals: bool = True) -> None:
    params = SamplingParams(max_tokens=40, temperature=1.0)
    for rule in (RULE, OWN):
        with engine.start(PROMPT, 12, params, rule, signals=signals) as rollout:
            for stop, kept in ((At(15), [0, 3, 4, 11]), (At(30), [3]), (Never(), [3])):
                for _ in rollout.until(stop):
                    pass
                group = rollout.group()
                assert_teacher_forced(reference, PROMPT, group.completions, rule, least)
                rollout.keep(kept)
        assert_teacher_forced(reference, PROMPT, [engine.score(PROMPT, tuple(range(60)), rule)], rule, least)
    assert all(held[0] == 0 for held in engine.held())


def test_compiled_and_a_worker_that_dies(folder: str, reference: Any) -> None:
    """Dynamo and Inductor see the operation; killed, the engine says so in one line and nothing hangs."""
    with engine_of(folder, enforce_eager="false") as engine:
        assert_right(engine, reference)
        rollout = engine.start(PROMPT, 4, SamplingParams(max_tokens=400, temperature=1.0), RULE)
        steps = rollout.until(At(400))
        next(steps)
        children = psutil.Process().children(recursive=True)
        (worker,) = [p for p in children if "Worker" in " ".join(p.cmdline()) or "Worker" in p.name()] or children[-1:]
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(NadError, match="failed in vLLM"):
            list(steps)
        rollout.close()
        with pytest.raises(NadError):
            sampled(engine, PROMPT, 1, SamplingParams(max_tokens=3), At(3), RULE)


@pytest.mark.parametrize(
    ("tensor", "pipeline"), [(2, 1), (1, 2), (2, 2)], ids=["two-parts", "two-stages", "two-parts-of-two-stages"]
)
def test_split_among_workers(folder: str, reference: Any, tensor: int, pipeline: int) -> None:
    with engine_of(folder, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline) as engine:
        assert engine.neurons == reference.neurons
        assert_right(engine, reference)
        with pytest.raises(UsageError, match="keep=eta is not available with several workers"):
            engine.start(PROMPT, 1, SamplingParams(), ActivationRule("eta"))


@pytest.mark.model
def test_the_default_model_in_bfloat16() -> None:
    """Rounding differs between the engines: in the mean 98 % of the neurons are the same."""
    reference = load_engine(dtype="bfloat16", fast_cpu=False)
    with engine_of(None, "bfloat16") as engine:
        prompt = engine.encode("A train travels 60 km in 45 minutes. What is its speed in km/h?")
        group = sampled(engine, prompt, 16, SamplingParams(max_tokens=32), At(32), ActivationRule())
        assert_teacher_forced(reference, prompt, group.completions, ActivationRule(), least=0.98)


def test_weights_of_four_bits(folder: str, tmp_path: Path) -> None:
    """W_out is what the packed layer makes of an identity matrix; the reference has the same numbers unpacked."""
    in_four_bits(folder, packed=tmp_path / "packed", dense=tmp_path / "dense")
    reference = load_engine(str(tmp_path / "dense"), dtype="bfloat16", fast_cpu=False)
    with engine_of(str(tmp_path / "packed"), "bfloat16") as engine:
        assert engine._llm.vllm_config.model_config.quantization == "compressed-tensors"
        assert_right(engine, reference, least=0.98)


def test_a_client_that_is_killed_leaves_no_process(folder: str) -> None:
    """`kill -9` lets nobody say goodbye: the workers see it."""
    code = (
        "import sys; from vllm_engines import started\n"
        "if __name__ == '__main__':\n"
        "    engine = started(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    )
    script = Path(folder) / "client.py"
    script.write_text(code)
    helpers = str(Path(__file__).parents[2] / "helpers")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(script), folder]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as client:
        assert client.stdout is not None
        assert any(line == "ready\n" for line in client.stdout)
        family = psutil.Process(client.pid).children(recursive=True)
        client.kill()
    _, alive = psutil.wait_procs(family, timeout=90)
    assert alive == []


def test_a_layout_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=264, n_positions=128, n_embd=64, n_layer=2, n_head=2)
    built(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="GPT2LMHeadModel: 0 of 2 layers are gated as known"):
        started(str(tmp_path))


def test_a_mixture_of_experts_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = AutoConfig.for_model("qwen3_moe", hidden_size=32, num_hidden_layers=1, num_experts=4, vocab_size=264)
    config.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="is a mixture of experts"):
        started(str(tmp_path))


def test_families_with_a_gelu_and_a_tied_unembedding(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, "gemma2", sliding_window=512)
    with engine_of(folder) as engine:
        assert_right(engine, load_engine(folder, dtype="float32", fast_cpu=False))
