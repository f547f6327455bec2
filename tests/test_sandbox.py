"""The sandbox over real sockets: it takes what the platforms document, and refuses what they refuse."""

from __future__ import annotations

import copy
import html
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from facebook_business.adobjects.serverside.action_source import ActionSource
from facebook_business.adobjects.serverside.content import Content
from facebook_business.adobjects.serverside.custom_data import CustomData
from facebook_business.adobjects.serverside.event import Event
from facebook_business.adobjects.serverside.event_request import EventRequest
from facebook_business.adobjects.serverside.gender import Gender
from facebook_business.adobjects.serverside.user_data import UserData
from facebook_business.api import FacebookAdsApi
from facebook_business.exceptions import FacebookRequestError
from facebook_business.session import FacebookSession

from eventflows.cli import main
from eventflows.sandbox import Sandbox

EMAIL = "4dcde2d74f78a04130eab1c7bc19534840c346ffd2626e244a75d469b2391aea"
PHONE = "19317f0437d748c2e75c9d451197ae3ccc2e67c6d1e05cba41f25e639e3a7528"
NAME = "fdee430d40bd57deeac186cd9790033d0f06f909a8806e7ce6e717ab7c7d5029"
ID = "231b041a9aa74b85e6eecdc3b5e7ed348735720d85b7a539121bdaee0c6d37d9"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
NOW = int(time.time())
HOUR, DAY = 3600, 24 * 3600
MISSING = object()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a body with another value at a place such as "data.0.event_time"; MISSING takes the place away."""
    result = copy.deepcopy(body)
    *way, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    place: Any = result
    for step in way:
        place = place[step]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return result


# --- the bodies of the fact sheets, with times of now ---------------------------------------------------------------

META_PURCHASE: dict[str, Any] = {"data": [{
    "event_name": "Purchase", "event_time": NOW, "event_id": "ord-70331", "action_source": "website",
    "event_source_url": "https://shop.fjordlamp.example/checkout/done",
    "referrer_url": "https://shop.fjordlamp.example/checkout",
    "user_data": {"em": [EMAIL], "ph": [PHONE], "fn": [NAME], "ln": [NAME], "ct": [NAME], "zp": [NAME],
                  "country": [NAME], "external_id": [ID], "client_ip_address": "198.51.100.24",
                  "client_user_agent": AGENT, "fbc": "fb.1.1795450000000.IwZXh0bgNhZW0",
                  "fbp": "fb.1.1790000000123.1804412345"},
    "custom_data": {"currency": "SEK", "value": 1249.5, "order_id": "70331", "content_type": "product", "num_items": 3,
                    "content_ids": ["LMP-11", "LMP-29"],
                    "contents": [{"id": "LMP-11", "quantity": 1, "item_price": 749.5},
                                 {"id": "LMP-29", "quantity": 2, "item_price": 250.0}]}}]}  # fmt: skip
META_LEAD: dict[str, Any] = {"data": [{
    "event_name": "Lead", "event_time": NOW, "event_id": "lead-5c1e", "action_source": "website",
    "event_source_url": "https://shop.fjordlamp.example/b2b", "opt_out": False,
    "data_processing_options": ["LDU"], "data_processing_options_country": 0, "data_processing_options_state": 0,
    "user_data": {"em": [EMAIL], "client_ip_address": "2001:db8:4::9a", "client_user_agent": AGENT},
    "custom_data": {"content_name": "B2B enquiry", "content_category": "wholesale"}}],
    "test_event_code": "TEST48211"}  # fmt: skip
META_CUSTOM: dict[str, Any] = {"data": [{
    "event_name": "LampConfigured", "event_time": NOW, "event_id": "cfg-9921", "action_source": "website",
    "user_data": {"external_id": [ID], "client_ip_address": "198.51.100.24", "client_user_agent": AGENT},
    "custom_data": {"shade": "opal", "steps": 4}}], "partner_agent": "fjordpipe-1.0"}  # fmt: skip

GA4_PURCHASE: dict[str, Any] = {
    "client_id": "1836402915.1795431201", "user_id": "cust_8841", "timestamp_micros": NOW * 10**6,
    "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
    "ip_override": "198.51.100.24", "user_agent": AGENT, "user_properties": {"customer_tier": {"value": "gold"}},
    "user_data": {"sha256_email_address": [EMAIL], "sha256_phone_number": [PHONE],
                  "address": [{"sha256_first_name": NAME, "sha256_last_name": NAME, "sha256_street": NAME,
                               "city": "uppsala", "postal_code": "75320", "country": "SE"}]},
    "events": [{"name": "purchase", "timestamp_micros": NOW * 10**6, "params": {
        "session_id": 1795454100, "engagement_time_msec": 1200, "transaction_id": "70331", "currency": "SEK",
        "value": 1249.5, "shipping": 49.0, "tax": 249.9, "customer_type": "returning",
        "page_location": "https://shop.fjordlamp.example/tack?order=70331",
        "items": [{"item_id": "LMP-11", "item_name": "Table lamp Skagen", "price": 749.5, "quantity": 1},
                  {"item_id": "LMP-29", "item_name": "Bulb E27", "price": 250.0, "quantity": 2}]}}]}  # fmt: skip
GA4_LEAD: dict[str, Any] = {
    "client_id": "GA1.1.1836402915.1795431201",
    "user_location": {"country_id": "SE", "region_id": "SE-C", "city": "Uppsala"},
    "device": {"category": "desktop", "language": "sv", "operating_system": "Linux", "browser": "Firefox",
               "browser_version": "140.0"},
    "events": [{"name": "generate_lead", "timestamp_micros": NOW * 10**6, "params": {
        "session_id": "1795454100", "engagement_time_msec": 100, "currency": "SEK", "value": 150.0,
        "lead_source": "showroom_form", "lead_ref": "lead-5c1e"}}]}  # fmt: skip

TIKTOK_PURCHASE: dict[str, Any] = {"event_source": "web", "event_source_id": "CFJORD0LAMP1TEST9X", "data": [{
    "event": "Purchase", "event_time": NOW, "event_id": "ord-70331",
    "user": {"email": [EMAIL], "phone": [PHONE], "external_id": [ID], "first_name": NAME, "last_name": NAME,
             "city": "uppsala", "country": "se", "zip_code": NAME, "ttclid": "E.C.P.q7Zk2fLampClick01",
             "ttp": "2aBcDeFgHiJkLmNoPqRsTuVwXyZ", "ip": "198.51.100.24", "user_agent": AGENT, "locale": "sv-SE"},
    "page": {"url": "https://shop.fjordlamp.example/tack?order=70331",
             "referrer": "https://shop.fjordlamp.example/kassa"},
    "properties": {"currency": "SEK", "value": 1249.5, "order_id": "70331", "num_items": 3, "content_type": "product",
                   "content_ids": ["LMP-11", "LMP-29"],
                   "contents": [{"content_id": "LMP-11", "content_name": "Table lamp", "price": 749.5, "quantity": 1},
                                {"content_id": "LMP-29", "content_name": "Bulb", "price": 250.0,
                                 "quantity": 2}]}}]}  # fmt: skip
TIKTOK_LEAD: dict[str, Any] = {
    "event_source": "web", "event_source_id": "CFJORD0LAMP1TEST9X", "test_event_code": "TEST48213", "data": [{
        "event": "Lead", "event_time": NOW, "event_id": "lead-5c1e", "limited_data_use": False,
        "user": {"email": EMAIL, "ip": "198.51.100.24", "user_agent": AGENT},
        "page": {"url": "https://shop.fjordlamp.example/offert"},
        "properties": {"description": "showroom visit form", "currency": "SEK", "value": 150.0}}]}  # fmt: skip
TIKTOK_CUSTOM: dict[str, Any] = {"event_source": "web", "event_source_id": "CFJORD0LAMP1TEST9X", "data": [{
    "event": "LampConfigured", "event_time": NOW, "event_id": "cfg-9921", "user": {"external_id": ID},
    "properties": {"shade": "opal", "steps": 4}}]}  # fmt: skip
TIKTOK_OFFLINE = {"event_source": "offline", "event_source_id": "O1", "data": [{
    "event": "Purchase", "event_time": NOW - 27 * DAY, "event_id": "o-1", "user": {"phone": PHONE},
    "properties": {"currency": "SEK", "value": 5}}]}  # fmt: skip
TIKTOK_APP = {"event_source": "app", "event_source_id": "A1", "data": [{
    "event": "Login", "event_time": NOW, "app": {"app_id": "com.example"},
    "user": {"gaid": "0b5a2c3d-1111-4222-8333-444455556666"}}]}  # fmt: skip
TIKTOK_CRM = {"event_source": "crm", "event_source_id": "C1", "data": [{
    "event": "Qualified", "event_time": NOW, "event_id": "c-1", "user": {"email": EMAIL},
    "lead": {"lead_id": "7012345678901234567", "lead_event_source": "hubspot"}}]}  # fmt: skip

REDDIT_PURCHASE: dict[str, Any] = {"data": {"events": [{
    "event_at": NOW * 1000, "action_source": "WEBSITE", "type": {"tracking_type": "PURCHASE"},
    "click_id": "3187742045291000001", "event_source_url": "https://shop.fjordlamp.example/checkout/done",
    "user": {"email": EMAIL, "phone_number": PHONE, "external_id": ID, "ip_address": "198.51.100.24",
             "user_agent": AGENT, "uuid": "1790000000123.5d9b6c1e-3f0a-4a77-9a55-0d2f6f1c7b21",
             "screen_dimensions": {"width": 1920, "height": 1080}},
    "metadata": {"conversion_id": "ord-70331", "order_id": "70331", "currency": "SEK", "value": 1249.5,
                 "item_count": 3, "products": [
                     {"id": "LMP-11", "name": "Opal", "category": "Light", "quantity": 1, "item_price": 749.5},
                     {"id": "LMP-29", "name": "Bulb", "category": "Light", "quantity": 2,
                      "item_price": 250.0}]}}]}}  # fmt: skip
REDDIT_LEAD: dict[str, Any] = {"data": {"test_id": "t2_demo-test-id", "events": [{
    "event_at": NOW * 1000, "action_source": "WEBSITE", "type": {"tracking_type": "LEAD"},
    "user": {"email": EMAIL, "ip_address": "198.51.100.24", "user_agent": AGENT,
             "data_processing_options": {"modes": ["LDU"], "country": "US", "region": "CA"}},
    "metadata": {"conversion_id": "lead-5c1e"}}]}}  # fmt: skip
REDDIT_CUSTOM: dict[str, Any] = {"data": {"events": [{
    "event_at": NOW * 1000, "action_source": "WEBSITE",
    "type": {"tracking_type": "CUSTOM", "custom_event_name": "Lamp Configured"},
    "user": {"external_id": ID}, "metadata": {"conversion_id": "cfg-9921"}}]}}  # fmt: skip


def meta(sandbox: Sandbox, body: Any, key: str = "abc", path: str = "/v26.0/123/events") -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.post(f"{sandbox.url}/meta{path}", json=body, headers=headers, timeout=5)


def ga4(sandbox: Sandbox, body: Any, debug: bool = False, **query: str) -> requests.Response:
    params = {"measurement_id": "G-FJ0RD1AMP9", "api_secret": "s3cret", **query}
    path = "/debug/mp/collect" if debug else "/mp/collect"
    return requests.post(f"{sandbox.url}/ga4{path}", json=body, params=params, timeout=5)


def tiktok(sandbox: Sandbox, body: Any, key: str = "abc") -> requests.Response:
    headers = {"Access-Token": key} if key else {}
    url = f"{sandbox.url}/tiktok/open_api/v1.3/event/track/"
    return requests.post(url, json=body, headers=headers, timeout=5)


def reddit(sandbox: Sandbox, body: Any, key: str = "abc", agent: str = "python:shop:1.0") -> requests.Response:
    headers = {"User-Agent": agent} | ({"Authorization": f"Bearer {key}"} if key else {})
    return requests.post(
        f"{sandbox.url}/reddit/api/v3/pixels/a2_x/conversion_events", json=body, headers=headers, timeout=5
    )


# --- accepted -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [META_PURCHASE, META_LEAD, META_CUSTOM])
def test_meta_takes_the_documented_bodies(sandbox: Sandbox, body: dict[str, Any]) -> None:
    response = meta(sandbox, body)
    assert response.status_code == 200, response.text
    assert response.json()["events_received"] == 1
    assert response.json()["messages"] == []
    (entry,) = sandbox.events("meta")
    assert entry["event"] == body["data"][0]
    assert entry["account"] == "123"
    assert abs(entry["received_at"] - time.time()) < 60
    assert sandbox.refused() == []


@pytest.mark.parametrize(("path", "value"), [
    ("data.0.custom_data.value", "1249.50"),
    ("data.0.custom_data.currency", "sek"),
    ("data.0.custom_data.plan", "annual"),
    ("data.0.user_data.em", EMAIL),
    ("data.0.user_data.em", [EMAIL + ".AbCdEf12"]),
    ("data.0.user_data.external_id", "user-1"),
    ("data.0.user_data.fbc", "fb.1.1795450000000.IwZXh0bgNhZW0.AbCdEf12"),
    ("data.0.user_data.fbp", "fb.1.1790000000123.1804412345.AQ"),
    ("data.0.event_time", NOW - 6 * DAY),
    ("data.0.event_time", NOW + 60),
    ("data.0.original_event_data", {"event_name": "Lead", "event_time": NOW, "event_id": "x"}),
])  # fmt: skip
def test_meta_takes_variations(sandbox: Sandbox, path: str, value: Any) -> None:
    response = meta(sandbox, changed(META_PURCHASE, path, value))
    assert response.status_code == 200, response.text


def test_meta_takes_store_events_of_two_months_and_app_events_with_device_info(sandbox: Sandbox) -> None:
    store = {**META_PURCHASE["data"][0], "action_source": "physical_store", "event_time": NOW - 61 * DAY}
    app_data = {"advertiser_tracking_enabled": 1, "extinfo": ["a2", "", "", "", "14"] + [""] * 11}
    app = {**META_PURCHASE["data"][0], "action_source": "app", "app_data": app_data}
    assert meta(sandbox, {"data": [store, app]}).json()["events_received"] == 2


@pytest.mark.parametrize("version", ["v21.0", "v25.0", "v26.0"])
def test_meta_takes_living_versions(sandbox: Sandbox, version: str) -> None:
    assert meta(sandbox, META_LEAD, path=f"/{version}/123/events").status_code == 200


@pytest.mark.parametrize("place", ["query", "form", "multipart", "body"])
def test_meta_takes_the_token_and_the_data_wherever_it_is_documented(sandbox: Sandbox, place: str) -> None:
    url = f"{sandbox.url}/meta/v26.0/123/events"
    texts = json.dumps([json.dumps(event) for event in META_PURCHASE["data"]])
    arguments: dict[str, Any] = {
        "query": {"params": {"access_token": "abc"}, "data": {"data": texts}},
        "form": {"data": {"access_token": "abc", "data": json.dumps(META_PURCHASE["data"])}},
        "multipart": {"files": {"access_token": (None, "abc"), "data": (None, texts)}},
        "body": {"json": {**META_PURCHASE, "access_token": "abc"}},
    }[place]
    response = requests.post(url, timeout=5, **arguments)
    assert response.status_code == 200, response.text
    assert [entry["event"] for entry in sandbox.events()] == META_PURCHASE["data"]
    assert "access_token" not in sandbox.requests[0]["envelope"]


@pytest.mark.parametrize("body", [GA4_PURCHASE, GA4_LEAD])
def test_ga4_takes_the_documented_bodies(sandbox: Sandbox, body: dict[str, Any]) -> None:
    response = ga4(sandbox, body)
    assert (response.status_code, response.content) == (204, b"")
    assert sandbox.refused() == []
    assert [entry["event"] for entry in sandbox.events("ga4")] == body["events"]
    assert sandbox.events()[0]["account"] == "G-FJ0RD1AMP9"
    assert sandbox.requests[0]["envelope"]["client_id"] == body["client_id"]


def test_ga4_takes_app_streams(sandbox: Sandbox) -> None:
    body = {"app_instance_id": "0" * 32, "events": [{"name": "screen_view"}]}
    params = {"firebase_app_id": "1:123:android:abc", "api_secret": "s"}
    requests.post(f"{sandbox.url}/ga4/mp/collect", json=body, params=params, timeout=5)
    assert sandbox.events("ga4")[0]["account"] == "1:123:android:abc"


@pytest.mark.parametrize("body", [GA4_PURCHASE, GA4_LEAD])
def test_ga4_debug_finds_nothing_wrong_and_records_nothing(sandbox: Sandbox, body: dict[str, Any]) -> None:
    response = ga4(sandbox, body, debug=True)
    assert (response.status_code, response.json()) == (200, {"validationMessages": []})
    assert sandbox.events() == sandbox.refused() == []


@pytest.mark.parametrize("body", [TIKTOK_PURCHASE, TIKTOK_LEAD, TIKTOK_CUSTOM, TIKTOK_OFFLINE, TIKTOK_APP, TIKTOK_CRM])
def test_tiktok_takes_the_documented_bodies(sandbox: Sandbox, body: dict[str, Any]) -> None:
    response = tiktok(sandbox, body)
    assert response.status_code == 200
    answer = response.json()
    assert answer.pop("request_id")
    assert answer == {"code": 0, "message": "OK", "data": {}}
    assert [entry["event"] for entry in sandbox.events("tiktok")] == body["data"]
    assert sandbox.events()[0]["account"] == body["event_source_id"]


@pytest.mark.parametrize("body", [REDDIT_PURCHASE, REDDIT_LEAD, REDDIT_CUSTOM])
def test_reddit_takes_the_documented_bodies(sandbox: Sandbox, body: dict[str, Any]) -> None:
    response = reddit(sandbox, body)
    assert response.status_code == 200, response.text
    assert response.json() == {"data": {"message": "Successfully processed 1 conversion events."}}
    assert [entry["event"] for entry in sandbox.events("reddit")] == body["data"]["events"]


# --- the official SDK -----------------------------------------------------------------------------------------------


@pytest.fixture
def facebook(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setattr(FacebookSession, "GRAPH", sandbox.url + "/meta")
    monkeypatch.setattr(FacebookAdsApi, "_default_api", None)
    FacebookAdsApi.init(access_token="abc", crash_log=False)
    yield sandbox
    FacebookAdsApi.set_default_api(None)


def sdk_event(**changes: Any) -> Event:
    user = UserData(
        emails=["User@Example.com"], phones=["+1 650 555 1212"], first_name="Mary", last_name="Smith",
        gender=Gender.FEMALE, date_of_birth="19970216", city="Oslo", state="ca", zip_code="94035", country_code="us",
        external_id="user-1", client_ip_address="198.51.100.24", client_user_agent=AGENT,
        fbc="fb.1.1795450000000.IwZXh0bgNhZW0", fbp="fb.1.1790000000123.1804412345",
    )  # fmt: skip
    content = Content(product_id="LMP-11", quantity=1, item_price=749.5, title="Lamp", brand="Fjord", category="Light")
    custom = CustomData(
        value=749.5, currency="SEK", contents=[content], content_type="product", order_id="70331", num_items=1,
        custom_properties={"plan": "annual"},
    )  # fmt: skip
    values = {"event_name": "Purchase", "event_time": int(time.time()), "event_id": "ord-70331", "user_data": user,
              "custom_data": custom, "action_source": ActionSource.WEBSITE,
              "event_source_url": "https://shop.fjordlamp.example/"}  # fmt: skip
    return Event(**{**values, **changes})


def test_the_official_sdk_of_meta_is_understood(facebook: Sandbox) -> None:
    request = EventRequest(pixel_id="123", events=[sdk_event(), sdk_event(event_id="2")], test_event_code="TEST1")
    assert request.execute().events_received == 2
    assert [entry["event"]["event_id"] for entry in facebook.events("meta")] == ["ord-70331", "2"]


def test_the_official_sdk_of_meta_raises_the_errors_of_the_sandbox(facebook: Sandbox) -> None:
    old = sdk_event(event_time=NOW - 8 * DAY)
    with pytest.raises(FacebookRequestError) as caught:
        EventRequest(pixel_id="123", events=[sdk_event(), old]).execute()
    assert (caught.value.api_error_code(), caught.value.api_error_subcode()) == (100, 2804003)
    assert facebook.events() == []


# --- refused --------------------------------------------------------------------------------------------------------

META_FAULTS: list[tuple[str, Any, int | None, str]] = [
    ("data.0.event_time", str(NOW), 2804019, "$['data'][0]['event_time']"),
    ("data.0.event_time", NOW * 1000, 2804019, "$['data'][0]['event_time']"),
    ("data.0.event_time", float(NOW), 2804019, "$['data'][0]['event_time']"),
    ("data.0.event_time", NOW - 7 * DAY - HOUR, 2804003, ""),
    ("data.0.event_time", NOW + 900, 2804004, ""),
    ("data.0.event_name", MISSING, 2804019, 'Missing key "event_name" on param "$[\'data\'][0]"'),
    ("data.0.items", [], 2804019, 'Unexpected key "items" on param "$[\'data\'][0]"'),
    ("data.0.custom_data.contents.1.index", 1, 2804019,
     'Unexpected key "index" on param "$[\'data\'][0][\'custom_data\'][\'contents\'][1]"'),
    ("data.0.custom_data.contents.0.quantity", "1", 2804019, "['contents'][0]['quantity']"),
    ("data.0.custom_data.plan", {"name": "annual"}, 2804019, "$['data'][0]['custom_data']['plan']"),
    ("data.0.custom_data.plan", ["annual"], 2804019, "$['data'][0]['custom_data']['plan']"),
    ("data.0.custom_data.value", MISSING, 2804009, ""),
    ("data.0.custom_data.value", "a lot", 2804019, "['value']"),
    ("data.0.custom_data.value", True, 2804019, "['value']"),
    ("data.0.custom_data.currency", MISSING, 2804019, 'Missing key "currency"'),
    ("data.0.custom_data.currency", "kr", 2804019, "['currency']"),
    ("data.0.user_data.em", ["user@example.com"], 2804019, "['user_data']['em'][0]"),
    ("data.0.user_data.em", EMAIL.upper(), 2804019, "['user_data']['em']"),
    ("data.0.user_data.ph", "4612345678", 2804019, "['user_data']['ph']"),
    ("data.0.user_data.external_id", ["user@example.com"], 2804019, "['external_id'][0]"),
    ("data.0.user_data.client_ip_address", "198.51.100", 2804019, "['client_ip_address']"),
    ("data.0.user_data.fbc", "IwZXh0bgNhZW0", 2804019, "['fbc']"),
    ("data.0.user_data.fbp", "fb.1.1790000000123", 2804019, "['fbp']"),
    ("data.0.user_data.email", EMAIL, 2804019, 'Unexpected key "email"'),
    ("data.0.user_data", {}, 2804050, ""),
    ("data.0.user_data", {"client_user_agent": AGENT}, 2804050, ""),
    ("data.0.user_data", {"ln": [NAME], "ge": [NAME]}, 2804050, ""),
    ("data.0.action_source", "web", 2804019, "['action_source']"),
    ("data.0.action_source", "app", 2804019, 'Missing key "app_data"'),
    ("data.0.action_source", "business_messaging", 2804019, 'Missing key "messaging_channel"'),
    ("data.0.app_data", {"advertiser_tracking_enabled": 1, "extinfo": ["a2"]}, 2804019, "['extinfo']"),
    ("data.0.data_processing_options", ["CCPA"], 2804019, "['data_processing_options'][0]"),
    ("data.0.opt_out", "true", 2804019, "['opt_out']"),
    ("partner_agent", "x" * 23, 2804019, "['partner_agent']"),
    ("event_name", "Purchase", 2804019, 'Unexpected key "event_name" on param "$"'),
    ("data", [], None, "param data"),
    ("data", "soon", None, ""),
    ("data", META_LEAD["data"] * 1001, None, "param data"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "subcode", "text"), META_FAULTS)
def test_meta_refuses(sandbox: Sandbox, path: str, value: Any, subcode: int | None, text: str) -> None:
    response = meta(sandbox, changed(META_PURCHASE, path, value))
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["code"], error.get("error_subcode")) == (100, subcode)
    assert error["type"] == "OAuthException"
    assert error["fbtrace_id"]
    assert text in error["message"]
    assert sandbox.events() == []
    assert sandbox.refused("meta")


def test_meta_refuses_a_whole_batch_for_one_event_and_names_it(sandbox: Sandbox) -> None:
    good = META_PURCHASE["data"][0]
    bad = changed(META_PURCHASE, "data.0.custom_data.contents.0.index", 1)["data"][0]
    response = meta(sandbox, {"data": [good, good, good, bad, good]})
    text = "Unexpected key \"index\" on param \"$['data'][3]['custom_data']['contents'][0]\""
    assert response.json()["error"]["message"] == text
    assert sandbox.events() == []
    (entry,) = sandbox.refused()
    assert entry["event"] == bad
    assert entry["reason"] == f"100/2804019: {text}"


def test_meta_refuses_without_repeating_personal_data(sandbox: Sandbox) -> None:
    response = meta(sandbox, changed(META_PURCHASE, "data.0.user_data.em", ["user@example.com"]))
    assert "user@example.com" not in response.text
    assert "user@example.com" not in sandbox.refused()[0]["reason"]


@pytest.mark.parametrize("path", ["/v20.0/123/events", "/v27.0/123/events", "/v26.1/123/events", "/123/events"])
def test_meta_refuses_dead_and_unknown_versions(sandbox: Sandbox, path: str) -> None:
    response = meta(sandbox, META_LEAD, path=path)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == 2635
    assert sandbox.events() == []


GA4_FAULTS: list[tuple[str, Any, str, str]] = [
    ("client_id", MISSING, "VALUE_REQUIRED", "client_id"),
    ("client_id", "5d9b6c1e-3f0a", "VALUE_INVALID", "client_id"),
    ("app_instance_id", "0" * 32, "VALUE_INVALID", "app_instance_id"),
    ("user_id", "user@example.com", "VALUE_INVALID", "user_id"),
    ("user_id", "x" * 257, "VALUE_OUT_OF_BOUNDS", "user_id"),
    ("timestamp_micros", NOW * 1000, "VALUE_OUT_OF_BOUNDS", "timestamp_micros"),
    ("events.0.timestamp_micros", NOW, "VALUE_OUT_OF_BOUNDS", "events[0].timestamp_micros"),
    ("events.0.timestamp_micros", str(NOW * 10**6), "VALUE_INVALID", "events[0].timestamp_micros"),
    ("events.0.timestamp_micros", (NOW - 73 * HOUR) * 10**6, "VALUE_OUT_OF_BOUNDS", "events[0].timestamp_micros"),
    ("events.0.timestamp_micros", (NOW + 900) * 10**6, "VALUE_OUT_OF_BOUNDS", "events[0].timestamp_micros"),
    ("consent.ad_user_data", "granted", "VALUE_INVALID", "consent.ad_user_data"),
    ("ip_override", "nowhere", "VALUE_INVALID", "ip_override"),
    ("user_properties.tier", "gold", "VALUE_INVALID", "user_properties.tier"),
    ("user_properties.user_id", {"value": "x"}, "NAME_RESERVED", "user_properties.user_id"),
    ("user_properties.customer_tier.value", "x" * 37, "VALUE_OUT_OF_BOUNDS", "user_properties.customer_tier.value"),
    ("user_data.sha256_email_address", ["user@example.com"], "VALUE_INVALID", "user_data.sha256_email_address[0]"),
    ("user_data.sha256_email_address", [EMAIL] * 4, "EXCEEDED_MAX_ENTITIES", "user_data.sha256_email_address"),
    ("user_data.address.0.city", NAME, "VALUE_INVALID", "user_data.address[0].city"),
    ("events", [{"name": "login"}] * 26, "EXCEEDED_MAX_ENTITIES", "events"),
    ("events", MISSING, "VALUE_REQUIRED", "events"),
    ("events.0.name", "_lamp", "NAME_INVALID", "events"),
    ("events.0.name", "9lives", "NAME_INVALID", "events"),
    ("events.0.name", "x" * 41, "NAME_INVALID", "events"),
    ("events.0.name", "session_start", "NAME_RESERVED", "events"),
    ("events.0.name", "google_lamp", "NAME_RESERVED", "events"),
    ("events.0.name", "screen_view", "NAME_RESERVED", "events"),
    ("events.0.params.shade", None, "VALUE_INVALID", "events[0].params.shade"),
    ("events.0.params.shade", ["opal"], "VALUE_INVALID", "events[0].params.shade"),
    ("events.0.params.shade", "x" * 101, "VALUE_OUT_OF_BOUNDS", "events[0].params.shade"),
    ("events.0.params.page_location", "x" * 1001, "VALUE_OUT_OF_BOUNDS", "events[0].params.page_location"),
    ("events.0.params.ga_x", 1, "NAME_RESERVED", "events[0].params.ga_x"),
    ("events.0.params.firebase_conversion", 1, "NAME_RESERVED", "events[0].params.firebase_conversion"),
    ("events.0.params.value", "1249.5", "VALUE_INVALID", "events[0].params.value"),
    ("events.0.params.session_id", "s17", "VALUE_INVALID", "events[0].params.session_id"),
    ("events.0.params.debug_mode", False, "VALUE_INVALID", "events[0].params.debug_mode"),
    ("events.0.params", {f"p{n}": n for n in range(26)}, "EXCEEDED_MAX_ENTITIES", "events[0].params"),
    ("events.0.params.items.1.price", "250.0", "VALUE_INVALID", "events[0].params.items[1].price"),
    ("events.0.params.items.1", {"price": 1}, "VALUE_REQUIRED", "events[0].params.items[1]"),
    ("events.0.params.items.1.colors", ["red"], "VALUE_INVALID", "events[0].params.items[1].colors"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "code", "place"), GA4_FAULTS)
def test_ga4_refuses(sandbox: Sandbox, path: str, value: Any, code: str, place: str) -> None:
    body = changed(GA4_PURCHASE, path, value)
    (message, *_) = ga4(sandbox, body, debug=True).json()["validationMessages"]
    assert (message["validationCode"], message["fieldPath"]) == (code, place)
    assert message["description"]
    response = ga4(sandbox, body)
    assert (response.status_code, response.content) == (204, b"")
    assert sandbox.events() == []
    assert sandbox.refused()[0]["reason"].startswith(code)


@pytest.mark.parametrize("path", ["ip", "events.0.event_id", "user_data.email"])
def test_ga4_cannot_parse_unknown_keys(sandbox: Sandbox, path: str) -> None:
    body = changed(GA4_PURCHASE, path, "x")
    (message,) = ga4(sandbox, body, debug=True).json()["validationMessages"]
    assert message["validationCode"] == "VALUE_INVALID"
    assert "Cannot find field" in message["description"]
    assert "fieldPath" not in message
    ga4(sandbox, body)
    assert len(sandbox.refused()) == 1


def test_ga4_judges_each_event_on_its_own(sandbox: Sandbox) -> None:
    good, bad = {"name": "login"}, {"name": "session_start"}
    ga4(sandbox, {"client_id": "1.2", "events": [good, bad, good]})
    assert [entry["event"] for entry in sandbox.events()] == [good, good]
    assert [entry["event"] for entry in sandbox.refused()] == [bad]


def test_ga4_refuses_bodies_of_130_kb(sandbox: Sandbox) -> None:
    items = [{"item_id": f"{n}", **{f"item_category{c}": "x" * 100 for c in range(2, 6)}} for n in range(200)]
    events = [{"name": "view_item_list", "params": {"items": items}}] * 2
    ga4(sandbox, {"client_id": "1.2", "events": events})
    assert {entry["reason"] for entry in sandbox.refused()} == {"VALUE_OUT_OF_BOUNDS: must be smaller than 130 kB"}


TIKTOK_FAULTS: list[tuple[dict[str, Any], str, Any, str]] = [
    (TIKTOK_PURCHASE, "data.0.properties.contents.1.content_id", 29,
     "data.0.properties.contents.1.content_id: Not a valid string."),
    (TIKTOK_PURCHASE, "data.0.event_id", 70331, "data.0.event_id: Not a valid string."),
    (TIKTOK_PURCHASE, "data.0.event_time", str(NOW), "data.0.event_time: Not a valid integer."),
    (TIKTOK_PURCHASE, "data.0.event_time", NOW * 1000, "data.0.event_time: "),
    (TIKTOK_PURCHASE, "data.0.event_time", NOW - 29 * DAY, "data.0.event_time: "),
    (TIKTOK_PURCHASE, "data.0.event_time", MISSING, "data.0.event_time: Missing data for required field."),
    (TIKTOK_PURCHASE, "data.0.timestamp", "x", "data.0.timestamp: Unknown field."),
    (TIKTOK_PURCHASE, "data.0.user.phone_number", PHONE, "data.0.user.phone_number: Unknown field."),
    (TIKTOK_PURCHASE, "data.0.user.email", "user@example.com", "data.0.user.email: "),
    (TIKTOK_PURCHASE, "data.0.user.phone", ["+4612345678"], "data.0.user.phone.0: "),
    (TIKTOK_PURCHASE, "data.0.user.city", NAME, "data.0.user.city: "),
    (TIKTOK_PURCHASE, "data.0.user.country", "SE", "data.0.user.country: "),
    (TIKTOK_PURCHASE, "data.0.user.zip_code", "75320", "data.0.user.zip_code: "),
    (TIKTOK_PURCHASE, "data.0.user.ip", "1.2.3", "data.0.user.ip: Not a valid IP address."),
    (TIKTOK_PURCHASE, "data.0.page", {"referrer": "x"}, "data.0.page.url: Missing data for required field."),
    (TIKTOK_PURCHASE, "data.0.page.title", "x", "data.0.page.title: Unknown field."),
    (TIKTOK_PURCHASE, "data.0.properties.value", "1249.5", "data.0.properties.value: Not a valid number."),
    (TIKTOK_PURCHASE, "data.0.properties.currency", "BGN", "data.0.properties.currency: Must be one of: AED,"),
    (TIKTOK_PURCHASE, "data.0.properties.num_items", 1.5, "data.0.properties.num_items: Not a valid integer."),
    (TIKTOK_PURCHASE, "data.0.properties.order_id", 70331, "data.0.properties.order_id: Not a valid string."),
    (TIKTOK_PURCHASE, "data.0.properties.contents.0.id", "x", "data.0.properties.contents.0.id: Unknown field."),
    (TIKTOK_PURCHASE, "data.0.limited_data_use", "true", "data.0.limited_data_use: Not a valid boolean."),
    (TIKTOK_PURCHASE, "event_source", "website", "event_source: Must be one of: web, app, offline, crm."),
    (TIKTOK_PURCHASE, "pixel_code", "x", "pixel_code: Unknown field."),
    (TIKTOK_PURCHASE, "data", [], "data: "),
    (TIKTOK_PURCHASE, "data", TIKTOK_LEAD["data"] * 1001, "data: "),
    (TIKTOK_OFFLINE, "data.0.event", "LampConfigured", "data.0.event: Offline events must be standard events."),
    (TIKTOK_OFFLINE, "data.0.page", {"url": "x"}, "data.0.page: Unknown field."),
    (TIKTOK_OFFLINE, "data.0.user", {"ip": "198.51.100.24"}, "data.0.user: "),
    (TIKTOK_APP, "data.0.app", MISSING, "data.0.app: Missing data for required field."),
    (TIKTOK_CRM, "data.0.lead", {}, "data.0.lead.lead_id: Missing data for required field."),
]  # fmt: skip


@pytest.mark.parametrize(("body", "path", "value", "text"), TIKTOK_FAULTS)
def test_tiktok_refuses(sandbox: Sandbox, body: dict[str, Any], path: str, value: Any, text: str) -> None:
    response = tiktok(sandbox, changed(body, path, value))
    assert response.status_code == 200
    answer = response.json()
    assert answer["code"] == 40002
    assert answer["message"].startswith(text)
    assert answer["data"] == {}
    assert sandbox.events() == []
    assert sandbox.refused("tiktok")


def test_tiktok_refuses_a_whole_batch_and_names_the_first_culprit_only(sandbox: Sandbox) -> None:
    good = TIKTOK_PURCHASE["data"][0]
    bad = {**good, "event_id": 1}
    answer = tiktok(sandbox, {**TIKTOK_PURCHASE, "data": [good, bad, bad]}).json()
    assert answer["message"] == "data.1.event_id: Not a valid string."
    assert sandbox.events() == []
    assert len(sandbox.refused()) == 1


REDDIT_FAULTS: list[tuple[str, Any, str]] = [
    ("event_at", NOW, "event_at"),
    ("event_at", "2026-11-23T00:00:00Z", "event_at"),
    ("event_at", (NOW - 169 * HOUR) * 1000, "event_at"),
    ("event_at", (NOW + 900) * 1000, "event_at"),
    ("action_source", "website", "action_source"),
    ("type.tracking_type", "Purchase", "type.tracking_type"),
    ("type.tracking_type", "CUSTOM", "type.custom_event_name"),
    ("type.custom_event_name", "x", "type.custom_event_name"),
    ("type", {"tracking_type": "CUSTOM", "custom_event_name": "x" * 65}, "type.custom_event_name"),
    ("user.email", "user@example.com", "user.email"),
    ("user.email", [EMAIL], "user.email"),
    ("user.phone_number", "+15554441234", "user.phone_number"),
    ("user.external_id", "user-1", "user.external_id"),
    ("user.ip_address", NAME, "user.ip_address"),
    ("user.uuid", "not-a-uuid", "user.UUID"),
    ("user.opt_out", False, "user.opt_out"),
    ("user", {"user_agent": AGENT, "ip_address": "198.51.100.24", "screen_dimensions": {"width": 1}},
     "user.screen_dimensions.height"),
    ("metadata.currency", "sek", "metadata.currency"),
    ("metadata.value", "1249.5", "metadata.value"),
    ("metadata.value", -1, "metadata.value"),
    ("metadata.value_decimal", 1249.5, "metadata.value_decimal"),
    ("metadata.order_id", "x" * 101, "metadata.order_id"),
    ("metadata.products.1.category", ["Light"], "metadata.products[1].category"),
    ("event_metadata", {}, "event_metadata"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "field"), REDDIT_FAULTS)
def test_reddit_refuses(sandbox: Sandbox, path: str, value: Any, field: str) -> None:
    response = reddit(sandbox, changed(REDDIT_PURCHASE, f"data.events.0.{path}", value))
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["code"], error["message"]) == (400, "There were 1 invalid conversion events. None were processed.")
    assert [entry["field"] for entry in error["fields"]] == [f"$.data.events[0].{field}"]
    assert sandbox.events() == []
    assert len(sandbox.refused("reddit")) == 1


@pytest.mark.parametrize("user", [MISSING, {}, {"user_agent": AGENT}])
def test_reddit_wants_something_to_match(sandbox: Sandbox, user: Any) -> None:
    body = changed(REDDIT_CUSTOM, "data.events.0.user", user)
    fields = reddit(sandbox, body).json()["error"]["fields"]
    assert fields == [{"field": "$.data.events[0].user", "message": "user: some match keys are required"}]


def test_reddit_refuses_a_whole_batch_and_lists_every_culprit(sandbox: Sandbox) -> None:
    good = REDDIT_PURCHASE["data"]["events"][0]
    lower, old = {**good, "action_source": "website"}, {**good, "event_at": NOW}
    error = reddit(sandbox, {"data": {"events": [lower, good, old]}}).json()["error"]
    assert error["message"] == "There were 2 invalid conversion events. None were processed."
    assert error["fields"] == [
        {"field": "$.data.events[0].action_source", "message": "action_source: invalid action_source: website"},
        {"field": "$.data.events[2].event_at",
         "message": "event_at: event_at timestamp must be less than 168h0m0s old"},
    ]  # fmt: skip
    assert sandbox.events() == []
    assert [entry["event"] for entry in sandbox.refused()] == [lower, old]


@pytest.mark.parametrize("body", [
    {"events": REDDIT_LEAD["data"]["events"]},
    {"data": {**REDDIT_LEAD["data"], "test_mode": True}},
    {"data": {"events": []}},
    {"data": {"events": REDDIT_LEAD["data"]["events"] * 1001}},
    [],
])  # fmt: skip
def test_reddit_refuses_wrong_envelopes(sandbox: Sandbox, body: Any) -> None:
    response = reddit(sandbox, body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("Bad Request")


@pytest.mark.parametrize("agent", ["python-requests/2.32.0", "Python-urllib/3.12", ""])
def test_reddit_throttles_the_names_of_libraries(sandbox: Sandbox, agent: str) -> None:
    response = reddit(sandbox, REDDIT_LEAD, agent=agent)
    assert response.status_code == 429
    assert response.json()["error"]["message"] == "Your user agent was automatically ratelimited."


@pytest.mark.parametrize(
    "text", [b"{", b"", b"null", b'"x"', b'{"data": NaN}', b'{"data": 1e999}', b"9" * 20, b"\xff", b"[" * 100_000]
)
def test_what_is_not_json_is_refused(sandbox: Sandbox, text: bytes) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "a", "Authorization": "Bearer t", "Access-Token": "t"}
    paths = {
        "meta": "/v26.0/1/events",
        "ga4": "/mp/collect?measurement_id=G-1&api_secret=s",
        "tiktok": "/open_api/v1.3/event/track/",
        "reddit": "/api/v3/pixels/1/conversion_events",
    }
    statuses = {}
    for name, path in paths.items():
        response = requests.post(f"{sandbox.url}/{name}{path}", data=text, headers=headers, timeout=5)
        statuses[name] = response.status_code
    assert statuses == {"meta": 400, "ga4": 204, "tiktok": 200, "reddit": 400}
    assert [(entry["provider"], entry["event"]) for entry in sandbox.refused()] == [(name, None) for name in paths]


# --- credentials ----------------------------------------------------------------------------------------------------

GA4_TEXT = {"missing": "missing api_secret", "invalid": "invalid api_secret", "mismatch": "mismatch api_secret"}


@pytest.mark.parametrize(("token", "fault"), [
    ("", "missing"), ("invalid-token", "invalid"), ("EXPIRED", "invalid"), ("wrong", "invalid"), ("other", "mismatch"),
])  # fmt: skip
def test_wrong_tokens_are_refused(sandbox: Sandbox, token: str, fault: str) -> None:
    """The first good token of an account is the right one, until a reset."""
    assert meta(sandbox, META_LEAD).ok
    assert tiktok(sandbox, TIKTOK_LEAD).json()["code"] == 0
    assert reddit(sandbox, REDDIT_LEAD).ok
    ga4(sandbox, GA4_LEAD, api_secret="abc")

    response = meta(sandbox, META_LEAD, token)
    assert (response.status_code, response.json()["error"]["code"]) == (401, 190)
    code = tiktok(sandbox, TIKTOK_LEAD, token).json()["code"]
    assert code == (40104 if fault == "missing" else 40105)
    response = reddit(sandbox, REDDIT_LEAD, token)
    assert response.status_code == (403 if fault == "mismatch" else 401)
    assert ga4(sandbox, GA4_LEAD, api_secret=token).status_code == 204

    assert len(sandbox.events()) == 4
    assert [entry["provider"] for entry in sandbox.refused()] == ["meta", "tiktok", "reddit", "ga4"]
    assert sandbox.refused("ga4")[0]["reason"] == GA4_TEXT[fault]
    sandbox.reset()
    if fault == "mismatch":
        assert meta(sandbox, META_LEAD, token).ok


def test_listed_accounts_take_the_listed_token_only() -> None:
    with Sandbox(accounts={"meta": {"123": "abc"}}) as sandbox:
        assert meta(sandbox, META_LEAD, "first").status_code == 401
        assert meta(sandbox, META_LEAD, "abc").status_code == 200
        sandbox.reset()
        assert meta(sandbox, META_LEAD, "first").status_code == 401
        assert meta(sandbox, META_LEAD, "any", path="/v26.0/456/events").status_code == 200


def test_accounts_of_unknown_platforms_are_an_error() -> None:
    with pytest.raises(ValueError, match="myspace"):
        Sandbox(accounts={"myspace": {"1": "x"}})


# --- control --------------------------------------------------------------------------------------------------------


def test_faults_befall_as_many_requests_as_asked_and_record_no_events(sandbox: Sandbox) -> None:
    fault = {"provider": "meta", "status": 503, "retry_after": 2, "body": "<html>", "times": 2}
    assert requests.post(f"{sandbox.url}/_sandbox/faults", json=fault, timeout=5).ok
    for _ in range(2):
        response = meta(sandbox, META_LEAD)
        assert (response.status_code, response.text, response.headers["Retry-After"]) == (503, "<html>", "2")
    assert sandbox.events() == sandbox.refused() == []
    assert tiktok(sandbox, TIKTOK_LEAD).json()["code"] == 0
    assert meta(sandbox, META_LEAD).status_code == 200
    assert [entry["status"] for entry in sandbox.requests] == [503, 503, 200, 200]


def test_faults_can_be_json_and_wait_in_line(sandbox: Sandbox) -> None:
    sandbox.fault("tiktok", status=200, body={"code": 40100})
    sandbox.fault("tiktok", status=500)
    assert tiktok(sandbox, TIKTOK_LEAD).json() == {"code": 40100}
    assert tiktok(sandbox, TIKTOK_LEAD).status_code == 500


def test_a_delay_alone_answers_as_usual_only_later(sandbox: Sandbox) -> None:
    sandbox.fault("ga4", delay=0.2)
    start = time.monotonic()
    assert ga4(sandbox, GA4_LEAD).status_code == 204
    assert time.monotonic() - start >= 0.2
    assert len(sandbox.events()) == 1


@pytest.mark.parametrize("fault", [
    {"provider": "myspace", "status": 500}, {"provider": "meta"}, {"provider": "meta", "status": "500"},
    {"provider": "meta", "status": 500, "times": 0}, {"provider": "meta", "delay": -1}, {"status": 500},
    {"provider": "meta", "status": 500, "colour": "red"}, {"provider": "meta", "body": "x"}, [],
])  # fmt: skip
def test_nonsense_faults_are_refused(sandbox: Sandbox, fault: Any) -> None:
    response = requests.post(f"{sandbox.url}/_sandbox/faults", json=fault, timeout=5)
    assert response.status_code == 400
    assert "error" in response.json()
    assert meta(sandbox, META_LEAD).ok


def test_the_events_can_be_read_and_forgotten_over_http(sandbox: Sandbox) -> None:
    meta(sandbox, META_LEAD)
    tiktok(sandbox, TIKTOK_LEAD)
    meta(sandbox, {"data": [{}]})
    told = requests.get(f"{sandbox.url}/_sandbox/events", timeout=5).json()
    assert told == {"events": sandbox.events(), "refused": sandbox.refused()}
    assert [set(entry) for entry in told["events"]] == [{"provider", "account", "received_at", "event"}] * 2
    assert set(told["refused"][0]) == {"provider", "account", "received_at", "event", "reason"}
    sandbox.fault("meta", status=500)
    assert requests.post(f"{sandbox.url}/_sandbox/reset", timeout=5).ok
    assert sandbox.events() == sandbox.refused() == sandbox.requests == []
    assert meta(sandbox, META_LEAD).ok


def test_the_page_shows_what_arrived_and_why_it_was_refused(sandbox: Sandbox) -> None:
    """Whoever opens the sandbox's address in a browser; what came over the wire cannot become part of the page."""
    assert "Nothing yet" in requests.get(sandbox.url, timeout=5).text
    meta(sandbox, META_LEAD)
    meta(sandbox, {"data": [{"event_name": "<script>alert(1)</script>"}]})
    reddit(sandbox, {"data": {"events": [{"type": {"tracking_type": "CUSTOM", "custom_event_name": "Tour"}}]}})
    meta(sandbox, "no list of events")
    answer = requests.get(sandbox.url, timeout=5)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    shown = answer.text
    assert "<td>Meta Conversions API<td class=count>1<td class=count>2" in shown
    assert shown.index("meta (no readable event)") < shown.index("meta &lt;script&gt;") < shown.index("meta Lead<")
    assert "reddit Tour" in shown
    assert html.escape(sandbox.refused("meta")[0]["reason"]) in shown
    assert "<script" not in shown


