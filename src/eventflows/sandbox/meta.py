"""Meta Conversions API: `POST /meta/v26.0/<pixel or dataset id>/events`.

One invalid event refuses the whole request, nothing of it is stored. Takes JSON bodies as well as the forms that
the official SDK `facebook-business` posts.
"""

from __future__ import annotations

import email.parser
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from .schema import (
    ANY_TEXT,
    BOOLEAN,
    INTEGER,
    NUMBER,
    SCALAR,
    TEXT,
    Problem,
    Schema,
    array,
    keys,
    one_of,
    one_or_many,
    pattern,
    shape,
)
from .store import Credentials
from .wire import (
    DAY,
    FUTURE,
    Answer,
    Platform,
    Request,
    is_int,
    is_ip,
    load_json,
    not_found,
    one_refused,
    whole,
    without,
)

VERSIONS = range(21, 27)
MAX_EVENTS = 1000
MAX_AGE = 7 * DAY
MAX_AGE_STORE = 62 * DAY
# Milliseconds of any day since 1973 are above, seconds of any day until 5138 are below.
MILLISECONDS = 10**11

TOO_OLD, IN_FUTURE, NO_VALUE, BAD_KEY, NO_MATCH = 2804003, 2804004, 2804009, 2804019, 2804050
TITLES = {
    TOO_OLD: "Event Timestamp Too Old",
    IN_FUTURE: "Event Timestamp In The Future",
    NO_VALUE: "Value Is Required For Purchase Events",
    BAD_KEY: "Invalid Parameter",
    NO_MATCH: "Not Enough Customer Information",
}

# The suffix is what Meta's own parameter builder appends to digests.
_HASHED = one_or_many(r"^[0-9a-f]{64}(\.[A-Za-z0-9_-]{2,8})?$")
_ID = {"type": ["string", "integer"]}
_FLAG = {"type": ["boolean", "integer"], "enum": [0, 1]}
_MONEY = {"type": ["number", "string"], "pattern": r"^-?\d+(\.\d+)?$"}
_DELIVERY = one_of("in_store", "curbside", "home_delivery")
_SEGMENT = one_of(
    "customer_in_loyalty_program",
    *(f"{who}_customer_to_{what}" for who in ("new", "existing")
      for what in ("business", "business_line", "product_area", "medium")),
)  # fmt: skip

_USER_DATA = shape({
    **keys("em ph fn ln ge db ct st zp country f5first f5last fi dobd dobm doby", _HASHED),
    # May be plain or hashed, but an e-mail address is never an id that may travel unhashed.
    "external_id": one_or_many(r"^[^@]+$"),
    "client_ip_address": TEXT,
    "client_user_agent": TEXT,
    # fb.<dots of the domain>.<ms>.<click id or random number>, and what the parameter builder appends.
    "fbc": pattern(r"^fb\.\d\.\d{13}\.\S+$"),
    "fbp": pattern(r"^fb\.\d\.\d{13}\.\d+(\.[A-Za-z0-9_-]+)*$"),
    **keys("subscription_id madid anon_id ctwa_clid ig_sid", TEXT),
    **keys("fb_login_id lead_id page_id page_scoped_user_id ig_account_id", _ID),
})  # fmt: skip
_CUSTOM_DATA = shape({
    "value": _MONEY,
    **keys("net_revenue predicted_ltv", _MONEY),
    "currency": pattern("^[A-Za-z]{3}$"),
    **keys("content_name content_category content_type order_id search_string status item_number", ANY_TEXT),
    "content_ids": array(ANY_TEXT, least=0),
    "contents": array(shape({
        "id": TEXT, "quantity": INTEGER, "item_price": NUMBER, "delivery_category": _DELIVERY,
        **keys("title description brand category", ANY_TEXT),
    }, required=("id",)), least=0),
    "num_items": INTEGER,
    "delivery_category": _DELIVERY,
    "customer_segmentation": _SEGMENT,
    "store_data": shape(keys("store_page_id brand_page_id store_code", _ID)),
}, extra=SCALAR)  # fmt: skip
_APP_DATA = shape({
    **keys("advertiser_tracking_enabled application_tracking_enabled", _FLAG),
    **keys("consider_views include_dwell_data include_video_data", BOOLEAN),
    "extinfo": {"type": "array", "minItems": 16, "maxItems": 16, "items": {"type": ["string", "number", "null"]}},
    **keys("campaign_ids install_referrer installer_package receipt_data windows_attribution_id vendor_id", SCALAR),
    "url_schemes": array(ANY_TEXT, least=0),
})  # fmt: skip
_ATTRIBUTION_DATA = shape({
    **keys(
        "scope visit_time ad_id adset_id campaign_id attribution_share attribution_model attr_window attribution_value"
        " attribution_source touchpoint_type touchpoint_ts attribution_method decline_reason auditing_token linkage_key"
        " touchpoint_id total_credit partner_client_id", SCALAR),
    "attribution_setting": shape(keys("inactivity_window_hours reattribution_window_hours", INTEGER)),
})  # fmt: skip
EVENT = Schema(shape({
    "event_name": TEXT,
    "event_time": INTEGER,
    "event_id": TEXT,
    "action_source": one_of("email", "website", "app", "phone_call", "chat", "physical_store", "system_generated",
                            "business_messaging", "other"),
    "user_data": _USER_DATA,
    "custom_data": _CUSTOM_DATA,
    "app_data": _APP_DATA,
    "original_event_data": shape({
        **keys("event_name order_id event_id", TEXT), "event_time": INTEGER}),
    "attribution_data": _ATTRIBUTION_DATA,
    **keys("event_source_url referrer_url advanced_measurement_table", TEXT),
    "opt_out": BOOLEAN,
    "data_processing_options": array(one_of("LDU"), least=0),
    "data_processing_options_country": {"type": "integer", "enum": [0, 1]},
    "data_processing_options_state": {"type": "integer", "enum": [0, *range(1000, 1014)]},
    "customer_segmentation": _SEGMENT,
    "messaging_channel": one_of("whatsapp", "messenger", "instagram"),
}, required=("event_name", "event_time", "action_source", "user_data")))  # fmt: skip
REQUEST = Schema(shape({
    "data": {},
    "partner_agent": {"type": "string", "maxLength": 22, "pattern": "[A-Za-z].*[A-Za-z]"},
    **keys("access_token appsecret_proof test_event_code upload_tag upload_id upload_source namespace_id", TEXT),
    # Parameters of every Graph call, and two that the reference lists without a word.
    **keys("fields pretty debug format locale method suppress_http_code platforms progress", {}),
}))  # fmt: skip

