"""The replicas of one engine as their client sees them: started alike, called, and replaced when they die."""

import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nad.engines.base import Report, unheard
from nad.engines.cluster.places import Places
from nad.engines.cluster.ray_cluster import in_a_line, why_dead
from nad.engines.cluster.replica import About, Replica
from nad.engines.cluster.shares import Share
from nad.errors import NadError, ReplicaLost

_FOUND_S = 60.0
"""How long Ray looks for a machine with room, before that is an error."""
_HEARD_S = 0.5
_END_S = 15.0
_CLOSED = "this engine is closed; load it again"
_LOADS = 3
"""How often a replica may die while it loads its model."""


@dataclass(frozen=True)
class Order:
    """What every replica loads (the arguments of load_engine), and what it gets for that."""

    model: str | None
    engine: str
    options: Mapping[str, Any]
    share: Share


@dataclass(eq=False)
class Member:
    """One replica: `number` counts from 1; `place` counts those on its machine from 0."""

    number: int
    actor: Any
    machine: str = ""
    place: int = 0

    def __str__(self) -> str:
        return f"replica {self.number}"


class Crew:
    """`size` replicas. Any thread may call them; a thread of its own replaces one that died."""

    def __init__(self, order: Order, size: int, leave: Callable[[], None], report: Report) -> None:
        self._order, self.size, self._leave = order, size, leave
        self.places: Places[Member] = Places()
        self._members: list[Member] = []
        self._replacing: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self.events: list[str] = []
        """What happened to replicas, for a user to read."""
        try:
            self.about = self._started(report)
        except BaseException:
            self.close()
            raise

    def call(self, member: Member, caller: str, method: str, *arguments: Any) -> Any:
        """What the replica's method returns or raises. Raises ReplicaLost where it died."""
        if self._closed:
            raise NadError(_CLOSED)
        return self._result(member, getattr(member.actor, method).remote(caller, *arguments))

    def forget(self, member: Member, caller: str, key: str) -> None:
        """Have the replica free a rollout, without waiting for it."""
        if not self._closed:
            member.actor.close.remote(caller, key)

    def close(self) -> None:
        """End all replicas."""
        import ray

        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.places.fail(_CLOSED)
        try:
            ends = [member.actor.end.remote() for member in self._members if member.machine]  # the others do not run
            ray.wait(ends, num_returns=len(ends), timeout=_END_S) if ends else None
            for member in self._members:
                ray.kill(member.actor)
            for thread in self._replacing:
                thread.join(_END_S)
        finally:
            self._leave()

    def _started(self, report: Report) -> About:
        """Start all; with a model that each would fetch for itself, the first one alone."""
        report(f"starting {self.size} replicas")
        numbers = range(1, self.size + 1)
        alone = 1 if self._order.model is None else self.size
        abouts: dict[Member, About] = {}
        for together in (numbers[:alone], numbers[alone:]):
            members = [self._hired(number) for number in together]
            for member in members:
                if not self._settled(member, _FOUND_S):
                    raise NadError(self._no_room(member))
            abouts |= self._loaded(members, report)
        first = abouts[self._members[0]]
        for member, about in abouts.items():
            self._check_alike(member, about, first)
            self.places.open(member, about.rollouts)
        return first

    def _hired(self, number: int) -> Member:
        """A new process, as soon as there is room for it."""
        import ray

        share = self._order.share
        options = {"num_cpus": share.cores, "num_gpus": share.gpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        member = Member(number, ray.remote(Replica).options(**options).remote())
        with self._lock:
            self._members = [m for m in self._members if m.number != number] + [member]
            if self._closed:
                ray.kill(member.actor)
        return member

    def _settled(self, member: Member, seconds: float) -> bool:
        """Wait at most so long until the process runs; give it a place on its machine that no other has."""
        import ray

        asked = member.actor.where.remote()
        if not ray.wait([asked], timeout=seconds)[0]:
            return False
        member.machine = self._result(member, asked)
        with self._lock:
            taken = {m.place for m in self._members if m.machine == member.machine and m is not member}
            member.place = min(set(range(len(taken) + 1)) - taken)
        return True

    def _no_room(self, member: Member) -> str:
        import ray

        free = ray.available_resources()
        have = f"{free.get('CPU', 0):g} cores and {free.get('GPU', 0):g} GPUs"
        wanted = f"{self._order.share} on one machine"
        return f"{member} found no room within {_FOUND_S:g} s: it needs {wanted}, and {have} are free in the cluster"

    def _loaded(self, members: Sequence[Member], report: Report) -> dict[Member, About]:
        """Have these load their engines at once. `report` hears what one of them says of it."""
        import ray

        order = self._order
        load = (order.model, order.engine, order.options)
        waiting = {member.actor.load.remote(*load, member.place, order.share): member for member in members}
        found: dict[Member, About] = {}
        heard: object = None
        while waiting:
            for done in ray.wait(list(waiting), timeout=_HEARD_S)[0]:
                member = waiting.pop(done)
                found[member] = _about(self._result(member, done), order.options)
            for member in list(waiting.values())[:1]:
                said = self._result(member, member.actor.said.remote())
                if said[0] and said != heard:
                    report(f"{member} of {self.size}: {said[0]}", said[1])
                heard = said
        return found

    def _check_alike(self, member: Member, about: About, first: About) -> None:
        if about.model != first.model:
            raise NadError(
                f"{member} has another model than the others ({about.name} in {about.dtype}); all machines "
                "must have the same files, and --dtype says in what they compute"
            )

    def _result(self, member: Member, asked: Any) -> Any:
        import ray
        from ray import exceptions as kinds

        try:
            return ray.get(asked)
        except kinds.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else NadError(in_a_line(error))) from None
        except (kinds.RayActorError, kinds.OutOfMemoryError, kinds.ObjectLostError, kinds.NodeDiedError) as error:
            raise self._lost(member, error) from error
        except kinds.RayError as error:
            raise NadError(f"the Ray cluster failed: {in_a_line(error)}") from error

    def _lost(self, member: Member, error: BaseException) -> NadError:
        if self._closed:
            return NadError(_CLOSED)
        why = why_dead(error)
        with self._lock:
            if self.places.shut(member):  # the first to see it
                self.events.append(f"{member} died ({why}); another took its place")
                thread = threading.Thread(target=self._replace, args=(member,), name="nad-replace", daemon=True)
                self._replacing.append(thread)
                thread.start()
        return ReplicaLost(f"{member} died ({why})", self.places.wait)

    def _replace(self, lost: Member) -> None:
        """Open the places of a new replica with the same number."""
        import ray

        failure = ""
        ray.kill(lost.actor)  # one that only could not be reached
        for _ in range(_LOADS):
            try:
                member = self._hired(lost.number)
                while not self._settled(member, _FOUND_S):
                    if not self.places.up():
                        raise NadError(self._no_room(member))
                about = self._loaded([member], unheard)[member]
                self._check_alike(member, about, self.about)
            except ReplicaLost as error:
                failure = str(error)
                time.sleep(_HEARD_S)
            except Exception as error:  # what loading raises
                failure = in_a_line(error)
                break
            else:
                self.places.open(member, about.rollouts)
                return
        text = f"{lost} could not be replaced: {failure}"
        with self._lock:
            self.events.append(text)
            others = [t for t in self._replacing if t.is_alive() and t is not threading.current_thread()]
            if not self.places.up() and not others:
                self.places.fail(text)


def _about(pickled: bytes, options: Mapping[str, Any]) -> About:
    if options.get("trust_remote_code"):  # its tokenizer may be a class of the model's own
        from transformers.dynamic_module_utils import init_hf_modules

        init_hf_modules()
    about: About = pickle.loads(pickled)  # from our own replica
    return about
