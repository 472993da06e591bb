"""An event loop in a thread of its own. Whatever interrupts the thread that waits for it is no row's failure: Airflow
raises its time limit, and what a signal means, in whatever line that thread is at.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds after which an exception that another thread has set is noticed. What a signal raises is at once.
_NOTICED = 0.5
#: Seconds for what was interrupted to end by itself. Airflow leaves a killed task about 5 s.
_LONGEST_END = 6.0


def run_in_thread(main: Callable[[], Coroutine[Any, Any, T]], stop: Callable[[str], None]) -> T:
    """Run a coroutine in an event loop of its own thread, and return what it returns.

    If this thread is interrupted, by whatever exception, the coroutine is asked to stop, once; when it has, or after
    some seconds, the exception goes on.

    :param main: makes the coroutine, in that thread
    :param stop: asks it to stop, from any thread, and says why
    """
    outcome: Future[T] = Future()
    over = threading.Event()  # not Thread.join, which takes a thread for ended once an exception has interrupted it

    def run() -> None:
        try:
            with asyncio.Runner() as runner:
                result = runner.run(main())
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
        finally:
            over.set()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="completion-batch", daemon=True)
    try:
        thread.start()
        while not over.wait(_NOTICED):
            pass
    except BaseException as error:
        stop(f"{type(error).__name__}: {error}".rstrip(": "))
        over.wait(_LONGEST_END)
        raise
    return outcome.result()
