"""The page that people look at: what a manifest says, with charts, as one HTML file that needs no other and no script.

What stands in it comes from servers and models. jinja2 escapes it all; besides, a policy in the page forbids scripts
and addresses, and no text changes the direction of its neighbours.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from airflow_provider_completion.batch.bounds import LAST_ONE
from airflow_provider_completion.batch.course import Course, Moment
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.quantiles import Quantiles
from airflow_provider_completion.batch.samples import Samples

#: What no HTML can have: control characters, halves of characters, and what is none.
_UNSHOWN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
#: Seconds at which the bars of times end: 0.01, 0.02, 0.05, 0.1 and so on, to eleven days.
_ENDS = [round(first * 10.0**power, 2) for power in range(-2, 6) for first in (1, 2, 5)]
#: Width and height that charts are drawn in, whatever they are shown in.
_WIDTH, _HEIGHT = 600, 120


class Bar(NamedTuple):
    """How many rows took so many seconds.

    :param share: of the longest bar
    """

    label: str
    rows: int
    share: float


class Line(NamedTuple):
    """A line of a chart.

    :param points: as SVG has them
    :param last: its last value
    """

    points: str
    last: Any


def report_of(
    manifest: Manifest,
    *,
    waiting: Quantiles | None = None,
    running: Quantiles | None = None,
    course: Course | None = None,
    bounds: Mapping[str, str] | None = None,
    samples: Samples | None = None,
) -> bytes:
    """Return the report of a batch.

    :param waiting: seconds that rows waited
    :param running: seconds of their last call
    :param course: how it went, if anything was asked
    :param bounds: what the user has said of when it is to end, by parameter
    :param samples: rows to be shown with what was asked and answered
    """
    moments = course.moments if course else []
    page = _template().render(
        manifest=manifest,
        name=unquote(PurePosixPath(urlsplit(manifest.output).path).name),
        # How the last row has failed may quote what was asked. The grouped reasons do not.
        problem=(manifest.problem or "").partition(LAST_ONE)[0].rstrip("."),
        waiting=_bars(waiting),
        running=_bars(running),
        flow=_flow(moments),
        prices=_prices(moments),
        reasons=[(reason, seconds) for reason, seconds in (course.reasons if course else []) if seconds],
        refused=moments[-1].refused if moments else 0,
        span=moments[-1].at - moments[0].at if moments else 0.0,
        bounds=bounds or {},
        samples=samples or Samples(),
        width=_WIDTH,
        height=_HEIGHT,
    )
    return page.encode()


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))


def _shown(value: Any) -> Any:
    """Return a value as it can stand in HTML; what is HTML already stays."""
    return value if isinstance(value, Markup) else _UNSHOWN.sub("\ufffd", str(value))


def _bars(quantiles: Quantiles | None) -> list[Bar]:
    """Return how many values are up to each of some round numbers, from the first with any to the last."""
    counts = [0] * (len(_ENDS) + 1)
    for seconds, count in quantiles.counts if quantiles else ():
        counts[bisect_left(_ENDS, seconds)] += count
    if not any(counts):
        return []
    longest = max(counts)
    filled = [place for place, count in enumerate(counts) if count]
    return [Bar(_between(place), counts[place], counts[place] / longest) for place in range(filled[0], filled[-1] + 1)]


def _between(place: int) -> str:
    if place == len(_ENDS):
        return f"above {_ENDS[-1]:,.0f}"
    end = f"{_ENDS[place]:,g}" if _ENDS[place] < 1 else f"{_ENDS[place]:,.0f}"
    return f"{_ENDS[place - 1]:,g} to {end}" if place else f"up to {end}"


def _flow(moments: Sequence[Moment]) -> dict[str, Any] | None:
    """Return the chart of calls in flight, and of how many could be."""
    if len(moments) < 2:
        return None
    in_flight, limit = [moment.in_flight for moment in moments], [moment.limit for moment in moments]
    most = max(*in_flight, *limit, 1)
    times = [moment.at for moment in moments]
    return {
        "most": most,
        "in_flight": Line(_points(times, in_flight, most), max(in_flight)),
        "limit": Line(_points(times, limit, most), limit[-1]),
    }


def _prices(moments: Sequence[Moment]) -> list[tuple[str, Line]]:
    """Return the chart of what was spent in each currency; without any, of tokens."""
    if len(moments) < 2 or not moments[-1].tokens:
        return []
    times = [moment.at for moment in moments]
    spent: dict[str, list[Any]] = {
        currency: [moment.prices.get(currency, 0) for moment in moments] for currency in moments[-1].prices
    }
    spent = spent or {"tokens": [moment.tokens for moment in moments]}
    return [(name, Line(_points(times, values, values[-1]), values[-1])) for name, values in spent.items()]


def _points(times: Sequence[float], values: Iterable[Any], most: Any) -> str:
    """Return a line from left to right, that is as high as the chart where its value is ``most``."""
    width = _WIDTH / ((times[-1] - times[0]) or 1)
    height = _HEIGHT / (float(most) or 1)
    return " ".join(
        f"{(time - times[0]) * width:.1f},{_HEIGHT - float(value) * height:.1f}"
        for time, value in zip(times, values, strict=True)
    )
