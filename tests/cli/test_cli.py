"""The command line's contract on a tiny model folder: output, JSON, exit codes, errors of one line."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import WINDOW, Family, built, tiny_config, tiny_model, tiny_tokenizer
from transformers import GPT2Config

from nad.cli.main import main

SMALL = ["-n", "4", "--stop-at", "4", "--max-tokens", "8", "--activation", "top_k:k=30,per_layer=16"]
SILENT = ("", "nad: error: interrupted\n")
Run = Callable[..., tuple[int, str, str]]


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_model("llama"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: its exit code, standard output and standard error."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        return code, *capfd.readouterr()

    return command


def assert_error(result: tuple[int, str, str], code: int, *parts: str) -> None:
    """The exit code, nothing on standard output, and one line that holds the parts."""
    got, out, err = result
    assert out == ""
    assert err.startswith("nad: error: ")
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err
    assert got == code


def python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


NAD = ("-c", "from nad.cli.main import entry; entry()")


def test_json_has_the_keys_of_the_contract_and_nothing_else_is_printed(run: Run, model: Path) -> None:
    code, out, err = run("generate", "hello", "--model", model, "--no-fast-cpu", "--json", "--seed", "3", *SMALL)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    result = json.loads(out)
    assert list(result) == [
        *("text", "selected", "selector", "n", "stop_at", "distinct", "candidates"),
        *("usage", "timing", "model", "seed", "notes"),
    ]
    assert [list(c) for c in result["candidates"]] == [
        ["index", "text", "tokens", "finish_reason", "activated", "score"]
    ] * 4
    assert list(result["usage"]) == ["prompt_tokens", "sampled_tokens", "computed_tokens", "continued_tokens"]
    assert list(result["timing"]) == ["sample_s", "capture_s", "select_s", "continue_s"]
    assert (result["n"], result["stop_at"], result["selector"], result["seed"]) == (4, "4", "knn", 3)
    assert (result["model"], result["notes"]) == ("tiny", [])
    assert [c["index"] for c in result["candidates"]] == [0, 1, 2, 3]
    assert [c["tokens"] for c in result["candidates"]] == [4] * 4
    assert result["text"].startswith(result["candidates"][result["selected"]]["text"].rstrip("\ufffd"))
    usage = result["usage"]
    assert usage["prompt_tokens"] == 7
    assert usage["sampled_tokens"] == 16 >= usage["computed_tokens"]
    assert usage["continued_tokens"] == 4
    assert all(seconds >= 0 for seconds in result["timing"].values())


def test_scores_that_are_not_finite_are_null(run: Run, model: Path) -> None:
    _, out, _ = run("generate", "hello", "--model", model, "--json", "--selector", "consensus-min", *SMALL)
    scores = [c["score"] for c in json.loads(out)["candidates"]]
    assert None in scores
    assert any(score is not None for score in scores)


def test_the_text_goes_to_standard_output_and_the_account_to_standard_error(run: Run, model: Path) -> None:
    code, out, err = run("generate", "hello", "--model", model, "--dtype", "float32", *SMALL)
    _, as_json, _ = run("generate", "hello", "--model", model, "--dtype", "float32", "--json", *SMALL)
    assert code == 0
    assert out == json.loads(as_json)["text"] + "\n"
    assert "4 samples of up to 4 tokens (stop 4)" in err
    assert "knn chose sample" in err
    assert "of 4 full answers of its length (32)" in err
    assert "cut at 8 tokens (--max-tokens)" in err


def test_the_prompt_from_standard_input(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("--model", model, "--json", "--dtype", "float32", *SMALL)
    _, direct, _ = run("generate", "hello", *command)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello"))
    _, piped, _ = run("generate", "-", *command)
    assert json.loads(piped)["text"] == json.loads(direct)["text"]


def test_options_reach_the_prompt(run: Run, model: Path) -> None:
    def prompt_tokens(*options: str) -> int:
        _, out, _ = run("generate", "hi", "--model", model, "--json", *options, *SMALL)
        return int(json.loads(out)["usage"]["prompt_tokens"])

    assert prompt_tokens() == 4
    assert prompt_tokens("--raw") == 2
    assert prompt_tokens("--system", "abc") == 8
    assert prompt_tokens("--template-arg", "enable_thinking=true") == 5


def test_greedy_samples_are_noted(run: Run, model: Path) -> None:
    _, out, _ = run("generate", "hello", "--model", model, "--json", "--no-fast-cpu", "--temperature", "0", *SMALL)
    assert json.loads(out)["notes"] == ["temperature 0: all samples are the same"]


@pytest.mark.parametrize("stop", ["none", "distinct", "budget", "budget:6", "distinct:3"])
def test_stop_rules(run: Run, model: Path, stop: str) -> None:
    code, out, _ = run("generate", "hello", "--model", model, "--json", *SMALL, "--stop-at", stop)
    assert code == 0
    assert json.loads(out)["stop_at"].startswith(stop.split(":")[0])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["generate", ""], ["the prompt is empty"]),
        (["generate", " \n "], ["the prompt is empty"]),
        (["generate", "x", "-n", "0"], ["n must be at least 1, got 0"]),
        (["generate", "x", "-n", "many"], ["-n", "integer"]),
        (["generate", "x", "--stop-at", "0"], ["stop position must be at least 1 token, got 0"]),
        (["generate", "x", "--stop-at=-4"], ["stop position must be at least 1 token, got -4"]),
        (["generate", "x", "--stop-at", "64", "--max-tokens", "32"], ["64 lies past max_tokens (32)"]),
        (["generate", "x", "--stop-at", "later"], ["unknown stop rule 'later'", "a position, none, distinct, budget"]),
        (["generate", "x", "--max-tokens", "0"], ["max_tokens must be at least 1"]),
        (["generate", "x", "--temperature", "-1"], ["temperature must be 0 (greedy) or at least 1e-6"]),
        (["generate", "x", "--top-p", "0"], ["top_p must be in (0, 1]"]),
        (["generate", "x", "--seed", "-1"], ["seed must be in"]),
        (["generate", "x", "--selector", "vote"], ["unknown selector 'vote'", "consensus-min"]),
        (["generate", "x", "--selector", "knn:n=3"], ["no parameter 'n'", "allowed: k"]),
        (["generate", "x", "--selector", "knn:k=0"], ["k must be at least 1"]),
        (["generate", "x", "--activation", "all"], ["unknown activation rule 'all'", "top_k, eta"]),
        (["generate", "x", "--template-arg", "thinking"], ["KEY=VALUE"]),
        (["generate", "x", "--system", "s", "--raw"], ["--system needs the chat template"]),
        (["generate", "x", "--model", "no-such-model"], ["no model 'no-such-model'", "hub id"]),
        (["generate", "x", "--model", "./nowhere.gguf"], ["no model './nowhere.gguf'"]),
        (["generate", "x", "--engine", "magic"], ["unknown engine 'magic'", "transformers"]),
        (["generate", "x", "--no-such-option"], ["--no-such-option", "nad --help"]),
        (["generate"], ["nad --help"]),
        (["nothing"], ["nothing", "nad --help"]),
        (["score", "nowhere.jsonl"], ["no file 'nowhere.jsonl'", "prompt_tokens"]),
        (["score", "nowhere.jsonl", "--selector", "vote"], ["unknown selector 'vote'"]),
    ],
)
def test_calls_that_are_wrong(run: Run, arguments: Sequence[str], parts: Sequence[str]) -> None:
    assert_error(run(*arguments), 2, *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["hello " * 60], [f"of {WINDOW}", "shorten"]),
        (["x", "--dtype", "int8"], ["unknown dtype 'int8'", "bfloat16"]),
        (["x", "--device", "quantum"], ["device 'quantum' is not available", "cpu"]),
        (["x", "--template-arg", "thinking=true"], ["no argument thinking"]),
    ],
)
def test_calls_that_are_wrong_for_the_model(
    run: Run, model: Path, arguments: Sequence[str], parts: Sequence[str]
) -> None:
    assert_error(run("generate", *arguments, "--model", model), 2, *parts)


def test_text_that_is_not_unicode(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_error(run("generate", "caf\udce9", "--model", model), 2, "not UTF-8")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    assert_error(run("generate", "-", "--model", model), 2, "not UTF-8")


def test_a_model_without_gated_layers(run: Run, tmp_path: Path) -> None:
    gpt2 = save(built(GPT2Config(vocab_size=264, n_embd=32, n_layer=2, n_head=4)), tmp_path)
    assert_error(run("generate", "x", "--model", gpt2), 2, "has no gated feed-forward layer")


def test_a_truncated_weights_file(run: Run, tmp_path: Path) -> None:
    weights = save(tiny_model("llama"), tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert_error(run("generate", "x", "--model", tmp_path), 1, "damaged or incomplete", "download them again")


def test_weights_with_a_tensor_missing(run: Run, tmp_path: Path) -> None:
    """The loader would fill it with random numbers."""
    weights = save(tiny_model("llama"), tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert_error(run("generate", "x", "--model", tmp_path), 1, "layers.1.mlp.down_proj", "download them again")


def test_missing_weights_and_a_broken_config(run: Run, tmp_path: Path) -> None:
    folder = save(tiny_model("llama"), tmp_path)
    (folder / "model.safetensors").unlink()
    assert_error(run("generate", "x", "--model", folder), 1, "cannot load the model")
    (folder / "config.json").write_text('{"model_type": ')
    assert_error(run("generate", "x", "--model", folder), 1, "JSON")


@pytest.mark.parametrize("content", [b"", b"no gguf at all", b"GGUF\x03\x00\x00\x00" + b"\x01" * 20])
def test_a_damaged_gguf_file(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    assert_error(run("generate", "x", "--model", tmp_path / "model.gguf"), 1, "GGUF file is damaged", "download")


def test_a_gguf_file_cut_short(run: Run, tmp_path: Path) -> None:
    """Header and tensor table are whole, the weights end too early."""
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_token_merges(["a b"])
    writer.add_tensor("token_embd.weight", np.zeros((264, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file.write_bytes(file.read_bytes()[:-1000])
    assert_error(run("generate", "x", "--model", file), 1, "GGUF file is damaged, cut short", "download it again")


def test_a_model_too_large_for_the_memory(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nad.engines.transformers.loading.psutil.virtual_memory", lambda: SimpleNamespace(available=1000)
    )
    result = run("generate", "x", "--model", model)
    assert_error(result, 1, "needs", "GB for its weights", "smaller --dtype")


def test_a_hub_model_that_cannot_be_reached(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr("transformers.utils.cached_file", unreachable)
    assert_error(run("generate", "x", "--model", "owner/model"), 1, "the hub cannot be reached")


def test_no_network_for_the_default_model(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAD_CACHE", str(tmp_path / "cache"))
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: Retrying\nERROR: No matching distribution found")
    monkeypatch.setattr("nad.engines.model_files.run_watched", lambda *args, **kwargs: failed)
    assert_error(run("generate", "x"), 1, "cannot download the default model: No matching distribution", "network")
    assert list((tmp_path / "cache").iterdir()) == []


def test_weights_that_are_not_numbers(run: Run, tmp_path: Path) -> None:
    broken = tiny_model("llama")
    broken.lm_head.weight.data[3] = torch.nan
    assert_error(run("generate", "x", "--model", save(broken, tmp_path)), 1, "not finite numbers")


def test_debug_adds_the_traceback_and_keeps_the_exit_code(run: Run) -> None:
    code, out, err = run("generate", "", "--debug")
    assert (code, out) == (2, "")
    assert "Traceback" in err
    assert "the prompt is empty" in err


def test_an_unexpected_error_is_one_line_too(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("nad.engines.transformers.engine.TransformersRollout", fail)
    assert_error(run("generate", "x", "--model", model), 1, "unexpected ZeroDivisionError: two lines", "--debug")


def test_an_interrupt_ends_without_traceback(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nad.engines.transformers.engine.TransformersRollout", interrupted)
    for debug in ([], ["--debug"]):
        code, out, err = run("generate", "x", "--model", model, *debug)
        assert (code, out) == (130, "")
        assert err in SILENT


def test_control_c_in_a_process_of_its_own() -> None:
    """It waits for standard input when the interrupt comes."""
    waiting = "type('Waiting', (), {'read': lambda self: print('reading', flush=True) or time.sleep(60)})()"
    script = f"import sys, time, nad.cli.main; sys.stdin = {waiting}; nad.cli.main.entry()"
    process = python("-c", script, "generate", "-")
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err in SILENT


@pytest.mark.parametrize("arguments", [["selectors"], ["models"], ["--help"]])
def test_a_closed_output_pipe_is_no_error_message(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen([sys.executable, *NAD, *arguments], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == 1


def test_a_reader_that_leaves_while_lines_are_printed(model: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"prompt": "a", "completion": "b"}\n' * 2)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, *NAD, "score", str(lines), "--model", str(model)]
    single = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True, env=single)
    os.close(write)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (1, "")


@pytest.mark.parametrize(
    "code",
    [
        "import nad",
        "import nad; dir(nad); nad.UsageError; nad.At(3)",
        "from nad.cli.main import main; main(['--help'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_used(code: str) -> None:
    heavy = "('torch', 'transformers', 'sklearn', 'scipy', 'pyarrow')"
    out, err = python("-c", f"{code}\nimport sys; print([m for m in {heavy} if m in sys.modules])").communicate()
    assert out.splitlines()[-1:] == ["[]"], err


def test_public_names_exist() -> None:
    import nad

    assert set(nad.__all__) == set(nad._HOME)
    for name in nad.__all__:
        assert name in ("SELECTORS", "Event") or getattr(nad, name).__module__.startswith("nad.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nad.nothing  # noqa: B018


def test_what_can_be_named_is_listed(run: Run) -> None:
    from nad.selection import SELECTORS

    code, out, _ = run("selectors")
    assert code == 0
    assert all(f"\n{name} " in f"\n{out}" for name in SELECTORS)
    assert "k=3" in out
    assert "quantile=0.3" in out
    assert "needs answers that can be compared, full answers (--stop-at none)" in out
    code, out, _ = run("models")
    assert code == 0
    assert "smollm2-135m-instruct" in out
    code, out, _ = run("--help")
    assert code == 0
    assert "generate" in out


def test_other_activations_work(run: Run, tmp_path: Path) -> None:
    relu = save(built(tiny_config(Family("llama", {}), hidden_act="relu")), tmp_path)
    assert run("generate", "hello", "--model", relu, "--json", *SMALL)[0] == 0


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "4000"), ({"GOMP_SPINCOUNT": "9"}, "9"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_waiting_threads_let_others_run_unless_somebody_said_how_to_wait(
    run: Run, given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # what the command sets is taken back as well
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run("selectors")
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_a_closed_standard_output_is_found_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    code = main(["generate", "x", "--model", "never looked for"])
    monkeypatch.undo()
    assert code == 1
    assert capsys.readouterr().err == "nad: error: standard output is closed; send it to a file, or to /dev/null\n"
