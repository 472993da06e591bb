"""What the server keeps of people: its end users, and what they think of an answer (contract §6)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from airflow_provider_completion.testing.apps import App
from airflow_provider_completion.testing.generation import Generation

#: Whom the server takes a call for that names no user.
DEFAULT_USER = "DEFAULT-USER"
#: The workspace that all apps of a server belong to.
WORKSPACE_ID = str(uuid.uuid5(uuid.NAMESPACE_OID, "local"))


def now() -> str:
    """Return the time as the server writes it here: UTC, whole seconds, no zone."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def end_user_id(app: App, user: str) -> str:
    """Return the id of an app's end user."""
    return _id_of(app.id, user)


@lru_cache
def _id_of(app_id: str, user: str) -> str:
    return str(uuid.uuid5(uuid.UUID(app_id), user))


@dataclass(frozen=True, slots=True)
class EndUser:
    """A user of one app, known since the first call for them."""

    app: App
    user: str
    created_at: str = field(default_factory=now)

    def told(self) -> dict[str, Any]:
        """Return what the server says of them."""
        return {
            "id": end_user_id(self.app, self.user),
            "tenant_id": WORKSPACE_ID,
            "app_id": self.app.id,
            "type": "service_api",
            "external_user_id": self.user,
            "name": None,
            "is_anonymous": self.user == DEFAULT_USER,
            "session_id": self.user,
            "created_at": self.created_at,
            "updated_at": self.created_at,
        }


@dataclass(slots=True)
class Feedback:
    """What a user thinks of an answer.

    :param rating: ``like`` or ``dislike``
    :param content: the user's words, if any
    """

    generation: Generation
    rating: str
    content: str | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)

    def change(self, rating: str, content: str | None) -> None:
        """Overwrite it, its words as well."""
        self.rating, self.content, self.updated_at = rating, content, now()

    def told(self) -> dict[str, Any]:
        """Return what the server says of it."""
        generation = self.generation
        return {
            "id": self.id,
            "app_id": generation.app.id,
            # Each completion has a conversation of its own.
            "conversation_id": str(uuid.uuid5(uuid.UUID(generation.message_id), "conversation")),
            "message_id": generation.message_id,
            "rating": self.rating,
            "content": self.content,
            "from_source": "user",
            "from_end_user_id": end_user_id(generation.app, generation.prompt.user),
            "from_account_id": None,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }
