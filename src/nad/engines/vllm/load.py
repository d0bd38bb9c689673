"""Starting vLLM with the capture in its workers, with errors a user can act on."""

from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from nad.engines.base import LoadOptions, Report
from nad.engines.model_files import ModelFiles, locate
from nad.engines.transformers.load_errors import failures_named
from nad.engines.transformers.loading import choose_device, choose_dtype, unpack_named, weights_digest_of
from nad.engines.vllm.arguments import engine_arguments, environment
from nad.engines.vllm.engine import VllmEngine
from nad.engines.vllm.loop import EventLoop
from nad.engines.vllm.platform import check_version, on_cpu
from nad.engines.vllm.running import Running, introduced, shut_down
from nad.errors import NadError, UsageError

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def load_vllm(model: Any, options: LoadOptions) -> VllmEngine:
    """The engine for a hub id, a local folder, or (None) the small default model."""
    version = check_version("untested_vllm" in options.arguments)
    if model is not None and not isinstance(model, str):
        raise UsageError("the vLLM engine loads its model itself; name a folder or a hub id, or use transformers")
    files = _files(model, options.report)
    with failures_named(files):
        _refuse_experts(files, options.trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(files.path, trust_remote_code=options.trust_remote_code)
    cpu = _on_cpu(options)
    dtype = choose_dtype(options.dtype, torch.device("cpu" if cpu else "cuda"))
    if dtype == torch.float64:
        raise UsageError("vLLM does not compute in float64; allowed: auto, float32, bfloat16, float16")
    return VllmEngine(
        _started(files, dtype, options, cpu, version),
        tokenizer,
        files.name,
        weights_digest=weights_digest_of(files),
        fold_system=options.fold_system,
        thinking_tags=options.thinking_tags,
    )


def _files(model: str | None, report: Report) -> ModelFiles:
    files = locate(model, unpack_named, report)
    if files.gguf_file or files.adapter:
        what = "GGUF files" if files.gguf_file else "LoRA adapters; merge it into the model's weights"
        raise UsageError(f"the vLLM engine reads no {what}; name a folder or a hub id, or --engine transformers")
    return files


def _refuse_experts(files: ModelFiles, trust_remote_code: bool) -> None:
    config = AutoConfig.from_pretrained(files.path, trust_remote_code=trust_remote_code).get_text_config()
    if any((getattr(config, name, None) or 0) > 1 for name in _EXPERTS):
        raise UsageError(
            f"{files.name} is a mixture of experts, which the vLLM engine cannot read; --engine transformers"
        )


def _on_cpu(options: LoadOptions) -> bool:
    with environment(False, 1):  # vLLM sets its logging up when it is imported
        cpu = on_cpu()
    kind = "cpu" if cpu else "cuda"
    if options.device not in ("auto", kind):
        raise UsageError(f"this vLLM runs on {kind}; pass --device {kind} or auto, got {options.device!r}")
    choose_device(kind)
    return cpu


def _started(files: ModelFiles, dtype: torch.dtype, options: LoadOptions, cpu: bool, version: str) -> Running:
    """An AsyncLLM in a loop of its own."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = engine_arguments(files.path, dtype, options, AsyncEngineArgs, cpu)
    workers = arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1)
    options.report(f"starting vLLM {version} with {files.name} ({arguments['dtype']}, {'cpu' if cpu else 'cuda'})")
    loop = EventLoop()
    try:
        with environment(cpu, workers):
            llm = loop.run(_start(AsyncLLM, AsyncEngineArgs, arguments))
    except Exception as error:  # its processes end with errors of any kind
        loop.close()
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise NadError(f"vLLM could not start {files.name}: {text}; VLLM_LOGGING_LEVEL=INFO shows its log") from error
    end = partial(shut_down, llm, loop)
    try:
        about, word = loop.run(introduced(llm))
    except BaseException:
        end()
        raise
    return Running(llm, loop, about, word, end)


async def _start(engine: Any, arguments: Any, values: dict[str, Any]) -> Any:
    return engine.from_engine_args(arguments(**values))
