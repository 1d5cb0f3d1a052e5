"""What may stand in place of a piece of code, such that a good suite notices.

Operators, comparisons, constants, signs, conditions, swapped arguments and dropped keywords, statements and
conditions left out.  What no test of behaviour could notice is left alone: docstrings, annotations, text, the
words of an error (but not that it is raised).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import TypeVar

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# To the neighbour (an edge moves by one) and to the opposite.
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
# Called with its arguments swapped, each of these gives the same.
SYMMETRIC = {
    *NAMES,
    "add",
    "array_equal",
    "gcd",
    "logical_and",
    "logical_or",
    "may_share_memory",
    "multiply",
    "shares_memory",
}
# Calls that only speak to a type checker, and keywords that only say where a warning points.
FOR_CHECKERS = {"NewType", "ParamSpec", "TypeVar", "TypeVarTuple"}
UNSEEN_KEYWORDS = {"stacklevel"}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPOUND = (*FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.While, ast.With, ast.Try)


Node = TypeVar("Node", bound=ast.AST)


def replacements(node: ast.AST, parent: ast.AST, field: str, at_the_top: bool) -> Iterator[ast.AST]:
    """What may stand instead of `node`, which hangs in a field of `parent`; at a module's top less may."""
    if isinstance(node, ast.stmt):
        yield from _other_statements(node, at_the_top)
    elif isinstance(node, ast.expr) and not _is_stored(node):
        yield from _other_expressions(node, parent, field)


def _is_stored(node: ast.AST) -> bool:
    """Whether the node is assigned to or deleted, rather than read."""
    return isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del))


def _other_statements(node: ast.stmt, at_the_top: bool) -> Iterator[ast.stmt]:
    if _is_droppable(node, at_the_top):
        yield ast.Pass()
    if isinstance(node, ast.AugAssign):
        for operator in _other_operator(node.op):
            yield _with(node, op=operator)
        target = copy.deepcopy(node.target)
        yield ast.Assign(targets=[target], value=copy.deepcopy(node.value))
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(value=ast.Constant(None))
    if isinstance(node, ast.If):
        yield from (_with(node, test=ast.Constant(value)) for value in (True, False))
    if isinstance(node, ast.While):
        yield _with(node, test=ast.Constant(False))
    if isinstance(node, ast.For):
        yield _with(node, iter=ast.Tuple(elts=[], ctx=ast.Load()))
    if isinstance(node, ast.Break):
        yield ast.Continue()
    if isinstance(node, ast.Continue):
        yield ast.Break()


def _is_droppable(node: ast.stmt, at_the_top: bool) -> bool:
    """Statements that a tired author leaves out.  Outside functions, a missing name is noticed at once."""
    if isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.Assert, ast.Delete)):
        return True
    if isinstance(node, ast.Return):
        return node.value is None or ast.unparse(node.value) == "None"
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return False
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return not (at_the_top and all(isinstance(target, ast.Name) for target in targets))
    return False


def _other_expressions(node: ast.expr, parent: ast.AST, field: str) -> Iterator[ast.expr]:
    if isinstance(node, ast.Constant):
        yield from _other_constants(node, parent)
    elif isinstance(node, ast.BinOp):
        if not _is_text(node):
            yield from (_with(node, op=operator) for operator in _other_operator(node.op))
    elif isinstance(node, ast.UnaryOp):
        yield from _other_signs(node)
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield _with(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])
    elif isinstance(node, ast.IfExp):
        yield copy.deepcopy(node.body)
        yield copy.deepcopy(node.orelse)
    elif isinstance(node, ast.Call):
        yield from _other_calls(node)
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                yield _with(node, **{bound: None})
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        yield from _without_conditions(node)
    elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(parent, ast.Call) and field == "func":
        yield ast.Name(id=NAMES[node.id], ctx=node.ctx)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield _with(node, attr=NAMES[node.attr])


def _other_constants(node: ast.Constant, parent: ast.AST) -> Iterator[ast.expr]:
    if isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.USub):
        return  # a negative number is one constant, see _other_signs
    if isinstance(parent, (ast.If, ast.While)):
        return  # see _other_statements
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + 1)


def _other_signs(node: ast.UnaryOp) -> Iterator[ast.expr]:
    if isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        yield copy.deepcopy(node.operand)
    if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        if isinstance(value, (int, float)):
            yield ast.Constant(1 - value) if value <= 1 else ast.UnaryOp(ast.USub(), ast.Constant(value - 1))


def _other_calls(node: ast.Call) -> Iterator[ast.expr]:
    if _called(node.func) == "cast":
        return
    plain = not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    if len(node.args) >= 2 and plain and _called(node.func) not in SYMMETRIC:
        first, second, *rest = node.args
        yield _with(node, args=[second, first, *rest])
    for index, keyword in enumerate(node.keywords):
        # A flag is turned over instead (see _other_constants), which nearly always comes to the same.
        flag = isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, bool)
        if keyword.arg not in UNSEEN_KEYWORDS and keyword.arg is not None and not flag:
            yield _with(node, keywords=node.keywords[:index] + node.keywords[index + 1 :])


def _without_conditions(node: ast.expr) -> Iterator[ast.expr]:
    for index, generator in enumerate(getattr(node, "generators", ())):
        for condition in range(len(generator.ifs)):
            other = copy.deepcopy(node)
            del other.generators[index].ifs[condition]  # type: ignore[attr-defined]
            yield other


def _other_operator(operator: ast.operator) -> Iterator[ast.operator]:
    if type(operator) in ARITHMETIC:
        yield ARITHMETIC[type(operator)]()


def _is_text(node: ast.BinOp) -> bool:
    """Whether one side is plainly a string: text is put together, and nobody tests its every word."""
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in sides
    )


def _with(node: Node, **fields: object) -> Node:
    """A copy of `node` with other fields; what is not replaced is copied with its positions."""
    other = copy.copy(node)
    for name, value in ast.iter_fields(node):
        setattr(other, name, fields[name] if name in fields else copy.deepcopy(value))
    return other


def is_dull(node: ast.AST, field: str) -> bool:
    """Fields that hold annotations, type parameters, text, or the words of an error."""
    if field in ("annotation", "returns", "type_params", "type_comment", "ctx", "simple"):
        return True
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Raise) and field in ("exc", "cause"))


def is_silent(node: ast.AST) -> bool:
    """Whole subtrees that nothing at run time depends on."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring, or `...`
    if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
        return True
    if isinstance(node, FUNCTIONS):
        return any(_called(decorator) == "overload" for decorator in node.decorator_list)
    if isinstance(node, ast.keyword):
        return node.arg in UNSEEN_KEYWORDS
    return isinstance(node, ast.Call) and _called(node.func) in FOR_CHECKERS


def _called(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
