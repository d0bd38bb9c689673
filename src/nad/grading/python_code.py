"""Python as text: whether it is any, what its statements bind, and which names it takes from elsewhere."""

import ast
import builtins
import re
import symtable
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_BUILTINS = frozenset(vars(builtins))
_EFFECTS = frozenset({"input", "open", "print", "exec", "eval", "next", "__import__"})
"""Built-in functions that do more than make a value."""
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_RUNS = (ast.For, ast.While, ast.With, ast.Raise, ast.Assert, ast.AugAssign, ast.Delete, ast.Await)
_ONE_AT_A_TIME = threading.Lock()  # the filter of warnings is the whole process's


@dataclass(frozen=True)
class Statement:
    """A statement at the top level, or several on one line.

    `binds` are the names it gives a value ("*" for a star import); `imports` says that it does nothing but import,
    `runs` that it does more than define something or compute a simple value.
    """

    text: str
    binds: frozenset[str]
    imports: bool
    runs: bool

    @cached_property
    def words(self) -> frozenset[str]:
        return words(self.text)


@dataclass(frozen=True)
class Code:
    """Python code; `needs` are the names that neither it nor Python defines."""

    text: str
    statements: tuple[Statement, ...]
    needs: frozenset[str]

    @cached_property
    def bound(self) -> frozenset[str]:
        return frozenset[str]().union(*(s.binds for s in self.statements))

    @cached_property
    def defined(self) -> frozenset[str]:
        """What it binds itself, and does not import."""
        return frozenset[str]().union(*(s.binds for s in self.statements if not s.imports))

    def may_bind(self, names: frozenset[str]) -> bool:
        """Whether it binds one of the names; a star import may bind any."""
        return bool(names) and ("*" in self.bound or not names.isdisjoint(self.bound))


def parse(text: str) -> Code | None:
    """The text as code; None if it is not Python."""
    tree = _tree(text)
    if tree is None:
        return None
    statements = tuple(_statements(text, tree.body))
    bound = frozenset[str]().union(*(s.binds for s in statements))
    return Code(text, statements, free_names(text) - bound)


def is_python(text: str) -> bool:
    return _tree(text) is not None


def words(text: str) -> frozenset[str]:
    """All names and keywords that stand in a text, comments and strings included."""
    return frozenset(re.findall(r"\w+", text))


def free_names(text: str) -> frozenset[str]:
    """The global names that code uses, Python's own left out; it may define some of them itself."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = [symtable.symtable(text, "program.py", "exec")]
    found: set[str] = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return frozenset(found) - _BUILTINS


def _tree(text: str) -> ast.Module | None:
    """The syntax tree of what Python would run. A model's code may warn of whatever it likes."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "program.py", "exec", dont_inherit=True)
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return None


def _statements(text: str, body: Sequence[ast.stmt]) -> Iterator[Statement]:
    lines = text.split("\n")
    group: list[ast.stmt] = []
    for node in body:
        if group and _first_line(node) > max(n.end_lineno or 0 for n in group[-1:]):
            yield _statement(lines, group)
            group = []
        group.append(node)
    if group:
        yield _statement(lines, group)


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, _DEFINITIONS) else []
    return min([node.lineno, *(d.lineno for d in decorators)])


def _statement(lines: Sequence[str], group: Sequence[ast.stmt]) -> Statement:
    first, last = _first_line(group[0]), group[-1].end_lineno or group[-1].lineno
    nodes = list(_at_top(group))
    binds = frozenset(name for node in nodes for name in _bound(node))
    return Statement(
        text="\n".join(lines[first - 1 : last]),
        binds=binds,
        imports=all(isinstance(node, _IMPORTS) for node in group),
        runs=any(isinstance(node, _RUNS) or (isinstance(node, ast.Call) and _has_effect(node)) for node in nodes),
    )


def _at_top(group: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes that belong to the top level: nothing from inside functions and classes."""
    nodes: list[ast.AST] = list(group)
    while nodes:
        node = nodes.pop()
        yield node
        if isinstance(node, ast.comprehension):
            nodes += [node.iter, *node.ifs]  # its target is not a name of the top level
        elif not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            nodes += ast.iter_child_nodes(node)


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, _IMPORTS):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id


def _has_effect(call: ast.Call) -> bool:
    """Whether a call may do more than make a simple value, as int(...) and list() do."""
    simple = isinstance(call.func, ast.Name) and call.func.id in _BUILTINS - _EFFECTS
    return not simple
