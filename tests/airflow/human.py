"""A human who answers what a Dag asks, through the API behind Airflow's page "Required Actions"."""

from __future__ import annotations

import signal
import threading
from typing import Any

WAIT_SECONDS = 300.0
_PAUSE_SECONDS = 0.2


class Human(threading.Thread):
    """Answers one request of a Dag that ``dag.test()`` runs meanwhile, in a ``with`` block in the main thread.

    :param chosen: which of the options
    :param values: of the request's params
    """

    def __init__(self, dag_id: str, chosen: str, **values: Any) -> None:
        super().__init__(name="human", daemon=True)
        self.dag_id, self.answer = dag_id, {"chosen_options": [chosen], "params_input": values}
        #: The request as it was shown, and what the API said to the answer.
        self.seen: dict[str, Any] = {}
        self.said: dict[str, Any] = {}
        self._over = threading.Event()
        self._api = _api()

    def __enter__(self) -> Human:
        self._handler = signal.signal(signal.SIGUSR1, _give_up)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        signal.signal(signal.SIGUSR1, self._handler)
        self._api.close()

    def run(self) -> None:
        try:
            self._answer()
        finally:
            # dag.test() would wait for ever. Not by an alarm: Airflow uses that for itself, and switches it off.
            while not self._over.wait(WAIT_SECONDS):
                signal.raise_signal(signal.SIGUSR1)

    def _answer(self) -> None:
        runs = f"/api/v2/dags/{self.dag_id}/dagRuns"
        for _ in range(int(WAIT_SECONDS / _PAUSE_SECONDS)):
            waiting = self._api.get(f"{runs}/~/hitlDetails", params={"state": "awaiting_input"}).json()
            if waiting.get("hitl_details"):
                [self.seen] = waiting["hitl_details"]
                task = self.seen["task_instance"]
                path = f"{runs}/{task['dag_run_id']}/taskInstances/{task['task_id']}/{task['map_index']}/hitlDetails"
                self.said = self._api.patch(path, json=self.answer).json()
                return
            if self._over.wait(_PAUSE_SECONDS):
                return


def _give_up(*_: object) -> None:
    raise TimeoutError("The Dag run did not end.")


def _api() -> Any:
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    api = TestClient(create_app(apps="core"))
    api.headers["Authorization"] = f"Bearer {api.get('/auth/token').json()['access_token']}"
    return api
