"""The program in a model's answer (docs/decisions/0035-programs.md).

An answer holds blocks of code: the program, earlier versions and parts of it, how to run it, what it prints. The
program is the last block that does what is asked for, with what it needs of the blocks before it.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from nad.grading.fences import CONSOLE, PYTHON, Block, blocks, prompts_stripped
from nad.grading.python_code import Code, free_names, is_python, parse, words
from nad.thinking import after_thinking

_READS = frozenset({"input", "stdin", "open", "fileinput"})
_WRITES = frozenset({"print", "stdout", "write", "writelines"})
_SHOWS = _WRITES | {"assert", "__name__"}
_FUTURE = re.compile(r"^from __future__ import (?:\([^)]*\)|.*)$", re.MULTILINE)
_DEFINITION = re.compile(r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)|^(\w+)[ \t]*=", re.MULTILINE)
_TRIED = 8
"""How many blocks are completed on trial, from the last one on; it keeps the time linear."""


@dataclass(frozen=True)
class _Piece:
    """A block as a piece of a program: its text, as Python where it is Python."""

    block: Block
    text: str
    code: Code | None

    @property
    def tagged(self) -> bool:
        """Whether its fence says Python, or says nothing."""
        return self.block.language in {*PYTHON, *CONSOLE, ""}

    @property
    def broken_off(self) -> bool:
        """Whether the answer was cut inside it, so that it is not Python."""
        return self.code is None and not self.block.closed

    @cached_property
    def words(self) -> frozenset[str]:
        return words(self.text)

    @cached_property
    def defined(self) -> frozenset[str]:
        """The names it defines; what it imports is somebody else's."""
        if self.code is not None:
            return self.code.defined
        return frozenset(name for pair in _DEFINITION.findall(self.text) for name in pair if name)


def extract_program(text: str, names: Sequence[str] = ()) -> str | None:
    """The program of a text: what defines `names`, or, without names, a script that reads input and prints.

    With `names` it is the last block that defines one of them; the others may come from blocks before it. Without, it
    is the last block that reads and prints and starts itself. A block that shows something else (a call, its output, a
    command for the shell) is not the program, whatever its place. What the program uses and does not define (imports,
    functions, values) comes from other blocks, earlier ones first, and is put before it. A block that was cut gives way
    to an earlier whole one, and loses its last, unfinished statement.
    A text without blocks is a program if it is Python, alone or as the rest of a function whose head stood in the
    prompt. None: there is no program, or the thinking block never closes. The time is linear in the text's length.
    """
    final = after_thinking(text)
    if final is None:
        return None
    pieces = [_piece(block) for block in blocks(final) if block.text.strip()]
    if not pieces:
        return final if final.strip() and (is_python(final) or _continues(final)) else None
    place = _definition(pieces, names) if names else _script(pieces)
    if place is not None:
        return _completed(pieces, place, names)
    place = _guess(pieces)
    return None if place is None else pieces[place].block.text


def joined(*parts: str) -> str:
    """One program of several parts; what Python wants first of all comes first."""
    whole = "\n".join(parts)
    return "\n".join([*_FUTURE.findall(whole), _FUTURE.sub("", whole)])


def _piece(block: Block) -> _Piece:
    """The first reading of a block that is Python: as it is, less indented, or without its last statement if cut."""
    typed = block.language in CONSOLE or block.text.lstrip().startswith(">>>")
    text = (prompts_stripped(block.text) if typed else "") or block.text
    readings = [text]
    if text[0].isspace():
        readings.append(textwrap.dedent(text))
    if not block.closed:
        lines = text.splitlines(keepends=True)
        begins = [i for i, line in enumerate(lines) if not line[0].isspace()]
        readings += ["".join(lines[:i]) for i in begins[:0:-1][:3]]
    for reading in readings:
        if (code := parse(reading)) is not None:
            return _Piece(block, reading, code)
    return _Piece(block, text, None)


def _last(pieces: Sequence[_Piece], *groups: Callable[[_Piece], bool]) -> int | None:
    """The place of the last piece of the first group that has one."""
    for belongs in groups:
        for place in range(len(pieces) - 1, -1, -1):
            if belongs(pieces[place]):
                return place
    return None


def _definition(pieces: Sequence[_Piece], names: Iterable[str]) -> int | None:
    """The last piece that defines one of the names."""

    def defines(piece: _Piece) -> bool:
        return not piece.defined.isdisjoint(names)

    return _last(
        pieces,
        lambda p: p.tagged and not p.broken_off and defines(p),
        lambda p: p.tagged and defines(p),
        lambda p: p.code is not None and defines(p),
    )