def test_the_page_shows_the_last_ones_of_many(sandbox: Sandbox) -> None:
    for _ in range(3):
        meta(sandbox, {"data": META_LEAD["data"] * 40})
    shown = requests.get(sandbox.url, timeout=5).text
    assert "The last 100 of 120 events" in shown
    assert shown.count("<details>") == 100


@pytest.mark.parametrize(("argv", "told"), [
    (["--port", "99999"], "--port: 99999 must be a number from 0 to 65535"),
    (["--account", "meta:123"], "--account: must look like meta:123:token"),
    (["--account", "mta:1:2"], "--account: no platform 'mta'; there are: meta, ga4, tiktok, reddit"),
    (["--host", "nowhere.invalid"], "--host, --port: cannot listen on nowhere.invalid:8787: "),
])  # fmt: skip
def test_the_command_says_what_is_wrong_with_its_options(argv: list[str], told: str, capsys: Any) -> None:
    assert main(["sandbox", *argv]) == 2
    assert capsys.readouterr().err.startswith(f"eventflows: {told}")


@pytest.mark.parametrize("path", ["/nothing", "/_sandbox/nothing", "/meta/v26.0/123/feed", "/ga4/collect",
                                  "/tiktok/open_api/v1.3/event/track", "/reddit/api/v2.0/x", "/meta"])  # fmt: skip
