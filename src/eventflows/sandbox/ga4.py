"""GA4 Measurement Protocol: `POST /ga4/mp/collect` and `/ga4/debug/mp/collect`.

The first takes everything with 204 and an empty body, right or wrong, as Google's does; here the store tells the
two apart, event by event. The second records nothing and lists what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .schema import (
    ANY_TEXT,
    BOOLEAN,
    HASH,
    NUMBER,
    PLAIN,
    SHA256,
    TEXT,
    Problem,
    Schema,
    array,
    keys,
    one_of,
    one_or_many,
    pattern,
    shape,
    words,
)
from .store import Credentials
from .wire import FUTURE, HOUR, Answer, Platform, Request, is_int, is_ip, load_json, not_found, whole, without

MAX_BODY = 130_000
MAX_EVENTS = MAX_PARAMS = MAX_PROPERTIES = 25
MAX_ITEMS = 200
MAX_ITEM_PARAMS = 10  # of one's own; an older page of Google's says 10 and a newer one 27
MAX_NAME, MAX_VALUE = 40, 100
MAX_PROPERTY_NAME, MAX_PROPERTY_VALUE = 24, 36
LONGER = {"page_title": 300, "page_referrer": 420, "page_location": 1000}
MAX_AGE = 72 * HOUR

RESERVED_EVENTS = frozenset(words(
    "ad_activeview ad_click ad_exposure ad_query ad_reward adunit_exposure app_clear_data app_exception app_install"
    " app_remove app_store_refund app_store_subscription_cancel app_store_subscription_convert"
    " app_store_subscription_renew app_update app_upgrade dynamic_link_app_open dynamic_link_app_update"
    " dynamic_link_first_open error firebase_campaign firebase_in_app_message_action firebase_in_app_message_dismiss"
    " firebase_in_app_message_impression first_open first_visit notification_dismiss notification_foreground"
    " notification_open notification_receive notification_send os_update session_start user_engagement"
))  # fmt: skip
APP_EVENTS = frozenset(("ad_impression", "in_app_purchase", "screen_view"))
RESERVED_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
RESERVED_PROPERTIES = frozenset(
    words("first_open_time first_visit_time last_deep_link_referrer user_id first_open_after_install")
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_ITEM_TEXTS = (
    "item_id item_name affiliation coupon currency item_brand item_category item_category2 item_category3"
    " item_category4 item_category5 item_list_id item_list_name item_variant location_id promotion_id promotion_name"
    " creative_name creative_slot google_business_vertical"
)
_ITEM_KEYS = frozenset((*words(_ITEM_TEXTS), "discount", "index", "price", "quantity"))
_SCALAR = {"type": ["string", "number", "boolean"]}
_ADDRESS = shape({
    **keys("sha256_first_name sha256_last_name sha256_street", HASH),
    **keys("city region postal_code", PLAIN),
    "country": pattern("^[A-Za-z]{2}$"),
})  # fmt: skip
_CONSENT = one_of("GRANTED", "DENIED")

REQUEST = Schema(shape({
    # Two positive numbers, or the whole cookie that has them at its end.
    "client_id": pattern(r"^(GA\d\.[\d-]+\.)?[1-9]\d*\.[1-9]\d*$"),
    "app_instance_id": pattern("^[0-9A-Fa-f]{32}$"),
    "user_id": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^@]*$"},
    "timestamp_micros": {"type": "integer"},
    "user_properties": {"type": "object", "maxProperties": MAX_PROPERTIES, "additionalProperties": shape(
        {"value": _SCALAR, "timestamp_micros": {"type": "integer"}}, required=("value",))},
    "user_data": shape({
        **keys("sha256_email_address sha256_phone_number", one_or_many(SHA256, most=3)),
        # An object is as good as a list of one.
        "address": {**_ADDRESS, "type": ["object", "array"], "items": _ADDRESS, "minItems": 1, "maxItems": 2},
    }),
    "consent": shape({"ad_user_data": _CONSENT, "ad_personalization": _CONSENT}),
    "non_personalized_ads": BOOLEAN,
    "user_location": shape({
        "city": TEXT, "country_id": pattern("^[A-Z]{2}$"), "region_id": pattern("^[A-Z]{2}-[A-Z0-9]{1,3}$"),
        **keys("subcontinent_id continent_id", pattern(r"^\d{3}$")),
    }),
    "ip_override": TEXT,
    "device": shape({
        "screen_resolution": pattern(r"^\d+x\d+$"),
        **keys("category language operating_system operating_system_version model brand browser browser_version", TEXT),
    }),
    "user_agent": TEXT,
    "validation_behavior": one_of("RELAXED", "ENFORCE_RECOMMENDATIONS"),
    "events": array({}, most=MAX_EVENTS),
}, required=("events",)))  # fmt: skip
EVENT = Schema(shape({
    "name": TEXT,
    "timestamp_micros": {"type": "integer"},
    "params": {
        "type": "object",
        "maxProperties": MAX_PARAMS,
        "properties": {
            "session_id": {"type": ["integer", "string"], "pattern": r"^\d+$"},
            "engagement_time_msec": {"type": "number", "minimum": 0},
            # Absent is off; false would still be on.
            "debug_mode": {"type": ["boolean", "integer"], "enum": [1]},
            **{name: {"type": "string", "maxLength": longest} for name, longest in LONGER.items()},
            "currency": pattern("^[A-Z]{3}$"),
            **keys("value shipping tax", NUMBER),
            # An empty one makes all such purchases one.
            "transaction_id": TEXT,
            "items": array(shape({
                **keys(_ITEM_TEXTS, ANY_TEXT), **keys("discount price quantity", NUMBER), "index": {"type": "integer"},
            }, extra=_SCALAR), least=0, most=MAX_ITEMS),
        },
        "additionalProperties": _SCALAR,
    },
}, required=("name",)))  # fmt: skip

_CODES = {
    "required": "VALUE_REQUIRED",
    "maxItems": "EXCEEDED_MAX_ENTITIES",
    "maxProperties": "EXCEEDED_MAX_ENTITIES",
    "maxLength": "VALUE_OUT_OF_BOUNDS",
    "age": "VALUE_OUT_OF_BOUNDS",
    "name": "NAME_INVALID",
    "reserved": "NAME_RESERVED",
}


def answer(request: Request, credentials: Credentials, now: float) -> Answer:
    """Answers a request; see `wire.Platform`."""
    if request.path not in ("/mp/collect", "/debug/mp/collect"):
        return not_found(request)
    if request.method != "POST":
        return Answer(405, None)
    try:
        body = load_json(request.body)
    except ValueError:
        body = None
    app = "firebase_app_id" in request.query and "measurement_id" not in request.query
    account = request.query.get("firebase_app_id" if app else "measurement_id", "")
    of_all = _request_problems(request, body, app, now)
    events = body.get("events") if isinstance(body, dict) else None
    of_each = [_event_problems(event, app, now) for event in events] if isinstance(events, list) else []
    if request.path.startswith("/debug/"):
        # It knows nothing of accounts and secrets, like the real one.
        messages = [_message(problem) for problem in of_all]
        messages += [_message(problem, index) for index, found in enumerate(of_each) for problem in found]
        return Answer(200, {"validationMessages": messages}, account)
    reason = _account_reason(request, credentials, account, app) or (_reason(of_all[0]) if of_all else "")
    if reason or not isinstance(events, list):
        return Answer(204, None, account, refused=whole(events, reason))
    accepted = tuple(event for event, found in zip(events, of_each, strict=True) if not found)
    refused = tuple((event, _reason(found[0])) for event, found in zip(events, of_each, strict=True) if found)
    return Answer(204, None, account, accepted, refused, without(body, "events"))


def _account_reason(request: Request, credentials: Credentials, account: str, app: bool) -> str:
    if not account:
        return "VALUE_REQUIRED: measurement_id or firebase_app_id"
    if not app and not account.startswith("G-"):
        return "VALUE_INVALID: measurement_id must begin with G-"
    fault = credentials.fault_of("ga4", account, request.query.get("api_secret", ""))
    return f"{fault} api_secret" if fault else ""


def _request_problems(request: Request, body: Any, app: bool, now: float) -> list[Problem]:
    """What is wrong with a request as a whole."""
    if not isinstance(body, dict):
        return [Problem((), "json", "must be a JSON object")]
    if len(request.body) >= MAX_BODY:
        return [Problem((), "maxLength", "must be smaller than 130 kB")]
    problem = REQUEST.problem(body)
    if problem is not None:
        return [problem]
    return [*_identity(body, app), *_properties(body, now), *_time(body, (), now)]


def _identity(body: Mapping[str, Any], app: bool) -> Iterator[Problem]:
    wanted, other = ("app_instance_id", "client_id") if app else ("client_id", "app_instance_id")
    if wanted not in body:
        yield Problem((wanted,), "required", "is required")
    if other in body:
        yield Problem((other,), "stream", "belongs to the other kind of stream")
    if "ip_override" in body and not is_ip(body["ip_override"]):
        yield Problem(("ip_override",), "ip", "must be an IP address")


def _properties(body: Mapping[str, Any], now: float) -> Iterator[Problem]:
    for name, given in body.get("user_properties", {}).items():
        path = ("user_properties", name)
        yield from _named(name, path, MAX_PROPERTY_NAME, RESERVED_PROPERTIES)
        if isinstance(given["value"], str) and len(given["value"]) > MAX_PROPERTY_VALUE:
            yield Problem((*path, "value"), "maxLength", f"must be at most {MAX_PROPERTY_VALUE} characters")
        yield from _time(given, path, now)


def _event_problems(event: Any, app: bool, now: float) -> list[Problem]:
    problem = EVENT.problem(event)
    if problem is not None:
        return [problem]
    reserved = RESERVED_EVENTS if app else RESERVED_EVENTS | APP_EVENTS
    found = [*_named(event["name"], ("name",), MAX_NAME, reserved), *_time(event, (), now)]
    for name, value in event.get("params", {}).items():
        found += _named(name, ("params", name), MAX_NAME, ("firebase_conversion",))
        if name == "items":
            for index, item in enumerate(value):
                found += _item(item, ("params", "items", index))
        else:
            found += _short(value, ("params", name), LONGER.get(name, MAX_VALUE))
    return found


def _item(item: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    if not item.get("item_id") and not item.get("item_name"):
        yield Problem(path, "required", "item_id or item_name is required")
    if len(set(item) - _ITEM_KEYS) > MAX_ITEM_PARAMS:
        yield Problem(path, "maxProperties", f"must have at most {MAX_ITEM_PARAMS} parameters of one's own")
    for name, value in item.items():
        yield from _named(name, (*path, name), MAX_NAME, ())
        yield from _short(value, (*path, name), MAX_VALUE)


def _named(name: str, path: tuple[str | int, ...], longest: int, reserved: Any) -> Iterator[Problem]:
    if not _NAME.fullmatch(name):
        # "_x" and "gtag.x" are reserved too, but this is what the real one says of them.
        text = f"has invalid name [{name}]. Names must start with an alphabetic character."
        yield Problem(path, "name", text)
    elif name in reserved or name.startswith(RESERVED_PREFIXES):
        yield Problem(path, "reserved", f"has reserved name [{name}].")
    elif len(name) > longest:
        yield Problem(path, "name", f"has invalid name [{name}]. Names must be {longest} characters or shorter.")


def _short(value: Any, path: tuple[str | int, ...], longest: int) -> Iterator[Problem]:
    if isinstance(value, str) and len(value) > longest:
        yield Problem(path, "maxLength", f"must be at most {longest} characters")


def _time(holder: Mapping[str, Any], path: tuple[str | int, ...], now: float) -> Iterator[Problem]:
    micros = holder.get("timestamp_micros")
    if micros is None:
        return
    age = now - micros / 1e6
    if not is_int(micros) or age > MAX_AGE or age < -FUTURE:
        yield Problem((*path, "timestamp_micros"), "age", "must be microseconds of the last 72 hours")


def _place(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _reason(problem: Problem) -> str:
    place = _place(problem.full_path)
    return f"{_CODES.get(problem.rule, 'VALUE_INVALID')}: {place + ': ' if place else ''}{problem.text}"


def _message(problem: Problem, index: int | None = None) -> dict[str, str]:
    prefix: tuple[str | int, ...] = () if index is None else ("events", index)
    code = _CODES.get(problem.rule, "VALUE_INVALID")
    if problem.rule in ("additionalProperties", "json"):
        # What cannot be parsed has no field path.
        where = f" ({_place((*prefix, *problem.path))}) {problem.key}: Cannot find field." if problem.key else ""
        text = f"Unable to parse Measurement Protocol JSON payload.{where}"
        return {"description": text, "validationCode": code}
    what = problem.text if index is None else f"Event at index: [{index}] {problem.text}"
    path = (*prefix, *problem.full_path) if problem.path != ("name",) else ("events",)
    return {"fieldPath": _place(path), "description": what, "validationCode": code}


PLATFORM = Platform(
    "ga4",
    "GA4 Measurement Protocol",
    ("/mp/collect?measurement_id=G-...&api_secret=...", "/debug/mp/collect?measurement_id=G-..."),
    answer,
)
