"""Reddit Conversions API v3: `POST /reddit/api/v3/pixels/<pixel id>/conversion_events`.

One invalid event refuses the whole request, but the answer lists every invalid one by its index, so that the sender
can drop those and send the rest again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .schema import (
    ANY_TEXT,
    HASH,
    INTEGER,
    NUMBER,
    PLAIN,
    TEXT,
    Problem,
    Schema,
    array,
    keys,
    one_of,
    pattern,
    shape,
)
from .store import Credentials
from .wire import FUTURE, HOUR, Answer, Platform, Request, has_any, is_int, is_ip, load_json, not_found, whole, without

MAX_EVENTS = 1000
MAX_AGE = 168 * HOUR
# Reddit throttles the default names of HTTP libraries.
BAD_AGENTS = ("python-requests", "python-urllib")
MATCH_KEYS = ("email", "phone_number", "external_id", "uuid", "idfa", "aaid")

_USER = shape({
    # Reddit also takes these plain. EventFlows must never send them so, and the sandbox is there to notice: a raw
    # e-mail address, phone number or device id is refused.
    **keys("email phone_number external_id idfa aaid", HASH),
    **keys("ip_address user_agent", PLAIN),
    "uuid": pattern(r"^(\d{13}\.)?[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"),
    "screen_dimensions": shape(keys("width height", {"type": "integer", "minimum": 1}), required=("width", "height")),
    "data_processing_options": shape({
        "modes": array(one_of("LDU")),
        "country": pattern("^[A-Z]{2}$"),
        "region": pattern("^([A-Z]{2}-)?[A-Z0-9]{1,3}$"),
    }, required=("modes", "country")),
})  # fmt: skip
_METADATA = shape({
    "conversion_id": TEXT,
    "currency": pattern("^[A-Z]{3}$"),
    "value": {"type": "number", "minimum": 0},
    "item_count": {"type": "integer", "minimum": 0},
    "order_id": {"type": "string", "minLength": 1, "maxLength": 100},
    "products": array(shape({
        **keys("id name category", ANY_TEXT), "quantity": INTEGER, "item_price": NUMBER,
    }), least=0),
})  # fmt: skip
EVENT = Schema(shape({
    "event_at": INTEGER,
    "action_source": one_of("WEBSITE", "APP", "PHYSICAL_STORE", "OTHER"),
    "type": shape({
        "tracking_type": one_of("PAGE_VISIT", "VIEW_CONTENT", "SEARCH", "ADD_TO_CART", "ADD_TO_WISHLIST", "PURCHASE",
                                "LEAD", "SIGN_UP", "CUSTOM"),
        "custom_event_name": {"type": "string", "minLength": 1, "maxLength": 64},
    }, required=("tracking_type",)),
    **keys("click_id event_source_url referrer_url", TEXT),
    "user": _USER,
    "metadata": _METADATA,
}, required=("event_at", "action_source", "type")))  # fmt: skip
REQUEST = Schema(shape({
    "data": shape({
        "events": array({}, most=MAX_EVENTS),
        # The OpenAPI file has only the first; Reddit's own tag sends the others too.
        **keys("test_id partner partner_version", TEXT),
    }, required=("events",)),
}, required=("data",)))  # fmt: skip

_PATH = re.compile(r"/api/v3/pixels/([^/]+)/conversion_events")


def answer(request: Request, credentials: Credentials, now: float) -> Answer:
    """Answers a request; see `wire.Platform`."""
    match = _PATH.fullmatch(request.path)
    if match is None:
        return not_found(request)
    pixel = match.group(1)
    if request.method != "POST":
        return _error(405, "Method Not Allowed", pixel, None)
    try:
        body = load_json(request.body)
    except ValueError:
        body = None
    data = body.get("data") if isinstance(body, dict) else None
    events = data.get("events") if isinstance(data, dict) else None
    agent = request.headers.get("user-agent", "").strip().lower()
    if not agent or agent.startswith(BAD_AGENTS):
        return _error(429, "Your user agent was automatically ratelimited.", pixel, events)
    refusal = _credentials(request, credentials, pixel)
    if refusal is not None:
        return _error(*refusal, pixel, events)
    if request.content_type != "application/json" or body is None:
        return _error(400, "Bad Request: the body must be JSON, with Content-Type application/json.", pixel, events)
    problem = REQUEST.problem(body)
    if problem is not None:
        field = _field(problem, "$", body)
        return _error(400, f"Bad Request: {field['field']}: {problem.text}", pixel, events, [field])
    fields, refused = [], []
    for index, event in enumerate(body["data"]["events"]):
        problem = EVENT.problem(event) or _check(event, now)
        if problem is not None:
            field = _field(problem, f"$.data.events[{index}]", event)
            fields.append(field)
            # Without the answer's own text, which may echo a value.
            refused.append((event, f"400: {field['field']}: {problem.text}"))
    if fields:
        text = f"There were {len(fields)} invalid conversion events. None were processed."
        return Answer(400, {"error": {"code": 400, "message": text, "fields": fields}}, pixel, refused=tuple(refused))
    accepted = tuple(body["data"]["events"])
    text = f"Successfully processed {len(accepted)} conversion events."
    return Answer(200, {"data": {"message": text}}, pixel, accepted=accepted, envelope=without(body["data"], "events"))


def _credentials(request: Request, credentials: Credentials, pixel: str) -> tuple[int, str] | None:
    fault = credentials.fault_of("reddit", pixel, request.bearer)
    if fault == "missing":
        return 401, "No bearer token provided."
    if fault == "invalid":
        return 401, "UNAUTHORIZED"
    if fault:
        return 403, f"You're not authorized to post conversions to Pixel ID {pixel}."
    return None


def _check(event: Mapping[str, Any], now: float) -> Problem | None:
    """What a schema cannot say: times, addresses and what depends on another field."""
    if not is_int(event["event_at"]):
        return Problem(("event_at",), "type", "must be integer")
    age = now - event["event_at"] / 1000
    if age > MAX_AGE:
        return Problem(("event_at",), "age", "event_at timestamp must be less than 168h0m0s old")
    if age < -FUTURE:
        return Problem(("event_at",), "age", "event_at timestamp must not be in the future")
    custom = event["type"]["tracking_type"] == "CUSTOM"
    if custom != ("custom_event_name" in event["type"]):
        text = "custom_event_name is required with CUSTOM and allowed with nothing else"
        return Problem(("type", "custom_event_name"), "custom", text)
    user = event.get("user", {})
    if "ip_address" in user and not is_ip(user["ip_address"]):
        return Problem(("user", "ip_address"), "ip", "must be a plain IP address")
    visitor = has_any(user, ("ip_address",)) and has_any(user, ("user_agent",))
    if not ("click_id" in event or has_any(user, MATCH_KEYS) or visitor):
        return Problem(("user",), "match", "some match keys are required")
    return None


def _field(problem: Problem, prefix: str, value: Any) -> dict[str, str]:
    path = problem.full_path
    # The API writes this one in capitals.
    names = ["UUID" if step == "uuid" else step for step in path]
    place = prefix + "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names)
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    if problem.rule == "enum":
        for step in path:
            value = value[step]
        return {"field": place, "message": f"{key}: invalid {key}: {value}"}
    return {"field": place, "message": f"{key}: {problem.text}" if key else problem.text}


def _error(status: int, message: str, pixel: str, events: Any, fields: list[dict[str, str]] | None = None) -> Answer:
    error: dict[str, Any] = {"code": status, "message": message}
    if fields:
        error["fields"] = fields
    return Answer(status, {"error": error}, pixel, refused=whole(events, f"{status}: {message}"))


PLATFORM = Platform("reddit", "Reddit Conversions API", ("/api/v3/pixels/<pixel id>/conversion_events",), answer)
