"""The extra link to the app's logs: made on the worker by Airflow 3, by the web server from XCom on Airflow 2."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import BaseOperator, BaseOperatorLink, task

from airflow_provider_completion.exceptions import ConfigurationError, InvalidRequestError
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.links import CompletionLogsLink, CompletionReportLink
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow.dags import run, without_requests
from tests.airflow.test_crash_safety import Instance

KEY = "app-canary-Xq7Zp1"
URL = "https://console.example/app/1/logs?a=b#c"
LOGS, REPORT = CompletionLogsLink(), CompletionReportLink()
IS_AIRFLOW_2 = airflow.__version__.startswith("2.")


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY, form=[], generator=lambda _: "answer")


@pytest.fixture
def console(completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(console_url=URL))


def plain() -> BaseOperator:
    return CompletionOperator(task_id="ask", inputs={})


def mapped() -> Any:
    return CompletionOperator.partial(task_id="ask").expand(inputs=[{}])


def decorated() -> BaseOperator:
    @task.completion
    def ask() -> dict[str, Any]:
        return {}

    return ask().operator


def failing() -> BaseOperator:
    return CompletionOperator(task_id="ask", inputs={"no such": 1}, retries=1, retry_delay=timedelta(hours=1))


def shown(make: Callable[[], Any], link: BaseOperatorLink = LOGS, state: str = "success") -> Any:
    """Run it and return its link as the user interface of this Airflow gets it, None if nothing was left for it."""
    outcome = run(make)
    assert outcome.states["ask"] == ("failed" if make is failing else state)
    from airflow.utils.session import create_session

    with create_session() as session:
        if IS_AIRFLOW_2:
            from airflow.models.taskinstance import TaskInstance

            newest = session.query(TaskInstance).filter_by(task_id="ask").order_by(TaskInstance.run_id.desc()).first()
            return link.get_link(newest.task, ti_key=newest.key)
        from airflow.models.xcom import XComModel

        left = session.query(XComModel).filter_by(task_id="ask", key=link.xcom_key)
        newest = left.order_by(XComModel.timestamp.desc()).first()
        return newest and XComModel.deserialize_value(newest)


@pytest.mark.parametrize("make", [plain, mapped, decorated, failing])
def test_a_console_url_is_a_link_of_the_task(console: None, make: Callable[[], Any]) -> None:
    assert shown(make) == URL


def test_without_one_there_is_no_link_and_no_noise(
    completion_server: LocalCompletionServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shown(plain) == ""
    assert "_link_CompletionLogsLink" not in without_requests(caplog.text + "".join(capfd.readouterr()))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "ftp://x", "/logs", "https://x/\nb", " https://x", 5])
def test_what_is_no_web_address_is_refused_before_anything_is_sent(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch, url: Any
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(console_url=url))
    operator = CompletionOperator(task_id="ask", inputs={})
    with pytest.raises(ConfigurationError, match="'console_url' is no http:// or https:// address"):
        operator.execute({"ti": Instance()})
    assert operator.logs_url is None
    assert not completion_server.calls


@pytest.mark.skipif(IS_AIRFLOW_2, reason="the link needs XCom there")
def test_on_airflow_3_the_link_is_no_xcom_key_of_the_operator_s(console: None) -> None:
    instance = Instance()
    plain().execute({"ti": instance})
    assert instance.pushed.keys() == {"message_id", "task_id", "usage", "answer"}


# -- the report of a batch -------------------------------------------------------------------------------------------


def batch(folder: Path, **arguments: Any) -> Callable[[], Any]:
    rows = [{"text": "a"}]
    return lambda: CompletionBatchOperator(
        task_id="ask",
        rows=rows,
        output=str(folder / "out.csv"),
        columns={"text": "text"},
        check_inputs=False,
        **arguments,
    )


@pytest.mark.parametrize(("deadline", "state"), [(None, "success"), (timedelta(0), "failed")])
def test_a_report_url_is_a_link_of_the_task(
    completion_server: LocalCompletionServer, tmp_path: Path, deadline: Any, state: str
) -> None:
    """Whether the batch has failed or not: there is a report."""
    url = "https://files.example/{{ 'out' }}.report.html"
    asked = batch(tmp_path, report_url=url, deadline=deadline)
    assert shown(asked, REPORT, state) == "https://files.example/out.report.html"
    assert (tmp_path / "out.report.html").exists()


@pytest.mark.parametrize("arguments", [{}, {"report_url": ""}, {"report_url": URL, "dry_run": True}])
def test_what_no_browser_finds_is_no_link(
    completion_server: LocalCompletionServer, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    assert not shown(batch(tmp_path, **arguments), REPORT)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///data/out.report.html", "/data/out.report.html"])
def test_what_is_no_web_address_of_a_report_is_refused_before_anything_is_sent(
    completion_server: LocalCompletionServer, tmp_path: Path, url: str
) -> None:
    with pytest.raises(InvalidRequestError, match="report_url is of no use: it is no http:// or https:// address"):
        batch(tmp_path, report_url=url)().execute({"ti": Instance()})
    assert not [call for call in completion_server.calls if call.path.endswith("/completion-messages")]
