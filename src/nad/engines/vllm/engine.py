"""The vLLM engine: many rollouts at once on one batch, neurons captured inside vLLM's workers."""

import asyncio
import atexit
import hashlib
import pickle
import threading
import uuid
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import GenerationConfig

from nad.engines.texts import ReadsTexts
from nad.engines.transformers.tokenizer import ChatTokenizer, end_tokens
from nad.engines.vllm.captures import Found, Order
from nad.engines.vllm.loop import Seats
from nad.engines.vllm.rollout import Source, VllmRollout, deliver
from nad.engines.vllm.running import Running
from nad.engines.vllm.sizing import SCORED_ROWS
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.thinking import Tags
from nad.types import Completion, Message, SamplingParams

_ROLLOUTS = 16


class VllmEngine(ReadsTexts):
    """Samples from a model inside vLLM, whose workers keep the gates of what was asked for (Eq. 1).

    `template_args` go to the chat template where a prompt brings no others. Any number of threads may hold rollouts.
    """

    kind = "vllm"
    revision: str | None = None

    def __init__(
        self,
        vllm: Running,
        tokenizer: Any,
        name: str,
        *,
        weights_digest: str | None = None,
        fold_system: bool = False,
        thinking_tags: Sequence[Tags] = (),
        template_args: Mapping[str, object] | None = None,
    ) -> None:
        self._llm, self._loop, self._word = vllm.llm, vllm.bridge, vllm.word
        self.name, self.weights_digest, self._template_args = name, weights_digest, dict(template_args or {})
        self.texts = ChatTokenizer(tokenizer, fold_system, thinking_tags)
        config = self._llm.vllm_config
        self.layers, self.neurons, self.experts = int(vllm.about["layers"]), int(vllm.about["neurons"]), 1
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.context_window = int(config.model_config.max_model_len)
        self.eos = end_tokens(_Settings(config.model_config), tokenizer)
        self._vocabulary = int(config.model_config.get_vocab_size())
        self._parallel = config.parallel_config.world_size > 1
        self._seats = Seats(int(config.scheduler_config.max_num_seqs))
        self.rollouts = min(_ROLLOUTS, self._seats.seats)
        self.notes = (
            "vLLM: a sample's draws follow from (seed, its number), up to rounding that depends on the batch",
        )
        self._scoring = threading.Lock()
        self._finalizer = weakref.finalize(self, vllm.end)
        atexit.register(self._finalizer)  # before multiprocessing's own, which would kill the workers first

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        args = template_args if raw else {**self._template_args, **(template_args or {})}
        return super().encode(prompt, raw, args)

    def start(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> VllmRollout:
        if n < 1:
            raise UsageError(f"n must be at least 1, got {n}")
        self._check_rule(rule)
        if not prompt_tokens:
            raise UsageError("the prompt is empty")
        window = self.context_window - (rule.lag if rule else 0)  # room for what reads the last token
        self._check(prompt_tokens, "the prompt has", window - 1)
        params = replace(params, max_tokens=min(params.max_tokens, window - len(prompt_tokens)))
        holder = self._seats.take(n)
        prompt, rollout = tuple(prompt_tokens), uuid.uuid4().hex
        captured = rule is not None or signals

        def submit(i: int, put: Any) -> tuple[Any, str]:
            key = f"{rollout}-{i}"
            order = Order(key, rule, signals) if captured else None
            return self._loop.run(self._submit(prompt, self._drawn(params, i, order), key, i, put)), key

        source = Source(
            prompt=prompt,
            n=n,
            params=params,
            rule=rule,
            signals=signals,
            decode=self.decode,
            submit=submit,
            drop=lambda tasks, keys, muted: self._loop.run(self._drop(tasks, keys if captured else [], muted)),
            read=self._read,
            finish=lambda whole: self._loop.run(self._read_last(prompt, whole, rule)),
            release=lambda seats: self._seats.give_back(holder, seats),
            abandon=lambda tasks, keys: self._loop.begin(self._drop(tasks, keys if captured else [])),
        )
        return VllmRollout(source, min(n, self._seats.seats))

    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        if signals:
            raise UsageError("the vLLM engine gives no signals of given texts; take --engine transformers")
        if not prompt_tokens or not completion_tokens:
            raise UsageError("a prompt and a completion of at least one token each are needed")
        self._check_rule(rule)
        most = self.context_window - rule.lag
        self._check([*prompt_tokens, *completion_tokens], "the prompt and the completion have", most)
        completion = tuple(completion_tokens)
        with self._scoring:  # one text at a time: the workers keep so many rows in one step
            found = self._loop.run(self._scored(tuple(prompt_tokens), completion, rule))
        reason = "stop" if completion[-1] in self.eos else "length"
        return Completion(0, completion, self.decode(completion), reason, found)

    def close(self) -> None:
        """End vLLM's processes, where they are this engine's own."""
        self._finalizer()

    def held(self) -> list[list[int]]:
        """Of each worker: how many requests it holds captures of, its bytes of memory, and how many it preempted."""
        found: list[list[int]] = self._loop.run(self._llm.collective_rpc("nad_held"))
        return found

    def _drawn(self, params: SamplingParams, i: int, order: Order | None) -> Any:
        """vLLM's parameters of sample i."""
        from vllm import SamplingParams as VllmParams
        from vllm.sampling_params import RequestOutputKind

        return VllmParams(
            temperature=params.temperature,
            top_p=params.top_p if params.temperature else 1.0,
            max_tokens=params.max_tokens,
            seed=sample_seed(params.seed, i),
            stop_token_ids=sorted(self.eos),
            ignore_eos=True,  # the tokens above are all that end a completion
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=order.packed(self._word) if order is not None else None,
        )

    async def _submit(self, prompt: tuple[int, ...], params: Any, key: str, sample: int, put: Any) -> Any:
        from vllm import TokensPrompt

        outputs = self._llm.generate(TokensPrompt(prompt_token_ids=list(prompt)), params, request_id=key)
        return asyncio.get_running_loop().create_task(deliver(outputs, sample, put))

    async def _drop(self, tasks: Sequence[Any], keys: Sequence[str], muted: Sequence[str] = ()) -> None:
        """End these requests, then have the workers forget these keys: in this order, so that none comes back."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if (keys or muted) and not self._llm.errored:
            try:
                await self._llm.collective_rpc("nad_forget", args=(list(keys), list(muted)))
            except Exception:
                if not self._llm.errored:  # a dead engine holds nothing
                    raise

    def _read(self, lengths: dict[str, int]) -> dict[str, Found]:
        return self._loop.run(self._read_async(lengths))

    async def _read_async(self, lengths: dict[str, int]) -> dict[str, Found]:
        try:
            answers = await self._llm.collective_rpc("nad_read", args=(lengths,))
        except Exception as error:  # a dead engine's kinds
            raise NadError(f"vLLM failed while its captures were read: {error or type(error).__name__}") from error
        (answer,) = filter(None, answers)
        found: dict[str, Found] = pickle.loads(answer)  # from our own worker
        return found

    async def _scored(self, prompt: tuple[int, ...], completion: tuple[int, ...], rule: ActivationRule) -> Any:
        """The prompt and the text go through the model in pieces of so many captured positions.

        Pieces share a prefix cache that nobody else has: what others computed would be left out, and so not captured.
        The last token is read where Eq. 1 takes its own position.
        """
        key = uuid.uuid4().hex
        try:
            for start in range(0, len(completion), SCORED_ROWS):
                piece = completion[start : start + SCORED_ROWS]
                read = [*prompt, *completion[: start + len(piece) - 1 + rule.lag]]
                await self._read_through(read, Order(key, rule, score=piece, start=start), salt=key)
            found = (await self._read_async({key: len(completion)}))[key]
        finally:
            await self._drop([], [key])
        if found.error or tuple(found.tokens) != completion:
            raise NadError(f"the capture of request {key} failed: {found.error or 'it belongs to other tokens'}")
        return found.activations

    async def _read_last(
        self, prompt: tuple[int, ...], whole: Mapping[str, Sequence[int]], rule: ActivationRule | None
    ) -> None:
        """Read the last token of samples, by key, that they emitted and may not have read themselves.

        All before it is in the prefix cache, up to a part of a block. If a sample has read it, nothing is added.
        """
        orders = {key: Order(key, rule, score=(tokens[-1],), start=len(tokens) - 1) for key, tokens in whole.items()}
        await asyncio.gather(*(self._read_through([*prompt, *whole[key]], o) for key, o in orders.items()))

    async def _read_through(self, tokens: Sequence[int], order: Order, salt: str | None = None) -> None:
        """Have the model read these tokens, for the sake of what is captured."""
        from vllm import TokensPrompt

        asked = TokensPrompt(prompt_token_ids=list(tokens))
        if salt is not None:
            asked["cache_salt"] = salt
        params = self._drawn(SamplingParams(temperature=0, max_tokens=1), 0, order)
        request = f"{order.key}-{order.start}"
        try:
            async for _ in self._llm.generate(asked, params, request_id=request):
                pass
        except Exception as error:  # vLLM's own kinds
            raise NadError(f"request {request} failed in vLLM: {error or type(error).__name__}") from error

    def _check_rule(self, rule: ActivationRule | None) -> None:
        if rule is not None and rule.keep == "eta" and self._parallel:
            raise UsageError("keep=eta is not available with several workers; take top_k, or one worker")

    def _check(self, tokens: Sequence[int], what: str, most: int) -> None:
        if len(tokens) > most:
            raise UsageError(
                f"{what} {len(tokens)} tokens, but {self.name} has a context window of {self.context_window} here; "
                "shorten the text, or raise it (--engine-arg max_model_len=N)"
            )
        unknown = [token for token in tokens if not 0 <= token < self._vocabulary]
        if unknown:
            raise UsageError(f"no token {unknown[0]}: {self.name} has the tokens 0 to {self._vocabulary - 1}")


def sample_seed(seed: int, sample: int) -> int:
    """The seed of a sample's own request: below 2^63, which is what vLLM takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{sample}".encode()).digest()[:8], "big") >> 1


class _Settings(nn.Module):
    """What `end_tokens` looks at of a model."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config.hf_text_config
        self.generation_config = GenerationConfig(**config.try_get_generation_config())
