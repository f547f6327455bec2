"""The three shops, end to end: real requests, the frameworks' own OpenTelemetry instrumentation, a sampler that drops every
span, a real collector, and the sandbox."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from eventflows.sandbox import Sandbox
from tests.collector import Collector, end, free_ports, listens, until
from tests.conftest import CANARIES, PERSON, ROOT, environment

EXAMPLES = ROOT / "examples"
SHOPS = ("flask", "django", "fastapi")
TO_THE_SANDBOX = {
    "META_PIXEL_ID": "123",
    "META_ACCESS_TOKEN": "abc",
    "GA4_MEASUREMENT_ID": "G-SHOP",
    "GA4_API_SECRET": "abc",
    "TIKTOK_PIXEL_CODE": "CPIX",
    "TIKTOK_ACCESS_TOKEN": "abc",
    "REDDIT_PIXEL_ID": "a2_123",
    "REDDIT_ACCESS_TOKEN": "abc",
    "DEFAULT_COUNTRY": "SE",
    "SENDING_QUEUE_FLUSH_INTERVAL": "50",
    "VISITOR_TRUSTED_PROXIES": "loopback",
    "COMMIT": "span_ok",
}


CANNOT_BE_LOADED = 127


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    rotel = pytest.importorskip("rotel", reason="there is no collector for this Python or system")
    agent = Path(rotel.__file__).with_name("rotel-agent")
    if subprocess.run([agent, "--version"], capture_output=True).returncode == CANNOT_BE_LOADED:
        pytest.skip("the collector needs Python's shared library, which not every Python comes with")
    with Collector(agent, tmp_path / "collector.log") as running:
        yield running


def variables(port: int, sandbox: Sandbox, collector: Collector, sampler: str = "always_off") -> dict[str, str]:
    ours = {f"OTEL_EXPORTER_EVENTFLOWS_{name}": value for name, value in TO_THE_SANDBOX.items()}
    return environment(
        PORT=str(port),
        OTEL_TRACES_SAMPLER=sampler,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_BLRP_SCHEDULE_DELAY="50",
        OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_EXPORTER_EVENTFLOWS_ENDPOINT=sandbox.url,
        **ours,
    )


@contextmanager
def running(command: list[str], port: int, variables: dict[str, str], log: Path) -> Iterator[str]:
    """The URL of the shop that the command starts, once it answers; ended after the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, cwd=EXAMPLES, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: listens(port) or process.poll() is not None, 20, log.read_text)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


@dataclass(frozen=True)
class Customer:
    """Somebody with a browser, who comes through a proxy from an advertisement; no two have anything in common."""

    number: int

    @property
    def address(self) -> str:
        return f"203.0.113.{self.number}"

    @property
    def agent(self) -> str:
        return f"Mozilla/5.0 (X11; Linux x86_64) Firefox/{140 + self.number}.0"

    @property
    def click(self) -> str:
        return f"fbclid=IwAR2F4_{self.number}&ttclid=E.C.P.{self.number}&rdt_cid=318774204529100000{self.number}"

    @property
    def cookies(self) -> dict[str, str]:
        return {
            "_fbp": f"fb.1.1795430000000.109811539{self.number}",
            "_fbc": f"fb.1.1795430000000.IwAR2F4_{self.number}",
            "_ga": f"GA1.1.183640291{self.number}.1795431201",
            "_ga_SHOP": f"GS1.1.179543120{self.number}.1.1.1795431300.0.0.0",
            "_ttp": f"2aBcTtp{self.number}",
            "_rdt_uuid": f"1795431201000.1b4e28ba-2fa1-41d2-883f-0016d3cca42{self.number}",
        }

    @property
    def trace_id(self) -> str:
        return f"0af7651916cd43dd8448eb211c80319{self.number}"

    def headers(self) -> dict[str, str]:
        return {
            "Host": "shop.example",
            "X-Forwarded-For": f"192.0.2.66, {self.address}",  # the first is the customer's invention
            "X-Forwarded-Proto": "https",
            "User-Agent": self.agent,
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            "traceparent": f"00-{self.trace_id}-b7ad6b7169203331-01",
        }

    def order(self, shop: str, **order: Any) -> int:
        """Place it; the status of the answer."""
        person = {"email": PERSON["user.email"], "phone": PERSON["user.phone"], "name": "Zoecanary Lundcanary"}
        order = {**person, "country": "SE", "items": {"LMP-11": 1, "LMP-29": 2}, **order}
        return requests.post(f"{shop}/orders?{self.click}", json=order, headers=self.headers(), timeout=10).status_code

    def seen_by(self, provider: str) -> tuple[Any, ...]:
        """What a platform must have got of the visit, as in `VISIT_OF`."""
        clicks: dict[str, tuple[Any, ...]] = {
            "meta": (self.cookies["_fbp"], self.cookies["_fbc"]),
            "ga4": (f"183640291{self.number}.1795431201", int(f"179543120{self.number}")),
            "tiktok": (self.cookies["_ttp"], f"E.C.P.{self.number}"),
            "reddit": (self.cookies["_rdt_uuid"], f"318774204529100000{self.number}"),
        }
        return self.address, self.agent, f"https://shop.example/orders?{self.click}", *clicks[provider]


