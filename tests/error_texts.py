"""The texts of the errors that the package raises, read from its source; ``...`` stands for what varies.

Nothing is run. An error is made where one of the package's error classes is called. Its text is followed through
f-strings, names, constants and attributes, and through the parameters of the function that makes it to what each caller
says. What an error hands on of something else has no words there, and is counted by the test.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

PACKAGE = Path(__file__).parent.parent / "airflow_provider_completion"
#: What varies.
VARIES = "..."
#: Errors whose words reach a user though they are none of the API's.
_BESIDE = ("CommandError", "JournalError")
#: Exceptions whose words become a part of an error's.
_PARTS = ("BadFrameError", "RefusedError", "ValueError")
#: Functions whose words do.
_SAYING = {
    "api.answers": ("_why_refused",),
    "api.app": ("other_kind",),
    "api.input_form": ("checked", "unknown", "_text", "_select", "_number", "problems", "_problem"),
    "api.requests": ("_problem",),
    "batch.columns": ("_unknown", "_not_there", "_undecided", "_nothing_sent"),
    "batch.verdict": ("why_not_published",),
    "keeping.record": ("end",),
}
#: What is raised in the place of these is what a user sees.
_UNSEEN = ("The file is not open.", "The rows are written, or gone.", "a truth value would count as 0 or 1")
#: So many functions are followed from an error to the words that it is made of.
_DEEPEST = 5

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Bound: TypeAlias = Mapping[str, tuple[ast.expr | None, "Module"]]


class Text(NamedTuple):
    """A text, and where it is made.

    :param hints: what the error says on its second line, in one way or another
    """

    module: str
    kind: str
    message: str
    hints: tuple[str, ...] = ()


class Module:
    """A module's source, and what its names are."""

    def __init__(self, path: Path, package: Path) -> None:
        self.name = ".".join(path.relative_to(package).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        self.nodes = list(ast.walk(tree))
        self.within = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        #: Names, and of which module of the package each is.
        self.imported = {
            alias.asname or alias.name: (node.module.partition(".")[2], alias.name)
            for node in self.nodes
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name)
            for alias in node.names
        }

    @cached_property
    def known(self) -> set[str]:
        """The modules that it imports something of, and itself."""
        return {self.name, *(of for of, _ in self.imported.values())}

    def function_of(self, node: ast.AST) -> _Function | None:
        return self._around(node, _Function)  # type: ignore[arg-type, return-value]

    def class_of(self, node: ast.AST) -> ast.AST | None:
        return self._around(node, ast.ClassDef)

    def _around(self, node: ast.AST | None, kind: type[ast.AST]) -> ast.AST | None:
        while node is not None and not isinstance(node := self.within.get(node), kind):
            pass
        return node


