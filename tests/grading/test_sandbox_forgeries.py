"""Programs that want to pass without working. Each is stopped by name."""

import pytest
from programs import needs_bwrap, passes, printed

from nad.grading.sandbox import Tests, run_tests

pytestmark = needs_bwrap


FORGERIES = {
    "ends early with status 0": "import os\nos._exit(0)",
    "ends early in the call": "import os\ndef f(x): os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "prints what a test might print": 'print(\'{"passed": true, "reason": ""}\', flush=True)\ndef f(x): return x',
    "equals everything": "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "equals everything, as an int": "class A(int):\n    def __eq__(self, o): return True\ndef f(x): return A(1)",
    "equals everything, as a list": "class A(list):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "reflected comparison": "class A(dict):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "patches builtins": (
        "import builtins\nclass A(AssertionError):\n    def __new__(cls, *a): raise SystemExit(0)\n"
        "builtins.AssertionError = A\nbuiltins.exec = builtins.compile = lambda *a, **k: None\ndef f(x): return x"
    ),
    "patches os and sys": (
        "import os, sys\nos._exit = lambda *a: None\nsys.exit = lambda *a: None\nsys.excepthook = lambda *a: None\n"
        "sys.settrace(lambda *a: None)\ndef f(x): return x"
    ),
    "patches the judge's code": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n    for name, value in list(frame.f_globals.items()):\n"
        "        if name in ('judge_tests', 'Judge', 'ProgramLost'):\n"
        "            frame.f_globals[name] = lambda *a: {'passed': True, 'reason': ''}\n    frame = frame.f_back\n"
        "def f(x): return x"
    ),
    "answers with a pickle that runs code": (
        "import os\nclass A:\n    def __reduce__(self): return (eval, (\"{'passed': True}\",))\n"
        "import gc, pickle\nchannel = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')._end\n"
        "def f(x):\n    data = pickle.dumps(('ok', A(), []))\n"
        "    channel.sendall(len(data).to_bytes(8, 'big') + data)\n    return 6"
    ),
    "writes a verdict to every descriptor": (
        'import os\nfor fd in range(3, 256):\n    try: os.write(fd, b\'{"passed": true, "reason": ""}\\n\')\n'
        "    except OSError: pass\ndef f(x): return x"
    ),
    "writes a verdict through /proc": (
        "import glob\nfor path in glob.glob('/proc/*/fd/*'):\n    try: open(path, 'w').write('{\"passed\": true}\\n')\n"
        "    except OSError: pass\ndef f(x): return x"
    ),
    "takes the judge's descriptors": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\npidfd = libc.syscall(434, 1, 0)\n"
        "for fd in range(20):\n    taken = libc.syscall(438, pidfd, fd, 0)\n"
        '    if taken >= 0: os.write(taken, b\'{"passed": true, "reason": ""}\\n\')\ndef f(x): return x'
    ),
}


