"""Exceptions of EventFlows.

    ValueError
    ├── ConfigurationError
    │   └── MissingDependencyError
    └── Unusable

Only configuration raises, once, at start. Bad data at run time never does: it is counted with a reason, and `Unusable` does not
leave the event that it is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration. It never holds a secret.

    Attributes:
        path: Which setting (`providers.meta.pixel_id`); empty where it is the whole.
        message: What is wrong with it, and what is allowed.
        source: The file that it stands in, or the environment variable.
        line: Where in that file, counted from 1; None where that is not known.
    """

    path: str
    message: str
    source: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = self.source + (f", line {self.line}" if self.line is not None else "")
        # The name of a variable says which setting it is.
        path = "" if self.source.startswith("OTEL_") else self.path
        return ": ".join(part for part in (where, path, self.message) if part)


class ConfigurationError(ValueError):
    """Settings are missing, unknown or wrong. The message names each of them and what is allowed.

    Args:
        message: The one problem.
        path: Which setting it is about.
        problems: Several problems, in place of the one.

    Attributes:
        problems: All that were found.
    """

    def __init__(self, message: str = "", *, path: str = "", problems: Iterable[Problem] = ()) -> None:
        self.problems = tuple(problems) or (Problem(path, message),)
        told = [str(problem) for problem in self.problems]
        super().__init__(
            told[0] if len(told) == 1 else f"{len(told)} problems:\n" + "\n".join(f"  {one}" for one in told)
        )


class MissingDependencyError(ConfigurationError, ImportError):
    """A feature needs a package of one of the extras, which is not installed.

    Args:
        feature: What was asked for, as a user would say it.
        extra: The extra of this distribution that brings the package.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an extra: pip install "opentelemetry-exporter-eventflows[{extra}]"')


class Unusable(ValueError):
    """A value is neither a raw identifier of its kind nor a digest. The message never holds the value."""