BUYER, UNLUCKY, LATER, ANOTHER, CONFUSED = (Customer(number) for number in range(1, 6))
SOLD = [("70331", BUYER), ("70333", LATER), ("70334", ANOTHER)]


def visits_and_payments(shop: str) -> None:
    """A day in the shop, at the end of which the orders `SOLD` have been paid for."""
    assert BUYER.order(shop, order_id="70331") == 201
    assert UNLUCKY.order(shop, order_id="70332", fail=True) == 500
    assert LATER.order(shop, order_id="70333", pay_later=True) == 201
    assert ANOTHER.order(shop, order_id="70334") == 201
    assert CONFUSED.order(shop, order_id="70335", items={"NOPE": 1}) == 400
    payment_provider = {"User-Agent": "Payments/1.0", "X-Forwarded-For": "198.51.100.7", "Cookie": "_fbp=fb.1.1.1"}
    for order, status in (("70333", 200), ("70333", 200), ("70332", 404)):  # told twice; rolled back
        answer = requests.post(
            f"{shop}/payments/webhook", json={"order_id": order}, headers=payment_provider, timeout=10
        )
        assert answer.status_code == status


def _meta(event: dict[str, Any]) -> tuple[Any, ...]:
    user = event["user_data"]
    visit = user["client_ip_address"], user["client_user_agent"], event["event_source_url"], user["fbp"], user["fbc"]
    return event["custom_data"]["order_id"], visit


def _ga4(event: dict[str, Any]) -> tuple[Any, ...]:
    params = event["params"]
    visit = event["ip_override"], event["user_agent"], params["page_location"], event["client_id"], params["session_id"]
    return params["transaction_id"], visit


def _tiktok(event: dict[str, Any]) -> tuple[Any, ...]:
    user = event["user"]
    visit = user["ip"], user["user_agent"], event["page"]["url"], user["ttp"], user["ttclid"]
    return event["properties"]["order_id"], visit


def _reddit(event: dict[str, Any]) -> tuple[Any, ...]:
    user = event["user"]
    visit = user["ip_address"], user["user_agent"], event["event_source_url"], user["uuid"], event["click_id"]
    return event["metadata"]["order_id"], visit


VISIT_OF: dict[str, Callable[[dict[str, Any]], tuple[Any, ...]]] = {
    "meta": _meta,
    "ga4": _ga4,
    "tiktok": _tiktok,
    "reddit": _reddit,
}
"""Order id and visit of a platform's event."""


def arrived(sandbox: Sandbox) -> dict[str, list[tuple[Any, ...]]]:
    """Order id and visit of all that each platform has accepted, in order of the ids."""
    # GA4 tells of the visitor once per request; here every visitor has one order, hence every request one event.
    envelopes = [one["envelope"] for one in sandbox.requests if one["provider"] == "ga4"]
    found: dict[str, list[tuple[Any, ...]]] = {}
    for provider, visit_of in VISIT_OF.items():
        events = [one["event"] for one in sandbox.events(provider)]
        if provider == "ga4":
            events = [{**envelope, **event} for envelope, event in zip(envelopes, events, strict=True)]
        found[provider] = sorted(visit_of(event) for event in events)
    return found