# User data that is a subset of one of these identifies nobody.
_TOO_LITTLE = (
    {"ct", "country", "st", "zp", "ge", "client_user_agent"},
    {"db", "client_user_agent"},
    {"fn", "ge"},
    {"ln", "ge"},
)
_PATH = re.compile(r"/(?:(v\d+\.\d+)/)?([^/]+)/events/?")


def answer(request: Request, credentials: Credentials, now: float) -> Answer:
    """Answers a request; see `wire.Platform`."""
    match = _PATH.fullmatch(request.path)
    if match is None:
        return not_found(request)
    version, pixel = match.groups()
    if request.method != "POST":
        return _error(400, 100, f"Unsupported {request.method.lower()} request.", account=pixel, subcode=33)
    if version not in {f"v{number}.0" for number in VERSIONS}:
        text = f"You are calling a deprecated or unknown version of the Ads API. Use v{VERSIONS[-1]}.0."
        return _error(400, 2635, f"(#2635) {text}", account=pixel)
    try:
        body = _parameters(request)
    except ValueError as error:
        return _error(400, 100, f"(#100) The body cannot be read: {error}", account=pixel)
    events = body.get("data")
    fault = credentials.fault_of("meta", pixel, _token(request, body))
    if fault:
        text = "Invalid OAuth access token - Cannot parse access token"
        if fault == "missing":
            text = "An access token is required to request this resource."
        refused = whole(events, f"190: {fault} access token")
        return _error(401, 190, text, account=pixel, refused=refused)
    problem = REQUEST.problem(body)
    if problem is not None:
        text = _text(problem, ())
        return _error(400, 100, text, account=pixel, subcode=BAD_KEY, refused=whole(events, f"100/{BAD_KEY}: {text}"))
    if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
        text = f"(#100) param data must be an array of 1 to {MAX_EVENTS} events."
        return _error(400, 100, text, account=pixel, refused=whole(events, f"100: {text}"))
    for index, event in enumerate(events):
        found = _check(event, index, now)
        if found is not None:
            subcode, text = found
            refused = one_refused(events, index, f"100/{subcode}: {text}")
            # Only this one names the place; with the others the sender has to find the event itself.
            message = text if subcode == BAD_KEY else "Invalid parameter"
            return _error(400, 100, message, account=pixel, subcode=subcode, refused=refused)
    body_ok = {"events_received": len(events), "messages": [], "fbtrace_id": _trace()}
    envelope = without(body, "data", "access_token", "appsecret_proof")
    return Answer(200, body_ok, pixel, accepted=tuple(events), envelope=envelope)


def _parameters(request: Request) -> dict[str, Any]:
    """The parameters of a JSON body or of a form, `data` decoded."""
    if request.content_type == "application/x-www-form-urlencoded":
        fields = parse_qs(request.body.decode(), keep_blank_values=True, strict_parsing=bool(request.body))
        form = {key: values[0] for key, values in fields.items()}
    elif request.content_type == "multipart/form-data":
        form = _multipart(request)
    else:
        body = load_json(request.body)
        if not isinstance(body, dict):
            raise ValueError("not a JSON object")
        return {**body, "data": _decoded(body["data"])} if "data" in body else body
    return {**form, "data": _decoded(load_json(form["data"]))} if "data" in form else dict(form)


