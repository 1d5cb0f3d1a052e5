"""The stub generator: what a stub keeps, what it hides, and what an author is told about a misplaced mark."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from dojo import curriculum, stubs
from dojo.curriculum import KATAS
from dojo.stubs import Task, stub_text

SETUP, TENSOR, LAYERS = KATAS[:3]
AUTOGRAD = KATAS[5]
FILE = "reference/tinytorch/autograd.py"


def stub(source: str) -> str:
    return stub_text(dedent(source), FILE)


def same(source: str, expected: str) -> None:
    assert stub(source) == dedent(expected)


# What a stub is


def test_the_solution_gives_way_to_an_error_and_the_hint_stays() -> None:
    same(
        '''\
        def unbroadcast(grad, shape):
            """Sum `grad` over the stretched axes."""
            # kata 06.3: extra axes are on the left.
            extra = grad.ndim - len(shape)
            return grad.sum(axis=tuple(range(extra)))


        AFTER = 1  # a comment of its own
        ''',
        '''\
        def unbroadcast(grad, shape):
            """Sum `grad` over the stretched axes."""
            # TODO 06.3: extra axes are on the left.
            raise NotImplementedError("kata 06.3: unbroadcast")


        AFTER = 1  # a comment of its own
        ''',
    )


def test_a_source_without_marks_stays_byte_for_byte() -> None:
    source = (
        "# comment\n\n\nx  =  1;y = [  2,\n  3]\t# odd\x0c\n\x0c\ndef f( a ) : return a   \n# € \u2028 end"
    )
    assert stub_text(source, FILE) == source


def test_everything_around_a_solution_stays_byte_for_byte() -> None:
    before = (
        'import  os ,sys\n\x0c\ntext = """\n\u2028 € \x1c"""\n\n\ndef f( a,b ) :  # odd\n    c = a   \n\n'
    )
    after = "\n\n\t\n# the end\n@g\ndef h(): return  1"
    solution = "    # kata 06.1: add\n    d = c + b\n    return d\n"
    todo = '    # TODO 06.1: add\n    raise NotImplementedError("kata 06.1: f")\n'
    assert stub_text(before + solution + after, FILE) == before + todo + after


def test_windows_line_endings_stay() -> None:
    solution = "    # kata 06.1: add\n    # them\n    c = a\n    return c\n"
    source = f"def f(\n    a,\n    b,\n):  # stub: (a)\n{solution}\nx = 1\n"
    todo = '    # TODO 06.1: add\n    # them\n    raise NotImplementedError("kata 06.1: f")\n'
    expected = f"def f(a):\n{todo}\nx = 1\n"
    assert stub(source.replace("\n", "\r\n")) == expected.replace("\n", "\r\n")


def test_a_file_without_a_last_newline_gets_none() -> None:
    source = "def f():\n    # kata 06.1\n    return 1"
    assert stub(source) == 'def f():\n    # TODO 06.1\n    raise NotImplementedError("kata 06.1: f")'


def test_tabs_stay_tabs() -> None:
    source = "def f():\n\tif g:\n\t\t# kata 06.1: a\n\t\treturn 1\n"
    assert (
        stub(source)
        == 'def f():\n\tif g:\n\t\t# TODO 06.1: a\n\t\traise NotImplementedError("kata 06.1: f")\n'
    )


def test_a_hint_may_spill_onto_the_comment_lines_that_follow() -> None:
    same(
        """\
        def f(x):
            # kata 06.1: extra axes are on the left;
            # stretched ones have length 1.

            # Here the solution explains itself.
            return x
        """,
        """\
        def f(x):
            # TODO 06.1: extra axes are on the left;
            # stretched ones have length 1.
            raise NotImplementedError("kata 06.1: f")
        """,
    )


def test_a_comment_indented_otherwise_is_not_of_the_hint() -> None:
    same(
        "def f(x):\n    # kata 06.1: think\n        # x is large\n    return x\n",
        'def f(x):\n    # TODO 06.1: think\n    raise NotImplementedError("kata 06.1: f")\n',
    )


def test_a_hint_may_be_missing() -> None:
    same(
        "def f():\n    # kata 06.12\n    return 1\n",
        'def f():\n    # TODO 06.12\n    raise NotImplementedError("kata 06.12: f")\n',
    )


def test_a_comment_at_the_end_of_the_solution_goes_with_it() -> None:
    same(
        """\
        def f(x):
            # kata 06.1: think
            if x:
                return 1
                # nothing else is positive

            # and this is the answer

        # about g
        def g(): ...
        """,
        """\
        def f(x):
            # TODO 06.1: think
            raise NotImplementedError("kata 06.1: f")

        # about g
        def g(): ...
        """,
    )


def test_what_is_given_before_the_mark_stays() -> None:
    same(
        """\
        def f(x):
            if x is None:
                raise ValueError("no x")
            # kata 06.1: think
            y = x
            return y
        """,
        """\
        def f(x):
            if x is None:
                raise ValueError("no x")
            # TODO 06.1: think
            raise NotImplementedError("kata 06.1: f")
        """,
    )


def test_a_solution_in_a_nested_block_ends_with_that_block() -> None:
    same(
        """\
        def f(x):
            for i in x:
                while i:
                    # kata 06.1: think
                    i -= 1
                    if i == 3:
                        break
                print(i)
            return x
        """,
        """\
        def f(x):
            for i in x:
                while i:
                    # TODO 06.1: think
                    raise NotImplementedError("kata 06.1: f")
                print(i)
            return x
        """,
    )


def test_each_branch_of_a_statement_is_a_block_of_its_own() -> None:
    same(
        """\
        def f(x):
            if x > 1:
                # kata 06.1: large
                return 1
            elif x:
                x += 1
                # kata 06.2: small
                return 2
            else:
                # kata 06.3: none
                x = 3
                return x
        """,
        """\
        def f(x):
            if x > 1:
                # TODO 06.1: large
                raise NotImplementedError("kata 06.1: f")
            elif x:
                x += 1
                # TODO 06.2: small
                raise NotImplementedError("kata 06.2: f")
            else:
                # TODO 06.3: none
                raise NotImplementedError("kata 06.3: f")
        """,
    )


def test_try_with_and_match_have_blocks_too() -> None:
    same(
        """\
        def f(x):
            try:
                # kata 06.1: a
                x()
            except ValueError:
                # kata 06.2: b
                x = 1
            else:
                # kata 06.3: c
                x = 2
            finally:
                # kata 06.4: d
                x = 3
            with x:
                # kata 06.5: e
                x = 4
            match x:
                case 1:
                    # kata 06.6: f
                    return 5
                case _:
                    return 6
        """,
        """\
        def f(x):
            try:
                # TODO 06.1: a
                raise NotImplementedError("kata 06.1: f")
            except ValueError:
                # TODO 06.2: b
                raise NotImplementedError("kata 06.2: f")
            else:
                # TODO 06.3: c
                raise NotImplementedError("kata 06.3: f")
            finally:
                # TODO 06.4: d
                raise NotImplementedError("kata 06.4: f")
            with x:
                # TODO 06.5: e
                raise NotImplementedError("kata 06.5: f")
            match x:
                case 1:
                    # TODO 06.6: f
                    raise NotImplementedError("kata 06.6: f")
                case _:
                    return 6
        """,
    )


def test_a_method_is_named_with_its_class_and_a_function_in_a_function_with_both() -> None:
    same(
        """\
        class Node:
            slots = 1

            class Edge:
                @property
                def far(self):
                    # kata 06.1: a
                    return 1

            async def walk(self):
                # kata 06.2: b
                return 2

            if slots:
                def back(self):
                    def inner(x):
                        # kata 06.3: c
                        return 3
                    return inner
        """,
        """\
        class Node:
            slots = 1

            class Edge:
                @property
                def far(self):
                    # TODO 06.1: a
                    raise NotImplementedError("kata 06.1: Node.Edge.far")

            async def walk(self):
                # TODO 06.2: b
                raise NotImplementedError("kata 06.2: Node.walk")

            if slots:
                def back(self):
                    def inner(x):
                        # TODO 06.3: c
                        raise NotImplementedError("kata 06.3: Node.back.inner")
                    return inner
        """,
    )


def test_a_solution_may_begin_with_a_decorator_a_string_or_a_class() -> None:
    for first in (
        "@wraps\n    def g(): ...",
        '"""text\n# kata 06.2: in a string\n"""',
        "class A:\n        x = 1",
    ):
        same(
            f"def f():\n    # kata 06.1: a\n    {first}\n    return 1\n",
            'def f():\n    # TODO 06.1: a\n    raise NotImplementedError("kata 06.1: f")\n',
        )


