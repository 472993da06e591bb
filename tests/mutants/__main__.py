"""Changes modules that decide about money and answers, one thing at a time, and sees whether a test fails:
``python -m tests.mutants [module ...]``. A change that no test notices fails the run, unless ``explained.toml`` says
why none can.

The tests are collected once. Each mutant gets a forked process, in which the code of the function that it is in, or the
value of the global name, takes the place of the original everywhere; the tests that reach it run there, the quickest
first, until one fails.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import os
import pickle
import random
import re
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from tests.mutants.mutations import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_completion"
EXPLAINED = Path(__file__).with_name("explained.toml")
PAGE = ROOT / "docs" / "mutants.md"


def _tests(room: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{room}/test_{name}.py" for name in names)


_KEEPING = _tests("airflow", "keeping", "claim", "crash_safety")
_JOURNAL = _tests("batch", "journal", "stored_journal", "history")
_ADMISSION = _tests("batch", "admission", "climb", "yielding", "gate", "outage", "waits", "refusals")
#: Of the deferred calls those that have most to do with XCom: all take too long for each change.
_DEFERRED = tuple(
    f"tests/airflow/test_deferrable.py::test_{name}"
    for name in (
        "mapped_tasks_keep_their_answers_apart",
        "without_xcom_push_only_the_working_keys_are_there_and_only_for_a_while",
        "a_second_trigger_never_sends_what_a_first_has_sent",
        "a_trigger_whose_task_has_resumed_sends_and_stops_nothing",
        "a_trigger_that_failed_unsent_in_the_try_before_lets_this_one_ask",
        "a_call_of_which_nothing_is_left_may_have_been_billed",
        "an_answer_that_cannot_be_kept_was_paid_and_is_not_asked_for_again",
        "a_trigger_that_failed_before_it_sent_anything_fails_as_airflow_has_it",
        "a_call_asks_six_times_of_the_supervisor",
    )
)
#: The modules, and where the tests are that hold them. None of these starts a whole Airflow.
MODULES = {
    "paying.py": ("tests/test_paying.py",),
    "api/exchange.py": _tests("api", "stream", "wire_vectors", "any_order"),
    "api/failures.py": _tests("api", "failures", "wire_vectors"),
    "keeping/record.py": _KEEPING,
    "keeping/journals.py": _KEEPING,
    "keeping/task_state.py": _KEEPING,
    "keeping/xcom.py": (*_tests("airflow", "claim", "xcom"), *_DEFERRED),
    "batch/journal.py": _JOURNAL,
    "batch/entries.py": _JOURNAL,
    "batch/admission.py": _ADMISSION,
    "batch/climb.py": _ADMISSION,
    "batch/yielding.py": _ADMISSION,
    "batch/gate.py": _ADMISSION,
    "batch/outage.py": _ADMISSION,
    "batch/refusals.py": _ADMISSION,
    "batch/patience.py": _tests("batch", "patience"),
}
#: A test that takes so many times what it took, and these seconds more, does not end any more.
_TIMES, _MORE_SECONDS = 20, 20.0


class Run:
    """A plugin of pytest that runs the mutants of one module in the place of the tests."""

    def __init__(self, module: str, chosen: Callable[[list[Mutant]], list[Mutant]]) -> None:
        self._module, self._chosen = module, chosen
        self._path = PACKAGE / module
        self.all = self.mutants = 0
        self.survivors: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        source = self._path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        items = {item.nodeid: item for item in session.items}
        reached, seconds = _apart(lambda: self._clean(session.items))
        functions = self._functions()
        every = list(mutants_of(tree, source))
        mutants = self._chosen(every)
        self.all, self.mutants = len(every), len(mutants)
        for number, mutant in enumerate(mutants, 1):
            tests = reached.get(_first_line(mutant.statement), set())
            if not mutant.scope:  # a global name: it can be read in other modules alone
                tests = set().union(*reached.values()) or set(items)
            in_turn = sorted(tests, key=lambda test: seconds[test])
            if self._survives(mutant, tree, functions, [(items[test], seconds[test]) for test in in_turn]):
                self.survivors.append(mutant.name)
                print(f"  {self._module}:{mutant.line}: {mutant.name} ({len(tests)} tests)", flush=True)
            if number % 50 == 0:
                print(f"  {self._module}: {number} of {len(mutants)}", flush=True)
        return True

    def _clean(self, items: list[pytest.Item]) -> tuple[dict[int, set[str]], dict[str, float]]:
        """Run the tests as they are; return which of them reach the function that begins at a line, and how many
        seconds each takes.
        """
        reached: dict[int, set[str]] = defaultdict(set)
        seconds: dict[str, float] = {}
        path = str(self._path)
        _quietly()
        for item in items:

            def trace(frame: FrameType, _: str, __: Any, test: str = item.nodeid) -> None:
                if frame.f_code.co_filename == path:
                    reached[frame.f_code.co_firstlineno].add(test)

            threading.settrace(trace)
            sys.settrace(trace)
            started = time.monotonic()
            passes = _passes(item)
            seconds[item.nodeid] = time.monotonic() - started
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            if not passes:
                raise AssertionError(f"{item.nodeid} fails without a mutant")
        return dict(reached), seconds

    def _functions(self) -> dict[tuple[str, int], list[FunctionType]]:
        found: dict[tuple[str, int], list[FunctionType]] = defaultdict(list)
        for function in gc.get_objects():
            if type(function) is FunctionType and function.__code__.co_filename == str(self._path):
                found[function.__code__.co_name, function.__code__.co_firstlineno].append(function)
        return found

    def _survives(
        self,
        mutant: Mutant,
        tree: ast.Module,
        functions: dict[tuple[str, int], list[FunctionType]],
        tests: list[tuple[pytest.Item, float]],
    ) -> bool:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.setsid()
                _quietly()
                mutant.apply()
                self._put(mutant, tree, functions)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                for item, seconds in tests:
                    signal.setitimer(signal.ITIMER_REAL, _TIMES * seconds + _MORE_SECONDS)
                    if not _passes(item):
                        break
                else:
                    status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a test has started
        return status == 0

    def _put(self, mutant: Mutant, tree: ast.Module, functions: dict[tuple[str, int], list[FunctionType]]) -> None:
        if mutant.scope:
            code = next(_codes(compile(tree, str(self._path), "exec"), mutant.scope, _first_line(mutant.statement)))
            live = functions[code.co_name, code.co_firstlineno]
            assert live
            for function in live:
                function.__code__ = code
            return
        name = "airflow_provider_completion." + self._module.removesuffix(".py").replace("/", ".")
        module = sys.modules[name]
        before = dict(vars(module))
        exec(compile(ast.Module([mutant.statement], []), str(self._path), "exec"), vars(module))
        for global_, old in before.items():
            new = vars(module)[global_]
            if new is not old:
                _replace(global_, old, new)


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _codes(code: CodeType, scope: tuple[str, ...], line: int) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType) and inner.co_name == scope[0]:
            if len(scope) > 1:
                yield from _codes(inner, scope[1:], line)
            elif inner.co_firstlineno == line:
                yield inner


def _replace(name: str, old: object, new: object) -> None:
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get(name) is old:
            setattr(module, name, new)


def _passes(item: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def _apart(work: Callable[[], Any]) -> Any:
    """Do something in a process of its own; return what it returns."""
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if not child:
            try:
                result, failure = work(), ""
            except BaseException as error:
                result, failure = None, f"{type(error).__name__}: {error}"
            told.write(pickle.dumps((result, failure)))
            told.flush()
            os._exit(0)
        os.waitpid(child, 0)
        told.seek(0)
        result, failure = pickle.loads(told.read())
    if failure:
        sys.exit(failure)
    return result


def _quietly() -> None:
    """What the tests print is of no interest."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _of_module(module: str, chosen: Callable[[list[Mutant]], list[Mutant]], folder: str) -> tuple[int, int, list[str]]:
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", max_examples=20, derandomize=True, database=None, phases=phases)
    run = Run(module, chosen)
    options = ["-qq", "-s", "--disable-warnings", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    status = pytest.main([*options, f"--basetemp={folder}/tests", *MODULES[module]], plugins=[run])
    if status or not run.mutants:
        sys.exit(f"{module}: pytest ends with {status!r}")
    return run.all, run.mutants, run.survivors


def main() -> None:
    """Run them, print the figures, and fail for each survivor that is not explained, or is but does not survive."""
    options = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    options.add_argument("modules", nargs="*", default=list(MODULES), metavar="module", help="as in paying.py")
    options.add_argument("--most", type=int, help="so many of each module, drawn at random; always the same ones")
    options.add_argument("--write", action="store_true", help="write the figures of these modules into docs/mutants.md")
    asked = options.parse_args()

    def chosen(mutants: list[Mutant]) -> list[Mutant]:
        if asked.most is None or len(mutants) <= asked.most:
            return mutants
        return sorted(random.Random(0).sample(mutants, asked.most), key=lambda mutant: mutant.line)

    explained = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))
    rows, wrong = {}, []
    for module in asked.modules:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            every, made, survivors = _apart(lambda module=module, folder=folder: _of_module(module, chosen, folder))
        known = explained.get(module, {})
        wrong += [f"{module}: no test notices it: {name}" for name in survivors if name not in known]
        if made == every:
            wrong += [f"{module}: explained, but a test fails: {name}" for name in known if name not in survivors]
        numbers = (every, made, made - len(survivors), len(known.keys() & survivors))
        rows[module] = "".join(f" {number} |" for number in (*numbers, date.today().isoformat()))
        print(f"{module}: {rows[module]}", flush=True)
        if asked.write:
            PAGE.write_text(_page(rows, explained), encoding="utf-8")
    sys.exit("\n".join(wrong) or None)


