"""Reading a configuration file: JSON, or YAML 1.2 with the line of each setting, with the environment's variables in place."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .checks import Problems, below
from .errors import ConfigurationError, MissingDependencyError, Problem
from .secret import Secret, is_file_reference
from .substitution import WrongReference, substitute

_MAX_BYTES = 1_000_000
_MAX_VALUES = 50_000
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # 0123 stays a text: it is an id, and not a number
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says.

    Attributes:
        settings: Mappings, lists, texts, numbers and booleans.
        lines: A setting's path → its line.
        unset: A setting's path → the variables that it refers to and that are not set.
        problems: What is wrong with single values and keys.
    """

    name: str
    settings: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    unset: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def located(self, problems: Iterable[Problem]) -> ConfigurationError:
        """The same problems and the file's own, each with file and line, and with the variable where that is not set."""
        known = {problem.path for problem in self.problems}
        found = [*self.problems, *(problem for problem in problems if problem.path not in known)]
        located = (self._located(problem) for problem in found)
        return ConfigurationError(problems=sorted(located, key=lambda problem: problem.line or 0))

    def _located(self, problem: Problem) -> Problem:
        missing = self.unset.get(problem.path, ())
        hint = f" ({', '.join(missing)} is not set in the environment)" if missing else ""
        line, path = None, problem.path
        while path and (line := self.lines.get(path)) is None:
            path = path.rpartition(".")[0]
        return replace(problem, message=problem.message + hint, source=self.name, line=problem.line or line)


def read_file(path: str | os.PathLike[str], environ: Mapping[str, str]) -> ConfigFile:
    """Read a file; one that ends in `.json` needs no YAML parser.

    Raises:
        ConfigurationError: It cannot be read, is too large, or is no mapping.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or type(problem).__name__
        raise ConfigurationError(f"cannot be read: {reason}", path=name) from None
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"is larger than {_MAX_BYTES} bytes", path=name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError("is not UTF-8", path=name) from None
    reader = _Reader(environ)
    try:
        found = reader.json(text) if name.endswith(".json") else reader.yaml(text)
    except RecursionError:
        raise ConfigurationError("is nested too deeply", path=name) from None
    if found is not None and not isinstance(found, dict):
        reader.problems.add("", "must be a mapping of settings")
    read = ConfigFile(name, found or {}, reader.lines, reader.unset, tuple(reader.problems.found))
    if read.problems and not isinstance(found, dict):
        raise read.located(())
    return read


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._count = 0
        self._above: list[int] = []
        self.lines: dict[str, int] = {}
        self.unset: dict[str, tuple[str, ...]] = {}
        self.problems = Problems()

    def _text(self, path: str, text: str, *, plain: bool) -> Any:
        """The value of a scalar."""
        try:
            found = substitute(text, self._environ)
        except WrongReference as problem:
            self.problems.add(path, str(problem))
            return None
        if found.unset:
            self.unset[path] = found.unset
        if not found.file and is_file_reference(found.text):
            return Secret(found.text)  # of a variable, which is not looked into
        if plain and (found.alone or found.text == text):
            return _typed(found.text)
        return None if found.unset and not found.text else found.text

    # --- JSON

    def json(self, text: str) -> Any:
        try:
            found = json.loads(text, object_pairs_hook=_Pairs)
        except ValueError as problem:
            line = getattr(problem, "lineno", None)
            self.problems.found.append(
                Problem("", f"not JSON: {getattr(problem, 'msg', 'a number is too long')}", line=line)
            )
            return None
        return self._of_json("", found)

    def _of_json(self, path: str, value: Any) -> Any:
        if isinstance(value, _Pairs):
            return self._mapping([(key, below(path, key), one) for key, one in value], self._of_json)
        if isinstance(value, list):
            return [self._of_json(f"{path}[{index}]", one) for index, one in enumerate(value)]
        return self._text(path, value, plain=False) if isinstance(value, str) else value

    # --- YAML

    def yaml(self, text: str) -> Any:
        try:
            import yaml
        except ImportError:
            raise MissingDependencyError("A configuration file in YAML (one in JSON does not)", "config") from None
        try:
            root = yaml.compose(text, yaml.BaseLoader)
        except yaml.YAMLError as problem:
            mark = getattr(problem, "problem_mark", None)
            told = getattr(problem, "problem", None) or "it holds a character that YAML does not allow"
            if mark and text[: mark.index + 1].endswith("${"):  # between braces YAML takes that for a mapping
                told += ": between { } or [ ] put ${...} in quotes"
            self.problems.found.append(Problem("", f"not YAML: {told}", line=mark.line + 1 if mark else None))
            return None
        return self._of_yaml("", root) if root is not None else None

    def _of_yaml(self, path: str, node: Any) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES:
            if self._count == _MAX_VALUES + 1:
                self.problems.add("", f"holds more than {_MAX_VALUES} values")
            return None
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self.problems.add(path, f"the tag {node.tag[:40]} means nothing here")
            return None
        if node.id == "scalar":
            return self._text(path, node.value, plain=node.style is None)
        if id(node) in self._above:
            self.problems.add(path, "contains itself")
            return None
        self._above.append(id(node))
        try:
            if node.id == "sequence":
                return [self._of_yaml(f"{path}[{index}]", one) for index, one in enumerate(node.value)]
            pairs = [(key.value, below(path, key.value), value) for key, value in self._pairs(path, node)]
            return self._mapping(pairs, self._of_yaml)
        finally:
            self._above.pop()

    def _pairs(self, path: str, node: Any) -> list[tuple[Any, Any]]:
        """The keys and values of a mapping, behind those that `<<` merges into it."""
        merged: list[tuple[Any, Any]] = []
        own: list[tuple[Any, Any]] = []
        for key, value in node.value:
            if key.id != "scalar":
                self.problems.found.append(Problem(path, "a key must be a text", line=key.start_mark.line + 1))
            elif key.value == "<<" and key.style is None:
                for one in value.value if value.id == "sequence" else [value]:
                    if one.id != "mapping" or any(
                        inner.id == "scalar" and inner.value == "<<" for inner, _ in one.value
                    ):
                        self.problems.add(path, "<< must merge a mapping, which merges none itself")
                    else:
                        merged.extend(pair for pair in one.value if pair[0].id == "scalar")
            else:
                self.lines[below(path, key.value)] = key.start_mark.line + 1
                own.append((key, value))
        names = {key.value for key, _ in own}
        first = {key.value: (key, value) for key, value in reversed(merged) if key.value not in names}
        return [*first.values(), *own]

    def _mapping(self, pairs: list[tuple[str, str, Any]], of: Callable[[str, Any], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, path, value in pairs:
            if key in found:
                self.problems.add(path, "is there twice")
            found[key] = of(path, value)
        return found


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, with those that are there twice."""


def _typed(text: str) -> Any:
    """A plain scalar's value by YAML 1.2, where `no` is a text (and a country)."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
