"""Click ids from the `Cookie` header and the query of one HTTP request.

Only the names below are looked at. Everything here is written by whoever sends the request: a malformed value is left out and
costs nothing but its own field, and the work is linear in the length of the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from urllib.parse import unquote

from .errors import Unusable
from .semconv import QUERY_CLICK_IDS
from .values import click_id

MAX_HEADER = 64 * 1024
MAX_COOKIES = 500
MAX_STREAMS = 16  # a record holds 128 attributes; made-up streams must not push the others out
_MAX_VALUE = 4096  # as `values.click_id` has it
_MAX_WRAPS = 4

# Snap's own name is `ScCid`; the small spelling comes from servers that write all URLs in lower case.
_QUERY_NAMES: Mapping[str, str] = {**QUERY_CLICK_IDS, "sccid": "sc_click_id"}

# https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/fbp-and-fbc
# The optional fifth part is what Meta's parameter builder appends: 8 characters, formerly 2.
_FB = re.compile(r"fb\.[0-9]\.[0-9]{13}\.[^.]+(?:\.[A-Za-z0-9_-]{2}(?:[A-Za-z0-9_-]{6})?)?")
# Google documents the names (https://support.google.com/analytics/answer/11397207), not the layouts: these gtag.js writes.
_GA = re.compile(r"GA1\.[0-9-]+\.[1-9][0-9]{0,18}\.[1-9][0-9]{0,18}")
_GA_STREAM = re.compile(r"_ga_([A-Za-z0-9]{1,32})")
_GA_SESSION_1 = re.compile(r"GS1\.[0-9-]+\.([1-9][0-9]{0,17})(?:\.|\Z)")
_GA_SESSION_2 = re.compile(r"GS2\.[0-9-]+\.")
_GA_SESSION_2_ID = re.compile(r"s([1-9][0-9]{0,17})")
_GCL_1 = re.compile(r"GCL\.[0-9]+\.([^.$]+)")
# The server-side tag may write one id twice, with a comma between.
_GCL_2 = re.compile(r"\.k([^.$,]+)(?:,[^.$]*)?\$i[0-9]")
_RDT_UUID = re.compile(
    r"(?:([0-9]{1,16})\.)?[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
_TWCLID = re.compile(r"[A-Za-z0-9_-]+")


def clicks_of_query(query: str) -> dict[str, str]:
    """Click ids of a URL's query, by their names in `semconv.CLICK_IDS`; the first well-formed one of a name counts.

    Names are case-sensitive, as they are for the platforms' own tags. Values are percent-decoded once and are else left as they
    are: a plus stays a plus, since no id has a space in it. No fbclid has a dot in it: one would change the parts of an `fbc`.
    """
    found: dict[str, str] = {}
    for pair in query.partition("#")[0].removeprefix("?").split("&"):
        name, equals, raw = pair.partition("=")
        click = _QUERY_NAMES.get(name)
        if click is None or not equals or click in found:
            continue
        if (value := _clean(_decoded(raw))) and not (name == "fbclid" and "." in value):
            found[click] = value
    return found


def clicks_of_url(url: str | None) -> dict[str, str]:
    """As `clicks_of_query`, of a whole URL."""
    return clicks_of_query(url.partition("?")[2]) if url else {}


def clicks_of_cookies(header: str) -> dict[str, str]:
    """Click ids of a raw `Cookie` header, by their names in `semconv.CLICK_IDS`; GA4 sessions as `ga_session_id.<stream>`.

    Of cookies with one name the first well-formed one counts, as it is the one with the most specific path (RFC 6265, 5.4).
    A platform's own cookie goes before one that other server-side tags keep for it.
    """
    given = _known_cookies(header)
    found: dict[str, str] = {}
    for name, (click, read) in _COOKIES.items():
        if name in given and click not in found and (value := read(given[name])):
            found[click] = value
    streams = ((match[1], values) for name, values in given.items() if (match := _GA_STREAM.fullmatch(name)))
    sessions = ((stream, value) for stream, values in streams if (value := _first(_ga_session)(values)))
    found.update((f"ga_session_id.{stream}", value) for stream, value in islice(sessions, MAX_STREAMS))
    return found


def clicks(cookie_header: str, query: str, time_unix_nano: int) -> dict[str, str]:
    """Click ids of one HTTP request that came at this time; one in the query is newer than the cookie's and wins.

    `fbc` is the `_fbc` cookie, unless the query brings another fbclid: then it is made from that, with this time as the time of
    the click (https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/fbp-and-fbc). `fbp` is never made.
    """
    found = clicks_of_cookies(cookie_header) | clicks_of_query(query)
    fbclid = found.get("fbclid")
    if fbclid and ("fbc" not in found or found["fbc"].split(".")[3] != fbclid):
        found["fbc"] = f"fb.1.{time_unix_nano // 10**6}.{fbclid}"
    return found


# --- single values: None where malformed


def _decoded(raw: str) -> str | None:
    if len(raw) > 3 * _MAX_VALUE:
        return None
    try:
        return unquote(raw, errors="strict") if "%" in raw else raw
    except UnicodeDecodeError:
        return None


def _clean(value: str | None) -> str | None:
    """A click id without a change. No platform's ids have an at sign in them, encoded or not, and e-mail addresses do."""
    if not value or "@" in value or "%40" in value:
        return None
    try:
        return value if click_id(value) == value else None
    except Unusable:
        return None