EXPECTED = {provider: [(order, customer.seen_by(provider)) for order, customer in SOLD] for provider in VISIT_OF}


def assert_arrived(sandbox: Sandbox, log: Path) -> None:
    """Every order that was paid for is at every platform, once, with its customer's visit; no other."""
    assert sandbox.refused() == [], log.read_text()
    assert arrived(sandbox) == EXPECTED


def assert_sealed(collector: Collector) -> None:
    shown = collector.everything
    assert b"conversion.sealed.email.lower" in shown
    assert not [canary for canary in CANARIES if canary.encode() in shown]


def held(collector: Collector) -> dict[str, dict[str, Any]]:
    """The collector's log records of purchases that were paid for, by order id."""
    records = {record["attributes"]["order_id"]: record for record in collector.logs("Purchase")}
    records.pop("70332", None)  # that a failed request tried to sell is telemetry too
    return records


ITEMS = [{"id": "LMP-11", "price": 749.5, "quantity": 1}, {"id": "LMP-29", "price": 250.0, "quantity": 2}]


@pytest.mark.parametrize("name", SHOPS)
def test_no_order_is_lost_to_sampling_none_that_failed_is_reported_and_the_collector_sees_nobody(
    name: str, sandbox: Sandbox, collector: Collector, tmp_path: Path
) -> None:
    log, (port,) = tmp_path / "shop.log", free_ports(1)
    command = [sys.executable, f"{name}_shop.py"]
    with running(command, port, variables(port, sandbox, collector), log) as shop:
        visits_and_payments(shop)
    # An orderly end delivers what is queued, to the platforms and to the collector.
    assert_arrived(sandbox, log)
    # Where the order is an event on a span that was dropped, no telemetry backend can have it; the platforms do.
    wanted = {"70333"} if name == "fastapi" else {order for order, _ in SOLD}
    until(lambda: held(collector).keys() >= wanted, 10, log.read_text)
    records = held(collector)
    assert records.keys() == wanted
    for record in records.values():
        assert record["attributes"]["items"] == ITEMS
        assert record["scope"] == f"{name}_shop"
        assert int(record["span_id"], 16)
    if name != "fastapi":
        traces = {order: record["trace_id"] for order, record in records.items()}
        assert (traces["70331"], traces["70334"]) == (BUYER.trace_id, ANOTHER.trace_id)
    assert collector.spans() == []
    assert_sealed(collector)


@pytest.mark.parametrize("name", SHOPS)
def test_where_every_span_is_kept_none_shows_a_person(
    name: str, sandbox: Sandbox, collector: Collector, tmp_path: Path
) -> None:
    log, (port,) = tmp_path / "shop.log", free_ports(1)
    command = [sys.executable, f"{name}_shop.py"]
    with running(command, port, variables(port, sandbox, collector, "always_on"), log) as shop:
        visits_and_payments(shop)
    assert_arrived(sandbox, log)
    until(lambda: sum(span["kind"] == 2 for span in collector.spans()) == 8, 10, log.read_text)  # 2 is SERVER
    # The oldest supported SDK leaves maps out of span events.
    purchases = {
        attributes["order_id"]: (span["trace_id"], attributes.get("items", ITEMS))
        for span in collector.spans()
        for event, attributes in span["events"]
        if event == "Purchase"
    }
    if name == "fastapi":
        assert (purchases["70331"], purchases["70334"]) == ((BUYER.trace_id, ITEMS), (ANOTHER.trace_id, ITEMS))
    else:
        assert purchases == {}
        until(lambda: held(collector).keys() >= {order for order, _ in SOLD}, 10, log.read_text)
        spans = {span["span_id"] for span in collector.spans()}
        assert {record["span_id"] for record in held(collector).values()} <= spans
    assert_sealed(collector)


DJANGO_SETTINGS = """
ALLOWED_HOSTS, MIDDLEWARE, ROOT_URLCONF, SECRET_KEY = ["*"], [], "django_shop", "demo"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": %r, "ATOMIC_REQUESTS": True}}
"""
UNCHANGED = {
    "flask": ["flask", "--app", "flask_shop:create_app", "run", "--port"],
    "django": [sys.executable, "-c", "import django_shop; django_shop.serve()"],
    "fastapi": ["uvicorn", "--factory", "fastapi_shop:create_app", "--port"],
}


