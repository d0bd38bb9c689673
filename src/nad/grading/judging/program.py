"""The program's side: run it, then do what the judge asks of its objects until the judge hangs up."""

import copy
import functools
import operator
import site
import sys
import threading
import types
from collections import UserList, UserString
from collections.abc import Callable, Mapping, Set
from typing import Any, NoReturn

from nad.grading.judging.wire import (
    ASKED,
    BASES,
    IMMUTABLE,
    KINDS,
    OPERATORS,
    Channel,
    ProgramLost,
    goes_by_name,
    inner_containers,
    is_copied,
    is_value,
    made_value,
    pack,
    unpack,
    value_base,
    value_parts,
)

# What equals plain data without being derived from it: a dictionary's views, ChainMap, MappingProxyType, UserList, ...
_EQUAL_TO: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (Set, set),
    (Mapping, lambda value: dict(value.items())),
    (UserList, list),
    (UserString, str),
    (memoryview, bytes),
)


class Program:
    """Its objects that the judge has a number for, and the calls that go each way."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._module = types.ModuleType("program")
        self._kept: list[object] = []
        self._numbers: dict[int, int] = {}  # of the kept, by id
        self._functions: dict[int, Callable[..., object]] = {}  # the tests' own, by their number there
        self._function_numbers: dict[int, int] = {}  # by id
        self._arguments: dict[int, int] = {}  # the current call's containers, by id
        self._turn = threading.RLock()  # threads of the program may all call functions of the tests

    def serve(self, source: str) -> NoReturn:
        """Run the program, say how that went, then answer until the judge hangs up."""
        sys.modules["program"] = self._module
        site.setquit()  # python -S leaves quit() and exit() out
        self._answer((), lambda: exec(compile(source, "program.py", "exec"), self._module.__dict__))
        while True:
            with self._turn:
                asked = self._channel.receive()
            self._do(*unpack(asked, self._found))

    def _do(self, what: str, target: Any, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        work = _VERBS.get(what) or (self._defined if what == "names" else functools.partial(_special, what))
        self._answer((args, kwargs), lambda: work(target, *args, **kwargs))

    def _answer(self, arguments: object, work: Callable[[], object]) -> None:
        """Send what `work` returns or raises, and what it changed in its arguments."""
        containers = inner_containers(arguments)
        before = [_contents(c) for c in containers]
        outer, self._arguments = self._arguments, {id(c): i for i, c in enumerate(containers)}
        try:
            try:
                outcome, value = "ok", work()
            except ProgramLost:
                raise
            except BaseException as error:
                outcome, value = "raised", error.with_traceback(None)
            after = [_contents(c) for c in containers]
            changed = [(i, now) for i, now in enumerate(after) if not _same(now, before[i])]
            self._say(outcome, value, changed)
        finally:
            self._arguments = outer

    def _say(self, *message: object) -> None:
        try:
            packed = pack(message, self._stand_in)
        except Exception as error:
            packed = pack(("raised", RuntimeError(f"it cannot leave the program: {error!r}"), []), self._stand_in)
        with self._turn:
            self._channel.send(packed)

    def _ask(self, number: int, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Call a function of the tests; until it returns, do what it asks in its turn."""
        with self._turn:
            self._say("call", number, args, kwargs)
            while True:
                what, *rest = unpack(self._channel.receive(), self._found)
                if what == "returned":
                    return rest[0]
                if what == "raised":
                    raise rest[0]
                self._do(what, *rest)

    def _defined(self, names: tuple[str, ...]) -> dict[str, object]:
        return {name: self._module.__dict__[name] for name in names if name in self._module.__dict__}

    def _number(self, value: object) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        return self._numbers[id(value)]

    def _stand_in(self, value: Any) -> object:
        """None for what crosses as a copy; for all else what the judge makes the tests' handle of (Judge._found)."""
        kind: type = type(value)
        if is_copied(kind):
            if (place := self._arguments.get(id(value))) is not None:
                return "argument", place
            return ("value", *value_parts(value)) if is_value(kind) else None
        if kind is type and goes_by_name(value):
            return None
        if id(value) in self._function_numbers:
            return "function", self._function_numbers[id(value)]
        number = self._number(value)
        if isinstance(value, BaseException):
            args = OSError.__reduce__(value)[1] if isinstance(value, OSError) else value.args  # with its files' names
            return "exception", number, kind, args, _text(value), vars(value)
        if isinstance(value, type) and issubclass(value, BaseException):
            bases = tuple(b for b in value.__bases__ if issubclass(b, BaseException))
            return "exception class", number, value.__module__, value.__name__, bases
        if kind.__module__ == "builtins" and hasattr(kind, "__await__"):
            return "coroutine", number
        base, shape = _base(kind), (self._number(kind), kind.__name__, *_shape(kind))
        return "object", number, shape, _data(value) if base is not None and base.__name__ in IMMUTABLE else None

    def _found(self, stand_in: tuple[Any, ...]) -> object:
        """What a stand-in of the judge's stands for: an object of the program's, or a function of the tests."""
        kind, number, *name = stand_in
        if kind == "object":
            return self._kept[number]
        if number not in self._functions:

            def function(*args: object, **kwargs: object) -> object:
                return self._ask(number, args, kwargs)

            function.__name__ = function.__qualname__ = str(*name)
            self._functions[number] = function
            self._function_numbers[id(function)] = number
        return self._functions[number]


