"""Field types that take what servers of all versions send. A field that is only information never fails an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
)
from pydantic_core import core_schema


class ApiModel(BaseModel):
    """A value that the server sent: immutable, unknown fields ignored (contract §9)."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, slots=True)
class Otherwise:
    """Takes what ``make`` returns for a value that does not fit the type.

    Inside pydantic's core, since a validator in Python, for each field of each event, halves the events per second.
    """

    make: Callable[[], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_default_schema(handler(source), default_factory=self.make, on_error="default")


_OR_NONE = Otherwise(lambda: None)
#: What is no number, or so far from any that there can be that the sum of a million would not fit into 64 bits, is
#: refused by XCom, with the answer that it comes with.
_NOT_FAR = Field(ge=-(10**12), le=10**12)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


OptionalText: TypeAlias = Annotated[str | None, _OR_NONE]
#: An id of the server's: one short word of printable ASCII, since it goes into logs and errors, where line ends and
#: escape sequences would forge others. What is no such word is not mended but taken for no id: a changed one would name
#: nothing on the server, or something else.
Id: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,100}$")]
OptionalId: TypeAlias = Annotated[Id | None, _OR_NONE]
#: Reads such an id where there is no model that would.
OPTIONAL_ID: TypeAdapter[str | None] = TypeAdapter(OptionalId)
OptionalInt: TypeAlias = Annotated[Annotated[int, Field(ge=-(2**63), lt=2**63)] | None, _OR_NONE]
OptionalSeconds: TypeAlias = Annotated[Annotated[float, _NOT_FAR] | None, _OR_NONE]
#: Epoch seconds, or ISO text with its offset; always aware.
OptionalDatetime: TypeAlias = Annotated[AwareDatetime | None, _OR_NONE]
#: The same, and ISO text without an offset, which is UTC (contract §6). Slower: not for events.
OptionalUtcDatetime: TypeAlias = Annotated[Annotated[datetime, AfterValidator(_aware)] | None, _OR_NONE]
#: A count that is 0 when the server does not tell it.
Count: TypeAlias = Annotated[int, _NOT_FAR, Otherwise(int)]
#: Decimal text in any notation (``0E-7``, contract §3) or a number; serialised in fixed notation, hence the bounds.
Money: TypeAlias = Annotated[
    Annotated[Decimal, Field(max_digits=40, decimal_places=30)] | None,
    _OR_NONE,
    PlainSerializer(lambda amount: None if amount is None else f"{amount:f}", return_type=str | None, when_used="json"),
]
#: A switch that is off when the server does not tell it.
Switch: TypeAlias = Annotated[bool, Otherwise(bool)]
#: An object that is empty when the server does not tell it.
JsonObject: TypeAlias = Annotated[dict[str, Any], Otherwise(dict)]
