"""What others may see of a conversion: span and log processors of the app, and through them a pipeline elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import persons, values
from . import semconv as sc
from .capture import is_anothers
from .conversion import NOTHING
from .cookies import clicks_of_url
from .pii import contains_email
from .request import READERS
from .sealing import Event, read_first, spellings

_ADDRESS, _AGENT, _SOURCE, _URL = map(
    spellings, (sc.CLIENT_ADDRESS, sc.USER_AGENT, sc.CONVERSION_ACTION_SOURCE, sc.URL_FULL)
)


def shown(event: Event, recorded_by: str, *, around: bool = False) -> dict[str, Any]:
    """The attributes of a sealed event for others: all that it takes to read the same conversion elsewhere.

    Args:
        recorded_by: Names the pipeline that has the event already.
        around: Add what the event takes from the visitor's request, which belongs on log records and never on spans.
    """
    return {
        **event.attributes,
        **(_taken(event) if around else NOTHING),
        sc.CONVERSION_ID: event.id,
        sc.CONVERSION_TYPE: event.type.value,
        sc.RECORDED_BY: recorded_by,
    }


def _taken(event: Event) -> Mapping[str, Any]:
    """What `conversion_of` takes from around the event."""
    attributes, around = event.attributes, event.around.attributes
    if not around or is_anothers(
        around,
        read_first(attributes, _SOURCE, values.action_source),
        read_first(attributes, _AGENT, values.told),
        read_first(attributes, _ADDRESS, values.client_address),
    ):
        return NOTHING
    names = {sc.ALIASES.get(key, key) for key in attributes}
    own = {key for key in around if key in names and _has(attributes, key)}
    own.update(sc.CONVERSION_CLICK + click for click in clicks_of_url(read_first(attributes, _URL, values.url)))
    return {key: value for key, value in around.items() if key not in own}


def _has(attributes: Mapping[str, Any], key: str) -> bool:
    if key == sc.USER_ID:
        return bool(attributes.get(key))
    return read_first(attributes, spellings(key), READERS.get(key, values.click_id)) is not None


def without_persons(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes without those that hold a person raw: what others may see of a conversion that was not captured."""
    return {
        key: value
        for key, value in attributes.items()
        if key not in sc.SEALED_ATTRIBUTES
        and key != sc.USER_ID
        and sc.event_key(key) not in sc.PERSONAL_KEYS
        and not contains_email(f"{key} {value}")
    }


def names_a_person(text: object, attributes: Mapping[str, Any]) -> bool:
    """Whether a text, or a map written out as one, holds an e-mail address or a personal value that the attributes hold too."""
    written = str(text).casefold()
    if contains_email(written):
        return True
    raw = (one for key in sc.SEALED_ATTRIBUTES if key in attributes for one in persons.listed(attributes[key]))
    return any(str(one).strip().casefold() in written for one in raw if len(str(one).strip()) > 2)
