"""The rollout of a replica, as its client holds it: every call goes to the process that owns the samples."""

import pickle
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from nad.engines.cluster.replica import Advance
from nad.errors import NadError, ReplicaLost
from nad.stopping import Progress, StopRule
from nad.types import Group

Call = Callable[..., Any]
"""(method, arguments) -> what that method of the replica returns. Raises ReplicaLost."""


class ReplicaRollout:
    """Positions are told in steps of a tenth of a second: what `until` yields is where the samples are now, so `group`
    gives them as they are at that position. `release` is called once, when the samples are freed.
    """

    def __init__(self, call: Call, forget: Callable[[], None], key: str, n: int, release: Callable[[], None]) -> None:
        self._call, self._key, self._release = call, key, release
        self._tokens: dict[int, list[int]] = {i: [] for i in range(n)}
        self._closed = False
        # One that is dropped without being closed must not leave its samples behind.
        self._finalizer = weakref.finalize(self, _abandon, forget, release)
        self._finalizer.atexit = False

    def __enter__(self) -> "ReplicaRollout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the samples. Those of a replica that died are gone already."""
        if not self._closed:
            self._closed = True
            self._finalizer.detach()
            try:
                self._call("close", self._key)
            except ReplicaLost:
                pass
            finally:
                self._release()

    def until(self, stop: StopRule) -> Iterator[Progress]:
        asked: StopRule | None = stop
        while True:
            if self._closed:
                raise NadError("this rollout is closed; start another")
            advance: Advance = self._call("advance", self._key, asked)
            asked = None
            if advance.progress is not None:
                for i, tokens in advance.tokens.items():
                    self._tokens[i].extend(tokens)
                yield replace(advance.progress, tokens=self._tokens)
            if advance.over:
                return

    def group(self) -> Group:
        group: Group = pickle.loads(self._call("group", self._key))  # from our own replica
        return group

    def keep(self, samples: Sequence[int], capture: bool = True) -> None:
        self._call("keep", self._key, list(samples), capture)
        self._tokens = {i: tokens for i, tokens in self._tokens.items() if i in set(samples)}


def _abandon(forget: Callable[[], None], release: Callable[[], None]) -> None:
    forget()
    release()
