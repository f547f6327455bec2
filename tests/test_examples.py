"""The examples run as their users run them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from types import ModuleType

import requests
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from werkzeug.serving import make_server

import eventflows
from eventflows.sandbox import Sandbox
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


def test_an_order_placed_in_the_flask_shop_arrives_at_every_platform(sandbox: Sandbox) -> None:
    eventflows.configure(four(sandbox.url), default_country="SE")
    app = load("flask_shop").create_app()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        order = {"order_id": "70331", "email": "mara.lind@example.com", "phone": "070-123 45 67", "name": "Mara Lind",
                 "items": {"LMP-11": 1, "LMP-29": 2}}  # fmt: skip
        answer = requests.post(f"http://127.0.0.1:{server.server_port}/orders", json=order, timeout=10)
    finally:
        server.shutdown()
        FlaskInstrumentor().uninstrument_app(app)
    assert answer.status_code == 201
    assert eventflows.force_flush(10_000)
    assert sandbox.refused() == []
    assert sorted(entry["provider"] for entry in sandbox.events()) == ["ga4", "meta", "reddit", "tiktok"]
    meta = sandbox.events("meta")[0]["event"]
    assert (
        meta["event_id"], meta["custom_data"]["value"], meta["user_data"]["client_ip_address"],
    ) == ("purchase-70331", 1249.5, "127.0.0.1")  # fmt: skip
    assert {"em", "ph", "fn", "ln"} <= meta["user_data"].keys()
