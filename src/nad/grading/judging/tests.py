"""The tests' side of the socket: the judge runs the tests, and asks the program whatever they ask of its values."""

import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

from nad.grading.judging.mirror import exception, exception_class, mirror
from nad.grading.judging.wire import (
    OPERATORS,
    Channel,
    ProgramLost,
    inner_containers,
    is_copied,
    made_value,
    pack,
    unpack_data,
)


class NotPlain(BaseException):
    """A test passes what cannot cross: the judge cannot run it, so the program is not graded."""


class Judge:
    """The values of the program's that the tests hold, by number, and the tests' functions that the program holds."""

    def __init__(self, channel: Channel, tests: dict[str, Any]) -> None:
        self.failure: BaseException | None = None  # once lost, always lost, whatever the tests catch
        self._channel = channel
        self._tests = tests
        self._names: dict[str, object] = {"__name__": "tests"}
        self._held: dict[int, object] = {}
        self._numbers: dict[int, int] = {}  # of the held, by id
        self._alive: list[object] = []  # all that `_numbers` knows, so that nothing else gets their ids
        self._mirrors: dict[int, type] = {}
        self._functions: list[Callable[..., object]] = []
        self._arguments: list[Any] = []  # the current call's containers
        self._classes: set[int] = set()  # those whose operators are what is tested: see Tests.classes
        self._open: set[int] = set()  # their instances, and what operators of these return
        self._opening = False
        self._turn = threading.RLock()  # threads of the tests

    def verdict(self) -> dict[str, object]:
        """What the tests say of the program."""
        try:
            self._reply()
        except BaseException as error:
            return {"passed": False, "reason": f"the program does not load: {_reason(error)}"}
        try:
            code = compile(self._tests["source"], "tests.py", "exec")
            exec(self._tests["before"], self._names)
        except Exception as error:
            return {"passed": None, "reason": f"the tests do not run: {_reason(error)}"}
        try:
            defined = self.ask("names", tuple(self._tests["names"]))
            self._names |= {n: dict.__getitem__(defined, n) for n in self._tests["names"] if n in defined}
            classes = [self._names.get(n) for n in self._tests["classes"]]
            self._classes = {self._numbers[id(value)] for value in classes if self.owns(value)}
            exec(code, self._names)
            failure = self.failure
        except BaseException as error:
            failure = self.failure or error
        if isinstance(failure, NotPlain):
            return {"passed": None, "reason": str(failure)}
        return {"passed": failure is None, "reason": "" if failure is None else _reason(failure)}

    def ask(self, what: str, target: object, *args: object, **kwargs: object) -> Any:
        """What the program says; raises what it raises, and takes over what it changed in the arguments."""
        with self._turn:
            if self.failure is not None:
                raise self.failure
            outer = self._arguments, self._opening
            self._arguments = inner_containers((args, kwargs))
            opener = self._classes if what == "__call__" else self._open if what in OPERATORS else ()
            self._opening = self._numbers.get(id(target)) in opener
            try:
                self._say(what, target, args, kwargs)
                return self._reply(what)
            except (ProgramLost, NotPlain) as failure:
                self.failure = failure
                raise
            finally:
                self._arguments, self._opening = outer

    def same(self, one: object, other: object) -> bool:
        return self._numbers[id(one)] == self._numbers.get(id(other))

    def owns(self, value: object) -> bool:
        return id(value) in self._numbers

    def may_tell(self, special: str, target: object, others: Sequence[object]) -> bool:
        under_test = special not in ("__eq__", "__ne__") and self._numbers[id(target)] in self._open
        return under_test or all(map(self.owns, others))

    def _say(self, *message: object) -> None:
        try:
            packed = pack(message, self._stand_in)
        except Exception as error:  # pickle has many ways to say no
            raise NotPlain(f"a test passes what cannot be passed on: {error}") from None
        self._channel.send(packed)

    def _reply(self, what: str = "") -> Any:
        while True:
            outcome, *rest = self._next()
            if outcome != "call":
                break
            self._say(*self._called(*rest))
        if outcome not in ("ok", "raised") or len(rest) != 2:
            raise ProgramLost("a reply that is none")
        value, changed = rest
        for place, contents in changed:
            _restore(self._arguments[place], contents)
        if outcome == "ok":
            return value
        if not isinstance(value, BaseException):  # of a class Python would make an instance, unseen by what follows
            raise ProgramLost("it raises what is no exception")
        if isinstance(value, StopIteration) and what != "__next__" and "StopIteration" not in self._tests["source"]:
            raise RuntimeError("the program raised StopIteration")  # else all(map(f, ...)) would end early, and hold
        raise value

    def _next(self) -> Any:
        message = self._channel.receive()
        try:
            return unpack_data(message, self._found)
        except Exception as error:  # whatever a hostile message makes of the reader
            raise ProgramLost(f"unreadable reply: {error}") from None

    def _called(self, number: int, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[str, object]:
        """What a function of the tests that the program calls returns or raises."""
        try:
            return "returned", self._functions[number](*args, **kwargs)
        except Exception as error:
            return "raised", error

    def _stand_in(self, value: Any) -> object:
        """None for what crosses as pickle has it; a number for the program's values, and for the tests' functions."""
        kind: type = type(value)
        if is_copied(kind):
            return None
        if isinstance(value, Function):
            value = value._function
        if (number := self._numbers.get(id(value))) is not None:
            return "object", number
        # A built-in function goes by its name and runs in the program: the judge would run it on what it is given.
        of_the_tests = isinstance(value, types.FunctionType) and value.__globals__ is self._names
        method = isinstance(value, types.MethodType | types.BuiltinMethodType) and not isinstance(
            value.__self__, types.ModuleType | type | None
        )
        if not (of_the_tests or method):
            return None
        if not any(value is known for known in self._functions):
            self._functions.append(value)
        return "function", next(i for i, f in enumerate(self._functions) if f is value), value.__name__

    def _found(self, stand_in: Any) -> object:
        """The tests' object for what a stand-in of the program's (Program._stand_in) stands for."""
        what, number, *rest = stand_in
        if what == "value":
            return made_value(number, *rest)
        if what == "argument":
            return self._arguments[number]
        if what == "function":
            return Function(self._functions[number])
        _check_number(number)
        if self._opening:
            self._open.add(number)
        if number in self._held:
            return self._held[number]
        made = self._made(what, *rest)
        if isinstance(made, type) and made.__module__ != "program":  # Python's own exception, not a mirror of it
            return made
        return self._hold(number, made)

    def _made(self, what: str, *rest: Any) -> object:
        if what == "exception class":
            return exception_class(self, *rest)
        if what == "exception":
            return exception(*rest)
        if what == "coroutine":
            return self._coroutine()
        (kind, *shape), data = rest
        _check_number(kind)
        if kind not in self._mirrors:
            self._mirrors[kind] = mirror(self, *shape)
            self._know(kind, self._mirrors[kind])
        made = self._mirrors[kind]
        return object.__new__(made) if made.__base__ is object else made.__new__(made, data)

    def _coroutine(self) -> object:
        """Awaited here, it runs to its end in the program's own event loop."""

        async def run() -> object:
            return self.ask("await", coroutine)

        coroutine = run()
        return coroutine

    def _hold(self, number: int, value: object) -> object:
        self._held[number] = value
        return self._know(number, value)

    def _know(self, number: int, value: object) -> object:
        self._numbers[id(value)] = number
        self._alive.append(value)
        return value


class Function:
    """A function of the tests' that comes back from the program: it can be called, and, unlike itself, not changed."""

    __slots__ = ("_function",)
    _function: Callable[..., object]

    def __init__(self, function: Callable[..., object]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return self._function is (other._function if isinstance(other, Function) else other)

    def __hash__(self) -> int:
        return hash(self._function)


def _check_number(number: object) -> None:
    """Raise ValueError for what could pass for the number of a value that the program does not own, None above all."""
    if type(number) is not int:
        raise ValueError(f"{type(number).__name__} is not a number for a value")


def _restore(container: Any, contents: Any) -> None:
    """Make a container hold what the program left in it; of a dictionary the keys came first, then the values."""
    container.clear()
    if isinstance(container, dict):
        half = len(contents) // 2
        for key, value in zip(contents[:half], contents[half:], strict=True):
            container[key] = value
    elif isinstance(container, set):
        container.update(contents)
    else:
        container.extend(contents)


def _reason(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:  # its text may have to be asked of a program that is lost
        return type(error).__name__
