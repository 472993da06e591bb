"""The plots of the performance page, for white and for black. The same figures make the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.page import digest_of
from tests.bench.results import OURS, Course, Part, Record, number

_INK, _OURS, _OTHERS, _TRUTH = "#7a7a7a", "#6aa6f8", "#b4b4b4", "#d1495b"
#: Of those that are not ours.
_LINES = ("#a0a0a0", "#bc8f3c", "#8a6fb0", "#4f9d69")
_WIDTH = 8.0
_STYLE = {
    "svg.hashsalt": "performance",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "figure.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def draw(parts: dict[str, Part], folder: Path) -> None:
    """Draw the parts that have a plot."""
    with mpl.rc_context(_STYLE):
        for name, plot in _PLOTS.items():
            if name in parts:
                told = {"Date": None, "Creator": None, "Description": digest_of(parts[name])}
                plot(parts[name]).savefig(folder / f"{name}.svg", transparent=True, metadata=told)


# -- bars -------------------------------------------------------------------------------------------------------------


def _bars(part: Part, quantities: Sequence[str], choose: Callable[[str], bool] = lambda _: True) -> Figure:
    """A panel for each quantity of each thing that was done."""
    panels = [
        (f"{what}: {records[0].label}", records)
        for quantity in quantities
        for what, of_what in groupby(part.of_quantity(quantity), lambda record: record.what)
        if choose(what) and (records := list(of_what))
    ]
    heights = [len(records) for _, records in panels]
    figure = Figure(figsize=(_WIDTH, 0.27 * sum(heights) + 0.55 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), height_ratios=[height + 0.3 for height in heights], squeeze=False)
    for (axes,), (title, records) in zip(rows, panels, strict=True):
        axes.set_title(title)
        _panel(axes, records)
    return figure


def _panel(axes: Axes, records: Sequence[Record]) -> None:
    places = range(len(records))
    colors = [_OURS if record.way.startswith(OURS) else _OTHERS for record in records]
    axes.barh(places, [record.median for record in records], height=0.72, color=colors)
    axes.set_yticks(places, [record.way for record in records])
    axes.invert_yaxis()
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    for place, record in enumerate(records):
        if len(record.values) > 1:
            axes.plot(record.values, [place] * len(record.values), "|", color=_INK, markersize=6, markeredgewidth=0.8)
        ratio = "" if record.ratio is None else f" ({number(record.ratio)} ×)"
        axes.annotate(
            f"{record.figure}{ratio}",
            (max(record.values), place),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xlim(0, 1.28 * max(max(record.values) for record in records))


# -- lines ------------------------------------------------------------------------------------------------------------


def _courses(part: Part) -> Figure:
    """What each way had in flight over time: a column for each thing that was done."""
    columns = [list(of_what) for _, of_what in groupby(part.courses, lambda course: course.what)]
    figure = Figure(figsize=(_WIDTH, 1.15 * max(map(len, columns)) + 0.5), layout="constrained")
    for place, courses in zip(figure.subfigures(1, len(columns), squeeze=False)[0], columns, strict=True):
        place.suptitle(f"{courses[0].what}: calls in flight")
        grid = place.subplots(len(courses), sharex=True, sharey=True, squeeze=False)
        for (axes,), course in zip(grid, courses, strict=True):
            _course(axes, course, part)
        axes.set_xlabel("seconds")
        axes.set_ylim(0, 1.1 * max(max(*course.values, course.truth) for course in courses))
    return figure


def _course(axes: Axes, course: Course, part: Part) -> None:
    color = _OURS if course.way.startswith(OURS) else _OTHERS
    axes.stairs(course.values[:-1], course.at, fill=True, color=color, linewidth=0)
    axes.axhline(course.truth, color=_TRUTH, linewidth=1, dashes=(4, 3))
    seconds, refused = (
        next(record for record in part.of_quantity(quantity, course.what) if record.way == course.way).values[0]
        for quantity in ("time", "refused")
    )
    axes.set_title(f"{course.way}: {seconds:.0f} s, {refused:,.0f} refused")


def _over_rows(part: Part) -> Figure:
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    by_way: dict[str, list[Record]] = {}
    for record in part.of_quantity("memory"):
        by_way.setdefault(record.way, []).append(record)
    others = iter(_LINES)
    for way, records in by_way.items():
        rows = [int(record.what.split()[0].replace(",", "")) for record in records]
        color, width = (_OURS, 2.2) if way.startswith(OURS) else (next(others), 1.4)
        memory = [record.median for record in records]
        axes.plot(rows, memory, "o-", color=color, linewidth=width, markersize=4, label=way)
    axes.set_title("memory beside the idle process, MiB, over the number of rows")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(0, None)
    axes.set_ylim(0, None)
    axes.legend(labelcolor=_INK)
    return figure


_PLOTS: dict[str, Callable[[Part], Figure]] = {
    "parse": lambda part: _bars(part, ["import"]),
    "calls": lambda part: _bars(part, ["CPU a call"], lambda what: what.endswith("http")),
    "decoder": lambda part: _bars(part, ["events"]),
    "streams": lambda part: _bars(part, ["time", "CPU", "memory"]),
    "batch": lambda part: _bars(part, ["rows", "CPU a row"], lambda what: not what.startswith("journals")),
    "admission": _courses,
    "memory": _over_rows,
}
