"""The program in a model's answer: each fault that was found once, and its neighbours."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nad.grading.programs import extract_program, joined

F = "def f(x):\n    return x + 1\n"
READ = "n = int(input())\nprint(2 * n)\n"


def block(code: str, info: str = "python", fence: str = "```") -> str:
    return f"{fence}{info}\n{code}{fence}\n"


def indented(text: str, by: str) -> str:
    return "".join(f"{by}{line}\n" if line else "\n" for line in text.removesuffix("\n").split("\n"))


@pytest.mark.parametrize(
    "info",
    ["python", "Python3", "py3", "py", "PYTHON", "python title=a.py", "python:a.py", "{.python}", "python3.11", ""],
)
@pytest.mark.parametrize("fence", ["```", "````", "~~~"])
def test_a_fence_may_say_python_in_many_ways(info: str, fence: str) -> None:
    assert extract_program(f"So:\n\n{block(F, info, fence)}\nDone.", ("f",)) == F
    assert extract_program(f"So:\n\n{block(READ, info, fence)}\nDone.") == READ


@pytest.mark.parametrize("info", ["bash", "json", "sh", "console", "text", "c++", "javascript title=a.js"])
def test_blocks_of_other_languages_are_paired_and_passed_over(info: str) -> None:
    other = block("pip install it\n", info)
    for text in (other + block(F), block(F) + other, f"{other}Prose that a = 1.\n{block(F)}More.\n{other}"):
        assert extract_program(text, ("f",)) == F
    assert extract_program(f"{other}\nThat is all.", ("f",)) == "pip install it\n" or info != ""
    assert extract_program(f"{other}Prose.\n{block(READ)}{other}") == READ


def test_a_text_with_nothing_but_other_languages_has_no_program() -> None:
    assert extract_program(block("ls -l\n", "bash"), ("f",)) is None
    assert extract_program(block('{"f": 1}\n', "json")) is None
    assert extract_program(block("1 + 1\n", "text")) is None


@pytest.mark.parametrize(
    "text",
    [
        "```pycon\n>>> def f(x):\n...     return x + 1\n...\n>>> f(1)\n2\n```",
        "```python\n>>> def f(x):\n...     return x + 1\n>>> f(1)\n2\n```",
        "```\n>>> import math\n>>> def f(x):\n...     return x + 1\n```",
        "```python-repl\n>>> def f(x):\n...     return x + 1\n```",
        "1. ```pycon\n   >>> def f(x):\n   ...     return x + 1\n   ```",
    ],
)
def test_prompts_of_a_session_are_not_part_of_the_program(text: str) -> None:
    found = extract_program(text, ("f",))
    assert found is not None
    names: dict[str, object] = {}
    exec(found.replace("f(1)\n", ""), names)
    assert names["f"](1) == 2  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        "1. First:\n\n" + indented(block(F), "   ") + "2. Then that is all.",
        "- First:\n" + indented(block(F), "  "),
        "* a\n  * b\n    * c\n" + indented(block(F), "      "),
        "1. First:\n" + indented(block(F), " " * 8),
        "1. First:\n" + indented(block(F), "\t"),
        "> Said:\n" + indented(block(F), "> "),
        "- ```python\n" + indented(F, "  ") + "  ```\n",
        "1. First:\n   ```python\n" + F + "   ```\n",
        "1. First:\n   ```python\n" + F + "```\nProse.",
        indented(block(F), "    "),
        block(indented(F, "    ")),
        "So: " + block(F),
        "**So:** `f` is ```python\n" + F + "```",
    ],
)
def test_indentation_of_the_text_around_a_block_is_taken_off(text: str) -> None:
    assert extract_program(text, ("f",)) == F


@pytest.mark.parametrize(
    "inside",
    [
        '    """Adds.\n\n```\nf(1)\n```\n    """\n',
        '    """Adds.\n\n```python\nf(1)\n```\n    """\n',
        "    '''Adds.\n\n    ```\n    f(1)\n    ```\n\n    ```\n    f(2)\n    ```\n    '''\n",
        '    text = """\n# Title\n```\n\'\'\'\n```bash\nls\n```\n"""\n',
        '    # don\'t: """ of a comment\n',
        "    text = '\"\"\"' + \"'''\" + 'it\\'s'\n",
        '    text = r"""\\"""\n',
        '    """Only the word ```python."""\n',
    ],
)
def test_a_fence_inside_a_string_does_not_cut_the_program(inside: str) -> None:
    program = f"def f(x):\n{inside}    return x + 1\n"
    for code in (program, program + "\n\nassert f(1) == 2\n"):
        assert extract_program(f"So:\n{block(code)}Prints:\n{block('2' + chr(10), '')}", ("f",)) == code
        assert extract_program(f"{block('x = 3' + chr(10))}And:\n{block(code)}", ("f",)) == code