def test_a_statement_of_several_lines_goes_whole() -> None:
    same(
        """\
        def f(a):
            # kata 06.1: a
            return a.sum(
        axis=(1,
              2),
            ) + \\
        3
        x = 1
        """,
        """\
        def f(a):
            # TODO 06.1: a
            raise NotImplementedError("kata 06.1: f")
        x = 1
        """,
    )


def test_a_mark_in_a_string_is_text() -> None:
    source = '''\
def f():
    """
    # kata 06.1: not a mark
    """
    return """
    # kata 06.2
    return 1  # stub: (x)
    """
'''
    assert stub(source) == source


def test_imports_stay_even_when_only_the_solution_used_them() -> None:
    assert stub("import math\n\n\ndef f():\n    # kata 06.1\n    return math.pi\n").startswith(
        "import math\n"
    )


# Hidden signatures


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("def f(grad, out):  # stub: (grad)", "def f(grad):"),
        ("def f(grad, out) -> dict[str, int]:  # stub: (grad)", "def f(grad) -> dict[str, int]:"),
        ("def f(a=(1, [2]), *b, c: dict[str, tuple]={}):  # stub: (*args, **kw)", "def f(*args, **kw):"),
        ("async def f(a):# stub: ()", "async def f():"),
        ('def f(\n    a,  # the first\n    b=")",\n) -> int:    #stub:(a)', "def f(a) -> int:"),
        ("@g(1)\ndef f(a, b):  # stub: (a)", "@g(1)\ndef f(a):"),
    ],
)
def test_a_stub_comment_hides_the_arguments(line: str, hidden: str) -> None:
    body = "\n    # kata 06.1: name what you need\n    return 1\n"
    todo = '\n    # TODO 06.1: name what you need\n    raise NotImplementedError("kata 06.1: f")\n'
    assert stub(line + body) == hidden + todo