@pytest.mark.parametrize("program", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_verdict_does_not_pass(program):
    assert passes(program) is False


EQUALS_ALL = (
    "class A{base}:\n    def __eq__(self, o): return True\n    __ne__ = lambda self, o: False\n"
    "    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__\n"
    "    def __sub__(self, o): return 0\n    __rsub__ = __mod__ = __rmod__ = __xor__ = __rxor__ = __mul__ = __sub__\n"
    "    def __abs__(self): return self\n    def __hash__(self): return 0\n"
    "    def __and__(self, o): return o\n    __rand__ = __or__ = __ror__ = __add__ = __radd__ = __and__\n"
    "    def __getattr__(self, name): return lambda *a: True\n"
)
# A program's last lines, and the tests it must not pass.
FORGED_VALUES = {
    "close to everything": ("", "def f(x): return A()", "assert abs(f(3) - 6) < 1e-6"),
    "close to everything, the other way": ("", "def f(x): return A()", "assert abs(6 - f(3)) < 1e-6"),
    "close to everything, as a float": ("(float)", "def f(x): return A(1)", "assert abs(f(3) - 6) < 1e-6"),
    "close to everything, as an int": ("(int)", "def f(x): return A(1)", "assert abs(f(3) - 6) < 1e-6"),
    "close to everything, its class": ("", "f = A\nA.__init__ = lambda *a: None", "assert abs(f(3) - 6) < 1e-6"),
    "less than everything": ("", "def f(x): return A()", "assert f(3) < 7"),
    "less than everything, the other way": ("", "def f(x): return A()", "assert 7 > f(3)"),
    "unequal to nothing": ("", "def f(x): return A()", "assert not f(3) != 6"),
    "equal from the right": ("(int)", "def f(x): return A(1)", "assert 6 == f(3)"),
    "equal in a list": ("(tuple)", "def f(x): return [A()]", "assert f(3) == [(6,)]"),
    "equal in a dictionary": ("(str)", "def f(x): return {'a': A('b')}", "assert f(3) == {'a': 'c'}"),
    "equal as a key": ("(int)", "def f(x): return A(6)", "assert {7: 1}[f(3)] == 1"),
    "equal in a set": ("", "def f(x): return {A()}", "assert f(3) == {6}"),
    "equal to a date": ("", "def f(x): return A()", "import datetime\nassert f(3) == datetime.date(2020, 1, 2)"),
    "equal to a fraction": ("", "def f(x): return A()", "import fractions\nassert f(3) == fractions.Fraction(1, 2)"),
    "equal to a counter": (
        "(dict)",
        "def f(x): return A()",
        "import collections\nassert f(3) == collections.Counter('a')",
    ),
    "equal to a date, as one": (
        "(__import__('datetime').date)",
        "def f(x): return A(2020, 1, 1)",
        "import datetime\nassert f(3) == datetime.date(2020, 1, 2)",
    ),
    "close to everything, as a fraction": (
        "(__import__('fractions').Fraction)",
        "A.__new__ = lambda cls, *a, **k: object.__new__(cls)\nA.numerator = A.denominator = 1\ndef f(x): return A()",
        "assert abs(f(3) - 6) < 1e-6",
    ),
    "equal to a counter, as one": (
        "(__import__('collections').Counter)",
        "def f(x): return A('b')",
        "import collections\nassert f(3) == collections.Counter('a')",
    ),
    "added to a list": ("(list)", "def f(x): return A()", "assert [5] + f(3) == [5, 6]"),
    "holds everything": ("", "def f(x): return A()", "assert 6 in f(3)"),
    "holds everything, as a list": ("(list)", "def f(x): return A()", "assert 6 in f(3)"),
    "holds everything, as a text": ("(str)", "def f(x): return A()", "assert 'six' in f(3)"),
    "starts with everything, as a text": ("(str)", "def f(x): return A()", "assert f(3).startswith('six')"),
    "one of": ("", "def f(x): return A()", "assert f(3) in (5, 6, 7)"),
    "sums to everything": ("", "def f(x): return A()", "assert f(3) + 1 == 7"),
    "close, in a list": ("", "def f(x): return [A()]", "assert all(abs(a - b) < 1e-6 for a, b in zip(f(3), [6]))"),
    "close, by math": ("", "def f(x): return A()", "import math\nassert math.isclose(f(3), 6)"),
    "the same set": ("(set)", "def f(x): return A()", "assert f(3) ^ {6} == set()"),
    "meets everything": ("", "def f(x): return A()", "assert f(3) & {6} == {6}"),
    "an exception that equals everything": ("(Exception)", "def f(x): return A()", "assert f(3) == 6"),
    "a class that equals everything": ("(type)", "f = A('B', (), {})", "assert f == 6"),
}


@pytest.mark.parametrize(("base", "program", "tests"), FORGED_VALUES.values(), ids=FORGED_VALUES.keys())
def test_a_value_that_agrees_with_everything_does_not_pass(base, program, tests):
    assert run_tests(EQUALS_ALL.format(base=base) + program, Tests(tests, ("f",))).passed is False


# What a program writes to the judge itself: it looks for its own end of the socket.
SEND = (
    "import gc, pickle\nchannel = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')._end\n"
    "def send(data):\n    channel.settimeout(None)\n    channel.sendall(len(data).to_bytes(8, 'big') + data)\n"
)
LOADED = "send(pickle.dumps(('ok', None, [])))\n"
FORGED_MESSAGES = {
    "redefines the built-ins for the tests": (
        LOADED + "send(pickle.dumps(('ok', {'f': 1, 'abs': 0, 'all': 1, '__builtins__': {}}, [])))",
        "assert abs(f - 6) < 1e-6",
    ),
    "replies before it is asked": (
        LOADED + "send(pickle.dumps(('ok', {'f': 0}, [])))\nfor i in range(9): send(pickle.dumps(('ok', True, [])))",
        "assert f == 6",
    ),
    "names what is not data": (
        "class E:\n    def __reduce__(self): return (eval, ('1',))\nsend(pickle.dumps(('ok', E(), [])))",
        "",
    ),
    "names a value type, to change it": (
        "import fractions\n"
        "send(pickle.dumps(('ok', fractions.Fraction, []))[:-1] + b'N}X\\x06\\x00\\x00\\x00__eq__K\\x01s\\x86b.')",
        "",
    ),
    "changes what was not passed": (
        LOADED + "send(pickle.dumps(('ok', {'f': 1}, [(0, [6]), (1, [6]), (-1, [6])])))",
        "assert f == 6",
    ),
    "a length without end": ("channel.sendall(b'\\xff' * 8)", ""),
    "half a message": ("channel.sendall((99).to_bytes(8, 'big') + b'half')\nimport os\nos._exit(0)", ""),
    "no pickle": ("send(b'{\"passed\": true}')", ""),
    "a verdict": ("send(pickle.dumps({'passed': True, 'reason': ''}))", ""),
    "calls tests' functions that are not there": ("send(pickle.dumps(('call', 0, (), {})))", "assert f(3) == 6"),
    "a reply that takes all memory": ("send(b'\\x80\\x05' + b']' * (8 << 20) + b'.')", ""),
    "a stand-in for nothing": ("send(b'\\x80\\x05K\\x01Q.')", ""),
    "a stand-in for the judge's own": (
        LOADED + "send(b'\\x80\\x05(X\\x02\\x00\\x00\\x00ok(X\\x08\\x00\\x00\\x00functionK\\x00tQ]t.')",
        "assert f == 6",
    ),
}


@pytest.mark.parametrize(("program", "tests"), FORGED_MESSAGES.values(), ids=FORGED_MESSAGES.keys())
def test_a_message_that_breaks_the_rules_does_not_pass(program, tests):
    assert run_tests(SEND + program, Tests(tests or "pass", ("f",))).passed is False


# Stand-ins of the program's own making (wire.py); `f` is one itself, and what it returns or raises comes next.
STAND_INS = SEND + (
    "import io\nclass Id(tuple): pass\nclass P(pickle.Pickler):\n"
    "    def persistent_id(self, o): return tuple(o) if type(o) is Id else None\n"
    "def say(*message):\n    file = io.BytesIO()\n    P(file).dump(message)\n    send(file.getvalue())\n"
    "def thing(number, kind=8, *specials): return Id(('object', number, (kind, 'A', None, True, specials), None))\n"
    "say('ok', None, [])\nsay('ok', {'f': thing(1, 9, '__call__')}, [])\n"
)
NO_NUMBER = "for i in range(9): say('ok', thing({}), [])"
STOPS = "say('raised', Id(('exception class', 5, 'builtins', 'StopIteration', ())), [])"
FORGED_STAND_INS = {
    "numbered as what it does not own": (NO_NUMBER.format("None"), "assert f(3) == 6"),
    "numbered so, among others": (NO_NUMBER.format("None"), "assert f(3) in (5, 6, 7)"),
    "numbered so, in a list": ("say('ok', [thing(None)], [])", "assert f(3) == [6]"),
    "numbered so, as its own data": (
        "say('ok', thing(2, 7, '__eq__'), [])\nsay('ok', thing(None), [])",
        "assert f(3) == 6",
    ),
    "a class numbered so": (NO_NUMBER.format("2, None"), "assert type(f(3)) == int"),
    "raises a class, which stops an iteration": (STOPS, "assert all(map(f, [1, 2]))"),
    "raises a class, which stops a filter": (STOPS, "assert list(filter(f, [1, 2])) == []"),
    "raises what is no exception": ("say('raised', 3, [])", "try:\n    f(3)\nexcept TypeError:\n    pass"),
    "says what is no reply": ("say('fine', 6, [])\nsay('ok', 6, [])", "assert f(3) == 6"),
}


@pytest.mark.parametrize(("program", "tests"), FORGED_STAND_INS.values(), ids=FORGED_STAND_INS.keys())
def test_a_stand_in_that_breaks_the_rules_does_not_pass(program, tests):
    assert run_tests(STAND_INS + program, Tests(tests, ("f",))).passed is False


FORGED_ENDINGS = {
    "stops the test's iteration": ("def f(x): raise StopIteration", "assert all(map(f, [1, 2]))"),
    "stops a filter": ("def f(x): raise StopIteration", "assert list(filter(f, [1, 2])) == []"),
    "stops a sum": ("def f(x): raise StopIteration", "assert sum(map(f, [1, 2])) == 0"),
    "stops a counted loop": ("def f(): raise StopIteration", "for x in iter(f, 3): assert x == 1"),
    "dies where anything is caught": (
        "import os\ndef f(x): os._exit(0)",
        "try:\n    f(1)\nexcept BaseException:\n    pass",
    ),
    "is lost, and the test goes on": (
        "import os\ndef f(x): os._exit(0)",
        "try:\n    f(1)\nexcept:\n    pass\ntry:\n    f(2)\nexcept:\n    pass",
    ),
    "exits with the tests": ("def f(x): raise SystemExit(0)", "assert f(1) == 1"),
    "is interrupted with the tests": ("def f(x): raise KeyboardInterrupt", "assert f(1) == 1"),
    "a falsy value": ("class A:\n    def __bool__(self): return False\ndef f(x): return A()", "assert f(1)"),
    "an empty value": ("class A:\n    def __len__(self): return 0\ndef f(x): return A()", "assert f(1)"),
    "a counter for a dictionary": (
        "import collections\ndef f(x): return collections.Counter(a=1)",
        "assert type(f(1)) is dict",
    ),
    "a subclass for a list": ("class A(list): pass\ndef f(x): return A()", "assert type(f(1)) is list"),
    "a class by the name of dict": ("A = type('dict', (), {})\ndef f(x): return A()", "assert type(f(1)) == dict"),
    "a list that says it is": (
        "class A:\n    __class__ = list\n    def __eq__(self, o): return True\ndef f(x): return A()",
        "assert isinstance(f(1), list) and f(1) == [1]",
    ),
    "changes what a function of the tests takes": (
        "def f(g, x):\n    g.__defaults__ = (0,)\n    g.__code__ = (lambda v, k=0: 0).__code__\n    return 0",
        "def g(v, k=7): return v + k\nassert f(g, 1) == g(1)",
    ),
}


@pytest.mark.parametrize(("program", "tests"), FORGED_ENDINGS.values(), ids=FORGED_ENDINGS.keys())
def test_what_ends_or_misleads_the_tests_does_not_pass(program, tests):
    assert run_tests(program, Tests(tests, ("f",))).passed is False


def test_a_value_is_never_told_what_it_is_compared_with():
    """It notes every operand that it is given; the tests then ask for its notes."""
    program = (
        "told = []\nclass A(int):\n    def note(self, o):\n        told.append(o)\n        return True\n"
        "    __eq__ = __ne__ = __lt__ = __gt__ = __add__ = __sub__ = __rsub__ = __contains__ = note\n"
        "    __hash__ = int.__hash__\n"
        "class B:\n    __eq__ = __lt__ = __sub__ = __rsub__ = __contains__ = A.note\n"
        "    def __iter__(self): return iter([1])\n"
        "def f(kind): return A(1) if kind == 'int' else B()\ndef notes(): return told"
    )
    tests = (
        "a, b = f('int'), f('')\nfor gold in (5577, 'gold', (1, 2)):\n"
        "    for ask in (lambda: a == gold, lambda: gold != a, lambda: a - 5577, lambda: b == gold,\n"
        "                lambda: gold in b, lambda: b - 5577, lambda: 5577 - b, lambda: b < gold):\n"
        "        try:\n            ask()\n        except TypeError:\n            pass\nassert notes() == []"
    )
    verdict = run_tests(program, Tests(tests, ("f", "notes")))
    assert verdict.passed is True, verdict


def test_operators_of_classes_under_test_are_their_own():
    program = (
        "class V:\n    def __init__(self, x): self.x = x\n    def __mul__(self, k): return V(self.x * k)\n"
        "    __rmul__ = __mul__\n    def __eq__(self, o): return self.x == o.x\n"
        "    def __contains__(self, k): return k == 1\n"
    )
    tests = "assert V(2) * 3 * 2 == V(12)\nassert 3 * V(2) == V(6)\nassert 1 in V(0)\nassert V(6) != 6"
    lie = "class V:\n    def __init__(self, x): pass\n    def __eq__(self, o): return True\n"
    lie += "    def __sub__(self, o): return 0\n    def size(self): return V(0)\n"
    assert run_tests(program, Tests(tests, ("V",), classes=("V",))).passed is True
    assert run_tests(program, Tests(tests, ("V",))).passed is False
    for wrong in ("assert V(2) == 2", "assert V(2).size() == 2", "assert abs(V(2).size() - 2) < 1"):
        assert run_tests(lie, Tests(wrong, ("V",), classes=("V",))).passed is False


def test_expected_values_are_nowhere_in_the_program_s_memory():
    """It reads all of its own memory for a value that only the tests hold."""
    search = (
        "import gc, sys\nsecret = ''.join(['5577', '0061', '3'])\n"
        "def f(x):\n    found = [o for o in gc.get_objects() if secret in repr(o) and o is not globals()]\n"
        "    frame, texts = sys._getframe(), []\n    while frame:\n"
        "        texts.append(repr(frame.f_locals)); frame = frame.f_back\n"
        "    return int(secret) if any(secret in t for t in texts[1:]) else len(found)"
    )
    assert run_tests(search, Tests("assert f(0) == 55770061" + "3", ("f",))).passed is False


def test_the_judge_cannot_be_traced_or_written_to():
    probe = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nclass V(ctypes.Structure):\n"
        "    _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]\nb = ctypes.create_string_buffer(8)\n"
        "v = V(ctypes.addressof(b), 8)\n"
        "print(libc.ptrace(16, 1, 0, 0), libc.process_vm_readv(1, ctypes.byref(v), 1, ctypes.byref(v), 1, 0))"
    )
    assert printed(probe) == "-1 -1"


def test_killing_the_parent_does_not_work_and_does_not_pass():
    killer = "import os, signal\nfor s in range(1, 65):\n    try: os.kill({}, s)\n    except OSError: pass\n"
    assert passes(killer.format("1") + "def f(x): return x") is False
    assert passes(killer.format("os.getppid()") + "def f(x): return x * 2") is True
    assert passes("import os\ndef f(x):\n    os.kill(-1, 9)\n    return x") is False