def test_a_string_that_never_ends_does_not_swallow_the_blocks_after_it() -> None:
    assert extract_program('```python\n"""oh\n```\nAgain:\n' + block(F), ("f",)) == F
    with_docstring = 'def f(x):\n    """Adds.\n\n```\nf(1)\n```\n    """\n    return x + 1\n'
    assert extract_program('```python\nx = """oh\n```\nAgain:\n' + block(F) + block(with_docstring), ("f",)) is not None


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\n" + F, F),
        ("```python\n" + F.rstrip("\n"), F.rstrip("\n")),
        ("So:\n```\n" + F + "\nassert f(1) == 2", F + "\nassert f(1) == 2"),
        ("```python\n" + F + "\n\nprint(f(", F + "\n\n"),
        ("```python\n" + F + "\n\n@cache\ndef g(", F + "\n\n"),
        (block(F) + "Better:\n```python\ndef f(x):\n    return (x", F),
        ("- So:\n  ```python\n" + indented(F, "  "), F),
        ("```python\ndef f(x):\n    return (x", "def f(x):\n    return (x"),
        ("```python\n" + F.rstrip("\n") + "```", F),
        ("```python\n" + F + "Example:\n```python\nprint(f(1))\n```", F),
    ],
)
def test_a_block_that_is_cut_or_closed_in_the_wrong_place(text: str, program: str) -> None:
    assert extract_program(text, ("f",)) == program


@pytest.mark.parametrize(
    "after",
    [
        block("4\n", ""),
        block("4\n", "python"),
        block("Output:\n4\n", ""),
        block("[1, 2, 3]\n", "text"),
        block("python solution.py\n", "bash"),
        block("print(f(1))\n"),
        block("assert f(1) == 2\n"),
        block("from solution import f\n\nprint(f(1))\n"),
        block("f = solution.f\n", "text"),
        block(">>> f(1)\n2\n", "pycon"),
        "It takes `x` and ```returns``` it.",
    ],
)
def test_what_comes_after_the_program_is_not_the_program(after: str) -> None:
    assert extract_program(f"{block(F)}It prints:\n{after}", ("f",)) == F


@pytest.mark.parametrize(
    "after",
    [
        block("4\n", ""),
        block("4\n"),
        block("YES\n", ""),
        block("1 2 3\n4\n", ""),
        block("-1\n", "text"),
        block("echo 3 | python a.py\n", "sh"),
        block("assert 2 * 2 == 4\n"),
        block("print(4)\n"),
        block("# Sample input\nn = 2\n"),
    ],
)
def test_what_a_script_prints_is_not_the_script(after: str) -> None:
    assert extract_program(f"{block(READ)}It prints:\n{after}") == READ


@pytest.mark.parametrize(
    "later", ["def f(x):\n    return 1 + x\n", "f = lambda x: 1 + x\n", "async def f(x):\n    return 1 + x\n"]
)
def test_the_last_definition_wins(later: str) -> None:
    assert extract_program(f"{block(F)}Better:\n{block(later)}For example:\n{block('f(1)' + chr(10))}", ("f",)) == later


def test_the_last_definition_wins_even_where_it_is_not_python() -> None:
    """What the model says last is its answer; only what was cut was not said."""
    broken = "def f(x):\n    return x +\n"
    assert extract_program(block(F) + block(broken), ("f",)) == broken