def test_the_arguments_of_a_method_and_of_a_given_function_can_be_hidden() -> None:
    same(
        "class A:\n    def f(self, a): return 1  # stub: (self)\n\n    def g(self):\n        return 2\n",
        "class A:\n    def f(self): return 1\n\n    def g(self):\n        return 2\n",
    )


def test_a_function_hidden_inside_a_solution_just_goes() -> None:
    same(
        "def f():\n    # kata 06.1\n    def g(a):  # stub: ()\n        return a\n    return g\n",
        'def f():\n    # TODO 06.1\n    raise NotImplementedError("kata 06.1: f")\n',
    )


# What an author is told


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("def f():\n    x = 1\n    # kata 06.1: a\n", 3, "no solution after this mark"),
        ("def f():\n    x = 1\n    # kata 06.1: a\n\n\ny = 2\n", 3, "no solution after this mark"),
        ("def f(x):\n    if x:\n        x = 1\n        # kata 06.1: a\n    return x\n", 4, "no solution"),
        (
            "def f(x):\n    if x:\n        x = 1\n        # kata 06.1: a\n    else:\n        x = 2\n",
            4,
            "no solution",
        ),
        (
            "def f(x):\n    if x:\n        x = 1\n    # kata 06.1: a\n    else:\n        x = 2\n",
            4,
            "no solution",
        ),
        (
            "def f(x):\n    try:\n        x = 1\n    # kata 06.1\n    except E:\n        x = 2\n",
            4,
            "no solution",
        ),
        ("def f():\n# kata 06.1: a\n    return 1\n", 2, "not indented like the solution"),
        ("def f():\n    # kata 99.1: a\n    return 1\n", 2, "there is no kata 99"),
        ("def f():\n    # kata 00.1\n    return 1\n", 2, "there is no kata 00"),
        ("def f():\n    # kata 05.1: a\n    return 1\n", 2, "a task of kata 05, in the file of kata 06"),
        ("def f():\n    # kata 06.0: a\n    return 1\n", 2, "nearly a mark"),
        ("def f():\n    # kata 6.1: a\n    return 1\n", 2, "nearly a mark"),
        ("def f():\n    # kata 06.1 a\n    return 1\n", 2, "nearly a mark"),
        ("def f():\n    # kata06.1: a\n    return 1\n", 2, "nearly a mark"),
        ("def f():\n    # Kata 06.1: a\n    return 1\n", 2, "nearly a mark"),
        ("def f():\n    return 1  # kata 06.1: a\n", 2, "stands alone on its line"),
        ("def f():\n    return [\n        # kata 06.1: a\n        1\n    ]\n", 3, "stands alone on its line"),
        ("# kata 06.1: a\nx = 1\n", 1, "belongs in a function"),
        ("if 1:\n    # kata 06.1: a\n    x = 1\n", 2, "belongs in a function"),
        ("class A:\n    # kata 06.1: a\n    x = 1\n", 2, "belongs in a function"),
        ("def f():\n    class A:\n        # kata 06.1: a\n        x = 1\n", 3, "belongs in a function"),
        (
            "def f():\n    # kata 06.1: a\n    # kata 06.2: b\n    return 1\n",
            3,
            "inside the solution that begins at line 2",
        ),
        (
            "def f():\n    # kata 06.1\n    x = 1\n    # kata 06.2\n    return 1\n",
            4,
            "inside the solution that begins at line 2",
        ),
        (
            "def f():\n    # kata 06.1\n    def g():\n        # kata 06.2\n        return 1\n    return g\n",
            4,
            "inside",
        ),
        ("def f(a):  # stub: a\n    return 1\n", 1, "look like `# stub: (grad)`"),
        ("x = f(1)  # stub: ()\n", 1, "at the end of a def line"),
        ("class A(B):  # stub: (C)\n    x = 1\n", 1, "at the end of a def line"),
        ("def f(a):\n    # stub: ()\n    return 1\n", 2, "at the end of a def line"),
        ("def f(  # stub: (a)\n    a,\n    b,\n):\n    return 1\n", 1, "the arguments go on after it"),
        ("def f(a):  # stub: (a b)\n    return 1\n", 1, "not Python"),
        (
            "def f():\n    # kata 06.1\n    x = 1\ndef g():\n    x = 1\n    def h():\n        nonlocal y\n",
            7,
            "nonlocal 'y'",
        ),
        ("def f(:\n    # kata 06.1\n    x = 1\n", 1, "invalid syntax"),
    ],
)
def test_a_misplaced_mark_is_an_error_at_its_line(source: str, line: int, says: str) -> None:
    with pytest.raises(SyntaxError, match=re.escape(says)) as caught:
        stub(source)
    assert caught.value.filename == FILE
    assert caught.value.lineno == line