def _script(pieces: Sequence[_Piece]) -> int | None:
    """The last piece that is a script of its own, or becomes one with what it needs of those before it."""

    def becomes_one(place: int) -> bool:
        piece = pieces[place]
        whole = None if piece.code is None else parse(_completed(pieces, place, ()))
        return piece.tagged and whole is not None and _starts(whole) and _reads_and_prints(words(whole.text))

    place = _last(pieces, lambda p: p.tagged and not p.broken_off and _is_script(p))
    if place is not None:
        return place
    for place in range(len(pieces) - 1, max(-1, len(pieces) - 1 - _TRIED), -1):
        if becomes_one(place):
            return place
    return _last(
        pieces,
        lambda p: p.tagged and _is_script(p),
        lambda p: p.tagged and p.code is not None and _starts(p.code) and not p.words.isdisjoint(_WRITES),
        lambda p: p.tagged and p.code is not None and any(s.runs or s.binds for s in p.code.statements),
    )


def _guess(pieces: Sequence[_Piece]) -> int | None:
    """Where nothing does what is asked for: the rest of a function whose head stood in the prompt; what says Python."""
    return _last(
        pieces,
        lambda p: p.tagged and _continues(p.block.text),
        lambda p: p.block.language in PYTHON,
        lambda p: p.tagged,
    )


def _is_script(piece: _Piece) -> bool:
    return _reads_and_prints(piece.words) and (piece.code is None or _starts(piece.code))


def _reads_and_prints(said: frozenset[str]) -> bool:
    return not said.isdisjoint(_READS) and not said.isdisjoint(_WRITES)


def _starts(code: Code) -> bool:
    """Whether it does something when it is run: reads, prints, or calls what it defines."""
    does = _READS | _WRITES | code.defined
    return any(s.runs and not s.words.isdisjoint(does) for s in code.statements)


def _continues(text: str) -> bool:
    """Whether a text can be the rest of a function."""
    return text.lstrip("\n")[:1].isspace() and is_python(f"def f():\n{text}")


def _completed(pieces: Sequence[_Piece], place: int, names: Iterable[str]) -> str:
    """The program, after the statements of other pieces that bind what it needs. Earlier pieces are asked first."""
    program = pieces[place]
    if program.code is None:
        return program.text
    needs = (program.code.needs | set(names)) - program.code.bound
    parts = [program.text]
    for piece in (*reversed(pieces[:place]), *pieces[place + 1 :]):
        if piece.tagged and piece.code is not None and piece.code.may_bind(needs):
            text, needs = _lent(piece.code, needs)
            parts += [text] if text else []
    return joined(*reversed(parts)) if len(parts) > 1 else program.text


def _lent(code: Code, needs: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The statements of some code that bind `needs`, with what they use in turn; and what is still needed then.

    What works on these names (a loop that fills a table) comes along, what only shows them does not. A value that
    depends on the input brings all of its code.
    """
    binding: dict[str, list[int]] = {}
    for place, statement in enumerate(code.statements):
        for name in statement.binds:
            binding.setdefault(name, []).append(place)
    taken: set[int] = set()
    wanted: set[str] = set()

    def want(names: Iterable[str]) -> None:
        todo = list(names)
        while todo:
            name = todo.pop()
            for place in [] if name in wanted else binding.get(name, []):
                if place not in taken:
                    taken.add(place)
                    todo += free_names(code.statements[place].text)
            wanted.add(name)

    want(needs)
    for place in _working(code, taken):
        taken.add(place)
        want(free_names(code.statements[place].text))
    if any(code.statements[p].runs and not code.statements[p].words.isdisjoint(_READS) for p in taken):
        taken.update(range(len(code.statements)))
        want(code.needs)
    left = frozenset(wanted).difference(*(code.statements[place].binds for place in taken))
    if left:  # a star may stand for anything
        taken |= {place for place, statement in enumerate(code.statements) if "*" in statement.binds}
    return "\n".join(code.statements[place].text for place in sorted(taken)), left


def _working(code: Code, taken: set[int]) -> list[int]:
    """The statements that do something to what the taken ones bind, and do not just show or test it."""
    lent = frozenset[str]().union(*(code.statements[place].binds for place in taken))
    return [
        place
        for place, statement in enumerate(code.statements)
        if statement.runs and place not in taken and statement.words & lent and not statement.words & _SHOWS
    ]
