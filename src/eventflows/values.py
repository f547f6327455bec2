"""Reading single attribute values: each function returns the clean value or raises `Unusable` with the reason."""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address
from numbers import Integral, Real
from typing import Any, cast
from urllib.parse import unquote_plus, urlsplit
from uuid import UUID

from .country import alpha_2
from .errors import Unusable
from .pii import contains_email, is_digest
from .semconv import ACTION_SOURCES, COMMITS

_LANGUAGE = re.compile(r"[A-Za-z]{1,8}([-_.@][A-Za-z0-9]{1,8})*")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_HOLDS_EMAIL = "holds an e-mail address"
_MAX_DEPTH = 6
_MANY = 10**15
_INT64 = 2**63


def writable(found: str) -> str:
    """The text as UTF-8 can write it, with a question mark for half of a surrogate pair: others' exporters fail on it, and lose
    the rest of their batch."""
    return found if found.isascii() else found.encode("utf-8", "replace").decode()


def text(value: object) -> str:
    """A non-empty string without surrounding space; numbers are written out."""
    if type(value) is str:
        return writable(value.strip())
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal, UUID)):
        raise Unusable("not a text")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unusable("not a text")
        if value.is_integer():
            value = int(value)
    return writable(str(value).strip())


def identifier(value: object) -> str:
    """A text that is sent as it is, hence never one with an e-mail address in it."""
    found = value.strip() if type(value) is str else text(value)
    if not found.isascii():
        found = writable(found)
    if ("@" in found or "%" in found) and contains_email(found):  # one character is found quicker than %40
        raise Unusable(_HOLDS_EMAIL)
    return found


def click_id(value: object) -> str:
    if isinstance(value, str) and len(value) > 4096:
        raise Unusable("malformed")
    found = identifier(value)
    if len(found) > 4096 or " " in found or not found.isprintable():  # no other space is printable
        raise Unusable("malformed")
    return _as_it_is(found)


def _as_it_is(found: str) -> str:
    """A text that platforms compare as it is: its digest would match nothing, and no platform would say so."""
    if is_digest(found):
        raise Unusable("hashed already, which platforms that want it as it is cannot use")
    return found