class Package:
    """All of its texts.

    :param root: its folder
    """

    def __init__(self, root: Path = PACKAGE) -> None:
        paths = [path for path in sorted(root.rglob("*.py")) if "testing" not in path.relative_to(root).parts]
        self.modules = {module.name: module for module in (Module(path, root) for path in paths)}
        self._calls: dict[str, list[tuple[Module, ast.Call]]] = defaultdict(list)
        classes = {}
        for module in self.modules.values():
            for node in module.nodes:
                if isinstance(node, ast.Call):
                    self._calls[_name(node.func)].append((module, node))
                elif isinstance(node, ast.ClassDef):
                    classes[node.name] = (module, node)
        self._classes = classes
        self._open: list[tuple[ast.AST, str]] = []
        self._bound: list[tuple[_Function, _Bound]] = []
        self.kinds = {"CompletionError", *_BESIDE}
        while more := {name for name in classes if set(self._bases(name)) & self.kinds} - self.kinds:
            self.kinds |= more

    def errors(self) -> list[Text]:
        """Return the texts of errors, each as it is without what may follow it."""
        found = [text for text in self._joined_by_hint(self._made(self.kinds)) if _says_something(text)]
        told = _fullest(found)
        return [text for text in told if not any(text.message.startswith(f"{other.message} ") for other in told)]

    def handed_on(self) -> set[str]:
        """Return where errors are made that have no words of their own."""
        return {text.module for text in self._made(self.kinds) if not _says_something(text)}

    def parts(self) -> list[Text]:
        """Return what stands in an error in the place of what varies."""
        found = {Text(text.module, "", text.message) for text in self._made(_PARTS)}
        for name, functions in _SAYING.items():
            module = self.modules[name]
            said = [
                value
                for node in module.nodes
                if isinstance(node, _Function) and node.name in functions
                for value in _said_in(node)
            ]
            for message, hint in said:
                hints = tuple(_distinct(filter(_has_words, map(_tidy, self._texts(hint, module)))))
                found |= {Text(name, "", _tidy(text), hints) for text in self._texts(message, module)}
        return [text for text in _fullest(found) if _has_words(text.message) and text.message not in _UNSEEN]

    def _made(self, kinds: Iterable[str]) -> Iterator[Text]:
        for kind in sorted(kinds):
            for module, call in self._calls[kind]:
                yield from self._made_by(call, kind, module)
            if kind in self._classes:  # its own words for whatever it is given
                module, node = self._classes[kind]
                for own in ast.walk(node):
                    match own:
                        case ast.Call(func=function, args=[ast.JoinedStr(), *_]):
                            if ast.unparse(function) == "super().__init__":
                                yield from self._made_by(own, kind, module)

    def _made_by(self, call: ast.Call, kind: str, module: Module) -> Iterator[Text]:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        for said in call.args[:1]:
            for bound in self._callers(module.function_of(call), module):
                with bound():
                    hints = self._texts(given["hint"], module) if "hint" in given else {""}
                    own = self._hint_of(kind)
                    told = tuple(sorted({hint or own for hint in hints} if "hint" not in given else hints))
                    for message in self._texts(said, module):
                        yield Text(module.name, kind, _tidy(message), tuple(map(_tidy, told)))

    def _joined_by_hint(self, found: Iterable[Text]) -> Iterator[Text]:
        hints: dict[Text, set[str]] = defaultdict(set)
        for text in found:
            hints[text._replace(hints=())] |= set(text.hints)
        for text, told in hints.items():
            own = [hint for hint in told if _has_words(hint) and not hint.startswith(VARIES)]
            yield text._replace(hints=tuple(_distinct(own or filter(_has_words, told))))

    def _hint_of(self, kind: str) -> str:
        """Return what a class says if nothing else is said."""
        if kind not in self._classes:
            return ""
        module, node = self._classes[kind]
        own = [
            line.value
            for line in node.body
            if (isinstance(line, ast.Assign) and _name(line.targets[0]) == "hint")
            or (isinstance(line, ast.AnnAssign) and _name(line.target) == "hint")
        ]
        if own and own[0] is not None:
            return min(self._texts(own[0], module))
        return next((hint for base in self._bases(kind) if (hint := self._hint_of(base))), "")

    def _bases(self, name: str) -> list[str]:
        return [_name(base) for base in self._classes[name][1].bases]

    def _callers(self, function: _Function | None, module: Module) -> Iterator[Callable[[], object]]:
        """Give, for each call of a function, what sets its parameters: a message and a hint belong together."""
        calls = list(self._calls_of(function, module)) if function else []

        @contextmanager
        def binding(arguments: _Bound | None) -> Iterator[None]:
            if function is None or arguments is None:
                yield
                return
            self._bound.append((function, arguments))
            yield
            self._bound.pop()

        for caller, call in calls:
            arguments = {name: (value, caller) for name, value in _arguments(function, call).items()}
            yield lambda arguments=arguments: binding(arguments)
        if not calls:
            yield lambda: binding(None)

    def _calls_of(self, function: _Function, module: Module) -> Iterator[tuple[Module, ast.Call]]:
        name = function.name
        if name == "__init__":
            name = module.class_of(function).name  # type: ignore[union-attr]
        yield from ((caller, call) for caller, call in self._calls[name] if module.name in caller.known)

    # -- what an expression can say ------------------------------------------------------------------------------------

    def _texts(self, said: ast.expr | None, module: Module, depth: int = 0) -> set[str]:
        match said:
            case None | ast.Constant(value=None):
                return {""}
            case ast.Constant(value=str(words)):
                return {words}
            case ast.JoinedStr(values=parts):
                return self._in_a_row(parts, module, depth)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return self._texts(value, module, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._in_a_row([left, right], module, depth)
            case ast.IfExp(body=one, orelse=other):
                return self._texts(one, module, depth) | self._texts(other, module, depth)
            case ast.BoolOp(op=ast.Or(), values=values):
                return set().union(*(self._texts(value, module, depth) for value in values))
            case ast.NamedExpr(value=value):
                return self._texts(value, module, depth)
            case ast.Call(func=ast.Attribute(value=words, attr="format"), args=given):
                filled = {str(number): min(self._texts(value, module, depth)) for number, value in enumerate(given)}
                return {_filled(text, filled) for text in self._texts(words, module, depth)}
            case ast.Call(func=ast.Name(id="uncapitalised"), args=[words]):
                return {text[:1].lower() + text[1:] for text in self._texts(words, module, depth)}
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return self._of_self(name, said, module, depth)
            case ast.Name(id=name):
                return self._of_name(name, said, module, depth)
        return {VARIES}

    def _in_a_row(self, parts: list[ast.expr], module: Module, depth: int) -> set[str]:
        choices = [sorted(self._texts(part, module, depth)) for part in parts]
        return {"".join(chosen) for chosen in itertools.product(*choices)}

    def _of_self(self, name: str, node: ast.expr, module: Module, depth: int) -> set[str]:
        own = module.class_of(node)
        values = [] if own is None else _assigned(own, f"self.{name}")
        return self._once(own, name, values, module, depth) if own and values else {VARIES}

    def _of_name(self, name: str, node: ast.expr, module: Module, depth: int) -> set[str]:
        function = module.function_of(node)
        while function is not None:
            values = _assigned_before(node, name, module, function)
            taken = name in _parameters(function)
            if taken and not values:
                return self._of_parameter(function, name, module, depth)
            if values:
                said = self._once(function, name, values, module, depth)
                return said | (self._of_parameter(function, name, module, depth) if taken else set())
            function = module.function_of(function)
        of, original = module.imported.get(name, (module.name, name))
        constants = self.modules[of].constants if of in self.modules else {}
        return self._texts(constants[original], self.modules[of], depth) if original in constants else {VARIES}

    def _once(self, where: ast.AST, name: str, values: list[ast.expr], module: Module, depth: int) -> set[str]:
        if (where, name) in self._open:
            return set()  # it is made of itself
        self._open.append((where, name))
        said = set().union(*(self._texts(value, module, depth) for value in values))
        self._open.pop()
        return said

    def _of_parameter(self, function: _Function, name: str, module: Module, depth: int) -> set[str]:
        if depth == _DEEPEST:
            return {VARIES}
        for bound, arguments in reversed(self._bound):
            if bound is function:
                if name not in arguments:
                    return {VARIES}
                value, caller = arguments[name]
                return self._texts(value, caller, depth + 1)
        said: set[str] = set()
        for caller, call in self._calls_of(function, module):
            given = _arguments(function, call)
            said |= self._texts(given[name], caller, depth + 1) if name in given else {VARIES}
        return said or {VARIES}


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _parameters(function: _Function) -> list[str]:
    arguments = function.args
    return [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _arguments(function: _Function, call: ast.Call) -> dict[str, ast.expr | None]:
    """Return what a call says for a function's parameters, and their defaults for the others."""
    positional = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    defaults = dict(zip(reversed(positional), reversed(function.args.defaults), strict=False))
    beside = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    given: dict[str, ast.expr | None] = {**defaults, **{argument.arg: default for argument, default in beside}}
    own = positional[1:] if positional[:1] in (["self"], ["cls"]) else positional
    given |= dict(zip(own, call.args, strict=False))
    return given | {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _assigned(where: ast.AST, target: str) -> list[ast.expr]:
    """Return the values that a name, or an attribute, is given."""
    return [
        node.value
        for node in ast.walk(where)
        if (isinstance(node, ast.Assign) and any(ast.unparse(name) == target for name in node.targets))
        or (isinstance(node, ast.NamedExpr) and node.target.id == target)
    ]


def _assigned_before(node: ast.AST, name: str, module: Module, function: _Function) -> list[ast.expr]:
    """Return the values that a name can have where it is read: of the lines before it, else of the whole function."""
    found: list[ast.expr] = []
    while node is not function and (above := module.within.get(node)) is not None:
        for block in (getattr(above, part, ()) for part in ("body", "orelse", "handlers", "finalbody")):
            if isinstance(block, list) and node in block:
                for line in reversed(block[: block.index(node)]):
                    found += _assigned(line, name)
                    if isinstance(line, ast.Assign) and name in map(_name, line.targets):
                        return found
        node = above
    return _assigned(function, name)


def _said_in(function: _Function) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Iterate over what a function returns, yields, or puts into a list: what is wrong, and what to do about it."""
    for node in ast.walk(function):
        match node:
            case ast.Return(value=ast.Tuple(elts=[message, hint])):
                yield message, hint
            case ast.Return(value=ast.List(elts=said)) | ast.Call(func=ast.Attribute(attr="append"), args=said):
                yield from ((message, None) for message in said)
            case ast.Return(value=ast.expr() as one) | ast.Yield(value=ast.expr() as one):
                yield one, None


def _filled(text: str, fields: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w*)\}", lambda field: fields.get(field[1], VARIES), text)


def _says_something(text: Text) -> bool:
    return _has_words(text.message.removesuffix("Nothing was sent."))


def _has_words(text: str) -> bool:
    return re.search(r"\w", text.replace(VARIES, "")) is not None


def _tidy(text: str) -> str:
    """Return a text in one line, in which what varies is one thing."""
    return re.sub(r"(\.{3}){2,}", VARIES, " ".join(text.split()))


def _fullest(texts: Iterable[Text]) -> list[Text]:
    """Return texts in order; of those of a module that differ in what varies only, the one with the most of it."""
    fullest = {}
    for text in sorted(texts, key=lambda text: (len(text.message), text)):
        fullest[text.module, "".join(text.message.replace(VARIES, "").split())] = text
    return sorted(fullest.values())


def _distinct(texts: Iterable[str]) -> list[str]:
    """Return texts in order, without those that another says with more of what varies, or with more words behind."""
    fullest: dict[str, str] = {}
    for text in sorted(texts, key=len):
        fullest["".join(text.replace(VARIES, "").split())] = text
    told = fullest.items()
    return sorted(
        text
        for key, text in told
        if not any(other != key and (other.startswith(key) or other.endswith(key)) for other, _ in told)
    )
