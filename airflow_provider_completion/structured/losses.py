"""What pydantic loses of an answer's data without a word, as the core schema of a type tells it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import SchemaValidator, from_json, to_json

#: What a core schema, or as ``str_...`` the configuration around it, says of text that it changes.
_CHANGES = ("strip_whitespace", "to_lower", "to_upper")


def mentions_decimals(schema: Any) -> bool:
    """Tell whether a type has decimals, of which pydantic reads a JSON number as a float first."""
    return any(node.get("type") == "decimal" for node, _ in _nodes(schema))


def hides_secrets(schema: Any) -> bool:
    """Tell whether a type writes asterisks in the place of a secret."""
    hiding = set(_writers(TypeAdapter(SecretStr | SecretBytes | Secret[str]).core_schema))
    return not hiding.isdisjoint(_writers(schema))


class Keys:
    """The keys of a type's dicts: some that differ in JSON are one to it, as ``"1"`` and ``"01"`` are as ``int``.

    :param schema: the type's
    """

    def __init__(self, schema: Any) -> None:
        whole = schema if schema["type"] == "definitions" else {"type": "definitions", "definitions": []}
        self._dicts = [SchemaValidator({**whole, "schema": node}, config) for node, config in _dicts(schema)]

    def merge(self, text: str) -> bool:
        """Tell whether two keys of an object are one.

        :param text: JSON of the type
        """
        return bool(self._dicts) and any(
            self._fewer(kind, item) for item in objects_in(from_json(text)) for kind in self._dicts
        )

    def _fewer(self, kind: SchemaValidator, item: dict[str, Any]) -> bool:
        try:
            return len(kind.validate_json(to_json(item))) < len(item)
        except Exception:  # it is no such dict; of a validator of the user's, any
            return False


def objects_in(data: Any) -> Iterator[dict[str, Any]]:
    """Find all objects in plain JSON data, itself included."""
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _dicts(schema: Any) -> Iterator[tuple[Any, Any]]:
    """Find the schemas of dicts whose keys can be changed, each with the configuration around it."""
    for node, config in _nodes(schema):
        if node.get("type") == "dict" and (keys := node.get("keys_schema")):
            changed = any(keys.get(name) or (config or {}).get(f"str_{name}") for name in _CHANGES)
            if changed or keys["type"] not in ("str", "any"):
                yield node, config


def _nodes(schema: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Find all parts of a core schema, each with the configuration around it."""
    waiting: list[tuple[Any, Any]] = [(schema, None)]
    while waiting:
        item, config = waiting.pop()
        if isinstance(item, dict):
            config = item.get("config", config)
            yield item, config
            waiting.extend((part, config) for part in item.values())
        elif isinstance(item, list | tuple):
            waiting.extend((part, config) for part in item)


def _writers(schema: Any) -> Iterator[Any]:
    """Find the functions that write what a core schema describes; below a plain one there are none that count."""
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            writer = item.get("serialization")
            if isinstance(writer, dict) and writer.get("type") == "function-plain":
                yield writer["function"]
                waiting.append(writer.get("return_schema"))
            else:
                waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
