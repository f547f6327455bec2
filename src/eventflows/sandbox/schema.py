"""JSON Schema, with problems told by their place; and short names for the schemas that every platform needs.

fastjsonschema is imported and schemas are compiled when the first request needs them, not at import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

HINT = 'The sandbox needs an extra: pip install "opentelemetry-exporter-eventflows[sandbox]"'

SHA256 = "^[0-9a-f]{64}$"

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
ANY_TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
INTEGER: dict[str, Any] = {"type": "integer"}
BOOLEAN: dict[str, Any] = {"type": "boolean"}
SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean"]}
HASH: dict[str, Any] = {"type": "string", "pattern": SHA256}
# Fields that exist to be read as they are; a digest there never matches, and no platform would say so.
PLAIN: dict[str, Any] = {"type": "string", "minLength": 1, "not": {"pattern": SHA256}}


@dataclass(frozen=True, slots=True)
class Problem:
    """Where and how a value breaks its schema.

    Attributes:
        path: Keys and indices from the validated value to the place.
        rule: The JSON Schema keyword that was broken; or a word of the platform's own.
        text: What is wrong, in words and without the value, which may be personal data.
        expected: The keyword's definition, such as "string" of "type".
        key: The unknown key (additionalProperties) or the missing one (required).
    """

    path: tuple[str | int, ...]
    rule: str
    text: str
    expected: Any = None
    key: str = ""

    @property
    def full_path(self) -> tuple[str | int, ...]:
        """The path down to the unknown or missing key."""
        return (*self.path, self.key) if self.key else self.path


class Schema:
    """A schema that is compiled when it is first used."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self._definition = dict(definition)

    @cached_property
    def _validate(self) -> Callable[[Any], Any]:
        compiled: Callable[[Any], Any] = fastjsonschema().compile(self._definition, use_default=False)
        return compiled

    def problem(self, value: Any) -> Problem | None:
        """The first problem of a value, or None."""
        try:
            self._validate(value)
        except fastjsonschema().JsonSchemaValueException as error:
            return _problem(error)
        return None


def fastjsonschema() -> Any:
    """The library.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        import fastjsonschema as library
    except ImportError:
        raise ImportError(HINT) from None
    return library


def _problem(error: Any) -> Problem:
    # error.name is "data", then ".key" or "[index]" for every step down.
    steps = re.findall(r"\[(\d+)\]|\.([^.\[\]]+)", error.name)
    path = tuple(int(index) if index else key for index, key in steps)
    text = error.message.removeprefix(error.name).strip()
    key = ""
    if error.rule == "additionalProperties":
        key = next((k for k in error.value if k not in error.definition.get("properties", {})), "")
        text = f'unexpected key "{key}"'
    elif error.rule == "required":
        key = next((k for k in error.rule_definition if k not in error.value), "")
        text = f'missing key "{key}"'
    return Problem(path, error.rule, text, error.rule_definition, key)


def shape(properties: Mapping[str, Any], *, required: tuple[str, ...] = (), extra: Any = False) -> dict[str, Any]:
    """An object with these keys; `extra` is what others may be, by default there may be no others."""
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": extra}
    if required:
        schema["required"] = list(required)
    return schema


def array(items: Mapping[str, Any], *, least: int = 1, most: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array", "items": dict(items), "minItems": least}
    if most is not None:
        schema["maxItems"] = most
    return schema


def one_of(*values: Any) -> dict[str, Any]:
    return {"enum": list(values)}


def pattern(expression: str) -> dict[str, Any]:
    return {"type": "string", "pattern": expression}


def one_or_many(pattern: str, most: int | None = None) -> dict[str, Any]:
    """A string or a list of strings of a pattern. Not `anyOf`, which would only say that nothing matched."""
    schema: dict[str, Any] = {"type": ["string", "array"], "pattern": pattern, "minItems": 1}
    schema["items"] = {"type": "string", "pattern": pattern}
    if most is not None:
        schema["maxItems"] = most
    return schema


def words(text: str) -> tuple[str, ...]:
    """A long list of names, written as one text."""
    return tuple(text.split())


def keys(names: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    """The same definition for several keys, given as one text."""
    return {name: dict(definition) for name in words(names)}
