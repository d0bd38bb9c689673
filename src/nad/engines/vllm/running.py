"""A vLLM with the capture in its workers, whoever started it: what the engine needs of it, and how it is ended."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nad.engines.vllm.arguments import REFUSED, WORKER, is_used
from nad.engines.vllm.loop import Bridge, EventLoop
from nad.errors import UsageError


@dataclass(frozen=True)
class Running:
    """An AsyncLLM and the loop it lives in. `about` is what its workers say of the model; they capture the requests
    that carry `word`. `end` is called when the engine is closed."""

    llm: Any
    bridge: Bridge
    about: Mapping[str, Any]
    word: str
    end: Callable[[], None]


async def introduced(llm: Any) -> tuple[Mapping[str, Any], str]:
    """`about` and `word` of a Running. Raises UsageError for a model whose neurons cannot be read."""
    word = f"nad-{secrets.token_hex(16)}"
    told = await llm.collective_rpc("nad_about", args=(word,))
    if refusal := next((about["refusal"] for about in told if about["refusal"]), ""):
        raise UsageError(refusal)
    return told[0], word


async def adopted(llm: Any) -> Running:
    """The AsyncLLM of `vllm serve`, which lives in the server's own loop and is not this engine's to end.

    Raises UsageError where it was started without the capture, or with what the capture cannot read.
    """
    config = llm.vllm_config
    if config.parallel_config.worker_cls != WORKER:
        raise UsageError(f"vLLM runs without the capture of neurons; start it with: vllm serve --worker-cls {WORKER}")
    parallel = {name: getattr(config.parallel_config, name, None) for name in REFUSED}
    chosen = {**parallel, "speculative_config": config.speculative_config, "enable_lora": config.lora_config}
    if name := next((name for name, value in chosen.items() if is_used(value)), ""):
        raise UsageError(f"vllm serve --{name.replace('_', '-')} is refused: {REFUSED[name]}")
    about, word = await introduced(llm)
    return Running(llm, Bridge(asyncio.get_running_loop()), about, word, end=lambda: None)


def shut_down(llm: Any, loop: EventLoop) -> None:
    """End vLLM's processes. What reads their output goes first: it would take their end for a death, and log it."""
    loop.run(_ended(llm.output_handler))
    llm.shutdown()
    llm.shutdown = lambda *_, **__: None  # its __del__ calls it again, also when Python has let go of what it needs
    loop.close()


async def _ended(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
