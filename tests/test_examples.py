"""The examples run as their users run them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import pytest
import requests
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from werkzeug.serving import make_server

import eventflows
from eventflows.pii import digest
from eventflows.sandbox import Sandbox
from eventflows.visitor import WSGIMiddleware
from tests.conftest import ROOT, environment, four


def test_the_quickstart_adds_up_and_shows_nobody() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py")],
        env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("console", "meta", "ga4", "tiktok", "reddit"):
        assert f"\n{name} " in done.stdout
    assert "Every number adds up." in done.stdout
    assert not [
        raw for raw in ("@example.com", "701234567", "70 123 45 67") if raw in (done.stdout + done.stderr).lower()
    ]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quickstart_notices_a_provider_that_got_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Filtered counts as an outcome, so the sum alone would still be right."""
    quickstart = load("quickstart")
    wanted = quickstart.MetaProvider
    monkeypatch.setattr(quickstart, "MetaProvider", lambda **settings: wanted(**settings, events=["refund"]))
    assert quickstart.main() == 1
    assert "meta: 1007 filtered, but 0 were meant to be" in capsys.readouterr().out


def test_an_order_placed_in_the_flask_shop_arrives_at_every_platform(sandbox: Sandbox) -> None:
    eventflows.configure(four(sandbox.url), default_country="SE")
    app = load("flask_shop").create_app()
    app.wsgi_app = WSGIMiddleware(app.wsgi_app)
    FlaskInstrumentor().instrument_app(app)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        order = {"order_id": "70331", "email": "mara.lind@example.com", "phone": "070-123 45 67", "name": "Mara Lind",
                 "items": {"LMP-11": 1, "LMP-29": 2}}  # fmt: skip
        shop = f"http://127.0.0.1:{server.server_port}/orders"
        answer = requests.post(shop, json=order, timeout=10)
        unknown = requests.post(shop, json={**order, "order_id": "70332", "items": {"NOPE": 1}}, timeout=10)
    finally:
        server.shutdown()
        FlaskInstrumentor().uninstrument_app(app)
    assert (answer.status_code, unknown.status_code) == (201, 400)
    assert eventflows.force_flush(10_000)
    assert sandbox.refused() == []
    assert sorted(entry["provider"] for entry in sandbox.events()) == ["ga4", "meta", "reddit", "tiktok"]
    sent: dict[str, Any] = {entry["provider"]: entry["event"] for entry in sandbox.events()}
    email, phone = digest("mara.lind@example.com"), "+46701234567"

    meta = sent["meta"]
    assert (meta["event_name"], meta["event_id"]) == ("Purchase", "purchase-70331")
    assert _order(meta["custom_data"], "order_id", "contents", "id", "item_price") == ORDER
    assert (meta["user_data"]["em"], meta["user_data"]["ph"]) == ([email], [digest(phone[1:])])
    assert (meta["user_data"]["fn"], meta["user_data"]["ln"]) == ([digest("mara")], [digest("lind")])
    assert meta["user_data"]["client_ip_address"] == "127.0.0.1"

    ga4 = sent["ga4"]
    assert ga4["name"] == "purchase"
    assert _order(ga4["params"], "transaction_id", "items", "item_id", "price") == ORDER

    tiktok = sent["tiktok"]
    assert (tiktok["event"], tiktok["event_id"]) == ("Purchase", "purchase-70331")
    assert _order(tiktok["properties"], "order_id", "contents", "content_id", "price") == ORDER
    assert (tiktok["user"]["email"], tiktok["user"]["phone"]) == ([email], [digest(phone)])

    reddit = sent["reddit"]
    assert (reddit["type"], reddit["metadata"]["conversion_id"]) == ({"tracking_type": "PURCHASE"}, "purchase-70331")
    assert _order(reddit["metadata"], "order_id", "products", "id", "item_price") == ORDER
    assert (reddit["user"]["email"], reddit["user"]["phone_number"]) == (digest("maralind@example.com"), digest(phone))


ORDER = ("70331", 1249.5, "SEK", [("LMP-11", 749.5, 1), ("LMP-29", 250.0, 2)])


def _order(data: dict[str, Any], order_id: str, items: str, sku: str, price: str) -> tuple[Any, ...]:
    """The order in an event, whatever the platform calls its fields."""
    lines = [(item[sku], item[price], item["quantity"]) for item in data[items]]
    return data[order_id], data["value"], data["currency"], lines


def test_the_provider_and_its_test_in_the_guide_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docs/adding-a-provider.md` is what a newcomer copies."""
    guide = (ROOT / "docs" / "adding-a-provider.md").read_text(encoding="utf-8")
    source, test = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    acme = ModuleType("acme_eventflows")
    monkeypatch.setitem(sys.modules, "acme_eventflows", acme)
    exec(compile(source, "acme_eventflows.py", "exec"), acme.__dict__)  # noqa: S102 reason: our own documentation
    tests: dict[str, Any] = {}
    exec(compile(test, "test_acme.py", "exec"), tests)  # noqa: S102 reason: our own documentation
    cases = [case for name, case in tests.items() if name.startswith("test_")]
    assert len(cases) == 5
    for case in cases:
        case()
    (shown,) = eventflows.render("Lead", {"user.email": "a@b.example"}, providers=[acme.AcmeProvider("1", "s3cret")])
    assert shown.status == "ready"
    assert "s3cret" not in repr(shown)
