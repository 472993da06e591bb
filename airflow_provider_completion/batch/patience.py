"""A row that the server does not take, again and again: for how long it lets others go first, and when it is given up.

Where others are refused as well they all lack room; where others are taken it is the row. No I/O and no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from airflow_provider_completion.api.errors import CompletionError, ThrottledError

#: A row that was refused so often in a row lets others go first, for so many seconds: first, and at last.
_LETS_OTHERS, _FIRST_PAUSE, _LAST_PAUSE = 3, 2.0, 30.0
#: A row that others have overtaken so often is given up.
_MOST_OVERTAKEN = 20


@dataclass(slots=True)
class Patience:
    """That with one row, since the server has last taken it.

    :param times: how often it was refused
    :param overtaken: how often of these others had been taken since the last, and fewer of them refused
    :param lets_until: until when others go first
    :param taken: how many calls of the batch the server had taken at the last
    :param refused: how many it had refused
    """

    times: int = 0
    overtaken: int = 0
    lets_until: float = -math.inf
    taken: int = 0
    refused: int = 0

    def seconds(self, now: float, *, asked: bool, taken: int, refused: int) -> float | None:
        """Return for how long the row lets others go first, now that it was refused once more; None if it is given up.

        :param asked: whether its call was to find out whether the server takes more than it did: that was refused then
        :param taken: how many calls of the batch the server has taken by now
        :param refused: how many it has refused, with this one, but for those that asked
        """
        self.times += 1
        if now < self.lets_until:  # there were no others
            return self.lets_until - now
        if not asked:
            others = refused - self.refused - 1
            self.overtaken += self.times > 1 and taken - self.taken > others
            self.taken, self.refused = taken, refused
        if self.times < _LETS_OTHERS:
            return 0.0
        if self.overtaken >= _MOST_OVERTAKEN:
            return None
        seconds = min(_FIRST_PAUSE * 2.0**self.overtaken, _LAST_PAUSE)
        self.lets_until = now + seconds
        return seconds

    def failure(self, error: CompletionError) -> CompletionError | None:
        """Return why the row has no answer if it is not sent once more, None if it does not seem to be the row.

        :param error: the refusal
        """
        if self.overtaken <= 1:
            return None
        return ThrottledError(
            f"It was refused {self.times} times in a row, though others were taken meanwhile. The last time: "
            f"{error.message}",
            hint="It may be more than a limit allows at a time, as of the model provider for the tokens of a minute. A "
            "later try asks it again.",
            status=error.status,
            code=error.code,
        )