def test_unknown_paths_are_404(sandbox: Sandbox, path: str) -> None:
    response = requests.post(sandbox.url + path, json={}, timeout=5)
    assert response.status_code == 404
    assert "error" in response.json()


def test_requests_are_noted_with_their_headers(sandbox: Sandbox) -> None:
    meta(sandbox, META_LEAD)
    (entry,) = sandbox.requests
    assert (entry["provider"], entry["method"], entry["path"]) == ("meta", "POST", "/meta/v26.0/123/events")
    assert entry["headers"]["authorization"] == "Bearer abc"
    assert entry["status"] == 200
    assert entry["envelope"] == {"test_event_code": "TEST48211"}


def test_connections_are_kept_alive_and_end_with_the_sandbox() -> None:
    with requests.Session() as session:
        sandbox = Sandbox().start()
        url = f"{sandbox.url}/ga4/mp/collect?measurement_id=G-1&api_secret=s"
        for _ in range(3):
            assert session.post(url, json=GA4_LEAD, timeout=5).headers.get("Connection") != "close"
        sandbox.stop()
        sandbox.stop()
        with pytest.raises(requests.ConnectionError):
            session.post(url, json=GA4_LEAD, timeout=5)
        assert len(sandbox.events()) == 3


def test_the_fixture_of_the_plugin_is_a_running_sandbox(eventflows_sandbox: Sandbox) -> None:
    assert requests.get(eventflows_sandbox.url, timeout=5).ok


def test_the_package_and_the_plugin_import_neither_the_server_nor_the_schemas() -> None:
    """The plugin is loaded in every pytest run of everybody who has EventFlows."""
    code = (
        "import sys; before = set(sys.modules); import eventflows.sandbox.plugin; new = set(sys.modules) - before;"
        "print(sorted(new & {'fastjsonschema', 'http.server', 'eventflows.sandbox.server'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastjsonschema", None)
    with pytest.raises(ImportError, match=r"pip install \"opentelemetry-exporter-eventflows\[sandbox\]\""):
        Sandbox().start()
