"""vLLM's worker with the capture in it. Named by `worker_cls`, so that only engines that asked for it have it."""

from nad.engines.vllm.platform import on_cpu

if on_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Base  # first: it prepares shared memory
else:
    from vllm.v1.worker.gpu_worker import Worker as Base

import os
import pickle
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from vllm.distributed.parallel_state import get_pp_group, get_tp_group
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding
from vllm.model_executor.models.utils import PPMissingLayer

from nad.engines.vllm.arguments import CLIENT, client_name
from nad.engines.vllm.capture_op import Selection, find_ffns, gate_bytes, install, local_neurons
from nad.engines.vllm.captures import Captures, Order
from nad.engines.vllm.shards import Group, Shard
from nad.engines.vllm.sizing import GATE_BYTES, SCORED_ROWS
from nad.errors import UsageError

_WATCH_S = 2.0


class CaptureWorker(Base):
    """A worker whose `load_model` puts the capture in, before profiling, compilation and graph capture."""

    def load_model(self, *arguments: Any, **options: Any) -> None:
        # vLLM's compile cache does not see hooks: an engine with capture must have a cache of its own.
        self.vllm_config.additional_config["nad_capture"] = 1
        super().load_model(*arguments, **options)
        _allocate_stage_inputs(self.model_runner)
        _end_with(os.environ.get(CLIENT, ""))
        self._nad_refusal, self._nad_resumed = "", 0
        self._nad_words: set[str] = set()
        self._nad: Captures | None = None
        try:
            self._nad = _captures(self.model_runner, self.vllm_config)
        except UsageError as error:  # told when the engine asks: an exception here would be lost
            self._nad_refusal = str(error)
            return
        (_attach_v2 if self.use_v2_model_runner else _attach_v1)(self.model_runner, self._nad)

    def execute_model(self, scheduler_output: Any) -> Any:
        if self._nad is None:
            return super().execute_model(scheduler_output)
        for new in scheduler_output.scheduled_new_reqs:
            order = Order.of(new.sampling_params.extra_args if new.sampling_params else None, self._nad_words)
            self._nad.begin(new.req_id, order, len(new.prompt_token_ids or ()))
        for request in scheduler_output.finished_req_ids:
            self._nad.end(request)
        self._nad_resumed += len(scheduler_output.scheduled_cached_reqs.resumed_req_ids)
        try:
            return super().execute_model(scheduler_output)
        finally:
            self._nad.launched()

    def nad_about(self, word: str) -> dict[str, Any]:
        """What the engine reports of the model, or why it cannot be read. Its requests carry the word."""
        self._nad_words.add(word)
        if self._nad is None:
            return {"refusal": self._nad_refusal}
        config = self.vllm_config.model_config.hf_text_config
        return {"refusal": "", "layers": config.num_hidden_layers, "neurons": self._nad.neurons}

    def nad_read(self, wanted: Mapping[str, int]) -> bytes:
        """The captured requests' first tokens with their sets; one worker of the last stage answers for all."""
        assert self._nad is not None
        with torch.inference_mode():
            found = self._nad.read(wanted)
        reports = get_pp_group().is_last_rank and get_tp_group().rank_in_group == 0
        return pickle.dumps(found) if reports else b""

    def nad_forget(self, keys: Sequence[str], muted: Sequence[str] = ()) -> None:
        assert self._nad is not None
        self._nad.mute(muted)
        self._nad.forget(keys)

    def nad_held(self) -> list[int]:
        """How many requests are held, the bytes of memory of this process, and how often one was preempted."""
        assert self._nad is not None
        return [len(self._nad), psutil.Process(os.getpid()).memory_info().rss, self._nad_resumed]


def _end_with(client: str) -> None:
    """Have this process end when its client, a pid and the time it began, is gone: killed, it cannot say goodbye.

    A client on another machine is not there from the beginning, and nothing is done.
    """
    if not client or client != client_name(int(client.partition(" ")[0])):
        return

    def watch() -> None:
        while client == client_name(int(client.partition(" ")[0])):
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGKILL)  # the engine's process sees that and ends too

    threading.Thread(target=watch, name="nad-client", daemon=True).start()


def _allocate_stage_inputs(runner: Any) -> None:
    """The first model runner allocates them while it profiles, which it skips where the cache's size is given."""
    if getattr(runner, "intermediate_tensors", runner) is None and not get_pp_group().is_first_rank:
        model, dtype = runner.get_model(), runner.model_config.dtype
        runner.intermediate_tensors = model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=dtype, device=runner.device
        )