_PAGE = """# What the tests notice

Modules that decide what is a whole answer, whether a call may be paid again, what is known of an earlier one, and how
many calls may be in flight are changed, one thing at a time: a comparison becomes another, a condition is dropped, a
call, an assignment or a `raise` is left out, a number is one more, `"no"` becomes `"maybe"`. A change that no test
notices is a hole in the tests, or a bug. `make mutants` makes all of them, fails for each that no test notices unless a
file, [explained.toml](../tests/mutants/explained.toml), says why none can, and writes this page.

Functions are changed, and the values of global names; not what a class has beside its functions, the patterns of
regular expressions, the words that are said to people, nor the defaults of parameters and fields. Only tests that start
no whole Airflow look at them, those of the module's own room. `batch/waits.py`, which finds out that a server lets
calls wait, is not among the modules: its figures are tuned on simulated servers, where others often do as well.

The runner is this project's own. mutmut 3 runs the tests on a copy of the sources, and here pytest has imported the
package before it reads its settings, as it is a plugin of pytest; cosmic-ray begins a new pytest for each change, with
some seconds of Airflow's imports. This one forks for each.

| module | mutants | made | a test fails | explained | on |
| --- | --- | --- | --- | --- | --- |
{rows}

## Explained

{explained}
"""
_ROW = re.compile(r"^\| `(\S+)` \|(.+)$", re.MULTILINE)


def _page(rows: dict[str, str], explained: dict[str, dict[str, str]]) -> str:
    """Return the page, with the rows of other modules as they are."""
    known = dict(_ROW.findall(PAGE.read_text(encoding="utf-8"))) if PAGE.exists() else {}
    known |= rows
    parts = []
    for module, reasons in explained.items():
        by_reason: dict[str, list[str]] = defaultdict(list)
        for name, reason in reasons.items():
            by_reason[reason].append(name)
        parts.append(f"`{module}`:\n")
        for reason, names in by_reason.items():
            parts += [f"* {reason}", *(f"  * `` {name} ``" for name in names)]
        parts.append("")
    lines = [f"| `{module}` |{known[module]}" for module in MODULES if module in known]
    return _PAGE.format(rows="\n".join(lines), explained="\n".join(parts).strip())


if __name__ == "__main__":
    main()