def _multipart(request: Request) -> dict[str, str]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser().parsebytes(head + request.body)
    form: dict[str, str] = {}
    parts = message.get_payload()
    for part in parts if isinstance(parts, list) else []:
        name = part.get_param("name", header="content-disposition") if not isinstance(part, str) else None
        payload = part.get_payload(decode=True) if not isinstance(part, str) else None
        if isinstance(name, str) and isinstance(payload, bytes):
            form[name] = payload.decode()
    return form


def _decoded(data: Any) -> Any:
    # The SDK posts an array of JSON texts, one for each event.
    if isinstance(data, str):
        data = load_json(data)
    if isinstance(data, list):
        return [load_json(event) if isinstance(event, str) else event for event in data]
    return data


def _token(request: Request, body: Mapping[str, Any]) -> str:
    token = request.bearer or request.query.get("access_token") or body.get("access_token")
    return token if isinstance(token, str) else ""


def _check(event: Any, index: int, now: float) -> tuple[int, str] | None:
    """The subcode and the text of an event's first problem."""
    problem = EVENT.problem(event) or next(filter(None, (rule(event) for rule in _RULES)), None)
    if problem is not None:
        return BAD_KEY, _text(problem, ("data", index))
    age = now - event["event_time"]
    if age > (MAX_AGE_STORE if event["action_source"] == "physical_store" else MAX_AGE):
        return TOO_OLD, f"data[{index}]: event_time is too old"
    if age < -FUTURE:
        return IN_FUTURE, f"data[{index}]: event_time is in the future"
    custom = event.get("custom_data", {})
    if event["event_name"] == "Purchase" and "value" not in custom:
        return NO_VALUE, f"data[{index}]: Purchase without custom_data.value"
    if event["event_name"] == "Purchase" and "currency" not in custom:
        return BAD_KEY, _text(_missing("custom_data", "currency"), ("data", index))
    present = {key for key, value in event["user_data"].items() if value}
    if any(present <= little for little in _TOO_LITTLE):
        return NO_MATCH, f"data[{index}]: not enough customer information: {', '.join(sorted(present)) or 'none'}"
    return None


def _time_rule(event: Mapping[str, Any]) -> Problem | None:
    if not is_int(event["event_time"]) or event["event_time"] > MILLISECONDS:
        return Problem(("event_time",), "unit", "must be an integer in seconds")
    return None


def _ip_rule(event: Mapping[str, Any]) -> Problem | None:
    address = event["user_data"].get("client_ip_address")
    # The parameter builder appends its suffix to addresses too.
    if address is None or is_ip(address) or is_ip(re.sub(r"\.(\w{2}|\w{8})$", "", address)):
        return None
    return Problem(("user_data", "client_ip_address"), "ip", "must be an IP address")


def _app_rule(event: Mapping[str, Any]) -> Problem | None:
    if event["action_source"] != "app":
        return None
    app = event.get("app_data")
    if app is None:
        return _missing("app_data")
    for key in ("advertiser_tracking_enabled", "extinfo"):
        if key not in app:
            return _missing("app_data", key)
    if app["extinfo"][0] not in ("a2", "i2"):
        return Problem(("app_data", "extinfo", 0), "enum", "must be a2 or i2")
    if not app["extinfo"][4]:
        return Problem(("app_data", "extinfo", 4), "required", "must be the version of the operating system")
    return None


def _messaging_rule(event: Mapping[str, Any]) -> Problem | None:
    if event["action_source"] == "business_messaging" and "messaging_channel" not in event:
        return _missing("messaging_channel")
    return None


_RULES: tuple[Callable[[Mapping[str, Any]], Problem | None], ...] = (_time_rule, _ip_rule, _app_rule, _messaging_rule)


def _missing(*path: str) -> Problem:
    return Problem(path[:-1], "required", f'missing key "{path[-1]}"', key=path[-1])


def _text(problem: Problem, prefix: tuple[str | int, ...]) -> str:
    path = prefix + problem.path
    steps = "".join(f"[{step}]" if isinstance(step, int) else f"['{step}']" for step in path)
    if problem.rule == "additionalProperties":
        return f'Unexpected key "{problem.key}" on param "${steps}"'
    if problem.key:
        return f'Missing key "{problem.key}" on param "${steps}"'
    return f'Invalid value on param "${steps}": {problem.text}'


def _error(
    status: int,
    code: int,
    message: str,
    *,
    account: str,
    subcode: int | None = None,
    refused: tuple[tuple[Any, str], ...] | None = None,
) -> Answer:
    error: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code}
    if subcode is not None:
        error["error_subcode"] = subcode
    error["is_transient"] = False
    if subcode in TITLES:
        error["error_user_title"] = TITLES[subcode]
        error["error_user_msg"] = message if subcode == BAD_KEY else TITLES[subcode]
    error["fbtrace_id"] = _trace()
    return Answer(status, {"error": error}, account, refused=refused or whole(None, f"{code}: {message}"))


def _trace() -> str:
    return f"A{secrets.token_urlsafe(9)}"


PLATFORM = Platform("meta", "Meta Conversions API", ("/v26.0/<pixel id>/events",), answer)
