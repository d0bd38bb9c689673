"""What the tests hold of a value that stayed in the program: an object of a class that mirrors the value's class.

Operators, attributes, iteration and truth are asked of the program, so it decides what its own values do. It does not
decide how they compare with the tests': an operator whose other operand is not the program's own (`f(x) == 3`,
`f(x) - 0.5`, `3 in f(x)`) never reaches it, or it would be told the expected value, and could equal everything. Then
the plain data in the value decides (a subclass of tuple is compared as the tuple it holds), and a value that holds none
equals nothing. A value of an immutable plain type's subclass is mirrored by a subclass of the same type, with its data.
"""

import sys
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

from nad.grading.judging.wire import ASKED, BASES, IMMUTABLE, KINDS, OPERATORS, REFLECTED, value_type


class Asks(Protocol):
    """What a mirror needs of the judge."""

    def ask(self, what: str, target: object, *args: object, **kwargs: object) -> Any: ...

    def same(self, one: object, other: object) -> bool:
        """Whether two are the same value of the program's: the class of a value, say, and what the tests call it."""

    def owns(self, value: object) -> bool:
        """Whether it is a value of the program's."""

    def may_tell(self, special: str, target: object, others: Sequence[object]) -> bool:
        """Whether the program may see the other operands of an operator of `target`."""


def mirror(judge: Asks, name: str, base: str | tuple[str, str] | None, has_data: bool, specials: Sequence[str]) -> type:
    """The class of handles for values of one of the program's classes, with the special methods that one has.

    `base` names the plain type or the value type (module and name) that it is derived from, or is itself one of KINDS.
    """
    kind = KINDS.get(base) if isinstance(base, str) else None
    plain = object if base is None or kind is not None else BASES[base] if isinstance(base, str) else value_type(*base)
    held = plain if base in IMMUTABLE else object
    body: dict[str, Any] = {"__slots__": ()}  # no attributes here that could hide the plain type's own
    body |= {s: _asked(judge, s) for s in specials if s in ASKED}
    body |= {s: _operator(judge, s, held, has_data) for s in specials if s in OPERATORS}
    if plain in (list, bytearray) and "__radd__" not in body:  # these add without one
        body["__radd__"] = lambda self, other: other + judge.ask("data", self)
    if held is object and "__eq__" not in body:
        body["__eq__"] = lambda self, other: judge.same(self, other) or NotImplemented
        body.setdefault("__hash__", object.__hash__)
    body["__copy__"] = lambda self: judge.ask("copy", self)
    body["__deepcopy__"] = lambda self, memo: judge.ask("deepcopy", self)
    body["__setattr__"] = lambda self, key, value: judge.ask("setattr", self, key, value)
    body["__delattr__"] = lambda self, key: judge.ask("delattr", self, key)
    body["__dir__"] = lambda self: judge.ask("dir", self)
    if held is not object:  # what the plain type has is its own: only the rest is asked
        body["__hash__"] = held.__hash__
        body["__getattr__"] = lambda self, key: judge.ask("getattr", self, key)
        return type(name, (held,), body)
    marker = type(name, (plain,), {}) if plain is not object else kind  # for isinstance(value, list) and the like
    body["__getattribute__"] = _attribute(judge, marker)
    return type(name, (), body)


def _attribute(judge: Asks, marker: type | None) -> Callable[[Any, str], Any]:
    def attribute(self: object, name: str) -> Any:
        if name == "__class__":
            return marker or type(self)
        if name == "__deepcopy__":
            return object.__getattribute__(self, name)
        return judge.ask("getattr", self, name)

    return attribute


def _asked(judge: Asks, special: str) -> Callable[..., Any]:
    def method(self: object, *args: object, **kwargs: object) -> Any:
        if special in ("__exit__", "__aexit__"):
            args = (*args[:2], None)  # a traceback stays where it is
        return judge.ask(special, self, *args, **kwargs)

    async def awaited(self: object) -> Any:
        return judge.ask("await", self)

    return (lambda self: awaited(self).__await__()) if special == "__await__" else method


def _operator(judge: Asks, special: str, held: type, has_data: bool) -> Callable[..., Any]:
    def method(self: Any, *others: object) -> Any:
        if judge.may_tell(special, self, others):
            return judge.ask(special, self, *others)
        data = self
        if held is object:
            data = judge.ask("data", self) if has_data else None
        decide = getattr(held if held is not object else type(data), special, None) if data is not None else None
        if decide is not None:
            decided = decide(data, *others)
            answer = getattr(type(others[0]), REFLECTED.get(special, ""), None) if decided is NotImplemented else None
            return decided if answer is None else answer(others[0], data)
        if special == "__contains__":
            found = islice(self, len(self)) if hasattr(type(self), "__len__") else self
            return any(value is others[0] or value == others[0] for value in found)
        return NotImplemented

    return method


def exception_class(judge: Asks, module: str, name: str, bases: Sequence[type]) -> type[BaseException]:
    """Python's own exception class of that name, or one that mirrors the program's, derived from the same ones."""
    found = getattr(sys.modules.get(module), name, None) if module.split(".")[0] in sys.stdlib_module_names else None
    if isinstance(found, type) and issubclass(found, BaseException):
        return found

    def text(self: BaseException) -> str:
        said = vars(self).get(_TEXT)
        return BaseException.__str__(self) if said is None else said

    def attribute(self: BaseException, key: str) -> Any:
        if judge.owns(self):
            return judge.ask("getattr", self, key)
        raise AttributeError(key)

    parents = tuple(b for b in bases if issubclass(b, BaseException)) or (Exception,)
    body = {"__str__": text, "__getattr__": attribute, "__module__": "program"}
    try:
        return type(name, parents, body)
    except TypeError:  # two built-in classes that Python cannot join; the program's own is of C, or a lie
        return type(name, parents[:1], body)


_TEXT = "(text)"  # no attribute that a program could name


def exception(kind: type[BaseException], args: Sequence[object], text: object, attributes: dict[str, object]) -> Any:
    """An exception with these arguments; constructors that want others (JSONDecodeError) are passed by."""
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TypeError("not an exception's class")
    try:
        made = kind(*args)
    except Exception:
        made = kind.__new__(kind, *args)
    vars(made).update(attributes)
    if kind.__module__ == "program":
        vars(made)[_TEXT] = text
    return made
