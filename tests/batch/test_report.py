"""The report: the manifest's figures, for people; whatever servers and models say is text in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.errors import InvalidRequestError, ModelError, ServerError
from airflow_provider_completion.batch.bounds import Bounds
from airflow_provider_completion.batch.course import Course, Moment
from airflow_provider_completion.batch.ending import Status
from airflow_provider_completion.batch.journal import Entry
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.outcomes import Outcome
from airflow_provider_completion.batch.quantiles import Quantiles
from airflow_provider_completion.batch.report import report_of
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.samples import Samples
from airflow_provider_completion.batch.spending import Spent
from tests.batch.rows_out import answered, failed, written

HOSTILE = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    "</pre></dd></style><!-- {{ 7 * 7 }} {% raw %} \u202ereversed &amp; ' \" \x00 \x1b[31m \uffff"
)
#: What of it people see.
SHOWN = re.sub("[\x00\x1b\uffff]", "\ufffd", HOSTILE)
ROWS = [{"sku": f"K-{number}", "text": f"canary-prompt {number}"} for number in range(60)]
VOID = {"meta", "br", "rect"}


class Page(HTMLParser):
    """A report as browsers read it: its tags, which must be well nested, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.terms: dict[str, str] = {}
        self.pieces: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in {"td", "th"}:
            self.cells[-1].append("")
        elif tag == "dd":
            self._term = self.pieces[-1]
            self.terms[self._term] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.pieces.append(data)
        if {"td", "th"} & set(self._open):
            self.cells[-1][-1] += data
        if "dd" in self._open:
            self.terms[self._term] += data.strip()

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def row(self, head: str) -> list[str]:
        """Return the other cells of the first row that begins with this one."""
        return next([cell.strip() for cell in cells[1:]] for cells in self.cells if cells[0].strip() == head)


def page_of(path: Path) -> Page:
    return Page(path.read_bytes())


def mixed(row: Row) -> Entry:
    if row.index % 10 == 3:
        return failed(ModelError(f"It failed: {HOSTILE}", code="<b>"), waiting=0.3, running=4.0)
    if row.index % 10 == 4:
        return answered("cut of", finish="suspect", running=0.02)
    return answered(of_round="before") if row.index < 3 else answered("canary-answer", running=row.index / 7)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_its_figures_are_the_manifest_s(tmp_path: Path) -> None:
    manifest = written(tmp_path / "out.csv", ROWS * 20, mixed, results={"max_failed": 0.5})
    assert manifest.report == (tmp_path / "out.report.html").as_uri()
    page = page_of(tmp_path / "out.report.html")
    assert page.terms.pop("Price of these") == f"{manifest.asked.prices['USD']} USD"
    assert {name: number(value) for name, value in page.terms.items()} == {
        "Rows": 1200,
        "With an answer": manifest.counts["complete"],
        "Without one": sum(manifest.counts.values()) - manifest.counts["complete"],
        "Asked for now": manifest.asked.rows,
        "Tokens of these": manifest.asked.total_tokens,
    }
    for status, rows in manifest.counts.items():
        if rows:
            count, share, _ = page.row(status)
            assert (number(count), share) == (rows, f"{rows / 12:.1f} %")
    for name, label in (("prompt", "Prompt"), ("completion", "Completion"), ("total", "All")):
        told = [number(cell) for cell in page.row(f"{label} tokens")]
        assert told == [getattr(spent, f"{name}_tokens") for spent in (manifest.asked, manifest.found)]
    assert page.row("Price") == [f"{spent.prices['USD']} USD" for spent in (manifest.asked, manifest.found)]
    assert manifest.found.rows
    for what, values in (("Waiting before the last call", manifest.waiting), ("The last call", manifest.running)):
        assert values
        told_seconds = [float(cell.removesuffix(" s")) for cell in page.row(what)]
        assert told_seconds == pytest.approx([value for _, value in values], rel=1e-3)
    reasons = [(number(cells[0]), cells[1]) for cells in page.cells if len(cells) == 3 and "rows 4" in cells[2]]
    assert reasons == [(manifest.reasons[0].rows, "failed")]
    assert manifest.output in page.text


def test_each_time_is_in_one_bar(tmp_path: Path) -> None:
    def entry(row: Row) -> Entry:
        return answered(waiting=0.0, running=(0.005, 0.015, 3, 3, 3, 5000, 2_000_000)[row.index])

    written(tmp_path / "out.csv", ROWS[:7], entry)
    page = page_of(tmp_path / "out.report.html")
    label = re.compile(r"(up to|[\d.,]+ to|above) [\d.,]+")
    bars = {cells[0]: number(cells[1]) for cells in page.cells if label.fullmatch(cells[0])}
    assert {name: rows for name, rows in bars.items() if rows} == {
        "up to 0.01": 1, "0.01 to 0.02": 1, "2 to 5": 3, "2,000 to 5,000": 1, "above 500,000": 1,
    }  # fmt: skip
    assert "0.02 to 0.05" in bars


