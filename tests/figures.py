"""The figures of the documents, drawn from what they say: SVG that reads on a light page and on a dark one."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Literal, NamedTuple

#: What a cell means for the bill: nothing is paid in vain, something may be, an answer is there.
Tone = Literal["free", "maybe", "paid", "safe"]


class Cell(NamedTuple):
    """What a lane says of some phases.

    :param phases: how many, from the one after the last cell's
    """

    text: str
    tone: Tone
    phases: int = 1


#: A call, from left to right. What stands below holds from then on, until the next.
PHASES = (
    "inputs are held against the form",
    "the call is sent",
    "the server names the generation",
    "text comes",
    "the answer is whole",
    "it is in XCom",
)

#: What is true, or what is done, in each phase. The tests that hold it are named in ``docs/when-killed.md``.
LANES: dict[str, tuple[Cell, ...]] = {
    "Was it billed?": (
        Cell("no", "free"),
        Cell("maybe", "maybe", 2),
        Cell("yes", "paid"),
        Cell("yes, and there is an answer", "safe", 2),
    ),
    "Mark failed, clear, SIGTERM, execution_timeout": (
        Cell("nothing is sent", "free"),
        Cell("nobody can stop it: the server runs on", "maybe"),
        Cell("the generation is stopped on the server", "paid", 2),
        Cell("nothing is left to stop", "safe", 2),
    ),
    "SIGKILL: what is left (Airflow 3.3)": (
        Cell("nothing", "free"),
        Cell("that a call was sent", "maybe"),
        Cell("that, and the generation's id", "paid", 2),
        Cell("the answer, its ids and usage", "safe", 2),
    ),
    "the next try (3.3)": (
        Cell("asks", "free"),
        Cell("fails for good", "maybe"),
        Cell("stops the generation, fails for good", "paid", 2),
        Cell("has the answer, at no cost", "safe", 2),
    ),
    'the next try (3.3) with on_maybe_billed="retry"': (
        Cell("asks", "free"),
        Cell("asks again", "maybe"),
        Cell("stops the generation, asks again", "paid", 2),
        Cell("has the answer, at no cost", "safe", 2),
    ),
    "the next try below 3.3": (
        Cell("asks", "free"),
        Cell("asks again, and says that earlier tries may have been billed", "maybe", 5),
    ),
}

_LEFT, _WIDTH, _HEAD, _HEIGHT, _GAP = 205, 132, 66, 58, 6
_STYLE = """
.page { fill: #ffffff; }
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.phase { font-weight: 600; }
.lane { font-weight: 600; }
.mark { stroke: #8c959f; stroke-dasharray: 3 3; }
.free { fill: #d8e8d8; } .maybe { fill: #ffe8b3; } .paid { fill: #ffd3c9; } .safe { fill: #cfe3ff; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; }
  text { fill: #e6edf3; }
  .free { fill: #23402c; } .maybe { fill: #54420e; } .paid { fill: #5c2a20; } .safe { fill: #1b3a66; }
}
"""


def when_killed() -> str:
    """Draw what each way to end a call does, by how far the call has come."""
    width = _LEFT + len(PHASES) * _WIDTH
    height = _HEAD + len(LANES) * (_HEIGHT + _GAP)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>What ends a call, by how far it has come</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for number, phase in enumerate(PHASES):
        left = _LEFT + number * _WIDTH
        drawn.append(f'<line class="mark" x1="{left}" x2="{left}" y1="0" y2="{height}"/>')
        drawn += _text(phase, left + 8, 18, _WIDTH - 12, "phase")
    for number, (lane, cells) in enumerate(LANES.items()):
        top = _HEAD + number * (_HEIGHT + _GAP)
        drawn += _text(lane, 4, top + 20, _LEFT - 12, "lane")
        left = _LEFT
        for cell in cells:
            wide = cell.phases * _WIDTH
            box = f'x="{left + 2}" y="{top}" width="{wide - 4}" height="{_HEIGHT}" rx="6"'
            drawn.append(f'<rect class="{cell.tone}" {box}/>')
            drawn += _text(cell.text, left + 10, top + 20, wide - 16, "cell")
            left += wide
    return "\n".join([*drawn, "</svg>", ""])


def _text(words: str, left: int, top: int, width: int, kind: str) -> list[str]:
    lines = wrap(words, width // (7 if kind == "cell" else 8))
    return [
        f'<text class="{kind}" x="{left}" y="{top + 16 * number}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
