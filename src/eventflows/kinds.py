"""The kinds of settings. Each knows how it is checked, how it is written in an environment variable, and its JSON Schema.

A tree of kinds is the model of a configuration: what reads a file, the environment's variables, the schema that editors
use and the tables of the documentation all come from it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from inspect import cleandoc
from typing import Any

from . import checks
from .checks import Problems, below, shown, wrong
from .secret import Secret

# A setting that is no text may be written as a reference to a variable of the environment.
REFERENCE: Mapping[str, Any] = {"type": "string", "pattern": r"\$\{"}


class Kind:
    """What all kinds have in common."""

    def read(self, path: str, value: Any) -> Any:
        """The clean value. What `read` returned is read as itself.

        Raises:
            ConfigurationError: All that is wrong with it.
        """
        raise NotImplementedError

    def from_text(self, path: str, text: str) -> Any:  # noqa: ARG002 reason: some kinds name the setting in an error
        """What an environment variable holds, for `read`."""
        return text

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its values."""
        raise NotImplementedError


@dataclass(frozen=True)
class Text(Kind):
    """A string that is not blank."""

    def read(self, path: str, value: Any) -> str:
        return checks.text(path, value)

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "integer"]}


@dataclass(frozen=True)
class Url(Kind):
    """A URL with scheme and host."""

    def read(self, path: str, value: Any) -> str:
        return checks.url(path, value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^https?://|\$\{"}


@dataclass(frozen=True)
class FilePath(Kind):
    """The path of a file or folder."""

    def read(self, path: str, value: Any) -> str:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise wrong(path, f"{shown(value)} must be a path")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class SecretText(Kind):
    """A credential. No error about it shows its value."""

    def read(self, path: str, value: Any) -> Secret:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not (isinstance(value, (str, Secret)) or callable(value)) or (secret := Secret.of(value)).is_empty:
            raise wrong(path, "required, a non-empty string (or ${file:<path>}, or in code a function)")
        if problem := secret.problem():
            raise wrong(path, problem)
        return secret

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "integer"], "writeOnly": True}


@dataclass(frozen=True)
class Boolean(Kind):
    """True or false. In the environment only `true` is true."""

    def read(self, path: str, value: Any) -> bool:
        return checks.boolean(path, value)

    def from_text(self, path: str, text: str) -> Any:  # noqa: ARG002 reason: as the others
        return text.lower() == "true"

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "boolean"}, {"enum": ["true", "false"]}, dict(REFERENCE)]}


@dataclass(frozen=True)
class Number(Kind):
    """A number within limits."""

    least: float | None = None
    most: float | None = None
    whole: bool = False

    def read(self, path: str, value: Any) -> float | int:
        found = checks.number(path, value, self.least, self.most, whole=self.whole)
        return int(found) if self.whole else float(found)

    def schema(self) -> dict[str, Any]:
        number: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        if self.least is not None:
            number["minimum"] = self.least
        if self.most is not None:
            number["maximum"] = self.most
        return {"anyOf": [number, {"type": "string", "pattern": r"^[0-9.]+$|\$\{"}]}


@dataclass(frozen=True)
class Share(Kind):
    """A part of the whole: above 0, and at most 1."""

    def read(self, path: str, value: Any) -> float:
        found = float(checks.number(path, value))
        if not 0 < found <= 1:
            raise wrong(path, f"{shown(value)} must be a number above 0 and at most 1")
        return found

    def schema(self) -> dict[str, Any]:
        number = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
        return {"anyOf": [number, {"type": "string", "pattern": r"^[0-9.]+$|\$\{"}]}


@dataclass(frozen=True)
class Duration(Kind):
    """A time: an integer is milliseconds, a string carries its unit."""

    zero: bool = False

    def read(self, path: str, value: Any) -> float:
        return checks.seconds(path, value, zero=self.zero)

    def schema(self) -> dict[str, Any]:
        number = {"type": "number", "minimum": 0} if self.zero else {"type": "number", "exclusiveMinimum": 0}
        return {"anyOf": [number, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)?$|\$\{"}]}


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    allowed: Sequence[str]

    def read(self, path: str, value: Any) -> str:
        return checks.one_of(path, value, self.allowed)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(self.allowed)}, dict(REFERENCE)]}


