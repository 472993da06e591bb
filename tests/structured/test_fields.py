"""Which types have data that is an object of known fields, so that each can be a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic takes typing's own from Python 3.12 on
)

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field, model_serializer
from typing_extensions import TypedDict

from airflow_provider_completion.structured.output_type import OutputType


class Product(BaseModel):
    title: str
    price: float | None = None


class Other(BaseModel):
    title: str
    reason: str


class Renamed(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    title: str = Field(alias="Title")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.title)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Typed(TypedDict):
    a: int
    b: NotRequired[str]


@dataclass
class Data:
    a: int


class Nothing(BaseModel):
    pass


class Whole(RootModel[Product]):
    pass


class Freely(BaseModel):
    a: int

    @model_serializer
    def written(self) -> dict[str, Any]:
        return {"anything": self.a}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Product, ("title", "price")),
        (Product | Other, ("title", "price", "reason")),
        (Renamed, ("Title", "length")),
        (Closed, ("title",)),
        (Tree, ("name", "children")),
        (Typed, ("a", "b")),
        (Data, ("a",)),
        (Whole, ("title", "price")),
        (Open, ()),
        (Freely, ()),
        (Nothing, ()),
        (Product | None, ()),
        (Product | list[Product], ()),
        (list[Product], ()),
        (dict[str, int], ()),
        (Literal["a", "b"], ()),
        (str, ()),
        (Any, ()),
    ],
)
def test_the_fields_of_types(kind: Any, fields: tuple[str, ...]) -> None:
    assert tuple(OutputType(kind).fields) == fields


@pytest.mark.parametrize(
    ("kind", "answer"),
    [(Product, '{"title": "x"}'), (Renamed, '{"Title": "x"}'), (Typed, '{"a": 1}'), (Tree, '{"name": "x"}')],
)
def test_data_has_no_others(kind: Any, answer: str) -> None:
    output_type = OutputType(kind)
    assert set(output_type.read(answer)) <= set(output_type.fields)
