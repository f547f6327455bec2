"""Secrets: what a platform knows us by. Only the request that needs one ever sees its text.

A secret is a text, a file that is read again when it changes (`${file:/run/secrets/token}`), or a function that returns the
text. Whatever prints, logs, copies or serialises it gets a mask.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NoReturn

from .log import Notices

MASK = "***"
_FILE = re.compile(r"\$\{file:([^}]+)\}")
_MAX_FILE = 65_536
_notices = Notices("config")


class SecretUnavailable(Exception):
    """A secret cannot be had at this moment. The message says why, and never holds the secret."""


class _File:
    """A file with one secret, read again when its time, size or inode changes (Kubernetes swaps a link)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._known: tuple[tuple[int, int, int], str] | None = None

    def __call__(self) -> str:
        try:
            found = os.stat(self.path)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if (known := self._known) is not None and known[0] == stamp:
                return known[1]
            with open(self.path, encoding="utf-8") as file:
                text = _usable(file.read(_MAX_FILE), self.path)
        except (OSError, UnicodeError, SecretUnavailable) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else "it is empty or no line of plain text"
            if self._known is None:
                raise SecretUnavailable(f"the file {self.path} is not usable: {reason}") from None
            _notices.warn(
                self.path, "the secret's file %s is not usable (%s); its last text is used", self.path, reason
            )
            return self._known[1]
        self._known = (stamp, text)
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _File) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)


class Secret:
    """A text that only `reveal` gives. Equal where they have the same source.

    Args:
        source: The text; or a function that returns it, called for each request.
        prefix: Stands before it, in the open (`Bearer `).
    """

    __slots__ = ("_prefix", "_source")

    def __init__(self, source: str | Callable[[], str], prefix: str = "") -> None:
        self._source = source
        self._prefix = prefix

    @staticmethod
    def of(given: SecretLike) -> Secret:
        """A secret from what a provider was given: a text, `${file:<path>}`, a function, or a secret."""
        if isinstance(given, Secret):
            return given
        if callable(given):
            return Secret(given)
        text = given.strip()
        match = _FILE.fullmatch(text)
        return Secret(_File(match[1].strip()) if match else text)

    def reveal(self) -> str:
        """The text, as it is now.

        Raises:
            SecretUnavailable: The file cannot be read, or the function fails.
        """
        source = self._source
        if isinstance(source, str):
            text = source
        elif isinstance(source, _File):
            text = source()
        else:
            try:
                text = source()
            except Exception as problem:  # noqa: BLE001 reason: the app's own function, whose message may hold the secret
                raise SecretUnavailable(
                    f"the function that returns the secret raised {type(problem).__name__}"
                ) from None
        return self._prefix + _usable(text, "what the function returned" if callable(source) else "the secret")

    def problem(self) -> str | None:
        """Why it cannot be had, as far as that is known before the first request; a function is not called."""
        if callable(self._source) and not isinstance(self._source, _File):
            return None
        try:
            self.reveal()
        except SecretUnavailable as problem:
            return str(problem)
        return None

    @property
    def is_empty(self) -> bool:
        return self._source == ""

    def behind(self, prefix: str) -> Secret:
        """The same secret with a text before it."""
        return Secret(self._source, prefix + self._prefix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (other._source, other._prefix) == (self._source, self._prefix)

    def __hash__(self) -> int:
        return hash((self._source, self._prefix))

    def __str__(self) -> str:
        return self._prefix + MASK

    __repr__ = __str__

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")


SecretLike = str | Callable[[], str] | Secret


def is_file_reference(text: str) -> bool:
    """Whether a credential of this text would be read from a file."""
    return _FILE.fullmatch(text.strip()) is not None


def bearer(given: SecretLike) -> Secret:
    """The value of an `Authorization: Bearer` header."""
    return Secret.of(given).behind("Bearer ")


def _usable(text: object, source: str) -> str:
    """One line of printable ASCII: a header or query can carry nothing else."""
    found = text.strip() if isinstance(text, str) else ""
    if not found or not found.isascii() or not found.isprintable():
        raise SecretUnavailable(f"{source} is empty, or not one line of printable ASCII")
    return found