@dataclass(frozen=True)
class Texts(Kind):
    """A list of strings; in the environment they have commas between."""

    allowed: Sequence[str] | None = None

    def read(self, path: str, value: Any) -> tuple[str, ...]:
        found = checks.texts(path, value)
        problems = Problems()
        for one in found if self.allowed is not None else ():
            with problems.noted():
                checks.one_of(path, one, self.allowed or ())
        problems.raise_any()
        return found

    def from_text(self, path: str, text: str) -> Any:  # noqa: ARG002 reason: as the others
        return [part.strip() for part in text.split(",") if part.strip()]

    def schema(self) -> dict[str, Any]:
        item: dict[str, Any] = {"type": "string"} if self.allowed is None else {"enum": list(self.allowed)}
        return {"anyOf": [{"type": "array", "items": item}, {"type": "string"}]}


@dataclass(frozen=True)
class Mapped(Kind):
    """Names of the user's own, each with a value of one kind; in the environment `name=value,name=value`, or JSON."""

    of: Kind
    empty: bool = False  # a value may be null

    def read(self, path: str, value: Any) -> dict[str, Any]:
        found = {}
        problems = Problems()
        for name, one in checks.mapping(path, value).items():
            with problems.noted():
                key = checks.text(path, name)
                found[key] = None if one is None and self.empty else self.of.read(below(path, key), one)
        problems.raise_any()
        return found

    def from_text(self, path: str, text: str) -> Any:
        return pairs(path, text)

    def schema(self) -> dict[str, Any]:
        of = self.of.schema()
        return {
            "type": ["object", "null"],
            "additionalProperties": {"anyOf": [of, {"type": "null"}]} if self.empty else of,
        }


