"""What people and programs think of an answer (contract §6)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from airflow_provider_completion.api.fields import (
    ApiModel,
    Id,
    OptionalId,
    OptionalText,
    OptionalUtcDatetime,
    Otherwise,
)

#: None withdraws what was said before.
Rating: TypeAlias = Literal["like", "dislike"] | None


#: What people, templates and upstream tasks may say, in small letters, and the API's own word for it.
_SAID: dict[str, Rating] = {
    "like": "like",
    "true": "like",
    "dislike": "dislike",
    "false": "dislike",
    "withdraw": None,
}


def rating_of(said: object) -> Rating:
    """Return the rating that somebody has said.

    :raises ValueError: it is none; says what it must be
    """
    text = str(said).strip().lower()
    if text not in _SAID:
        raise ValueError(f"is neither 'like' nor 'dislike' nor 'withdraw' (nor True or False), but {text[:40]!r}")
    return _SAID[text]


class Feedback(ApiModel):
    """One piece of feedback, of any end user of the app.

    :param from_source: ``user`` through the API, ``admin`` in the server's console
    """

    id: Id
    message_id: OptionalId = None
    rating: Annotated[Rating, Otherwise(lambda: None)] = None
    content: OptionalText = None
    from_source: OptionalText = None
    from_end_user_id: OptionalId = None
    from_account_id: OptionalId = None
    app_id: OptionalId = None
    conversation_id: OptionalId = None
    created_at: OptionalUtcDatetime = None
    updated_at: OptionalUtcDatetime = None
