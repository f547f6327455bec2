"""TikTok Events API 2.0: `POST /tiktok/open_api/v1.3/event/track/`.

Every answer is HTTP 200; `code` in the body says what happened. One invalid event refuses the whole request, and
the answer names the first one only.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from .schema import (
    ANY_TEXT,
    BOOLEAN,
    INTEGER,
    NUMBER,
    PLAIN,
    SCALAR,
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
from .wire import (
    DAY,
    FUTURE,
    Answer,
    Platform,
    Request,
    has_any,
    is_int,
    is_ip,
    load_json,
    not_found,
    one_refused,
    whole,
    without,
)

PATH = "/open_api/v1.3/event/track/"
MAX_EVENTS = 1000
MAX_AGE = 28 * DAY
OK, BAD_PARAMETER, NO_TOKEN, BAD_TOKEN = 0, 40002, 40104, 40105
# The sources disagree: the portal's table says that web events must have a page, its own example has none, and the
# template that TikTok publishes leaves it out where the URL is unknown.
PAGE_REQUIRED = False

CURRENCIES = words(
    "AED ARS AUD BDT BHD BIF BOB BRL CAD CHF CLP CNY COP CRC CZK DKK DZD EGP EUR GBP GTQ HKD HNL HUF IDR ILS INR ISK"
    " JPY KES KHR KRW KWD KZT MAD MOP MXN MYR NGN NIO NOK NZD OMR PEN PHP PKR PLN PYG QAR RON RUB SAR SEK SGD THB TRY"
    " TWD UAH USD VES VND ZAR"
)
# Offline event sets take these only; the last four are names that TikTok has replaced and still takes.
STANDARD_EVENTS = frozenset(words(
    "AddPaymentInfo AddToCart AddToWishlist ApplicationApproval CompleteRegistration Contact CustomizeProduct Download"
    " FindLocation InitiateCheckout Lead Purchase Schedule Search StartTrial SubmitApplication Subscribe ViewContent"
    " CompletePayment SubmitForm PlaceAnOrder ClickButton"
))  # fmt: skip

_UUID = "{h}{{8}}-{h}{{4}}-{h}{{4}}-{h}{{4}}-{h}{{12}}"
_UPPER_UUID, _LOWER_UUID = _UUID.format(h="[0-9A-F]"), _UUID.format(h="[0-9a-f]")
# Written small and without blanks, as TikTok wants it, and not hashed.
_PLACE = {**PLAIN, "pattern": r"^[^A-Z\s]+$"}
_CONTENT_TYPE = one_of("product", "product_group")

_USER = shape({
    **keys("email phone external_id first_name last_name zip_code", one_or_many(SHA256)),
    **keys("city state", _PLACE),
    "country": pattern("^[a-z]{2}$"),
    **keys("ttclid ttp ip user_agent", PLAIN),
    "locale": pattern("^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*$"),
    "idfa": pattern(f"^({_UPPER_UUID}|[0-9a-f]{{64}})$"),
    "gaid": pattern(f"^({_LOWER_UUID}|[0-9a-f]{{64}})$"),
    "idfv": pattern(f"^({_UPPER_UUID}|{_LOWER_UUID})$"),
    "att_status": one_of("AUTHORIZED", "DENIED", "NOT_DETERMINED", "RESTRICTED", "NOT_APPLICABLE"),
})  # fmt: skip
_PROPERTIES = shape({
    "contents": array(shape({
        "content_id": ANY_TEXT, "price": NUMBER, "quantity": INTEGER, "content_type": _CONTENT_TYPE,
        **keys("content_name content_category brand", ANY_TEXT),
    }), least=0),
    "content_ids": array(ANY_TEXT, least=0),
    "content_type": _CONTENT_TYPE,
    "currency": {"type": "string", "enum": list(CURRENCIES)},
    **keys("value predicted_ltv", NUMBER),
    "num_items": INTEGER,
    **keys("search_string query description order_id shop_id", ANY_TEXT),
    "customer_type": one_of("new", "returning"),
    "delivery_category": one_of("in_store", "curbside", "home_delivery"),
}, extra=True)  # fmt: skip
_AD = shape({
    **keys("is_retargeting attributed", BOOLEAN),
    "attribution_share": {"type": "number", "minimum": 0, "maximum": 1},
    **keys(
        "callback campaign_id ad_id creative_id attribution_type attribution_provider attribution_value"
        " attribution_model touchpoint_type touchpoint_ts touchpoint_url attribution_window_hr_click"
        " attribution_window_hr_view attribution_method decline_reason utm_source utm_medium utm_campaign utm_term"
        " utm_content utm_id", SCALAR),
})  # fmt: skip
EVENT = Schema(shape({
    "event": TEXT,
    "event_time": INTEGER,
    "event_id": TEXT,
    "user": _USER,
    "properties": _PROPERTIES,
    "page": shape({"url": TEXT, "referrer": ANY_TEXT}, required=("url",)),
    "app": shape(keys("app_id app_name app_version", TEXT), required=("app_id",)),
    "ad": _AD,
    "limited_data_use": BOOLEAN,
    "lead": shape(keys("lead_id lead_event_source", TEXT), required=("lead_id",)),
    # Client hints, as the official template sends them.
    "device": shape(keys("architecture bitness browser_version_list mobile model platform platform_version", {})),
}, required=("event", "event_time")))  # fmt: skip
REQUEST = Schema(shape({
    "event_source": one_of("web", "app", "offline", "crm"),
    "event_source_id": TEXT,
    "data": array({}, most=MAX_EVENTS),
    "test_event_code": TEXT,
    "partner_name": TEXT,
}, required=("event_source", "event_source_id", "data")))  # fmt: skip

_TYPES = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "array": "list",
          "object": "mapping"}  # fmt: skip


def answer(request: Request, credentials: Credentials, now: float) -> Answer:
    """Answers a request; see `wire.Platform`."""
    if request.path != PATH:
        return not_found(request)
    if request.method != "POST":
        return Answer(405, {"code": 40002, "message": "Method not allowed", "request_id": _request_id(), "data": {}})
    try:
        body = load_json(request.body)
    except ValueError:
        body = None
    events = body.get("data") if isinstance(body, dict) else None
    source_id = body.get("event_source_id") if isinstance(body, dict) else None
    account = source_id if isinstance(source_id, str) else ""
    fault = credentials.fault_of("tiktok", account, request.headers.get("access-token", ""))
    if fault:
        missing = fault == "missing"
        text = "Access token is missing." if missing else "Access token is incorrect or has been revoked."
        code = NO_TOKEN if missing else BAD_TOKEN
        return _refusal(code, text, account, whole(events, f"{code}: {fault} access token"))
    if request.content_type != "application/json" or not isinstance(body, dict):
        text = "The body must be a JSON object, with Content-Type application/json."
        return _refusal(BAD_PARAMETER, text, account, whole(events, f"{BAD_PARAMETER}: {text}"))
    problem = REQUEST.problem(body)
    if problem is not None:
        text = _text(problem, ())
        return _refusal(BAD_PARAMETER, text, account, whole(events, f"{BAD_PARAMETER}: {text}"))
    for index, event in enumerate(body["data"]):
        problem = EVENT.problem(event) or _check(event, body["event_source"], now)
        if problem is not None:
            text = _text(problem, ("data", index))
            refused = one_refused(body["data"], index, f"{BAD_PARAMETER}: {text}")
            return _refusal(BAD_PARAMETER, text, account, refused)
    body_ok = {"code": OK, "message": "OK", "request_id": _request_id(), "data": {}}
    return Answer(200, body_ok, account, accepted=tuple(body["data"]), envelope=without(body, "data"))


def _check(event: Mapping[str, Any], source: str, now: float) -> Problem | None:
    """What a schema cannot say: times, addresses and what belongs to which source."""
    age = now - event["event_time"]
    if not is_int(event["event_time"]):
        return Problem(("event_time",), "type", "", "integer")
    if age > MAX_AGE:
        return Problem(("event_time",), "age", "Must not be older than 28 days.")
    if age < -FUTURE:
        return Problem(("event_time",), "age", "Must be in seconds and not in the future.")
    user = event.get("user", {})
    if "ip" in user and not is_ip(user["ip"]):
        return Problem(("user", "ip"), "ip", "Not a valid IP address.")
    return _SOURCES[source](event, user)


def _web(event: Mapping[str, Any], _user: Mapping[str, Any]) -> Problem | None:
    return _require(event, "page") if PAGE_REQUIRED else None


def _app(event: Mapping[str, Any], _user: Mapping[str, Any]) -> Problem | None:
    return _require(event, "app")


def _offline(event: Mapping[str, Any], user: Mapping[str, Any]) -> Problem | None:
    if event["event"] not in STANDARD_EVENTS:
        return Problem(("event",), "enum", "Offline events must be standard events.")
    if not has_any(user, ("email", "phone")):
        return Problem(("user",), "required", "Offline events need an email or a phone.")
    return _forbid(event, "page", "limited_data_use")


def _crm(event: Mapping[str, Any], _user: Mapping[str, Any]) -> Problem | None:
    return _require(event, "lead") or _forbid(event, "limited_data_use")


_SOURCES = {"web": _web, "app": _app, "offline": _offline, "crm": _crm}


def _require(event: Mapping[str, Any], key: str) -> Problem | None:
    return None if key in event else Problem((), "required", "", key=key)


def _forbid(event: Mapping[str, Any], *names: str) -> Problem | None:
    return next((Problem((), "additionalProperties", "", key=name) for name in names if name in event), None)


def _text(problem: Problem, prefix: tuple[str | int, ...]) -> str:
    path = ".".join(str(step) for step in (*prefix, *problem.full_path))
    return f"{path or 'body'}: {_words(problem)}"


def _words(problem: Problem) -> str:
    if problem.rule == "additionalProperties":
        return "Unknown field."
    if problem.key:
        return "Missing data for required field."
    if problem.rule == "type":
        first = problem.expected if isinstance(problem.expected, str) else problem.expected[0]
        return f"Not a valid {_TYPES[first]}."
    if problem.rule == "enum" and problem.expected:
        return f"Must be one of: {', '.join(problem.expected)}."
    return problem.text if problem.text.endswith(".") else f"Invalid value: {problem.text}."


def _refusal(code: int, message: str, account: str, refused: tuple[tuple[Any, str], ...]) -> Answer:
    body = {"code": code, "message": message, "request_id": _request_id(), "data": {}}
    return Answer(200, body, account, refused=refused)


def _request_id() -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime()) + secrets.token_hex(10).upper()


PLATFORM = Platform("tiktok", "TikTok Events API", (PATH,), answer)
