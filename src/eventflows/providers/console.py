"""The console: every conversion as one line of JSON, to see what the platforms' providers start from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

from ..conversion import Conversion
from .base import DELIVERED, Encoded, Outcome, Provider, Request, Response, Sent, by_http_status, present

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, repr=False)
class ConsoleProvider(Provider):
    """Prints each conversion as one JSON object. It needs no credentials, no consent and no network."""

    TYPE: ClassVar[str] = "console"
    METHOD: ClassVar[str] = "PRINT"
    URL: ClassVar[str] = "console:"
    NEEDS_CONSENT: ClassVar[tuple[str, ...]] = ()
    MAX_BYTES: ClassVar[int] = 1_000_000_000
    MAX_AGE_NS: ClassVar[int | None] = None
    MAX_AHEAD_NS: ClassVar[int | None] = None

    def for_testing(self) -> Provider:
        return self

    def encode(self, conversion: Conversion) -> Encoded:
        user = conversion.user
        event = {"event": conversion.name, "type": conversion.type.value, "id": conversion.id} | present(
            time=_iso(conversion.time_unix_nano),
            action_source=conversion.action_source,
            value=conversion.value,
            currency=conversion.currency,
            order_id=conversion.order_id,
            items=[present(**item._asdict()) for item in conversion.items],
            quantity=conversion.quantity,
            search_term=conversion.search_term,
            coupon=conversion.coupon,
            tax=conversion.tax,
            shipping=conversion.shipping,
            user=_plain(user.sealed)
            | present(
                user_id=list(user.user_id),
                city=user.city,
                region=user.region,
                postal_code=user.postal_code,
                country=user.country,
            ),
            request=present(**conversion.request._asdict()),
            device=present(**conversion.device._asdict()),
            clicks=dict(conversion.clicks),
            consent=present(**conversion.consent._asdict()),
            limited_data_use=conversion.limited_data_use,
            providers=None if conversion.providers is None else sorted(conversion.providers),
            exclude_providers=sorted(conversion.exclude_providers),
            properties=_plain(conversion.properties),
            left_out=dict(conversion.left_out),
        )
        return Encoded(event)

    def request(self, batch: Sequence[Sent]) -> Request:  # noqa: ARG002 reason: nothing in it depends on the events
        return Request(method=self.METHOD, url=self.URL, envelope={}, events_at=("events",))

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        return [DELIVERED] * len(batch) if response.status == 200 else by_http_status(response, batch)


def _iso(unix_nano: int) -> str:
    return (_EPOCH + timedelta(microseconds=unix_nano // 1000)).isoformat().replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    """The same in the types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