@dataclass(frozen=True)
class Anything(Kind):
    """A mapping of any shape."""

    def read(self, path: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise wrong(path, f"must be a mapping, not {type(value).__name__}")
        return value

    def from_text(self, path: str, text: str) -> Any:
        return as_json(path, text)

    def schema(self) -> dict[str, Any]:
        return {"type": "object"}


@dataclass(frozen=True)
class Whatever(Kind):
    """A value of which only its owner knows what it must be."""

    def read(self, path: str, value: Any) -> Any:  # noqa: ARG002 reason: nothing can be wrong with it
        return value

    def schema(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Section(Kind):
    """Settings that belong together, and the dataclass that holds them.

    Args:
        builds: A dataclass whose fields have these names; its docstring describes them, and its defaults are theirs.
        settings: Key → kind.
        check: Given the section and the settings that were given, yields what contradicts itself, as `(key, message)`.
        short: A kind of value that is the short form of the whole section, and the key that it stands for.
    """

    builds: type[Any]
    settings: Mapping[str, Kind]
    check: Callable[[Any, Mapping[str, Any]], Iterable[tuple[str, str]]] | None = None
    short: tuple[type | tuple[type, ...], str] | None = field(default=None)

    def values(self, path: str, given: Any) -> dict[str, Any]:
        """The given settings alone, clean."""
        if isinstance(given, self.builds):
            return {key: getattr(given, key) for key in self.settings}
        if self.short is not None and isinstance(given, self.short[0]):
            given = {self.short[1]: given}
        elif self.short is not None and given is not None and not isinstance(given, Mapping):
            raise wrong(path, f"{shown(given)} must be a list, or a mapping of {', '.join(self.settings)}")
        inner = {key: f"{name}.{key}" for name, kind in self.settings.items() for key in getattr(kind, "settings", ())}
        problems = Problems()
        with problems.noted():
            checks.mapping(path, given, tuple(self.settings), inner)
        found: dict[str, Any] = {}
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if key in self.settings and value is not None:
                with problems.noted():
                    found[key] = self.settings[key].read(below(path, key), value)
        problems.raise_any()
        return found

    def read(self, path: str, value: Any) -> Any:
        if isinstance(value, self.builds):
            return value
        return self.build(path, self.values(path, value))

    def build(self, path: str, values: Mapping[str, Any]) -> Any:
        """The dataclass with these clean values.

        Raises:
            ConfigurationError: They contradict each other.
        """
        built = self.builds(**values)
        problems = Problems()
        for key, message in self.check(built, values) if self.check is not None else ():
            problems.add(below(path, key), message)
        problems.raise_any()
        return built

    def from_text(self, path: str, text: str) -> Any:
        if self.short is not None and not text.lstrip().startswith("{"):
            return self.settings[self.short[1]].from_text(path, text)
        return as_json(path, text)

    def schema(self) -> dict[str, Any]:
        whole = {"type": ["object", "null"], "additionalProperties": False, "properties": properties(self)}
        if self.short is None:
            return whole
        return {"anyOf": [whole, self.settings[self.short[1]].schema()]}


@dataclass(frozen=True)
class Part(Kind):
    """Some of a section's settings, which go before those that hold for all."""

    section: Section
    keys: tuple[str, ...]

    @property
    def settings(self) -> Mapping[str, Kind]:
        return {key: self.section.settings[key] for key in self.keys}

    def read(self, path: str, value: Any) -> dict[str, Any]:
        return Section(self.section.builds, self.settings).values(path, value)

    def schema(self) -> dict[str, Any]:
        return Section(self.section.builds, self.settings).schema()


def properties(section: Section) -> dict[str, Any]:
    """The JSON Schema of each setting of a section, with its description and default."""
    about, defaults = documented(section.builds), {one.name: default_of(one) for one in fields(section.builds)}
    found = {}
    for key, kind in section.settings.items():
        found[key] = described(kind, about.get(key, ""), defaults.get(key))
    return found


def described(kind: Kind, about: str, default: Any = None) -> dict[str, Any]:
    """A kind's JSON Schema with what a person is told; every setting may be left empty."""
    schema = kind.schema()
    if "anyOf" in schema:
        schema = {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    elif isinstance(schema.get("type"), list):
        schema = {**schema, "type": list(dict.fromkeys([*schema["type"], "null"]))}
    elif "type" in schema:
        schema = {**schema, "type": [schema["type"], "null"]}
    if about:
        schema["description"] = about
    if isinstance(default, (str, bool, int, float)):
        schema["default"] = as_written(kind, default)
    return schema


def as_written(kind: Kind, value: Any) -> Any:
    """A clean value as one would write it in a file."""
    if isinstance(kind, Duration):
        milliseconds = round(float(value) * 1000)
        for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
            if milliseconds and milliseconds % length == 0 and (milliseconds >= 2 * length or unit == "s"):
                return f"{milliseconds // length}{unit}"
        return f"{milliseconds}ms" if milliseconds else 0
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


def default_of(one: Field[Any]) -> Any:
    """A dataclass field's default, or MISSING."""
    return one.default_factory() if one.default_factory is not MISSING else one.default


_ENTRY = re.compile(r"^ {4}((?:\w+, )*\w+): (.*(?:\n {6,}.*)*)", re.MULTILINE)


def documented(owner: type[Any]) -> dict[str, str]:
    """What the docstring of a class, and those of its bases, say about each of its attributes or arguments."""
    found: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        text = cleandoc(one.__doc__ or "")
        for names, about in _ENTRY.findall(text):
            found.update(dict.fromkeys(names.split(", "), re.sub(r"\s+", " ", about).strip()))
    return found


def pairs(path: str, text: str) -> Any:
    """`name=value,name=value`, as OTEL_RESOURCE_ATTRIBUTES has it, or a JSON object."""
    if text.lstrip().startswith("{"):
        return as_json(path, text)
    split = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(separator for _, separator, _ in split):
        raise wrong(path, f"{shown(text)} must be a list of name=value with commas between")
    return {name.strip(): one.strip() for name, _, one in split}


def as_json(path: str, text: str) -> Any:
    """A JSON object in a text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise wrong(path, "must be a JSON object")
    return found
