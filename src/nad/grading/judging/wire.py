"""How values cross between the judge and the program: messages over a socket, and what may be written in them.

Three kinds of values come out of the program:
- *data*: exact plain types and the standard library's own value types (Counter, Fraction, date, ...) cross as copies
  that the judge's own Python makes. No name but theirs is looked up, so none of the program's code runs in the judge;
- *exceptions* cross as exceptions of the same class, or of one with its name and its built-in bases;
- everything else stays in the program, and a number stands for it (mirror.py makes the tests' handle of it).
"""

import functools
import importlib
import io
import pickle
import socket
import struct
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

IMMUTABLE: dict[str, type] = {t.__name__: t for t in (int, float, complex, str, bytes, tuple, frozenset)}
BASES: dict[str, type] = {**IMMUTABLE, **{t.__name__: t for t in (list, dict, set, bytearray)}}
# Values of these stay in the program, and their handles say that they are of these.
_KINDS: tuple[type, ...] = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    property,
)
KINDS: dict[str, type] = {t.__name__: t for t in _KINDS}
_NAMED: dict[str, Any] = {
    **BASES,
    "bool": bool,
    "range": range,
    "NotImplemented": NotImplemented,
    "Ellipsis": Ellipsis,
}
_PLAIN = frozenset([*BASES.values(), bool, range, type(None), type(NotImplemented), type(Ellipsis)])
# The standard library's value types, and what each is made from; None: what pickle would make it from.
_VALUES: dict[tuple[str, str], Callable[[Any], tuple[object, ...]] | None] = {
    ("array", "array"): lambda v: (v.typecode, v.tolist()),
    ("collections", "Counter"): lambda v: (dict(v),),
    ("collections", "OrderedDict"): lambda v: (list(v.items()),),
    ("collections", "defaultdict"): lambda v: (v.default_factory, dict(v)),
    ("collections", "deque"): lambda v: (list(v), v.maxlen),
    ("datetime", "date"): None,
    ("datetime", "datetime"): None,
    ("datetime", "time"): None,
    ("datetime", "timedelta"): None,
    ("datetime", "timezone"): None,
    ("decimal", "Decimal"): None,
    ("fractions", "Fraction"): lambda v: (v.numerator, v.denominator),
    ("pathlib", "PosixPath"): None,
    ("pathlib", "PurePosixPath"): None,
    ("uuid", "UUID"): lambda v: (str(v),),
    ("zoneinfo", "ZoneInfo"): lambda v: (v.key,),
}
_UNARY = "bool len iter next reversed getitem setitem delitem call str repr format bytes int float complex index hash"
_UNARY += " abs neg pos invert round trunc floor ceil enter exit aiter anext aenter aexit await length_hint"
_UNARY += " instancecheck subclasscheck"
_ARITHMETIC = "add sub mul truediv floordiv mod divmod pow matmul lshift rshift and or xor"
_COMPARING = "eq ne lt le gt ge contains"
ASKED = frozenset(f"__{name}__" for name in _UNARY.split())
# What is handed the other operand, which may be the value that a test expects (mirror.py decides who computes these).
OPERATORS = frozenset(
    [f"__{name}__" for name in _COMPARING.split()]
    + [f"__{side}{n}__" for n in _ARITHMETIC.split() for side in ("", "r", "i")]
)
# What Python asks of the other operand where the first knows no answer: 6 == 6.0 is for the float to say.
_MIRRORED = [pair.split() for pair in ("eq eq", "ne ne", "lt gt", "gt lt", "le ge", "ge le")]
_MIRRORED += [pair for name in _ARITHMETIC.split() for pair in ([name, f"r{name}"], [f"r{name}", name])]
REFLECTED = {f"__{one}__": f"__{other}__" for one, other in _MIRRORED}
_DEEP = 16_000  # two for each list in a list; at five times as many the C stack is full
GLANCE_S = 0.1  # how often a wait looks whether it should end


class ProgramLost(BaseException):
    """The program ended, hung or broke the protocol; no `except Exception` of a test may catch it."""


@functools.lru_cache(None)
def is_copied(kind: type) -> bool:
    """Whether values of exactly this type cross as copies."""
    return kind in _PLAIN or is_value(kind)


@functools.lru_cache(None)
def value_name(kind: type) -> tuple[str, str] | None:
    """Module and name of one of the standard library's value types, None for other types.

    The name that is public: Python 3.13 defines pathlib's in a module of another name.
    """
    known = ((module, name) for module, name in _VALUES if name == kind.__qualname__)
    return next((pair for pair in known if getattr(sys.modules.get(pair[0]), pair[1], None) is kind), None)


