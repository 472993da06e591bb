"""The script that follows the tutorial sees what is not as it is shown. It is run by ``make test-tutorial``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tutorial import PAGE, ROOT, Step, missing, steps

FOLDER = Path("/data/tutorial")
SHOWN = "3 of 3 rows: 3 complete; 0 in flight of 16 (nothing refused so far); 61 tokens, 0.0002725 USD; 0.4 s."
ID = "6388bfcb-b31a-47f1-bce1-8e856a9bfef4"


@pytest.mark.parametrize(
    ("shown", "printed", "numbers_vary", "said"),
    [
        (SHOWN, SHOWN, False, None),
        (
            SHOWN,
            f"[2026-11-27] INFO - {SHOWN.replace('of 16', 'of 19').replace('0.4 s', '12.25 s')} loc=x",
            False,
            None,
        ),
        (SHOWN, SHOWN.replace("61 tokens", "62 tokens"), False, SHOWN),
        (SHOWN, SHOWN.replace("61 tokens", "62 tokens"), True, None),
        (SHOWN, SHOWN.replace("0.0002725", "0.0002726"), False, SHOWN),
        (f"id {ID}.", f"id {ID.replace('6', '7')}.", False, None),
        (f"id {ID}.", "no id.", False, f"id {ID}."),
        ("http://127.0.0.1:5001/v1", "http://127.0.0.1:33621/v1", False, None),
        ("file:///home/you/out.csv", f"file://{FOLDER}/out.csv", False, None),
        ("one\ntwo", "one\nmore\ntwo", False, None),
        ("one\ntwo", "two\none", False, "two"),
    ],
)
def test_what_is_shown_is_held_against_what_is_printed(
    shown: str, printed: str, numbers_vary: bool, said: str | None
) -> None:
    assert missing(Step("", shown.splitlines(), numbers_vary), printed, FOLDER) == said


def test_the_page_is_taken_apart() -> None:
    found = list(steps())
    assert sum(bool(step.shown) for step in found) >= 13
    saved = [step.script.split()[2] for step in found if step.script.startswith("cat > ")]
    assert saved == [
        "app.toml",
        "dags/example_completion.py",
        "products.csv",
        "dags/example_nightly.py",
        "products.csv",
        "many.csv",
    ]


@pytest.mark.parametrize("page", [PAGE, ROOT / "docs" / "quickstart.md"], ids=lambda page: page.stem)
def test_a_page_installs_the_newest_airflow_that_is_tested(page: Path) -> None:
    airflows = re.search(r"^AIRFLOWS := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert airflows
    assert re.findall(r"apache-airflow==([\d.]+)", page.read_text()) == [airflows[1].split()[-1]]
