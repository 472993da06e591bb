"""The performance page: ``python -m tests.bench.page`` takes what was measured last into it, and draws the plots.

What it is made from is kept beside the plots. A part that was not measured anew stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from tests.bench.results import FOLDER, PARTS, Part, Record, number

DOCS = Path(__file__).parents[2] / "docs"
PLOTS = DOCS / "performance"
PAGE, KEPT = DOCS / "performance.md", PLOTS / "bench.json"


def parts() -> dict[str, Part]:
    """Return what the page is made from."""
    told = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return {name: Part.of(told[name]) for name in PARTS if name in told}


def digest_of(part: Part) -> str:
    """Return what a plot of it has in it."""
    return hashlib.sha256(json.dumps(asdict(part), sort_keys=True).encode()).hexdigest()[:16]


def page() -> str:
    """Return the page: its text as it is, and what stands between the marks of each part made anew."""
    text = PAGE.read_text()
    for name, part in parts().items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        assert ended, f"{PAGE.name} has no place for {name}"
        text = f"{before}{begin}\n{_origin(part)}\n\n{''.join(_table(part))}\n{end}{after}"
    return text


def _origin(part: Part) -> str:
    said = (
        f"Measured {part.date} in {part.seconds:,.0f} s, version {part.version}, Airflow {part.airflow}, "
        f"Python {part.python}, {part.cores} cores ({part.processor}), "
        f"{part.load:g} processes busy in the minute before."
    )
    if not part.is_short:
        return said
    rounds = f", {part.rounds} round{'s' if part.rounds > 1 else ''} at most" if part.rounds else ""
    return f"{said} **A short run** ({100 * part.scale:g} % of the rows{rounds}): its figures mean little."


def _table(part: Part) -> Iterator[str]:
    labels = {record.quantity: record.label for record in part.records}
    head = ["what", "way", *labels.values()]
    yield f"| {' | '.join(head)} |\n|{' --- |' * len(head)}\n"
    for what, of_what in groupby(part.records, lambda record: record.what):
        for way, of_way in groupby(of_what, lambda record: record.way):
            cells = {record.quantity: _cell(record) for record in of_way}
            yield f"| {' | '.join((what, way, *(cells.get(quantity, '') for quantity in labels)))} |\n"
            what = ""


def _cell(record: Record) -> str:
    said = record.figure
    ratio = "" if record.ratio is None else f"{number(record.ratio)} ×"
    if record.aim is not None:
        aim = f"{'≥' if record.is_rate else '≤'} {record.aim:.3g}"
        if ratio:
            ratio = f"{ratio if record.is_met else f'**{ratio}**'} ({aim})"
        else:
            said = f"{said if record.is_met else f'**{said}**'} ({aim})"
    return f"{said}, {ratio}" if ratio else said


def main() -> None:
    found = parts()
    for name in PARTS:
        file = FOLDER / f"{name}.json"
        if file.exists():
            found[name] = Part.of(json.loads(file.read_text()))
    PLOTS.mkdir(exist_ok=True)
    KEPT.write_text(_as_json(found))
    PAGE.write_text(page())
    from tests.bench.plots import draw

    draw(found, PLOTS)


def _as_json(found: dict[str, Part]) -> str:
    """Return it with a record on a line, so that a change can be read."""
    text = json.dumps({name: asdict(found[name]) for name in PARTS if name in found}, ensure_ascii=False)
    return re.sub(r'(, |\[)(\{"what"|"\w+": \{"part")', r"\1\n\2", text) + "\n"


if __name__ == "__main__":
    main()
