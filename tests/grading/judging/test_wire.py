"""What may be written in the messages between the judge and the program."""

import os
import pickle
import socket
import time
import types
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nad.grading import sandbox
from nad.grading.judging import wire
from nad.grading.judging.wire import Channel, ProgramLost

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
VALUES = st.recursive(
    HASHABLE, lambda inner: st.lists(inner) | st.dictionaries(HASHABLE, inner) | st.sets(HASHABLE), max_leaves=10
)


def itself(value: object) -> None:
    """All plain values go themselves."""
    assert wire.is_copied(type(value)), value


@given(VALUES)
def test_any_plain_value_is_the_same_on_the_other_side(value):
    found = wire.unpack_data(wire.pack(value, itself), lambda stand_in: None)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("value", [os.system, eval, sandbox.Limits(), types.SimpleNamespace(), type, Fraction, Counter])
def test_a_message_that_names_anything_else_is_refused(value):
    with pytest.raises(pickle.UnpicklingError, match="is not data"):
        wire.unpack_data(pickle.dumps(value), lambda stand_in: None)


@pytest.mark.parametrize(
    "value",
    [
        *(Counter("aab"), OrderedDict([("b", 1), ("a", 2)]), defaultdict(list, a=[1]), deque([1, 2], 3)),
        *(date(2020, 1, 2), datetime(2020, 1, 2, 3, tzinfo=UTC), timedelta(1, 2), UTC),
        *(Decimal("1.50"), Fraction(1, 2), PurePosixPath("a/b"), UUID(int=7)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_types_are_made_again_from_plain_parts(value):
    made = wire.made_value(*wire.value_parts(value))
    assert made == value and type(made) is type(value) and repr(made) == repr(value)


def test_a_value_type_goes_by_its_public_name(monkeypatch):
    """Python 3.13 defines pathlib's in a module of another name."""
    monkeypatch.setattr(PurePosixPath, "__module__", "pathlib._local")
    wire.value_name.cache_clear()
    wire.value_base.cache_clear()
    assert wire.value_parts(PurePosixPath("a/b"))[:2] == ("pathlib", "PurePosixPath")


def test_only_value_types_are_made():
    with pytest.raises(pickle.UnpicklingError, match=r"os\.system is not data"):
        wire.made_value("os", "system", ("true",))


def test_deep_values_cross():
    """As deep as Python 3.13 lets pickle go, whatever the recursion limit."""
    deep: list[object] = []
    for _ in range(3000):
        deep = [deep]
    found = wire.unpack_data(wire.pack(deep, itself), lambda stand_in: None)
    for _ in range(3000):
        (found,) = found
    assert found == []


def test_containers_of_a_call_are_counted_alike_on_both_sides():
    """Each once, by identity; not the tuples around them, and not what cannot hold any (keys, elements of sets)."""
    shared = [1]
    arguments = ((shared, {"a": shared, "b": {2}}), deque([[3]]), "text", frozenset([4]))
    other = pickle.loads(pickle.dumps(arguments))
    assert wire.inner_containers(arguments) == wire.inner_containers(other)
    assert sorted(map(str, wire.inner_containers(arguments))) == sorted(
        ["[1]", "{'a': [1], 'b': {2}}", "{2}", "deque([[3]])", "[3]"]
    )


def channels(seconds: float, most: int = 100) -> tuple[Channel, socket.socket]:
    """A channel that has so many seconds, and the bare other end."""
    mine, other = socket.socketpair()
    deadline = time.monotonic() + seconds

    def left() -> float:
        if (left := deadline - time.monotonic()) <= 0:
            raise ProgramLost("no time left")
        return left

    return Channel(mine, most, left), other


def test_a_message_arrives_in_pieces_or_not_at_all():
    channel, other = channels(10)
    with channel._end, other:
        other.sendall(b"\0\0\0\0\0\0\0\3on")
        other.sendall(b"e")
        assert channel.receive() == b"one"
        other.sendall((101).to_bytes(8, "big"))
        with pytest.raises(ProgramLost, match="more output"):
            channel.receive()
        other.close()
        with pytest.raises(ProgramLost, match="ended"):
            channel.receive()


@pytest.mark.parametrize("send", [False, True])
def test_neither_reading_nor_writing_goes_past_the_end(send):
    channel, other = channels(0.3)
    started = time.monotonic()
    with channel._end, other, pytest.raises(ProgramLost):
        channel.send(bytes(10 << 20)) if send else channel.receive()
    assert 0.2 < time.monotonic() - started < 3
