"""Field types that take what servers of all versions send. A field that is only information never fails an answer."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)


class ApiModel(BaseModel):
    """A value that the server sent: immutable, unknown fields ignored (contract §9)."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _or_none(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


def _or_zero(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return _or_none(value, validate) or 0


def _datetime_or_none(value: Any, validate: ValidatorFunctionWrapHandler) -> datetime | None:
    when: datetime | None = _or_none(value, validate)
    return when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when


OptionalText: TypeAlias = Annotated[str | None, WrapValidator(_or_none)]
OptionalInt: TypeAlias = Annotated[int | None, WrapValidator(_or_none)]
OptionalSeconds: TypeAlias = Annotated[float | None, WrapValidator(_or_none)]
#: Epoch seconds, or ISO text; always aware, naive text is UTC (contract §6, ``/app/feedbacks``).
OptionalDatetime: TypeAlias = Annotated[datetime | None, WrapValidator(_datetime_or_none)]
#: A count that is 0 when the server does not tell it.
Count: TypeAlias = Annotated[int, WrapValidator(_or_zero)]
#: Decimal text in any notation (``0E-7``, contract §3) or a number; serialised in fixed notation.
Money: TypeAlias = Annotated[
    Decimal | None,
    WrapValidator(_or_none),
    PlainSerializer(lambda amount: None if amount is None else f"{amount:f}", return_type=str | None, when_used="json"),
]
#: A switch that is off when the server does not tell it.
Switch: TypeAlias = Annotated[bool, WrapValidator(lambda value, validate: bool(_or_none(value, validate)))]
#: An object that is empty when the server does not tell it.
JsonObject: TypeAlias = Annotated[
    dict[str, Any], WrapValidator(lambda value, validate: _or_none(value, validate) or {})
]