@pytest.mark.parametrize("published", [True, False])
def test_what_is_hostile_is_text(tmp_path: Path, published: bool) -> None:
    # What is sent has no NUL.
    rows = [{"sku": HOSTILE, "text": SHOWN, HOSTILE: HOSTILE}] + [{"text": "x"}] * 3

    def entry(row: Row) -> Entry:
        return failed(ModelError(f"{HOSTILE}\ud800", code=HOSTILE)) if row.index else answered(HOSTILE)

    name = "<b>&amp;.jsonl"
    manifest = written(
        tmp_path / name,
        rows,
        entry,
        results={"max_failed": 3 if published else 0, "samples": 5, "shown": ["sku", "text", HOSTILE]},
    )
    assert manifest.counts["complete"] == 1
    raw = (tmp_path / "<b>&amp;.report.html").read_bytes()
    page = Page(raw)
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", raw)
    assert {"script", "img", "b"}.isdisjoint(tag for tag, _ in page.tags)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.terms["Answer"] == page.terms["sku"] == page.terms[SHOWN] == SHOWN
    assert page.terms["Why it is none"] == f"{SHOWN}\ufffd"
    assert [cells[2].count(SHOWN) for cells in page.cells if cells[1:2] == ["failed"]] == [2]  # code and message
    assert "Batch report: <b>&amp;.jsonl" in page.text
    # Nothing else is loaded, and nothing could be.
    assert not {"src", "href", "action", "srcset", "xlink:href"} & {name for _, found in page.tags for name in found}
    policy = next(found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert b"url(" not in raw
    assert b"@import" not in raw


def test_neither_prompts_nor_answers_are_in_it_unless_they_are_asked_for(tmp_path: Path) -> None:
    def entry(row: Row) -> Entry:
        if row.index % 2:
            return answered(f"canary-answer {row.index}")
        return failed(ModelError(f"It failed: canary-prompt {row.index} is bad"))

    how: dict[str, Any] = {"max_failed": 1.0, "shown": ["text"]}
    for output_type in (None, list[int]):
        written(tmp_path / "out.csv", ROWS, entry, results=how, output_type=output_type)
        assert "canary" not in page_of(tmp_path / "out.report.html").text
    written(tmp_path / "out.csv", ROWS, entry, results={**how, "samples": 2})
    page = page_of(tmp_path / "out.report.html")
    assert len(re.findall("canary-answer", page.text)) == 2
    assert len(re.findall(r"canary-prompt", page.text)) == 6  # two of them in the words of the failure as well
    assert "K-" not in page.text


def test_the_words_of_the_last_failure_are_not_in_it(tmp_path: Path) -> None:
    """They may quote what was asked, where nobody has noticed it."""
    bounds = Bounds(Rules(concurrency=1), Spent())
    last = ModelError("It failed: canary-prompt is bad", retry="never")
    for number in range(20):
        bounds.end("failed", last, sent_after=number, said=last.message)
    reached = bounds.reached
    assert reached
    assert "canary" in str(reached.error)
    manifest = written(tmp_path / "out.csv", ROWS, lambda _: Entry(), stopped=reached.error.message)
    assert "canary" in str(manifest.problem)
    text = page_of(tmp_path / "out.report.html").text
    assert "canary" not in text
    assert "60 of 60 rows were not asked" in text


@pytest.mark.parametrize("size", [-1, True, 1.5, "5", 1001, None])
def test_so_many_samples_there_cannot_be(tmp_path: Path, size: Any) -> None:
    with pytest.raises(InvalidRequestError, match="report_samples is no whole number"):
        written(tmp_path / "out.csv", ROWS, results={"samples": size})


# -- samples ---------------------------------------------------------------------------------------------------------


def chosen(count: int, size: int, status: Callable[[int], Status] = lambda _: "complete") -> Samples:
    samples = Samples(size, ["text"])
    for index in range(count):
        samples.add(Row(index, {"text": "x"}, None, None, None, None, None), Outcome(status(index), value="y"))
    return samples


def test_samples_come_from_all_of_the_rows() -> None:
    numbers = [sample.number for sample in chosen(10_000, 100).complete]
    assert len(set(numbers)) == 100
    assert numbers == sorted(numbers)
    assert all(sum(low < number <= low + 2500 for number in numbers) > 10 for low in range(0, 10_000, 2500))
    assert [sample.number for sample in chosen(10_000, 100).complete] == numbers
    assert [sample.number for sample in chosen(3, 100).complete] == [1, 2, 3]


def test_rows_that_were_not_asked_are_no_samples() -> None:
    samples = chosen(40, 100, lambda index: ("complete", "skipped", "failed", "rejected")[index % 4])  # type: ignore[return-value]
    assert (len(samples.complete), len(samples.failed)) == (10, 20)


def test_a_sample_is_cut() -> None:
    samples = Samples(1, ["text"])
    samples.add(
        Row(0, {"text": "x" * 1_000_000}, None, None, None, None, None), Outcome("complete", value={"a": ["é"] * 9000})
    )
    (sample,) = samples.complete
    assert sample.columns["text"].endswith("x… (1,000,000 characters)")
    assert sample.answer
    assert sample.answer.startswith('{"a": ["é", "é"')
    assert len(sample.answer) < 2100


# -- how it went -----------------------------------------------------------------------------------------------------


def moment(at: float, **more: Any) -> Moment:
    told = {"in_flight": 4, "limit": 8, "reason": "concurrency", "refused": 0, "tokens": 0, "prices": {}, **more}
    return Moment(at, **told)


def manifest_of(**more: Any) -> Manifest:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    told = {
        "output": "file:///data/out.csv",
        "published": True,
        "problem": None,
        "failed": None,
        "journal": None,
        "report": "file:///data/out.report.html",
        "stopped": None,
        "rows": 0,
        "counts": dict.fromkeys(("complete", "failed", "rejected", "invalid_output", "suspect", "skipped"), 0),
        "reasons": [],
        "asked": {},
        "found": {},
        "equal": 0,
        "reused": 0,
        "maybe_billed": 0,
        "possibly_billed_twice": 0,
        "may_pass": 0,
        "waiting": None,
        "running": None,
        "begun_at": begun,
        "ended_at": begun + timedelta(seconds=5),
        "seconds": 5.0,
        **more,
    }
    return Manifest.model_validate(told)


def course_of(*moments: tuple[float, int, int, str, str]) -> Course:
    """Return a course of these: times, calls in flight, limits, their reasons, prices."""
    course = Course()
    for at, in_flight, limit, reason, price in moments:
        prices = {"USD": Decimal(price)}
        course.add(moment(at, in_flight=in_flight, limit=limit, reason=reason, refused=7, tokens=5, prices=prices))
    return course


def lines_of(page: Page) -> dict[str | None, list[tuple[float, float]]]:
    return {
        found["class"]: [tuple(map(float, point.split(","))) for point in str(found["points"]).split()]  # type: ignore[misc]
        for tag, found in page.tags
        if tag == "polyline"
    }


def test_the_course_is_drawn() -> None:
    course = course_of(
        (100.0, 0, 16, "nothing refused so far", "0"),
        (101.0, 20, 40, "the server wants no calls for 9 s", "0.25"),
        (102.0, 10, 40, "the server wants no calls for 8 s", "0.50"),
        (110.0, 0, 20, "the server takes 20", "1.00"),
    )
    page = Page(report_of(manifest_of(), course=course))
    lines = lines_of(page)
    assert lines["flying"] == [(0, 120), (60, 60), (120, 90), (600, 120)]
    assert lines["limit"] == [(0, 72), (60, 0), (120, 0), (600, 60)]
    assert lines["spent"] == [(0, 120), (60, 90), (120, 60), (600, 0)]
    labels = [found["aria-label"] for tag, found in page.tags if tag == "svg" and found.get("role") == "img"]
    assert labels == [
        "What was spent rises to 1.00 USD.",
        "At most 20 calls were in flight; at the end 20 could be.",
    ]
    assert page.row("the server wants no calls") == ["9 s"]
    assert page.row("nothing refused so far") == ["1 s"]
    assert "has refused 7 calls" in page.text


def test_without_prices_tokens_are_drawn() -> None:
    course = Course()
    for at, tokens in ((1.0, 0), (2.0, 50), (3.0, 200)):
        course.add(moment(at, tokens=tokens))
    page = Page(report_of(manifest_of(), course=course))
    assert lines_of(page)["spent"] == [(0, 120), (300, 90), (600, 0)]
    assert "200 tokens" in page.text


@pytest.mark.parametrize("times", [[], [5.0], [5.0, 5.0]])
def test_a_batch_that_was_over_at_once_has_a_report(times: list[float]) -> None:
    course = Course()
    for at in times:
        course.add(moment(at))
    assert "There are no rows." in Page(report_of(manifest_of(), course=course, running=Quantiles())).text


def test_a_long_course_takes_little_memory_and_has_its_ends() -> None:
    course, added = Course(), 0
    for tick in range(1_000_000):
        if course.is_due(tick * 0.01):
            course.add(moment(tick * 0.01))
            added += 1
    times = [found.at for found in course.moments]
    assert len(times) <= 240
    assert added < 5000
    assert times[0] == 0
    assert times[-1] > 9800
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < 2.1 * min(gaps)


def test_the_manifest_that_is_written_names_it(tmp_path: Path) -> None:
    written(tmp_path / "out.csv", ROWS, lambda _: failed(ServerError("Down.")))
    assert json.loads((tmp_path / "out.manifest.json").read_text())["report"].endswith("/out.report.html")


def test_all_bounds_are_told() -> None:
    rules = Rules(concurrency=2, requests_per_minute=60, max_tokens=5)
    told = {"concurrency": "2", "requests_per_minute": "60", "max_failed": "0", "max_tokens": "5"}
    assert rules.bounds == told
