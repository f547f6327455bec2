"""Whom GA4 is told of: the browser, its session, the person's digests and the place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..conversion import Conversion, Identifiers
from ..pii import digest, iso_place, letters
from .base import present

MAX_HASHES = 3  # e-mail addresses, and as many phone numbers

# The layouts are not documented by Google: `GA1.<n>.<random>.<seconds>`, `GS1.<n>.<session>.<number>…` and, since
# May 2025, `GS2.<n>.s<session>$o<number>$…` in any order.
_CLIENT_ID = re.compile(r"(?:GA[0-9]\.[0-9-]+\.)?([1-9][0-9]{0,18}\.[1-9][0-9]{0,18})")
_SESSION = r"([1-9][0-9]{0,17})"
_SESSION_ID = re.compile(rf"{_SESSION}|GS1\.[0-9-]+\.{_SESSION}(?:\..*)?|GS2\.[0-9-]+\.(?:.*\$)?s{_SESSION}(?:\$.*)?")
_COUNTRY_PREFIX = re.compile(r"^[A-Za-z]{2}-")
_NOT_IN_POSTAL_CODES = str.maketrans("", "", ".~")


def client_id(conversion: Conversion) -> str:
    """The browser's id from the `_ga` cookie, else one of the same layout that stays the same for the same person."""
    given = conversion.clicks.get("ga_client_id")
    if given and (match := _CLIENT_ID.fullmatch(given.strip())):
        return match[1]
    seed = digest(_trace(conversion))
    random, seconds = int(seed[:16], 16), int(seed[16:32], 16)
    return f"{1 + random % (2**31 - 1)}.{1_000_000_000 + seconds % 700_000_000}"


def _trace(conversion: Conversion) -> str:
    """What tells this person from others: the most lasting trace that there is."""
    user, request = conversion.user, conversion.request
    if user.user_id:
        return f"user_id {user.user_id[0]}"
    for form in ("email.lower", "phone.e164"):
        if digests := user.sealed.get(form):
            return f"{form} {digests[0]}"
    if request.session_id:
        return f"session_id {request.session_id}"
    if request.client_address:
        return f"client {request.client_address} {request.user_agent or ''}"
    return f"conversion {conversion.id}"


def session_id(clicks: Mapping[str, str], cookie: str) -> int | None:
    """The one that was recorded, else that of the stream's own cookie."""
    told = clicks.get("ga_session_id") or clicks.get(cookie)
    match = _SESSION_ID.fullmatch(told.strip()) if told else None
    return int(match[1] or match[2] or match[3]) if match else None


def user_data(user: Identifiers) -> dict[str, Any]:
    sealed = user.sealed
    data: dict[str, Any] = {}
    if emails := sealed.get("email.gmail"):
        data["sha256_email_address"] = list(emails[:MAX_HASHES])
    if phones := sealed.get("phone.e164"):
        data["sha256_phone_number"] = list(phones[:MAX_HASHES])
    address: dict[str, Any] = {}
    if names := sealed.get("first_name.letters"):
        address["sha256_first_name"] = names[0]
    if names := sealed.get("last_name.letters"):
        address["sha256_last_name"] = names[0]
    if streets := sealed.get("street.words"):
        address["sha256_street"] = streets[0]
    postal_code = (user.postal_code or "").translate(_NOT_IN_POSTAL_CODES).strip()
    if address or postal_code:  # a city alone is nobody's address
        region = letters(_COUNTRY_PREFIX.sub("", (user.region or "").strip()))
        address |= present(city=letters(user.city or ""), region=region, postal_code=postal_code, country=user.country)
        data["address"] = [address]
    return data


def location(user: Identifiers) -> dict[str, Any]:
    country, code = iso_place(user.region or "", user.country)
    return present(country_id=country, region_id=f"{country}-{code}" if code else None, city=user.city)