def is_value(kind: type) -> bool:
    """Whether it is one of the standard library's value types."""
    return value_name(kind) is not None


@functools.lru_cache(None)
def value_base(kind: type) -> tuple[str, str] | None:
    """Module and name of the value type that a class is, or is derived from."""
    bases: tuple[Any, ...] = kind.__mro__
    return next((name for base in bases if (name := value_name(base))), None)


def value_parts(value: Any) -> tuple[str, str, tuple[object, ...]]:
    """Module, name and arguments that make such a value again (`made_value`); of a derived class, its value type's."""
    kind: type = type(value)
    base = value_base(kind)
    assert base is not None
    parts = _VALUES[base]
    return *base, value.__reduce_ex__(2)[1] if parts is None else parts(value)


def value_type(module: str, name: str) -> Any:
    if (module, name) not in _VALUES:
        raise pickle.UnpicklingError(f"{module}.{name} is not data")
    return getattr(importlib.import_module(module), name)


def made_value(module: str, name: str, args: Sequence[object]) -> object:
    return value_type(module, name)(*args)


def goes_by_name(kind: type) -> bool:
    """Whether it is a type that the judge looks up by name; those of C alone, for a message can change others."""
    return any(kind is known for known in _NAMED.values())


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, stand_in: Callable[[object], object]) -> None:
        super().__init__(file, protocol=5)
        self._stand_in = stand_in

    def persistent_id(self, obj: object) -> object:
        return self._stand_in(obj)


def pack(value: object, stand_in: Callable[[object], object]) -> bytes:
    """A message; what `stand_in` returns stands for the object it was asked of, None: the object goes itself."""
    file = io.BytesIO()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEP))
    try:
        _Packer(file, stand_in).dump(value)
    finally:
        sys.setrecursionlimit(limit)
    return file.getvalue()


class _DataReader(pickle.Unpickler):
    """Reads data only: no name but those of plain types, which are of C and cannot be changed, is looked up."""

    def __init__(self, file: io.BytesIO, found: Callable[[Any], object]) -> None:
        super().__init__(file)
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" and name in _NAMED:
            return _NAMED[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not data")

    def persistent_load(self, pid: Any) -> object:
        return self._found(pid)


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, found: Callable[[Any], object]) -> None:
        super().__init__(file)
        self._found = found

    def persistent_load(self, pid: Any) -> object:
        return self._found(pid)


def unpack_data(message: bytes, found: Callable[[Any], object]) -> Any:
    """What the judge reads; `found` gives the object that a stand-in stands for."""
    return _DataReader(io.BytesIO(message), found).load()


def unpack(message: bytes, found: Callable[[Any], object]) -> Any:
    """What the program reads: the tests may name whatever they like."""
    return _Reader(io.BytesIO(message), found).load()


class Channel:
    """Messages over a socket, each after its length.

    `left` gives the seconds that are left, or raises ProgramLost: however slowly the bytes come, a read ends then.
    """

    def __init__(self, end: socket.socket, most: int, left: Callable[[], float]) -> None:
        self._end, self._most, self._left = end, most, left

    def send(self, message: bytes) -> None:
        self._end.settimeout(self._left())
        try:
            self._end.sendall(struct.pack(">Q", len(message)) + message)
        except OSError as error:
            raise ProgramLost(f"the program does not listen: {error}") from None

    def receive(self) -> bytes:
        (size,) = struct.unpack(">Q", self._exactly(8))
        if size > self._most:
            raise ProgramLost("more output than allowed")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._end.settimeout(min(self._left(), GLANCE_S))
            try:
                block = self._end.recv(min(size - len(data), 1 << 20))
            except TimeoutError:
                continue
            except OSError as error:
                raise ProgramLost(f"the program ended: {error}") from None
            if not block:
                raise ProgramLost("the program ended")
            data += block
        return bytes(data)


def inner_containers(values: object) -> list[Any]:
    """The lists, dictionaries and the like in the arguments of a call, in an order both sides agree on.

    These are what a call can change in place. (Keys and elements of sets are hashable and hold none.)
    """
    found: dict[int, Any] = {}
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if type(value) is not tuple:
            if id(value) in found:
                continue
            found[id(value)] = value
        if not isinstance(value, bytearray | set):
            waiting += filter(_is_opened, dict.values(value) if isinstance(value, dict) else value)
    return list(found.values())


def _is_opened(value: object) -> bool:
    kind: type = type(value)
    return kind in _OPENED or (kind.__module__ == "collections" and is_value(kind))


_OPENED = frozenset([tuple, list, dict, set, bytearray])
