"""Measure the parts that are named, or all of them, and write what came of each into ``.bench``."""

from __future__ import annotations

import argparse
import importlib
import logging

from tests.bench.results import PARTS, Run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="the share of rows, calls and waves; 1 by default")
    parser.add_argument("--rounds", type=int, help="how many at most; each comparison has its own number")
    parser.add_argument("--only", default="", help="a part of the titles of what is measured; then nothing is written")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    logging.disable(logging.WARNING)
    for part in args.parts or PARTS:
        run = Run(part, scale=args.scale, rounds=args.rounds, only=args.only)
        importlib.import_module(f"tests.bench.{part}").measure(run)
        if not args.only:
            run.write()


if __name__ == "__main__":
    main()
