"""The report in a real browser, where there is one: nothing runs, nothing is cut off, and hostile text is text."""

from __future__ import annotations

import functools
import html
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.errors import ModelError
from airflow_provider_completion.batch.journal import Entry
from airflow_provider_completion.batch.rows import Row
from tests.batch.rows_out import answered, failed, written
from tests.batch.test_report import HOSTILE, ROWS, SHOWN, course_of

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")

#: A page beside the report that looks at it, and says what it has found.
LOOK = """<!DOCTYPE html><title></title><body style="margin: 0"><script>
onload = () => {
  const found = {};
  let left = 2;
  for (const width of [390, 1280]) {
    const frame = document.createElement("iframe");
    frame.style = `width: ${width}px; height: 900px; border: 0`;
    frame.onload = () => {
      const page = frame.contentDocument, root = page.documentElement;
      const evil = [...page.querySelectorAll("dd.answer pre")].map(one => one.textContent);
      const wide = [...page.querySelectorAll(".wide")].map(one => one.scrollWidth - one.clientWidth);
      found[width] = {
        title: page.title, answers: evil, over: root.scrollWidth - root.clientWidth, hidden: Math.max(...wide),
        active: page.querySelectorAll("script, img, iframe, object, [onerror]").length,
        back: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
        drawn: [...page.querySelectorAll("svg")].every(one => one.getBoundingClientRect().width > 40),
      };
      if (--left == 0) document.body.textContent = "found" + JSON.stringify(found) + "end";
    };
    frame.src = "out.report.html";
    document.body.append(frame);
  }
};
</script>"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "look.html").write_text(LOOK)
    serve = functools.partial(QuietHandler, directory=os.fspath(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/look.html"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def seen(address: str, profile: Path, *, dark: bool) -> dict[str, dict[str, Any]]:
    """Return what the page beside the report has found, at each width."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--virtual-time-budget=20000", "--dump-dom", address,
    ]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    (found,) = re.findall("found({.*})end", told, re.DOTALL)
    answer: dict[str, dict[str, Any]] = json.loads(html.unescape(found))
    return answer


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_runs_and_nothing_is_cut_off(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, address: str, dark: bool
) -> None:
    long = "x" * 5000

    def entry(row: Row) -> Entry:
        if row.index % 3 == 1:
            return failed(ModelError(f"It failed: {long}", code="completion_request_error" * 5))
        return answered(HOSTILE if row.index % 2 else long, running=row.index)

    shown = {"samples": 60, "shown": ["text"], "max_failed": 1.0, "bounds": {"max_price": "20"}}
    course = course_of((0.0, 1, 8, "concurrency", "0"), (5.0, 8, 8, "concurrency", "0.00000001"))
    rows = [{**row, "text": SHOWN + row["text"]} for row in ROWS]
    written(tmp_path / "out.csv", rows, entry, results=shown, course=course)
    found = seen(address, tmp_path_factory.mktemp("profile"), dark=dark)
    assert found.keys() == {"390", "1280"}
    for at in found.values():
        assert at["title"] == "Batch report: out.csv"
        assert at["active"] == 0
        assert SHOWN in at["answers"]
        assert (at["over"], at["hidden"]) == (0, 0)
        assert at["drawn"]
        assert at["back"] == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
