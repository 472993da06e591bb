"""The tests of any bytes, on and on: ``python -m tests.fuzz --seconds 3600``. Each round has seeds of its own."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import seed, settings

# Before the tests are imported: their settings are made of the profile that is loaded then.
settings.register_profile(
    "fuzz", max_examples=1000, database=None, suppress_health_check=list(settings.default.suppress_health_check)
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

    started, round_ = time.monotonic(), asked.seed
    while time.monotonic() - started < asked.seconds:
        for test in tests:
            try:
                seed(round_)(test)()
            except BaseException:
                print(f"{test.__name__} failed in the round of --seed {round_}.")
                raise
        round_ += 1
    for name, count in examples.items():
        print(f"{count:>12,} {name}")
    print(f"{examples.total():>12,} examples in {time.monotonic() - started:,.0f} s; the next round is --seed {round_}")


def _counted(test: Callable[..., Any], examples: Counter[str]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        examples[test.__name__] += 1
        return test(*arguments, **named)

    return counted


if __name__ == "__main__":
    main()
