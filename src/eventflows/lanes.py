"""The lanes of a pipeline: made from its settings, renewed by a reload, and put into test mode by the environment.

A lane stays for as long as the process. One whose provider a reload took away gets nothing new, and goes on until it owes
nothing; should the provider come back, so does the lane.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .environments import TEST, mode_of, name_in, resource_attributes
from .errors import ConfigurationError
from .lane import Lane
from .log import logger
from .model import LaneSettings, Settings
from .pace import Paces
from .telemetry import Telemetry

_NO_RESOURCE: Mapping[str, Any] = {}


class Changed(NamedTuple):
    """What a reload changed: the names of providers."""

    added: list[str]
    renewed: list[str]
    removed: list[str]
    kept: list[str]


class Lanes:
    """All lanes of a pipeline, in the order in which they came.

    Args:
        resource: Attributes of the app's resource; None where they are found out with the first conversion.

    Attributes:
        mode: `live`, or `test` where the environment says so; None until the environment is known.
        owed: The names of the providers that get what is recorded from now on, with commas between.

    Raises:
        ConfigurationError: The resource does not say in which environment this is.
    """

    def __init__(self, settings: Settings, resource: Mapping[str, Any] | None, telemetry: Telemetry | None) -> None:
        self._settings = settings
        self._resource = resource
        self._telemetry = telemetry
        self._paces = Paces()
        self._lanes: dict[str, Lane] = {}
        self._rosters: dict[str, tuple[Lane, ...]] = {}
        self.mode: str | None = None
        self.owed = ""
        self.apply(settings)

    def __iter__(self) -> Iterator[Lane]:
        """Those of providers that are configured no more are among them."""
        return iter(list(self._lanes.values()))

    def named(self, name: str) -> Lane:
        return self._lanes[name]

    def of(self, owed: str) -> tuple[Lane, ...]:
        """The lanes that were told by these names when the event was recorded."""
        return self._rosters[owed]

    def apply(self, settings: Settings) -> Changed:
        """Go by these settings from now on. Lanes for which they say the same are left alone.

        Raises:
            ConfigurationError: They do not say in which environment this is; nothing is changed.
        """
        mode, plan = self._plan(settings)
        before = set(self.owed.split(",")) if self.owed else set()
        changed = Changed([], [], sorted(before - {given.provider.name for given, _ in plan}), [])
        active = []
        for given, testing in plan:
            name, pace = given.provider.name, self._paces.of(given.provider)
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = Lane(given, testing=testing, pace=pace, telemetry=self._telemetry)
                changed.added.append(name)
            elif (lane.given, lane.testing) != (given, testing):
                lane.renew(given, testing=testing, pace=pace)
                changed.renewed.append(name)
            else:
                (changed.kept if name in before else changed.added).append(name)
            lane.resource = self._resource or _NO_RESOURCE
            active.append(lane)
        owed = ",".join(lane.provider.name for lane in active)
        self._rosters[owed] = tuple(active)
        self._settings, self.mode, self.owed = settings, mode, owed
        return changed

    def _plan(self, settings: Settings) -> tuple[str | None, list[tuple[LaneSettings, bool]]]:
        """The mode, and for each provider what holds for it, and whether it is only tested."""
        environment = settings.environment or (name_in(self._resource) if self._resource is not None else None)
        unknown = self._resource is None and environment is None
        whole = None if unknown and settings.environments else mode_of(settings.environments, environment)
        plan = []
        for provider in settings.providers:
            own = whole if provider.environments is None or unknown else settings.mode(provider, environment)
            plan.append((settings.lane(provider), own == TEST))
        return whole, plan

    def find_environment(self) -> None:
        """With the first conversion, where a declarative file made the pipeline before the resource was known."""
        if self._resource is not None:
            return
        self._resource = resource_attributes()
        try:
            self.apply(self._settings)
        except ConfigurationError as problem:
            logger.error("%s. Until then conversions are not sent, as in a test environment", problem)
            self.mode = TEST
            for lane in self:
                lane.resource = self._resource
                lane.renew(lane.given, testing=True, pace=self._paces.of(lane.given.provider))