@pytest.mark.parametrize(
    ("blocks", "value"),
    [
        (["import math\n", "def f(x):\n    return math.floor(x) + 1\n"], 2),
        (["from math import floor as down\n", "def f(x):\n    return down(x) + 1\n"], 2),
        (["from math import *\n", "def f(x):\n    return floor(x) + 1\n"], 2),
        (["ONE = 1\n", "def f(x):\n    return x + ONE\n"], 2),
        (["def g(x):\n    return x + 1\n", "def f(x):\n    return g(x)\n"], 2),
        (["import math\n", "def g(x):\n    return math.floor(x)\n", "def f(x):\n    return g(x) + 1\n"], 2),
        (["class A:\n    one = 1\n", "@staticmethod\ndef h(): return A.one\n", "def f(x): return x + h()\n"], 2),
        (["def g(x):\n    return 0\n", "def g(x):\n    return 1\n", "def f(x):\n    return x + g(x)\n"], 2),
        (["table = {}\nfor i in range(9):\n    table[i] = i + 1\n", "def f(x):\n    return table[x]\n"], 2),
        (["import math\nmath = None\n", "import math\ndef f(x):\n    return math.floor(x) + 1\n"], 2),
        (["def f(x):\n    return g(x)\n", "def g(x):\n    return x + 1\n"], 2),
        (["def g(x): return 5\n", "def f(x):\n    def g(x): return x + 1\n    return g(x)\n"], 2),
        (["ONE = 1\n", "from __future__ import annotations\ndef f(x: unknown): return x + ONE\n"], 2),
    ],
)
def test_what_the_program_needs_of_other_blocks_comes_along(blocks: list[str], value: int) -> None:
    found = extract_program("Then:\n".join(map(block, [*blocks, "print(f(1))\n"])), ("f",))
    assert found is not None
    names: dict[str, object] = {}
    exec(found, names)
    assert names["f"](1) == value  # type: ignore[operator]


def test_what_the_program_does_not_need_stays_away() -> None:
    unused = "import os\n\ndef h():\n    return 1\n\nprint(h())\n"
    assert extract_program(block(unused) + block(F), ("f",)) == F
    needed = "import os\nONE = int(1)\nTWO = input()\nprint(ONE)\nassert ONE == 2\n"
    assert extract_program(block(needed) + block("def f(x): return x + ONE\n"), ("f",)) == (
        "ONE = int(1)\ndef f(x): return x + ONE\n"
    )


def test_all_names_that_are_asked_for_come_together() -> None:
    text = block("class Pair:\n    pass\n") + block("def add(p):\n    return 1\n") + block("print(add(Pair()))\n")
    found = extract_program(text, ("Pair", "add"))
    assert found is not None and "class Pair" in found and "def add" in found and "print" not in found


@pytest.mark.parametrize(
    ("blocks", "wanted"),
    [
        ([READ], READ),
        (["import sys\n", "print(sum(map(int, sys.stdin)))\n"], "import sys\nprint(sum(map(int, sys.stdin)))\n"),
        (["def main():\n    print(int(input()) * 2)\n", "main()\n"], None),
        (["n = int(input())\nm = n * 2\n", "print(m)\n"], None),
        (["import sys\nsys.setrecursionlimit(9)\ndef main():\n    print(sys.stdin.read())\n", "main()\n"], None),
        ([READ, "print(2 * 3)\n"], READ),
        (["def solve(n):\n    return n\nprint(solve(int(input())))\n", "print(solve(3))\n"], 0),
        (["def solve(n):\n    return n\n", "print(solve(int(input())))\n", "print(solve(3))\n"], None),
        (["print(input())\n", READ], READ),
        ([READ, "import sys\ndef g():\n    return sys.stdin\n"], READ),
    ],
)
def test_scripts(blocks: list[str], wanted: str | int | None) -> None:
    """A number: that block alone; None: the first two together."""
    found = extract_program("Then:\n".join(map(block, blocks)))
    if wanted is None:
        wanted = "\n".join([blocks[0].removesuffix("\n"), blocks[1]])
    assert found == (blocks[wanted] if isinstance(wanted, int) else wanted)


