"""The classic facade: `tracker.add_provider`, `tracker.track`, `tracker.shutdown`. A thin layer on the same pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import config, running
from . import semconv as sc
from .conversion import EventType
from .log import Notices
from .pipeline import Pipeline
from .providers.base import Provider

_USER_DATA: Mapping[str, str] = {
    "user_id": sc.USER_ID,
    "email": sc.USER_EMAIL,
    "phone": sc.USER_PHONE,
    "first_name": sc.USER_FIRST_NAME,
    "last_name": sc.USER_LAST_NAME,
    "date_of_birth": sc.USER_DATE_OF_BIRTH,
    "gender": sc.USER_GENDER,
    "street": sc.USER_STREET,
    "city": sc.CITY,
    "state": sc.REGION,
    "zip": sc.POSTAL_CODE,
    "country": sc.COUNTRY,
    "ip_address": sc.CLIENT_ADDRESS,
    "user_agent": sc.USER_AGENT,
    **{click: sc.CONVERSION_CLICK + click for click in sc.CLICK_IDS},
}
# One field for all networks, as the classic facade has it: only ids that tell their network apart can be placed.
_CLICK_PREFIXES = {
    "fb.": "fbc",
    "IwAR": "fbclid",
    "IwY2": "fbclid",
    "IwZX": "fbclid",
    "Cj": "gclid",
    "EAI": "gclid",
    "E.C.P.": "ttclid",
}
_NO_NETWORK = "{count} events: user_data.click_id is of no known network: use fbclid, gclid, ttclid, ..."
_notices = Notices("capture")


class Tracker:
    """Providers are added one by one; an already configured pipeline is used as it is. Nothing here raises after start."""

    def __init__(self) -> None:
        self._providers: list[Provider] = []
        self._own: Pipeline | None = None

    def add_provider(self, provider: Provider) -> None:
        """Add a destination, for what is tracked from now on.

        Raises:
            ConfigurationError: The provider is none, or its name is taken.
        """
        config.settings([*self._providers, provider])
        self._providers.append(provider)
        if self._own is not None:
            self._own.add_provider(provider)

    def track(
        self,
        name: str,
        user_data: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        event_type: EventType | str | None = None,
        event_id: str | None = None,
        exclude_providers: Iterable[str] | str | None = None,
        providers: Iterable[str] | str | None = None,
        timestamp: int | None = None,
    ) -> bool:
        """Record a conversion. Never raises and never waits.

        Args:
            user_data: `user_id email phone first_name last_name date_of_birth gender street city state zip country
                ip_address user_agent click_id` and the click ids; what identifies a person is hashed at once.
            properties: `value`, `currency`, the other semantic attributes, and custom data.
            event_type: Without it the name decides; an unknown name is custom.
            event_id: The id by which platforms deduplicate.
            providers: Only these, by id or type; `exclude_providers` all but these. One string may hold several, with commas.
            timestamp: Unix time in nanoseconds; None is now.

        Returns:
            Whether the conversion was taken: False where nothing is configured or it is no usable event.
        """
        try:
            pipeline = self._pipeline()
            if pipeline is None:
                return False
            attributes: dict[str, Any] = dict(properties or {})
            attributes.update(_attributes(user_data or {}))
            told = (
                (sc.CONVERSION_TYPE, event_type.value if isinstance(event_type, EventType) else event_type),
                (sc.CONVERSION_ID, event_id),
                (sc.CONVERSION_PROVIDERS, _names(providers)),
                (sc.CONVERSION_EXCLUDE_PROVIDERS, _names(exclude_providers)),
            )
            attributes.update((key, value) for key, value in told if value is not None)
            return pipeline.leave(name, attributes, timestamp) and not pipeline.is_shut_down
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            _notices.warn("track", "{count} events could not be tracked (%s) and are lost", type(problem).__name__)
            return False

    def flush(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what is queued; True where everything had its outcome within the timeout."""
        pipeline = self._own or running.current()
        return pipeline is None or pipeline.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what is queued and stop. Providers can be added anew afterwards."""
        pipeline, self._own = self._own or running.current(), None
        self._providers = []
        return pipeline is None or pipeline.shutdown(timeout_millis)

    def _pipeline(self) -> Pipeline | None:
        if not self._providers:
            return running.required()
        if self._own is None:
            with running.starting():
                if self._own is None:
                    built_from = config.settings(self._providers)
                    self._own = running.shared(built_from) if running.current() is None else Pipeline(built_from)
        return self._own


def _names(given: Iterable[str] | str | None) -> list[str] | str | None:
    return given if given is None or isinstance(given, str) else list(given)


def _attributes(user_data: Mapping[str, Any]) -> dict[str, Any]:
    found = {_USER_DATA[key]: value for key, value in user_data.items() if key in _USER_DATA and value is not None}
    click = user_data.get("click_id")
    if isinstance(click, str) and click:
        if kind := next((kind for prefix, kind in _CLICK_PREFIXES.items() if click.startswith(prefix)), None):
            found.setdefault(sc.CONVERSION_CLICK + kind, click)
        else:
            _notices.warn("click_id", _NO_NETWORK)
    for key in user_data:
        if key not in _USER_DATA and key != "click_id":
            _notices.warn(
                f"user_data.{key}", "{count} events: user_data has no key %r; allowed: %s", key, " ".join(_USER_DATA)
            )
    return found


tracker = Tracker()
