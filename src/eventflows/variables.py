"""The environment variables `OTEL_EXPORTER_EVENTFLOWS_*`: which there are, and what they say.

By OpenTelemetry's rules: empty is unset, only `true` is true, and with a configuration file they count only where it refers
to them. A provider's are `<TYPE>_<SETTING>`, or `<TYPE>_<NAME>_<SETTING>` for the id `type/name`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .checks import Problems, unknown_key
from .errors import ConfigurationError, Problem
from .kinds import Anything, Kind
from .model import SETTINGS, leaves
from .provider_list import TENANTS
from .provider_settings import kinds_of
from .providers import provider_class, provider_types

PREFIX = "OTEL_EXPORTER_EVENTFLOWS_"
CONFIG = PREFIX + "CONFIG"
ENABLED = "enabled"


def variable(path: str) -> str:
    """The variable of a setting: `sending_queue.queue_size` → `OTEL_EXPORTER_EVENTFLOWS_SENDING_QUEUE_QUEUE_SIZE`."""
    return PREFIX + re.sub(r"[^A-Za-z0-9]+", "_", path).upper()


def of_all() -> dict[str, tuple[str, Kind]]:
    """Variable → path and kind of each setting that holds for all providers."""
    found = {}
    for path, kind in leaves(SETTINGS):
        if path != "providers":
            found[variable(path)] = (path, kind)
    return found


def of_provider(provider_type: str) -> dict[str, tuple[str, Kind]]:
    """What stands behind the prefix, the type and the name → path below the provider, and kind."""
    found: dict[str, tuple[str, Kind]] = {}

    class Own:
        settings: Mapping[str, Kind] = {
            k: v for k, v in kinds_of(provider_class(provider_type)).items() if k != "tenant"
        }

    for path, kind in (*leaves(Own), (TENANTS, Anything())):
        found[variable(path)[len(PREFIX) :]] = (path, kind)
    return found


class FromEnvironment:
    """What the variables say.

    Attributes:
        settings: A mapping as a file would hold it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.settings: dict[str, Any] = {}
        self._problems = Problems()
        self._sources: dict[str, str] = {}
        types = sorted(provider_types(), key=len, reverse=True)
        self._types = {variable(one)[len(PREFIX) :]: one for one in types}
        known = of_all()
        for name, value in sorted(environ.items()):
            if not name.startswith(PREFIX) or not value.strip() or name == CONFIG:
                continue
            if name in known:
                self._set(name, *known[name], value.strip())
            else:
                self._of_provider(name, value.strip(), [CONFIG, *known])

    def located(self, error: ConfigurationError) -> ConfigurationError:
        """The same problems and the variables' own, each with the name of the variable to set."""
        return ConfigurationError(problems=[*self._problems.found, *map(self._located, error.problems)])

    def raise_any(self) -> None:
        """
        Raises:
            ConfigurationError: A variable means nothing.
        """
        self._problems.raise_any()

    def _located(self, problem: Problem) -> Problem:
        path = problem.path
        while path and path not in self._sources:
            path = path.rpartition(".")[0]
        if source := self._sources.get(path):
            return replace(problem, source=source)
        keys = problem.path.split(".")
        if keys[0] == "providers" and len(keys) > 2:
            return replace(problem, source=variable(".".join(keys[1:])))
        return problem

    def _set(self, name: str, path: str, kind: Kind, value: str) -> None:
        self._sources[path] = name
        try:
            parsed = kind.from_text(path, value)
        except ConfigurationError as error:
            self._problems.found.extend(replace(problem, source=name) for problem in error.problems)
            return
        _put(self.settings, path, parsed)

    def _of_provider(self, name: str, value: str, known: Iterable[str]) -> None:
        rest = name[len(PREFIX) :]
        prefix = next((one for one in self._types if rest.startswith(one + "_")), None)
        if prefix is None:
            variables = [*known, *(f"{PREFIX}{one}_<SETTING>" for one in self._types)]
            self._problems.found.append(unknown_key("", name, variables))
            return
        provider_type = self._types[prefix]
        settings = {**of_provider(provider_type), ENABLED.upper(): (ENABLED, Anything())}
        own = rest[len(prefix) + 1 :]
        # The longest setting's name wins: EU_RENAME_EVENTS is rename.events of meta/eu.
        endings = sorted((one for one in settings if own == one or own.endswith("_" + one)), key=len, reverse=True)
        if not endings:
            self._problems.found.append(unknown_key("", name, [f"{PREFIX}{prefix}_{one}" for one in settings]))
            return
        account = own[: -len(endings[0])].rstrip("_").lower()
        provider = f"{provider_type}/{account}" if account else provider_type
        path, kind = settings[endings[0]]
        found = self.settings.setdefault("providers", {})
        if path == ENABLED:  # for a provider that needs no setting, such as the console
            if value.lower() == "true":
                found.setdefault(provider, {})
            return
        found.setdefault(provider, {})
        at = f"providers.{provider}.{path}"
        self._sources[at] = name
        try:
            parsed = kind.from_text(at, value)
        except ConfigurationError as error:
            self._problems.found.extend(replace(problem, source=name) for problem in error.problems)
            return
        _put(found[provider], path, parsed)


def _put(target: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for section in sections:
        below_it = target.get(section)
        if not isinstance(below_it, dict):  # the short form was given as well
            below_it = {"include": below_it} if below_it is not None else {}
            target[section] = below_it
        target = below_it
    if isinstance(target.get(key), dict) and not isinstance(value, dict):
        target[key].setdefault("include", value)
    else:
        target[key] = value


def given(environ: Mapping[str, str] | None = None) -> list[str]:
    """The names of the variables that are set, in order."""
    environ = os.environ if environ is None else environ
    return sorted(name for name, value in environ.items() if name.startswith(PREFIX) and value.strip())