def _known_cookies(header: str) -> dict[str, list[str]]:
    """The decoded values of each cookie that may be of use."""
    given: dict[str, list[str]] = {}
    if len(header) > MAX_HEADER:
        return given
    for pair in header.split(";", MAX_COOKIES)[:MAX_COOKIES]:
        name, _, raw = pair.partition("=")
        name = name.strip()
        if name not in _COOKIES and not name.startswith("_ga_"):
            continue
        raw = raw.strip()
        if len(raw) >= 2 and raw[0] == raw[-1] == '"':
            raw = raw[1:-1]
        if value := _decoded(raw):
            given.setdefault(name, []).append(value)
    return given


# --- the cookies: decoded values in, the click id out


def _first(read: Callable[[str], str | None]) -> Callable[[Iterable[str]], str | None]:
    def first(values: Iterable[str]) -> str | None:
        return next(filter(None, map(_clean, filter(None, map(read, values)))), None)

    return first


def _whole(layout: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda value: value if layout.fullmatch(value) else None


def _ga_session(value: str) -> str | None:
    """`GS1.1.<session>.<number>...`, or `GS2.1.s<session>$o<number>$...`, whose pieces come in any order."""
    if match := _GA_SESSION_1.match(value):
        return match[1]
    if match := _GA_SESSION_2.match(value):
        pieces = map(_GA_SESSION_2_ID.fullmatch, value[match.end() :].split("$"))
        return next((piece[1] for piece in pieces if piece), None)
    return None


def _gcl(value: str) -> str | None:
    """`GCL.<seconds>.<id>`, or `2.1.k<id>$i<seconds>`; Google's tags and their server-side siblings write both."""
    match = _GCL_1.fullmatch(value) or _GCL_2.search(value)
    return match[1] if match else None


def _oldest_rdt_uuid(values: Iterable[str]) -> str | None:
    """`<milliseconds>.<uuid>`. Each subdomain may have set its own; the oldest is the one that Reddit has known longest."""
    found = [match for value in values if (match := _RDT_UUID.fullmatch(value))]
    return min(found, key=lambda match: float(match[1] or "inf"))[0] if found else None


def _twclid(value: object) -> str | None:
    """The id itself, or a JSON object of the pixel that holds it as its `twclid`, which may be such an object again."""
    for _ in range(_MAX_WRAPS):
        if isinstance(value, str):
            if not value.startswith("{"):
                return value if _TWCLID.fullmatch(value) else None
            try:
                value = json.loads(value[:_MAX_VALUE])
            except (ValueError, RecursionError):
                return None
        value = value.get("twclid") if isinstance(value, dict) else None
    return value if isinstance(value, str) and _TWCLID.fullmatch(value) else None


_AS_IT_IS = _first(lambda value: value)

_COOKIES: Mapping[str, tuple[str, Callable[[Iterable[str]], str | None]]] = {
    "_fbc": ("fbc", _first(_whole(_FB))),
    "_fbp": ("fbp", _first(_whole(_FB))),
    "_ga": ("ga_client_id", _first(_whole(_GA))),
    "_gcl_aw": ("gclid", _first(_gcl)),
    "_gcl_ag": ("gbraid", _first(_gcl)),
    "_gcl_gb": ("wbraid", _first(_gcl)),
    "FPGCLAW": ("gclid", _first(_gcl)),  # the same three as Google's server-side tag keeps them
    "FPGCLAG": ("gbraid", _first(_gcl)),
    "FPGCLGB": ("wbraid", _first(_gcl)),
    "ttclid": ("ttclid", _AS_IT_IS),
    "_ttp": ("ttp", _AS_IT_IS),
    "_rdt_cid": ("rdt_cid", _AS_IT_IS),
    "_rdt_uuid": ("rdt_uuid", _oldest_rdt_uuid),
    "_epik": ("epik", _AS_IT_IS),
    "_scclid": ("sc_click_id", _AS_IT_IS),
    "_scid": ("sc_cookie1", _AS_IT_IS),
    "li_fat_id": ("li_fat_id", _AS_IT_IS),
    "_twclid": ("twclid", _first(_twclid)),
    "twclid": ("twclid", _first(_twclid)),
    "_uetmsclkid": ("msclkid", _first(lambda value: value.removeprefix("_uet"))),
}
"""Cookie → click id, and how to read it. Of two cookies for one click id the first here goes before."""
