"""Environment variables in a configuration file, by the rules of OpenTelemetry's declarative configuration.

`${NAME}`, `${env:NAME}` and `${NAME:-default}` stand for a variable's value, and `$$` for a `$`. Only values are substituted,
after the file is parsed, so that no variable can bring structure into it; and what a variable holds is not looked into again.
https://opentelemetry.io/docs/specs/otel/configuration/data-model/#environment-variable-substitution
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_REFERENCE = re.compile(
    r"""(?P<escaped>\$\$)
      | \$\{ (?:env:)? (?P<name>[A-Za-z_][A-Za-z0-9_]*) (?: :- (?P<default>[^}\n]*) )? \}
      | (?P<file>\$\{file:[^}]+\})
      | \$\{ (?P<invalid>[^}]*) \}
    """,
    re.VERBOSE,
)


class WrongReference(ValueError):
    """A reference is none that the rules know; the message says which, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Substituted:
    """A value with its variables in place.

    Attributes:
        alone: The whole value was one reference; unquoted, its type is then that of what came in its place.
        file: The whole value is a reference to a file, which stays as it is for the credential that it belongs to.
        unset: The variables that are unset or empty, and have no default.
    """

    text: str
    alone: bool = False
    file: bool = False
    unset: tuple[str, ...] = ()


def substitute(text: str, environ: Mapping[str, str]) -> Substituted:
    """Put the environment's variables in the place of their references.

    Raises:
        WrongReference: A reference names nothing that a variable can be called.
    """
    if "$" not in text:
        return Substituted(text)
    unset: list[str] = []

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["file"]:
            if match.group() != text.strip():
                raise WrongReference("${file:...} must be the whole value")
            return match.group()
        if match["name"] is None:
            raise WrongReference(
                f"${{{match['invalid'][:40]}}} is no reference: write ${{NAME}}, ${{NAME:-default}} or ${{file:<path>}}, "
                "and $$ for a $"
            )
        found = environ.get(match["name"]) or match["default"]
        if not found:
            unset.append(match["name"])
        return found or ""

    whole = _REFERENCE.fullmatch(text)
    alone = whole is not None and whole["name"] is not None
    file = (stripped := _REFERENCE.fullmatch(text.strip())) is not None and stripped["file"] is not None
    return Substituted(_REFERENCE.sub(value, text), alone, file, tuple(unset))
