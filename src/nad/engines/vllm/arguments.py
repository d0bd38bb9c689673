"""vLLM's engine arguments from `--engine-arg KEY=VALUE`, with what this engine sets or refuses."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from nad.engines.base import LoadOptions
from nad.errors import UsageError

_OURS = ("model", "tokenizer", "worker_cls", "worker_extension_cls", "dtype", "disable_log_stats", "trust_remote_code")
REFUSED = {
    "speculative_config": "speculative decoding emits several tokens a step, which the capture cannot tell apart",
    "enable_lora": "LoRA adapters change W_g and W_out per request; merge the adapter into the weights",
    "data_parallel_size": "one engine reports one replica only; start one process for each replica",
    "enable_dbo": "micro-batches change which row is whose",
    "decode_context_parallel_size": "it changes which row is whose",
    "prefill_context_parallel_size": "it changes which row is whose",
    "quantization_param_path": "it is not known to the capture",
}
WORKER = "nad.engines.vllm.worker.CaptureWorker"
_CPU_CACHE_BYTES = 1 << 30
SEATS = 256
CLIENT = "NAD_VLLM_CLIENT"
"""The process that started the engine, as `client_name` has it: its workers end with it."""


def engine_arguments(path: str, dtype: torch.dtype, options: LoadOptions, known: type, on_cpu: bool) -> dict[str, Any]:
    """The keyword arguments of vLLM's `known` (AsyncEngineArgs)."""
    given = parse(options.arguments, {field.name for field in dataclasses.fields(known)})
    ours = {
        "model": path,
        "dtype": str(dtype).removeprefix("torch."),
        "worker_cls": WORKER,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "trust_remote_code": options.trust_remote_code,
        "max_num_seqs": SEATS,
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
        if key in REFUSED and is_used(value):
            raise UsageError(f"--engine-arg {key} is refused: {REFUSED[key]}")
        if key in _OURS or key not in known:
            what = (
                "is set by nad" if key in _OURS else "is not an engine argument of vLLM (see `vllm serve --help=all`)"
            )
            raise UsageError(f"--engine-arg {key} {what}")
        found[key] = value
    return found


def is_used(value: object) -> bool:
    """Whether this is more than the default of an option: a number of one thing is not."""
    return value is True or bool(value and value != 1)


@contextmanager
def environment(on_cpu: bool, workers: int) -> Iterator[None]:
    """What vLLM's processes read from the environment while they start, where the user has not set it.

    They are quiet; on a CPU each worker has its share of the cores, and no network is needed.
    """
    wanted = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_NO_USAGE_STATS": "1"}
    wanted["PYTHONWARNINGS"] = "ignore"  # those of vLLM's own start
    wanted[CLIENT] = client_name(os.getpid())
    if on_cpu:
        wanted |= {"VLLM_HOST_IP": "127.0.0.1", "VLLM_CPU_OMP_THREADS_BIND": _shares(workers)}
    set_here = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(set_here)
    try:
        yield
    finally:
        for name in set_here:
            os.environ.pop(name, None)


def client_name(pid: int) -> str:
    """A process that cannot be taken for another one with its number later; empty where there is none."""
    try:
        return f"{pid} {psutil.Process(pid).create_time()}"
    except psutil.NoSuchProcess:
        return ""


def _shares(workers: int) -> str:
    """The cores of each worker; where there are fewer cores than workers, one core for each in turn."""
    every = range(os.cpu_count() or 1)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(every)
    each = max(1, len(cores) // workers)
    shares = [[cores[(worker * each + i) % len(cores)] for i in range(each)] for worker in range(workers)]
    return "|".join(",".join(map(str, share)) for share in shares)
