"""Conditions on a conversion's attributes, as a provider's `when`: a small expression, or a function in code.

    plan == "pro" and conversion.value >= 10
    shop.id in ["a", "b"] or not user.email
    url.full starts_with "https://shop.example/"

An attribute's name alone asks whether it is there. `not`, `and`, `or` and parentheses bind as in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.]))
  | (?P<name>[^\W\d][\w.\-/]*)
  | (?P<sign>==|!=|<=|>=|<|>|[()\[\],])
    )""",
    re.VERBOSE,
)
_WORDS = frozenset({"and", "or", "not", "in", "starts_with", "true", "false"})
_MAX_DEPTH = 50
_MAX_LENGTH = 10_000

Attributes = Mapping[str, Any]
Test = Callable[[Attributes], bool]


class WrongExpression(ValueError):
    """A condition cannot be read; the message says where and what was expected."""


@dataclass(frozen=True)
class Condition:
    """Whether a conversion is meant; equal where they were written alike.

    Args:
        source: An expression, or a function of the attributes.

    Raises:
        WrongExpression: The expression cannot be read.
    """

    source: str | Callable[[Attributes], object]
    _holds: Callable[[Attributes], object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        holds: Any = _Parser(self.source).whole() if isinstance(self.source, str) else self.source
        object.__setattr__(self, "_holds", holds)

    def holds(self, attributes: Attributes) -> bool:
        """Whether it holds for these attributes. A function's exception is its caller's."""
        return bool(self._holds(attributes))

    def __repr__(self) -> str:
        return repr(self.source) if isinstance(self.source, str) else getattr(self.source, "__qualname__", "a function")

    def __str__(self) -> str:
        return str(self.source) if isinstance(self.source, str) else repr(self)


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def _tokens(source: str) -> Iterator[_Token]:
    at, end = 0, len(source.rstrip())
    while at < end:
        match = _TOKEN.match(source, at)
        if match is None:
            raise WrongExpression(f"column {at + 1}: {source[at : at + 20].strip()!r} is not understood")
        kind = str(match.lastgroup)
        text = match[kind]
        yield _Token("word" if kind == "name" and text in _WORDS else kind, text, match.start(kind))
        at = match.end()
    yield _Token("end", "the end", end)


class _Parser:
    def __init__(self, source: str) -> None:
        if len(source) > _MAX_LENGTH:
            raise WrongExpression(f"longer than {_MAX_LENGTH} characters")
        self._tokens = list(_tokens(source))
        self._at = self._depth = 0

    def whole(self) -> Test:
        test = self._either()
        if self._next.kind != "end":
            raise self._expected("and, or, or the end")
        return test

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, *texts: str, kind: str | None = None) -> _Token | None:
        token = self._next
        wanted = token.kind == kind if kind is not None else token.kind in ("word", "sign") and token.text in texts
        if not wanted:
            return None
        self._at += 1
        return token

    def _expected(self, what: str) -> WrongExpression:
        return WrongExpression(f"column {self._next.at + 1}: expected {what}, found {self._next.text[:40]}")

    def _either(self) -> Test:
        tests = [self._all()]
        while self._take("or"):
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda attributes: any(test(attributes) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._take("and"):
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda attributes: all(test(attributes) for test in tests)

    def _one(self) -> Test:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise WrongExpression(f"nested deeper than {_MAX_DEPTH} levels")
        try:
            if self._take("not"):
                test = self._one()
                return lambda attributes: not test(attributes)
            if self._take("("):
                inner = self._either()
                if not self._take(")"):
                    raise self._expected(")")
                return inner
            return self._attribute()
        finally:
            self._depth -= 1

    def _attribute(self) -> Test:
        name = self._take(kind="name")
        if name is None:
            raise self._expected("an attribute's name, not, or (")
        key = name.text
        if sign := self._take("==", "!=", "<", "<=", ">", ">="):
            compare, value = _COMPARE[sign.text], self._value()
            if sign.text not in ("==", "!=") and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise WrongExpression(f"column {sign.at + 1}: {sign.text} compares with a number")
            return lambda attributes: compare(attributes.get(key), value)
        if self._take("starts_with"):
            prefix = self._value()
            if not isinstance(prefix, str):
                raise WrongExpression(f"column {name.at + 1}: starts_with needs a text in quotes")
            return lambda attributes: (
                str(_scalar(attributes.get(key))).startswith(prefix) and attributes.get(key) is not None
            )
        if self._take("not"):
            if self._next.text != "in":
                raise self._expected("in")
            inside = self._within(key)
            return lambda attributes: not inside(attributes)
        if self._next.kind == "word" and self._next.text == "in":
            return self._within(key)
        return lambda attributes: attributes.get(key) is not None

    def _within(self, key: str) -> Test:
        self._take("in")
        if not self._take("["):
            raise self._expected("[")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        if not self._take("]"):
            raise self._expected(", or ]")
        return lambda attributes: any(_equal(attributes.get(key), value) for value in values)

    def _value(self) -> str | float | int | bool:
        if token := self._take(kind="text"):
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token := self._take(kind="number"):
            return float(token.text) if "." in token.text or len(token.text) > 18 else int(token.text)
        if token := self._take("true", "false"):
            return token.text == "true"
        raise self._expected("a text in quotes, a number, true or false")


def _scalar(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def _equal(found: Any, value: Any) -> bool:
    """A number and its text are equal, since attributes come as either; a list equals what it holds."""
    if isinstance(found, (list, tuple, set, frozenset)):
        return any(_equal(one, value) for one in found)
    if isinstance(found, bool) or isinstance(value, bool):
        return (
            str(found).lower() == str(value).lower() if isinstance(found, (bool, str)) and found is not None else False
        )
    if isinstance(found, (int, float)) and isinstance(value, (int, float)):
        return found == value
    return found is not None and str(found) == str(value)


def _number(found: Any) -> float:
    try:
        return float(found)
    except (TypeError, ValueError, OverflowError):
        return float("nan")  # compares false with everything


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": _equal,
    "!=": lambda found, value: not _equal(found, value),
    "<": lambda found, value: _number(found) < value,
    "<=": lambda found, value: _number(found) <= value,
    ">": lambda found, value: _number(found) > value,
    ">=": lambda found, value: _number(found) >= value,
}
