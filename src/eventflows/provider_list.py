"""The setting `providers`: objects in code, or a mapping of ids to settings, where `tenants` makes several of one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from . import checks
from .checks import Problems, below, shown, wrong
from .errors import ConfigurationError, Problem
from .kinds import Kind
from .provider_settings import kinds_of, required
from .providers import provider_class, provider_types
from .providers.base import Provider
from .selection import Tenant

TENANTS = "tenants"


@dataclass(frozen=True)
class Providers(Kind):
    """Destinations by id: a provider's type, or `type/name`."""

    def read(self, path: str, value: Any) -> tuple[Provider, ...]:
        problems = Problems()
        found: list[Provider] = []
        if isinstance(value, Mapping):
            for name, options in value.items():
                with problems.noted():
                    found.extend(_of_mapping(below(path, name), str(name), options))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for one in value:
                if isinstance(one, Provider):
                    found.append(one)
                else:
                    problems.add(path, f"{type(one).__name__} is not a Provider (such as MetaProvider(...))")
        else:
            problems.add(path, "must be a list of providers, or a mapping of their ids to their settings")
        names = [one.name for one in found]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            problems.add(path, f"two are named {name!r}; give one name='{name.partition('/')[0]}/other'")
        problems.raise_any()
        return tuple(found)

    def schema(self) -> dict[str, Any]:
        raise NotImplementedError  # `config_schema` makes it, as it depends on the types that are installed


def of_settings(name: str, options: Mapping[str, Any] | None) -> Provider:
    """One provider from its id and its settings, as in a configuration file.

    Raises:
        ConfigurationError: All that is wrong with them.
    """
    (built,) = _of_mapping(f"providers.{name}", name, options)
    return built


def _of_mapping(path: str, name: str, options: Any) -> Iterator[Provider]:
    try:
        cls = provider_class(name.partition("/")[0])
    except ConfigurationError:
        near = get_close_matches(name, provider_types(), 1)
        hint = f", did you mean {near[0]}?" if near else ";"
        found = shown(name.partition("/")[0])
        raise wrong(path, f"no provider of type {found}{hint} There are: {', '.join(provider_types())}") from None
    given = dict(checks.mapping(path, options))
    tenants = given.pop(TENANTS, None)
    if tenants is None:
        yield _one(path, cls, name, given)
        return
    at = below(path, TENANTS)
    section = checks.mapping(at, tenants, ("attribute", "values"))
    problems = Problems()
    attribute = ""
    with problems.noted():
        attribute = checks.text(below(at, "attribute"), section.get("attribute"))
    values = section.get("values")
    if not isinstance(values, Mapping) or not values:
        problems.add(below(at, "values"), "required: each value of the attribute, with the settings of that tenant")
        values = {}
    ids: dict[str, str] = {}
    built: list[Provider] = []
    for value, own in values.items():
        where = below(below(at, "values"), value)
        tenant_id = f"{name}{'-' if '/' in name else '/'}{re.sub(r'[^A-Za-z0-9_.-]+', '-', str(value))}"
        if (other := ids.setdefault(tenant_id, str(value))) != str(value):
            problems.add(where, f"would have the id {tenant_id}, as {shown(other)} has")
        with problems.noted():
            settings = dict(checks.mapping(where, own))
            tenant = Tenant(attribute, str(value), tuple(str(one) for one in values if one != value))
            try:
                built.append(_one(below("providers", tenant_id), cls, tenant_id, {**given, **settings}, tenant))
            except ConfigurationError as error:
                # What is wrong stands with the tenant, unless it came from the settings that all tenants share.
                shared = {key for key in given if key not in settings}
                raise ConfigurationError(
                    problems=[
                        _moved(
                            problem,
                            below("providers", tenant_id),
                            path if _key(problem, tenant_id) in shared else where,
                        )
                        for problem in error.problems
                    ]
                ) from None
    problems.raise_any()
    yield from built


def _key(problem: Problem, tenant_id: str) -> str:
    return re.split(r"[.\[]", problem.path.removeprefix(f"providers.{tenant_id}."))[0]


def _moved(problem: Problem, old: str, new: str) -> Problem:
    return replace(problem, path=new + problem.path[len(old) :]) if problem.path.startswith(old) else problem


def _one(path: str, cls: type[Provider], name: str, given: Mapping[str, Any], tenant: Tenant | None = None) -> Provider:
    kinds = kinds_of(cls)
    known = [key for key in kinds if key != "tenant"]
    problems = Problems()
    with problems.noted():
        checks.mapping(path, given, [*known, TENANTS])
    settings: dict[str, Any] = dict.fromkeys(required(cls))
    settings.update((key, value) for key, value in given.items() if key in known and value is not None)
    if tenant is not None:
        settings["tenant"] = tenant
    try:
        built = cls(name=name, **settings)
    except ConfigurationError as error:
        problems.found.extend(
            problem if problem.path else Problem(path, problem.message.removeprefix(f"{name}: "))
            for problem in error.problems
        )
    except Exception as problem:  # noqa: BLE001 reason: a provider of another package, and the message may hold a secret
        problems.add(path, f"{cls.__name__} cannot be made ({type(problem).__name__})")
    problems.raise_any()
    return built