@pytest.mark.parametrize("name", SHOPS)
def test_opentelemetry_instrument_and_environment_variables_are_enough(
    name: str, sandbox: Sandbox, collector: Collector, tmp_path: Path
) -> None:
    """Nothing of the shops' own set-up runs."""
    log, (port,) = tmp_path / "shop.log", free_ports(1)
    (tmp_path / "shop_settings.py").write_text(DJANGO_SETTINGS % str(tmp_path / "shop.sqlite3"))
    given = variables(port, sandbox, collector) | {
        "OTEL_LOGS_EXPORTER": "otlp,eventflows",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "PYTHONPATH": f"{tmp_path}:{EXAMPLES}",
    }
    if name == "django":
        given["DJANGO_SETTINGS_MODULE"] = "shop_settings"
    command = ["opentelemetry-instrument", *UNCHANGED[name], *([str(port)] if name != "django" else [])]
    wanted = {"70333"} if name == "fastapi" else {order for order, _ in SOLD}
    with running(command, port, given, log) as shop:
        visits_and_payments(shop)
        # These servers end without delivering what is queued, so everything must be there before.
        until(lambda: len(sandbox.events()) >= 12, 10, log.read_text)
        until(lambda: held(collector).keys() >= wanted, 10, log.read_text)
    assert_arrived(sandbox, log)
    assert collector.spans() == []
    assert_sealed(collector)


OWN_TELEMETRY = "import fastapi_shop as it, uvicorn; it.set_up_telemetry(); uvicorn.run(it.create_app(), port=it.PORT)"


@pytest.mark.skipif(
    importlib.util.find_spec("fastapi.telemetry") is None, reason="FastAPI without telemetry of its own"
)
@pytest.mark.parametrize("sampler", ["always_off", "always_on"])
def test_the_telemetry_that_fastapi_brings_along_is_as_good_as_the_instrumentation(
    sampler: str, sandbox: Sandbox, collector: Collector, tmp_path: Path
) -> None:
    log, (port,) = tmp_path / "shop.log", free_ports(1)
    command = [sys.executable, "-c", OWN_TELEMETRY]
    given = variables(port, sandbox, collector, sampler) | {"PYTHONPATH": str(EXAMPLES)}
    with running(command, port, given, log) as shop:
        visits_and_payments(shop)
        until(lambda: len(sandbox.events()) >= 12, 10, log.read_text)
        until(lambda: "70333" in held(collector), 10, log.read_text)
    assert_arrived(sandbox, log)
    assert_sealed(collector)


@pytest.mark.parametrize("name", SHOPS)
def test_a_shop_brings_its_own_sandbox_and_says_how_to_order(name: str, tmp_path: Path) -> None:
    log, (port, platforms) = tmp_path / "shop.log", free_ports(2)
    given = environment(PORT=str(port), SANDBOX_PORT=str(platforms), PYTHONUNBUFFERED="1")
    with running([sys.executable, f"{name}_shop.py"], port, given, log):
        (line,) = re.findall("^curl .*", log.read_text(), re.MULTILINE)
        curl = shlex.split(line)
        kind, cookies, body = (curl[curl.index(option) + 1] for option in ("-H", "-b", "-d"))
        (url,) = (word for word in curl if word.startswith("http"))
        headers = {**dict([kind.split(": ")]), "Cookie": cookies}
        assert requests.post(url, data=body, headers=headers, timeout=10).status_code == 201
        assert f"what arrives at the platforms: http://127.0.0.1:{platforms}\n" in log.read_text()
        shown = f"http://127.0.0.1:{platforms}/_sandbox/events"
        until(lambda: len(requests.get(shown, timeout=10).json()["events"]) == 4, 10, log.read_text)
        both = requests.get(shown, timeout=10).json()
    assert both["refused"] == []
    assert {one["provider"] for one in both["events"]} == set(VISIT_OF)
    assert "fb.1.1795430000000.1098115397" in json.dumps(both)
