"""Whether a journal's answers are those of the app that is asked now: of an app servers tell no more than its name, and
two on one server can have the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.rows import NOT_SENT, Recipient

log = logging.getLogger(__name__)

#: What an attempt to guess a key costs who has its digest: 4 MiB, and some 10 ms.
_WORK: dict[str, int] = {"n": 2**12, "r": 8, "p": 1, "dklen": 16}
_HINT = "If it is another app, app_version='...' asks all rows anew."


class SameApp:
    """Knows the app by the connection and the API key that it is asked with. Each key is that of one app.

    :param recipient: who is asked
    :param api_key: with which
    """

    def __init__(self, recipient: Recipient, api_key: str) -> None:
        self._recipient, self._key = recipient, api_key

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a session notes in its journal: no key, but what tells whether it is the same."""
        asked = self._recipient
        if not asked.conn_id:
            return {}
        app = [asked.base_url, asked.app, asked.app_version]
        key = hashlib.scrypt(self._key.encode(), salt=repr(app).encode(), **_WORK).hex()
        return {"app": app, "conn_id": asked.conn_id, "key": key}

    def expect(self, sessions: Iterable[Mapping[str, Any]], journal: object) -> None:
        """Refuse answers that may be another app's. If only the key of a connection has changed, the log says so.

        :param sessions: the facts of those of a journal, the last first. It counts which has asked this app last
        :param journal: for people
        :raises InvalidRequestError: another connection has asked, with another key
        """
        if not (own := self.facts):
            return
        noted = next((facts for facts in sessions if facts.get("app") == own["app"]), own)
        if noted["key"] == own["key"]:
            return
        conn_id = noted["conn_id"]
        what = f"The journal {journal} was written with another API key"
        if conn_id != own["conn_id"]:
            raise InvalidRequestError(
                f"{what}, that of the connection {conn_id!r}: an app of the same name, perhaps another one.",
                hint=f"{NOT_SENT} {_HINT} If it is the same, ask it through the connection {conn_id!r}.",
            )
        counts = f"of the connection {conn_id}: its answers count, as the app's name is the same."
        log.warning("%s %s %s", what, counts, _HINT)