def test_a_script_that_never_starts_is_taken_where_there_is_no_other() -> None:
    idle = "def main():\n    print(int(input()) * 2)\n"
    assert extract_program(block(idle) + block("4\n", "")) == idle


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1"),
        ("    return x + 1\n", "    return x + 1\n"),
        (block("    return x + 1\n"), "    return x + 1\n"),
        (block("    return x + 1\n") + block("f(1)\n", "bash"), "    return x + 1\n"),
        (block("    y = 1\n    return x + y\n") + block("2\n", ""), "    y = 1\n    return x + y\n"),
        ("I cannot do it.", None),
        ("", None),
        ("```python\n```", None),
        ("<think>" + block(F), None),
        (f"<think>{block('def f(x): return 0' + chr(10))}</think>{block(F)}", F),
    ],
)
def test_texts_without_a_definition(text: str, program: str | None) -> None:
    assert extract_program(text, ("f",)) == program


@pytest.mark.parametrize(
    "outer", ["````markdown\n{}````\n", "```markdown\n{}```\n", "~~~md\n{}~~~\n", "````markdown\n- a\n\n{}````\n"]
)
def test_an_answer_that_is_itself_a_block_of_markdown(outer: str) -> None:
    assert extract_program(outer.format("# Title\n" + block(F) + "It prints\n" + block("2\n", "")), ("f",)) == F


def test_windows_line_ends() -> None:
    assert extract_program(("So:\n" + block(F)).replace("\n", "\r\n"), ("f",)) == F


def test_parts_are_joined_with_what_python_wants_first() -> None:
    assert joined("x = 1", "from __future__ import annotations\ny = 2") == (
        "from __future__ import annotations\nx = 1\n\ny = 2"
    )


def test_code_that_warns_is_read_in_silence(recwarn: pytest.WarningsRecorder) -> None:
    odd = "import re\ndef f(x):\n    return 1 if x is 3 else re.sub('\\d', '', x)\n"
    assert extract_program(block(odd), ("f",)) == odd
    assert not recwarn.list


PARTS = st.sampled_from(
    [
        *(
            "```",
            "```python",
            "```pycon",
            "````markdown",
            "~~~",
            "```bash",
            "> ",
            "- ",
            "1. ",
            "    ",
            "\t",
            "\r\n",
            "\x0c",
            "\x00",
        ),
        *(
            '"""',
            "'''",
            '"',
            "\\",
            "def f(x):",
            "return x",
            "x = 1",
            "import a",
            "from a import *",
            "print(input())",
            ">>> ",
            "... ",
        ),
        *(
            "if x:",
            "class f:",
            "@f",
            "(",
            ")",
            "#",
            ";",
            "match x:",
            "lambda",
            "\ud800",
            "\u2028",
            "é",
            "f'{x}'",
            "async ",
            "await x",
        ),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(PARTS, st.sampled_from(["\n", " ", ""]))), st.sampled_from([(), ("f",), ("f", "a")]))
def test_any_text_gives_a_program_or_none(parts: list[tuple[str, str]], names: tuple[str, ...]) -> None:
    found = extract_program("".join(map("".join, parts)), names)
    assert found is None or isinstance(found, str)


@pytest.mark.parametrize(
    "unit",
    [
        *("```\n", "```python\n", "~~~\n", "`", "~", "> ", ">", "- ", "1. ", "  - a\n", "> a\n", "\t", " ", "\n"),
        *('```python\n"""\n```\n', '```python\n\\"""\n```\n', "'''\n", '"', "\\", "````markdown\n", "- ```python\n"),
        *(">>> x\n", "```pycon\n>>> f(\n```\n", "x```python ", "def f():\n", "```python\nx = 1\nprint(y)\n```\n"),
        *("```python\nfrom a import *\n```\n", "```python\ndef a(): b\n```\n", "(", "-", "1+", "elif x: pass\n", "f("),
        *("```python\nn = int(input())\n```\n", "```python\nprint(n)\n```\n", "class f:\n", "import a\n", "@a\n", "x;"),
    ],
)
@pytest.mark.parametrize("head", ["", "```python\nx = (\n"])
def test_no_text_takes_long(unit: str, head: str) -> None:
    text = head + unit * (20_000 // len(unit))
    begin = time.process_time()
    extract_program(text, ("f",))
    extract_program(text)
    assert time.process_time() - begin < 3
