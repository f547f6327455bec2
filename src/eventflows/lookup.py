"""A conversion read by the names of attributes, for conditions: those of `semconv`, custom properties, then the resource's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from . import semconv as sc
from .conversion import Conversion

_NO_RESOURCE: Mapping[str, Any] = {}


def _sealed(kind: str, conversion: Conversion) -> str | None:
    return "***" if any(form.partition(".")[0] == kind for form in conversion.user.sealed) else None


def _click(click: str, conversion: Conversion) -> str | None:
    return conversion.clicks.get(click)


def _choice(purpose: str, conversion: Conversion) -> bool | None:
    choice: bool | None = getattr(conversion.consent, purpose)
    return choice


_READERS: Mapping[str, Callable[[Conversion], Any]] = {
    "event.name": lambda c: c.name,
    sc.CONVERSION_TYPE: lambda c: c.type.value,
    sc.CONVERSION_ID: lambda c: c.id,
    sc.CONVERSION_VALUE: lambda c: c.value,
    sc.CONVERSION_CURRENCY: lambda c: c.currency,
    sc.CONVERSION_ORDER_ID: lambda c: c.order_id,
    sc.CONVERSION_ITEMS: lambda c: [item.id for item in c.items] or None,
    sc.CONVERSION_QUANTITY: lambda c: c.quantity,
    sc.CONVERSION_SEARCH_TERM: lambda c: c.search_term,
    sc.CONVERSION_COUPON: lambda c: c.coupon,
    sc.CONVERSION_TAX: lambda c: c.tax,
    sc.CONVERSION_SHIPPING: lambda c: c.shipping,
    sc.CONVERSION_ACTION_SOURCE: lambda c: c.action_source,
    sc.CONVERSION_LIMITED_DATA_USE: lambda c: c.limited_data_use,
    sc.CONVERSION_ADVERTISING_ID: lambda c: c.device.advertising_id,
    sc.CONVERSION_VENDOR_ID: lambda c: c.device.vendor_id,
    sc.CONVERSION_APP_INSTANCE_ID: lambda c: c.device.app_instance_id,
    sc.CONVERSION_PARTNER_ID: lambda c: c.device.partner_id,
    sc.USER_ID: lambda c: list(c.user.user_id) or _sealed("external_id", c),
    sc.CITY: lambda c: c.user.city,
    sc.REGION: lambda c: c.user.region,
    sc.POSTAL_CODE: lambda c: c.user.postal_code,
    sc.COUNTRY: lambda c: c.user.country,
    sc.CLIENT_ADDRESS: lambda c: c.request.client_address,
    sc.USER_AGENT: lambda c: c.request.user_agent,
    sc.URL_FULL: lambda c: c.request.url,
    sc.REFERER: lambda c: c.request.referrer,
    sc.SESSION_ID: lambda c: c.request.session_id,
    sc.LANGUAGE: lambda c: c.request.language,
    sc.PAGE_TITLE: lambda c: c.request.page_title,
    sc.SYNTHETIC_TYPE: lambda c: c.request.synthetic_type,
    **{sc.CONVERSION_CLICK + click: partial(_click, click) for click in sc.CLICK_IDS},
    **{sc.CONVERSION_CONSENT + purpose: partial(_choice, purpose) for purpose in sc.CONSENT_PURPOSES},
    # What identifies a person is known by its digests only: such an attribute can be asked for, and compared with nothing.
    **{name: partial(_sealed, kind) for name, kind in sc.SEALED_ATTRIBUTES.items()},
}
_READERS_OF_ALIASES = {alias: _READERS[name] for alias, name in sc.ALIASES.items() if name in _READERS}


class AttributesOf(Mapping[str, Any]):
    """The attributes of a conversion, as a condition sees them.

    Args:
        resource: Those of the app's resource, for names that the event does not have.
    """

    __slots__ = ("_conversion", "_resource")

    def __init__(self, conversion: Conversion, resource: Mapping[str, Any] = _NO_RESOURCE) -> None:
        self._conversion = conversion
        self._resource = resource

    def __getitem__(self, name: str) -> Any:
        reader = _READERS.get(name) or _READERS_OF_ALIASES.get(name)
        found = reader(self._conversion) if reader is not None else self._conversion.properties.get(name)
        if found is None:
            found = self._resource.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys([*_READERS, *self._conversion.properties, *self._resource])
        return (name for name in names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