def _special(name: str, target: Any, *args: object, **kwargs: object) -> object:
    """What Python does for an operator: the method of the object's class, not of the object."""
    return getattr(type(target), name)(target, *args, **kwargs)


@functools.lru_cache(None)
def _base(kind: type) -> type | None:
    return next((b for b in kind.__mro__[1:] if b in BASES.values()), None)


def _has_data(kind: type) -> bool:
    if _base(kind) is not None or value_base(kind) is not None:
        return True
    return any(issubclass(kind, equal) for equal, _ in _EQUAL_TO) or kind.__module__ == "numpy"


@functools.lru_cache(None)
def _shape(kind: type) -> tuple[str | tuple[str, str] | None, bool, tuple[str, ...]]:
    """A class as the judge mirrors it: the plain type or value type that it is derived from, or its name if it is one
    of KINDS; whether `_data` knows it; and the special methods of its own.
    """
    base = _base(kind)
    common: Mapping[str, object] = {**vars(object), **(vars(base) if base and base.__name__ in IMMUTABLE else {})}
    own = []
    for name in (*ASKED, *OPERATORS):
        found = next((vars(c)[name] for c in kind.__mro__ if name in vars(c)), None)
        if found is not common.get(name):
            own.append(name)
    if (value := value_base(kind)) is not None:
        return value, True, tuple(own)
    known = base or (kind if KINDS.get(kind.__name__) is kind else None)
    return known.__name__ if known else None, _has_data(kind), tuple(own)


def _data(value: Any) -> object:
    """The plain data in a value, by the methods of its plain base and not by its own. None: it has none."""
    kind: type = type(value)
    base = _base(kind)
    if value_base(kind) is not None:
        return made_value(*value_parts(value))
    if base is not None and hasattr(base, "__getnewargs__"):
        return base(*base.__getnewargs__(value))
    if base is not None:
        return base(dict.items(value) if base is dict else base.__iter__(value))  # type: ignore[attr-defined]
    for equal, plain in _EQUAL_TO:
        if issubclass(kind, equal):
            return plain(value)
    return value.item() if kind.__module__ == "numpy" and getattr(value, "shape", None) == () else None


def _text(error: BaseException) -> str | None:
    try:
        return str.__str__(str(error))
    except Exception:
        return None


def _awaited(value: Any) -> object:
    async def until_done() -> object:
        return await value

    return _event_loop().run_until_complete(until_done())


@functools.lru_cache(None)
def _event_loop() -> Any:
    import asyncio  # slow to load, and few programs need it

    return asyncio.new_event_loop()


def _contents(container: Any) -> list[Any]:
    """What a list, set or the like holds; of a dictionary the keys and then the values."""
    return [*container, *container.values()] if isinstance(container, dict) else list(container)


def _same(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists hold the very same objects."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


_VERBS: dict[str, Callable[..., object]] = {
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "dir": dir,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "data": _data,
    "await": _awaited,
}
