"""The engine of many replicas: its rollouts are spread over engines in processes of their own, in a Ray cluster."""

import atexit
import os
import pickle
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from nad.engines.base import LoadOptions
from nad.engines.cluster.crew import Crew, Member, Order
from nad.engines.cluster.ray_cluster import join, machines
from nad.engines.cluster.rollout import ReplicaRollout
from nad.engines.cluster.shares import fair_share, gpus_of
from nad.engines.texts import ReadsTexts
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.types import Completion, SamplingParams

_STAY = ("report", "tokenizer", "device")
"""Options that do not travel."""


class ReplicatedEngine(ReadsTexts):
    """As many rollouts at once as all replicas take together; each is open on one of them, the least busy."""

    def __init__(self, crew: Crew, share: object) -> None:
        self._crew = crew
        about = crew.about
        self.name, self.kind, self.revision, self.dtype = about.name, about.kind, about.revision, about.dtype
        self.layers, self.neurons, self.experts, self.eos = about.layers, about.neurons, about.experts, about.eos
        self.weights_digest, self.context_window = about.weights_digest, about.context_window
        self.texts = about.texts
        self.rollouts = crew.size * about.rollouts
        self._notes = (*about.notes, f"replicas: {crew.size}, each with {share}")
        self._client = uuid.uuid4().hex
        self._finalizer = weakref.finalize(self, crew.close)
        atexit.register(self._finalizer)  # before Ray's own, which would not wait for the engines' ends

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._notes, *self._crew.events)

    def start(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> ReplicaRollout:
        member, release = self._place()
        caller, key = self._caller(), uuid.uuid4().hex
        call, forget = partial(self._crew.call, member, caller), partial(self._crew.forget, member, caller, key)
        try:
            call("start", key, tuple(prompt_tokens), n, params, rule, signals)
        except BaseException:
            forget()  # Ctrl-C: it may have begun
            release()
            raise
        return ReplicaRollout(call, forget, key, n, release)

    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        member, release = self._place()
        texts = (tuple(prompt_tokens), tuple(completion_tokens))
        try:
            scored = self._crew.call(member, self._caller(), "score", *texts, rule, signals)
        finally:
            release()
        completion: Completion = pickle.loads(scored)  # from our own replica
        return completion

    def close(self) -> None:
        """End the replicas, and the cluster where nad started it."""
        self._finalizer()

    def _place(self) -> tuple[Member, Callable[[], None]]:
        member, holder = self._crew.places.take()
        once = iter([partial(self._crew.places.give_back, member, holder)])
        return member, lambda: next(once, _nothing)()

    def _caller(self) -> str:
        return f"{self._client}:{threading.get_ident()}"


def load_replicas(
    model: Any, engine: str, options: LoadOptions, replicas: int, ray_address: str | None
) -> ReplicatedEngine:
    """`replicas` times the engine, in a Ray cluster. Raises UsageError where they do not fit it."""
    if replicas < 1:
        raise UsageError(f"--replicas must be at least 1, got {replicas}")
    if (model is not None and not isinstance(model, str)) or options.tokenizer is not None:
        raise UsageError("replicas load the model themselves; name a folder or a hub id")
    gpus = gpus_of(options.arguments)
    options.report("starting Ray" if ray_address is None else f"connecting to the Ray cluster at {ray_address}")
    leave = join(ray_address)
    try:
        share = fair_share(machines(), replicas, options.device, gpus)
    except BaseException:
        leave()
        raise
    travel = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in _STAY}
    travel |= {"device": "cuda" if share.gpus else "cpu", "arguments": dict(options.arguments)}
    place = os.path.abspath(os.path.expanduser(model)) if model and os.path.exists(os.path.expanduser(model)) else model
    crew = Crew(Order(place, engine, travel, share), replicas, leave, options.report)
    return ReplicatedEngine(crew, share)


def _nothing() -> None:
    pass
