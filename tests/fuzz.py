"""The tests of any bytes, on and on: ``python -m tests.fuzz --seconds 3600``. Each round has seeds of its own."""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import seed, settings

# Before the tests are imported: their settings are made of the profile that is loaded then.
settings.register_profile(
    "fuzz", max_examples=200, database=None, suppress_health_check=list(settings.default.suppress_health_check)
)
settings.load_profile("fuzz")

from tests.api import test_any_bytes, test_any_order, test_torn_streams  # noqa: E402


def main() -> None:
    """Run until the time is over; the first example that fails ends it, with what repeats it."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--seconds", type=float, default=3600.0)
    options.add_argument("--seed", type=int, default=0, help="of the first round")
    asked = options.parse_args()
    modules = (test_any_bytes, test_any_order, test_torn_streams)
    tests = [test for module in modules for test in vars(module).values() if hasattr(test, "hypothesis")]
    examples: Counter[str] = Counter()
    for test in tests:
        test.hypothesis.inner_test = _counted(test.hypothesis.inner_test, examples)

    started = time.monotonic()
    for round_, test in ((number, test) for number in itertools.count(asked.seed) for test in tests):
        if time.monotonic() - started >= asked.seconds:
            break
        try:
            seed(round_)(test)()
        except BaseException:
            print(f"{test.__name__} failed in the round of --seed {round_}.")
            raise
    for name, count in examples.items():
        print(f"{count:>12,} {name}")
    print(f"{examples.total():>12,} examples in {time.monotonic() - started:,.0f} s, to the round of --seed {round_}")


def _counted(test: Callable[..., Any], examples: Counter[str]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        examples[test.__name__] += 1
        return test(*arguments, **named)

    return counted


if __name__ == "__main__":
    main()