def number(value: object) -> float | int:
    """A finite number; strings only in the plain form `1234.50`, since `1,234` means two things."""
    if type(value) is float and value - value == 0.0:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value) if "." in value else int(value)
    elif isinstance(value, Decimal):
        value = _exact(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        whole = int(value)  # those of numpy, say, are no JSON
        if not is_int64(whole):
            raise Unusable("a number of more than 64 bits")
        return whole
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise Unusable("not a number")
    return float(value)


def _exact(value: Decimal) -> float | int:
    """A whole number to its last digit, as ids in databases are; any other as the nearest float."""
    if not value.is_finite():
        return math.nan
    return int(value) if value.adjusted() < 40 and value == value.to_integral_value() else float(value)


def is_int64(whole: int) -> bool:
    """Whether the platforms' decoders read this number: they refuse all that is in a request for one of more than 64 bits."""
    return -_INT64 <= whole < _INT64


def count(value: object) -> int:
    if type(value) is int and 0 <= value < _MANY:
        return value
    found = number(value)
    if not 0 <= found < _MANY or found != int(found):
        raise Unusable("not a whole number of pieces")
    return int(found)


def currency(value: object) -> str:
    code = (value.strip() if type(value) is str else text(value)).upper()
    if len(code) != 3 or not (code.isascii() and code.isalpha()):
        raise Unusable("not an ISO 4217 code")
    return code


def place(value: object) -> str:
    """A city, region or postal code, which some platforms want hashed in one form or another and others as it is."""
    return _as_it_is(identifier(value))


def country(value: object) -> str:
    code = alpha_2(text(value))
    if code is None:
        raise Unusable("not an ISO 3166-1 code")
    return code


def is_ipv4(address: str) -> bool:
    """Whether a text is an IPv4 address in its one usual form; much quicker than `ipaddress`."""
    try:
        socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return False
    return True


def client_address(value: object) -> str:
    found = text(value)
    if is_ipv4(found):
        return found
    if found.startswith("["):
        found = found[1:].partition("]")[0]
    elif found.count(":") == 1:
        found = found.partition(":")[0]
    try:
        address = ip_address(found.partition("%")[0])
    except ValueError:
        raise Unusable("not an IP address") from None
    return str(getattr(address, "ipv4_mapped", None) or address)  # which servers listening on `::` write


def url(value: object) -> str:
    """A URL; query parameters that hold an e-mail address are cut out of it."""
    found = header(value)
    if len(found.split(None, 1)) > 1:
        raise Unusable("not a URL")
    if "@" not in found and not ("%" in found and contains_email(found)):
        return found
    try:
        parts = urlsplit(found)
    except ValueError:
        raise Unusable("not a URL") from None
    kept = "&".join(pair for pair in parts.query.split("&") if not contains_email(unquote_plus(pair)))
    fragment = "" if contains_email(unquote_plus(parts.fragment)) else parts.fragment
    found = parts._replace(query=kept, fragment=fragment, netloc=parts.netloc.rpartition("@")[2]).geturl()
    if contains_email(unquote_plus(found)):
        raise Unusable(_HOLDS_EMAIL)
    return found


def header(value: object) -> str:
    """A header's value, which OpenTelemetry writes as a string or as a list of strings."""
    if type(value) is str:
        found = value.strip()
        return found if found.isascii() else writable(found)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[0]
    return text(value)


def told(value: object) -> str:
    """A header's value that is sent as it is: e-mail programs and bots may put an e-mail address into theirs."""
    found = header(value)
    if ("@" in found or "%" in found) and contains_email(found):
        raise Unusable(_HOLDS_EMAIL)
    return _as_it_is(found)


def language(value: object) -> str:
    """A language tag, also the first one of an `Accept-Language` header."""
    tag = told(value).partition(",")[0].partition(";")[0].strip()
    if tag and not _LANGUAGE.fullmatch(tag):
        raise Unusable("not a language")
    return tag


def flag(value: object) -> bool:
    """A yes or a no; also of a header, such as `Sec-GPC: 1`, which OpenTelemetry writes as a list."""
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    if type(value) is bool:
        return value
    found = _FLAGS.get(str(value).strip().lower())
    if found is None:
        raise Unusable("neither granted nor denied")
    return found


_FLAGS = {"true": True, "granted": True, "1": True, "false": False, "denied": False, "0": False}


def commit(value: object) -> str:
    """`conversion.commit`: what a conversion waits for."""
    found = text(value).lower()
    if found not in COMMITS:
        raise Unusable(f"neither {' nor '.join(COMMITS)}")
    return found


def action_source(value: object) -> str:
    source = re.sub(r"[\s-]+", "_", text(value).lower())
    if source not in ACTION_SOURCES:
        raise Unusable("not an action source")
    return source


def names(value: object) -> frozenset[str]:
    """Provider ids: a list, or one string with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (Sequence, frozenset, set)):
        raise Unusable("not a list of provider names")
    return frozenset(identifier(part).lower() for part in parts if part or isinstance(part, bytes))


def custom(value: Any, depth: int = 0) -> Any:
    """A custom property as plain JSON data."""
    kind = type(value)
    if kind is str and "@" not in value and "%" not in value:
        return value if value.isascii() else writable(value)
    if kind is bool or (kind is int and -_INT64 <= value < _INT64) or (kind is float and value - value == 0.0):
        return value
    if kind is list and depth < _MAX_DEPTH:
        return [custom(entry, depth + 1) for entry in value]
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if contains_email(value):
            raise Unusable(_HOLDS_EMAIL)
        return writable(str.__str__(value))  # of a subclass what it holds
    if isinstance(value, (Decimal, Real)):
        value = _exact(value) if isinstance(value, Decimal) else value
        return number(value) if not isinstance(value, Integral) or is_int64(int(value)) else str(int(value))
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {identifier(key): custom(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (bytes, bytearray)):
            return [custom(entry, depth + 1) for entry in value]
    raise Unusable("not a JSON value")


IMMUTABLE = frozenset({str, int, float, bool, type(None)})
"""Types of plain JSON values that cannot change."""
TEXT = frozenset({str})


def snapshot(value: object, depth: int = 0) -> Any:
    """A value as it is now, in the types of JSON; what cannot be written as JSON is refused as by `custom`."""
    kind = type(value)
    if kind in IMMUTABLE:
        return value
    if kind is list and depth < _MAX_DEPTH:  # of items, say
        return [
            one.copy()
            if type(one) is dict and IMMUTABLE.issuperset(map(type, one.values())) and TEXT.issuperset(map(type, one))
            else snapshot(one, depth + 1)
            for one in cast("list[Any]", value)
        ]
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {
                str.__str__(key) if isinstance(key, str) else key: snapshot(entry, depth + 1)
                for key, entry in value.items()
            }
        if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (str, bytes, bytearray)):
            return [snapshot(entry, depth + 1) for entry in value]
    return custom(value, depth)


def unix_nano(timestamp: int | datetime | None) -> int:
    """A timestamp as OpenTelemetry writes it; a datetime is taken too, and anything else is now."""
    if isinstance(timestamp, datetime):
        with suppress(ValueError, OverflowError, OSError):  # such as that of pandas for no time at all
            return round(timestamp.timestamp() * 1_000_000) * 1000
    if isinstance(timestamp, int) and not isinstance(timestamp, bool) and timestamp > 0:
        return timestamp
    return time.time_ns()