def test_a_stub_that_would_not_be_python_is_an_error() -> None:
    source = """\
        def f():
            if f:
                # kata 06.1: set the scene
                count = 0
            def g():
                nonlocal count
            return g
        """
    with pytest.raises(
        SyntaxError, match="without its solutions this is not Python: no binding for nonlocal"
    ):
        stub(source)


def test_a_task_of_any_kata_fits_a_file_of_none() -> None:
    assert "TODO 05.1" in stub_text("def f():\n    # kata 05.1\n    return 1\n", "elsewhere.py")


def test_prose_may_speak_of_katas_and_stubs() -> None:
    source = (
        "def f():\n    # kata 06 builds the graph; see the stub: it is\n    return 1  # kata 06.3 frees it\n"
    )
    assert stub(source) == source


# The files


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own with references of katas 01 and 02, and no stubs yet."""
    monkeypatch.setattr(curriculum, "ROOT", tmp_path)
    monkeypatch.setattr(curriculum, "STUBS", tmp_path / "stubs" / "tinytorch")
    monkeypatch.setattr(curriculum, "REFERENCE", tmp_path / "reference" / "tinytorch")
    curriculum.REFERENCE.mkdir(parents=True)
    (curriculum.REFERENCE / "__init__.py").write_text("# kata 01.1: here it is text\nx = 1\n")
    SETUP.reference.write_text("def f():\n    # kata 01.1: one\n    return 1\n")
    TENSOR.reference.write_text(
        "def g(x):\n    if x:\n        # kata 02.2: do this\n        # and that\n        return 1\n"
        "    # kata 02.2: otherwise\n    return 2\n\n\n"
        "class Tensor:\n    def g(self):\n        # kata 02.1: €\n        return 3\n\n"
        "    def h(self):\n        # kata 02.2\n        return 4\n"
    )
    return tmp_path


def test_tasks_come_in_order_of_appearance_once_for_each_number_and_name(root: Path) -> None:
    assert stubs.tasks(TENSOR) == [
        Task("02.2", "g", "do this and that", 3),
        Task("02.1", "Tensor.g", "€", 12),
        Task("02.2", "Tensor.h", "", 16),
    ]


def test_a_kata_that_is_not_written_has_no_tasks(root: Path) -> None:
    assert stubs.tasks(AUTOGRAD) == []


def write_all() -> None:
    curriculum.STUBS.mkdir(parents=True)
    for file in stubs.references():
        (curriculum.STUBS / file.name).write_bytes(stubs.implied(file).encode("utf-8"))


def test_each_reference_implies_a_stub_and_the_package_a_copy(root: Path) -> None:
    write_all()
    assert (curriculum.STUBS / "__init__.py").read_bytes() == (
        curriculum.REFERENCE / "__init__.py"
    ).read_bytes()
    expected = b'def f():\n    # TODO 01.1: one\n    raise NotImplementedError("kata 01.1: f")\n'
    assert SETUP.stub.read_bytes() == expected
    assert "# TODO 02.1: €" in TENSOR.stub.read_text("utf-8")
    assert stubs.stale() == []


def test_stale_names_what_is_edited_missing_left_over_or_cannot_be_made(root: Path) -> None:
    assert [line.split()[0] for line in stubs.stale()] == [
        "stubs/tinytorch/__init__.py",
        "stubs/tinytorch/setup.py",
        "stubs/tinytorch/tensor.py",
    ]
    write_all()
    SETUP.stub.write_text(SETUP.stub.read_text() + "\n")
    (curriculum.STUBS / "__init__.py").unlink()
    (curriculum.STUBS / "layers.py").write_text("")
    TENSOR.reference.write_text("x = 1\n# kata 02.1: a\n")
    assert stubs.stale() == [
        "stubs/tinytorch/__init__.py is missing: run `dojo stubs`",
        "stubs/tinytorch/setup.py is not what reference/tinytorch/setup.py implies: run `dojo stubs`",
        "reference/tinytorch/tensor.py:2: there is no solution after this mark, in its block",
        "stubs/tinytorch/layers.py has no reference: delete it, or write reference/tinytorch/layers.py",
    ]


def test_a_checkout_with_windows_line_endings_is_not_stale(root: Path) -> None:
    write_all()
    SETUP.stub.write_bytes(SETUP.stub.read_bytes().replace(b"\n", b"\r\n"))
    assert stubs.stale() == []


def test_a_reference_with_windows_line_endings_implies_the_same_stub(root: Path) -> None:
    before = stubs.implied(SETUP.reference)
    SETUP.reference.write_bytes(SETUP.reference.read_bytes().replace(b"\n", b"\r\n"))
    assert stubs.implied(SETUP.reference) == before


def test_a_file_is_saved_aside_with_its_bytes_and_never_over_another(root: Path) -> None:
    write_all()
    copies = []
    for text in (b"one\r\n", b"two", b"\xff"):  # within a second, so that the names would be the same
        SETUP.stub.write_bytes(text)
        copies.append(stubs.save_aside(SETUP.stub))
    assert [copy.read_bytes() for copy in copies] == [b"one\r\n", b"two", b"\xff"]
    for copy in copies:
        assert copy.parent == root / ".dojo" / "saved"
        assert re.fullmatch(r"setup-\d{8}T\d{6}Z(-\d)?\.py", copy.name)
    assert SETUP.stub.read_bytes() == b"\xff"


def test_a_file_that_is_not_there_cannot_be_saved(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stubs.save_aside(LAYERS.stub)
