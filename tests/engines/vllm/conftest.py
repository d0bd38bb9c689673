"""Engines that several tests share: a start takes half a minute."""

from collections.abc import Iterator
from typing import Any

import pytest
from vllm_engines import SIZES, started, tiny_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_folder(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def reference(folder: str) -> Any:
    """The transformers engine on the same weights: its teacher-forced sets are the truth."""
    from nad.engines import load_engine

    return load_engine(folder, dtype="float32", fast_cpu=False)


@pytest.fixture(scope="module")  # others look at the processes that their own engines started
def cramped(folder: str) -> Iterator[Any]:
    """Everything that moves rows at once: prompts in parts of 48 tokens, a cache of 20 blocks of 32 tokens (which 16
    sequences outgrow, so that some are preempted), prefix caching."""
    block = 2 * 3 * 2 * SIZES["head_dim"] * 4 * 32
    engine = started(folder, max_num_batched_tokens=48, max_num_seqs=32, kv_cache_memory_bytes=20 * block)
    yield engine
    engine.close()
