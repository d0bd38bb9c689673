"""vLLM's engine arguments from `--engine-arg KEY=VALUE`, with what this engine sets or refuses."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from nad.engines.base import LoadOptions
from nad.errors import UsageError

_OURS = ("model", "tokenizer", "worker_cls", "worker_extension_cls", "dtype", "disable_log_stats", "trust_remote_code")
_REFUSED = {
    "speculative_config": "speculative decoding emits several tokens a step, which the capture cannot tell apart",
    "enable_lora": "LoRA adapters change W_g and W_out per request; merge the adapter into the weights",
    "data_parallel_size": "one engine reports one replica only; start one process for each replica",
    "enable_dbo": "micro-batches change which row is whose",
    "decode_context_parallel_size": "it changes which row is whose",
    "prefill_context_parallel_size": "it changes which row is whose",
    "quantization_param_path": "it is not known to the capture",
}
_CPU_CACHE_BYTES = 1 << 30
SEATS = 256


def engine_arguments(path: str, dtype: torch.dtype, options: LoadOptions, known: type, on_cpu: bool) -> dict[str, Any]:
    """The keyword arguments of vLLM's `known` (AsyncEngineArgs)."""
    given = parse(options.arguments, {field.name for field in dataclasses.fields(known)})
    ours = {
        "model": path,
        "dtype": str(dtype).removeprefix("torch."),
        "worker_cls": "nad.engines.vllm.worker.CaptureWorker",
        "disable_log_stats": True,
        "trust_remote_code": options.trust_remote_code,
        "max_num_seqs": SEATS,
        # vLLM's compile cache does not see hooks: an engine with capture must have a cache of its own.
        "additional_config": {"nad_capture": 1},
    }
    if on_cpu:
        ours["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    return {**ours, **given}


def parse(arguments: Mapping[str, str], known: set[str]) -> dict[str, Any]:
    """The values as JSON where they are, as text otherwise. Raises UsageError for those unknown or refused."""
    found: dict[str, Any] = {}
    for name, text in arguments.items():
        key = name.replace("-", "_")
        if key == "untested_vllm":
            continue
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if key in _REFUSED and value and (value is True or value != 1):
            raise UsageError(f"--engine-arg {key} is refused: {_REFUSED[key]}")
        if key in _OURS or key not in known:
            what = (
                "is set by nad" if key in _OURS else "is not an engine argument of vLLM (see `vllm serve --help=all`)"
            )
            raise UsageError(f"--engine-arg {key} {what}")
        found[key] = value
    return found


def set_environment(on_cpu: bool, workers: int) -> None:
    """Set what vLLM reads from the environment, where the user has not: quiet, on a CPU its cores and no network."""
    defaults = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_NO_USAGE_STATS": "1"}
    if on_cpu:
        cores = (
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
        )
        each = max(1, len(cores) // workers)
        parts = [cores[i * each : (i + 1) * each] or cores for i in range(workers)]
        binding = "|".join(",".join(map(str, part)) for part in parts)
        defaults |= {"VLLM_HOST_IP": "127.0.0.1", "VLLM_CPU_OMP_THREADS_BIND": binding}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
