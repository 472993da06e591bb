"""What is changed in a module, one thing at a time, to see whether a test fails."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
#: A word of a closed set becomes another of it: what is neither is found by the types.
_WORDS = {
    "no": "maybe", "maybe": "no", "yes": "maybe", "never": "delay", "delay": "never", "ceiling": "delay",
    "fail": "retry", "retry": "fail",
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
#: A text that means something to a program. What is said to people is held by the tests of its words, if at all.
_WORD = re.compile(r"[\w./:<>-]*\Z")
#: What has no part in what a program does, or is there before there is a test.
_LEFT_OUT = {"annotation", "returns", "decorator_list", "args", "type_params", "bases", "keywords_of_class"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    :param name: says what it is, in words that hold as long as the line does
    :param scope: the names of the classes and the function that it is in, empty for a module's own statement
    :param line: of the file
    :param statement: the function, or the module's statement, that it is in
    :param apply: makes the change in the tree
    """

    name: str
    scope: tuple[str, ...]
    line: int
    statement: ast.stmt
    apply: Callable[[], None]


def mutants_of(tree: ast.Module, source: str) -> Iterator[Mutant]:
    """Return all mutants of a module's functions, and of the values of its global names."""
    lines, seen = source.splitlines(), Counter[str]()
    for scope, statement in _scopes(tree.body, ()):
        for before, after, apply in _changes(statement):
            line = lines[before.lineno - 1].strip()
            name = f"{'.'.join(scope) or 'module'}: {line[:80]}: {_said(before)} -> {_said(after)}"
            seen[name] += 1
            if seen[name] > 1:
                name += f" #{seen[name]}"
            yield Mutant(name, scope, before.lineno, statement, apply)


def _scopes(body: list[ast.stmt], outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.stmt]]:
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from _scopes(statement.body, (*outer, statement.name))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (*outer, statement.name), statement
        elif not outer and isinstance(statement, ast.Assign | ast.AnnAssign) and not _is_for_readers(statement):
            yield (), statement


def _said(node: ast.AST) -> str:
    said = " ".join(ast.unparse(node).split())
    return said if len(said) <= 60 else f"{said[:59]}…"


def _changes(root: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST, Callable[[], None]]]:
    for field, value in ast.iter_fields(root):
        if field in _LEFT_OUT and not (field == "args" and isinstance(root, ast.Call)):
            continue
        children = value if isinstance(value, list) else [value]
        for place, child in enumerate(children):
            if not isinstance(child, ast.AST) or _is_docstring(child) or (place == 0 and _is_cast(root, field)):
                continue
            for after in _instead(child, is_test=field in ("test", "ifs")):
                ast.copy_location(after, child)
                ast.fix_missing_locations(after)

                def apply(
                    place: int = place, after: ast.AST = after, field: str = field, value: object = value
                ) -> None:
                    if isinstance(value, list):
                        value[place] = after
                    else:
                        setattr(root, field, after)

                assert isinstance(child, ast.expr | ast.stmt)
                yield child, after, apply
            if not isinstance(child, ast.JoinedStr):
                yield from _changes(child)
            else:
                for part in child.values:
                    if isinstance(part, ast.FormattedValue):
                        yield from _changes(part)


def _is_for_readers(statement: ast.Assign | ast.AnnAssign) -> bool:
    if isinstance(statement, ast.AnnAssign):
        return ast.unparse(statement.annotation) == "TypeAlias"
    names_types = ast.unparse(statement.value).startswith(("TypeVar(", "Literal["))
    return names_types or ast.unparse(statement.targets[0]) == "__all__"


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_cast(node: ast.AST, field: str) -> bool:
    """Say whether the first of these is a type."""
    return field == "args" and isinstance(node, ast.Call) and ast.unparse(node.func) == "cast"


def _instead(node: ast.AST, *, is_test: bool) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, [operator], comparators):
            yield ast.Compare(left, [_COMPARISONS[type(operator)]()], comparators)
        case ast.Compare(left, operators, comparators):
            for place, operator in enumerate(operators):
                others = [*operators[:place], _COMPARISONS[type(operator)](), *operators[place + 1 :]]
                yield ast.Compare(left, others, comparators)
        case ast.BoolOp(operator, values):
            for place in range(len(values)):
                left = [*values[:place], *values[place + 1 :]]
                yield left[0] if len(left) == 1 else ast.BoolOp(operator, left)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            yield ast.BinOp(left, _OPERATORS[type(operator)](), right)
        case ast.Call(ast.Name(name), arguments, keywords) if name in _NAMES:
            yield ast.Call(ast.Name(_NAMES[name], ast.Load()), arguments, keywords)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(str(value)) if _WORD.match(value):
            yield ast.Constant(_WORDS.get(value, value + "X"))
        case ast.Constant(bytes(value)):
            yield ast.Constant(value + b"X")
        case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.Break() | ast.Continue():
            yield ast.Pass()
        case ast.AugAssign(target, operator, value):
            yield ast.Pass()
            if type(operator) in _OPERATORS:
                yield ast.AugAssign(target, _OPERATORS[type(operator)](), value)
        case ast.Assign(targets) if all(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
            yield ast.Pass()
    if is_test and isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.NamedExpr):
        yield ast.UnaryOp(ast.Not(), node)