def _captures(runner: Any, config: Any) -> Captures:
    model, dtype, device = runner.get_model(), config.model_config.dtype, runner.device
    total = config.model_config.hf_text_config.num_hidden_layers
    stages, tensor = get_pp_group(), get_tp_group()
    first, last = _layers_here(model, total)
    ffns = find_ffns(model, last - first)
    widths = {local_neurons(ffn) for ffn in ffns}
    if len(widths) > 1:
        raise UsageError("feed-forward layers of different widths; take --engine transformers")
    (width,) = widths
    head = _head(model) if stages.is_last_rank else None
    if stages.is_last_rank and head is None:
        raise UsageError(f"{type(model).__name__} has no plain unembedding (lm_head); take --engine transformers")
    most = config.scheduler_config.max_num_seqs + SCORED_ROWS
    selection = Selection.of(most, max(most, GATE_BYTES // gate_bytes(ffns, dtype)), device)
    layers = install(ffns, selection, dtype, device)
    shard = Shard(first, total, width * tensor.world_size, _group(tensor), _group(stages))
    rows = _unembed(head, shard.pipeline, config.model_config.hf_text_config.hidden_size, dtype, device)
    return Captures(layers, [layer.kept for layer in layers], rows, selection, shard)


def _head(model: Any) -> Any:
    """What rows of W_u can be read from: the unembedding, or the embedding of a model that has no other."""
    for head in (getattr(model, "lm_head", None), getattr(getattr(model, "model", None), "embed_tokens", None)):
        if isinstance(head, VocabParallelEmbedding):
            return head if isinstance(head.quant_method, UnquantizedEmbeddingMethod) else None
    return None


def _group(found: Any) -> Group:
    return Group(found.world_size, found.rank_in_group, found.device_group)


def _layers_here(model: torch.nn.Module, total: int) -> tuple[int, int]:
    """The first of the model's layers this worker has, and the one after its last."""
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == total:
            here = [i for i, layer in enumerate(module) if not isinstance(layer, PPMissingLayer)]
            return here[0], here[-1] + 1
    raise UsageError(f"{type(model).__name__} has no list of {total} layers; take --engine transformers")


def _unembed(head: Any, stages: Group, hidden: int, dtype: torch.dtype, device: torch.device) -> Any:
    """Gives the rows of W_u; the last stage has them. With tensor parallelism each worker has a part."""

    def rows(tokens: torch.Tensor) -> torch.Tensor:
        mine = None
        if stages.rank == stages.size - 1:
            mine = VocabParallelEmbedding.forward(head, tokens)
        return stages.of_last((len(tokens), hidden), dtype, device, mine)

    return rows


def _attach_v1(runner: Any, captures: Captures) -> None:
    """Book rows where the first model runner has its inputs, take the tokens where it has drawn them."""
    prepare, sample, sample_tokens = runner._prepare_inputs, runner._sample, runner.sample_tokens

    def prepare_inputs(scheduler_output: Any, scheduled: np.ndarray) -> Any:
        found = prepare(scheduler_output, scheduled)
        batch = runner.input_batch
        count = batch.num_reqs
        emits = ~runner.discard_request_mask.np[:count]
        computed, inputs = batch.num_computed_tokens_cpu[:count], runner.input_ids.gpu
        captures.choose(batch.req_ids[:count], computed, scheduled[:count], emits, inputs)
        return found

    def draw(logits: torch.Tensor, speculative: Any) -> Any:
        wanted = captures.wants_logits
        kept = logits[wanted].clone() if wanted else None  # the sampler writes into its logits
        drawn = sample(logits, speculative)
        captures.emitted(drawn.sampled_token_ids[:, 0], kept)
        return drawn

    def without_partial(grammar: Any) -> Any:
        """Rows of partial prefills draw nothing: their generators stay as they are, also where none can rewind."""
        batch = runner.input_batch
        partial = np.flatnonzero(runner.discard_request_mask.np[: batch.num_reqs])
        aside = {int(i): batch.generators.pop(int(i)) for i in partial if int(i) in batch.generators}
        try:
            return sample_tokens(grammar)
        finally:
            batch.generators.update(aside)

    runner._prepare_inputs, runner._sample = prepare_inputs, draw
    if on_cpu():
        runner.sample_tokens = without_partial


def _attach_v2(runner: Any, captures: Captures) -> None:
    """The same for the second model runner."""
    prepare, sample = runner.prepare_inputs, runner.sample

    def prepare_inputs(*arguments: Any, **options: Any) -> Any:
        batch = prepare(*arguments, **options)
        emits = batch.num_computed_tokens_np + batch.num_scheduled_tokens >= batch.prefill_len_np
        computed, scheduled = batch.num_computed_tokens_np, batch.num_scheduled_tokens
        captures.choose(batch.req_ids, computed, scheduled, emits, batch.input_ids)
        return batch

    def draw(hidden: torch.Tensor, batch: Any, grammar: Any) -> Any:
        wanted = captures.wants_logits
        kept = runner.model.compute_logits(hidden[batch.logits_indices[wanted]]) if wanted else None
        drawn = sample(hidden, batch, grammar)
        captures.emitted(drawn[0].sampled_token_ids[:, 0], kept)
        return drawn

    runner.prepare_inputs, runner.sample = prepare_inputs, draw
