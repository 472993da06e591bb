"""How far a batch is, on a terminal: a bar and a line, several times a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from airflow_provider_completion.batch.progress import Progress

_PER_SECOND = 4


@contextmanager
def progress_bar(progress: Callable[[], Progress | None]) -> Iterator[None]:
    """Show a bar below what else is written to standard error, a terminal.

    :param progress: how far it is, None before that is known
    """
    console = Console(file=sys.stderr, force_terminal=True)

    def shown() -> RenderableType:
        return _shown(now) if (now := progress()) else Text()

    live = Live(get_renderable=shown, console=console, refresh_per_second=_PER_SECOND)
    live.start()
    try:
        yield
    finally:
        with suppress(OSError):  # a terminal that is gone
            live.stop()


def _shown(progress: Progress) -> RenderableType:
    share = progress.ended / progress.total if progress.total else 1.0
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(justify="right", width=5)
    row.add_row(ProgressBar(total=1.0, completed=share), Text(f"{int(share * 100)} %"))
    return Group(row, Text(progress.line(time.monotonic())))
