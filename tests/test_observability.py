"""The dashboard and the alert rules of examples/observability, against what a real scrape of a misbehaving day shows."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families

import eventflows
from eventflows import MetaProvider
from eventflows.sandbox import Sandbox
from tests.conftest import CANARIES, PERSON, ROOT, four

from .test_pipeline import FAST, LEAD

FOLDER = ROOT / "examples" / "observability"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds to each series."""


def panels() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def rules() -> Iterator[tuple[str, str]]:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert", rule.get("record")), rule["expr"]


def parsed(query: str) -> Any:
    """The query, where Grafana has filled in its variables."""
    return promql_parser.parse(
        query.replace("$__rate_interval", "5m").replace('"$provider"', '".*"').replace('"$job"', '".*"')
    )


def parts(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "args", "param", "vector_selector", "vs"):
        child = getattr(node, name, None)
        for one in child if isinstance(child, list) else [child]:
            if one is not None:
                yield from parts(one)


@pytest.fixture
def scraped(sandbox: Sandbox, tmp_path: Any) -> dict[str, set[str]]:
    """Series and their labels at a real Prometheus endpoint, after every outcome there is, a pause and an outage."""
    meters = MeterProvider(metric_readers=[PrometheusMetricReader()])
    metrics.set_meter_provider(meters)
    server, thread = start_http_server(0, addr="127.0.0.1")
    meta, *others = four(sandbox.url)
    old = MetaProvider("9", "abc", name="meta/old", api_version="v22.0", endpoint=f"{sandbox.url}/meta")
    # The storage keeps one from being dropped, so a first pipeline without it drops.
    eventflows.configure([meta], sending_queue={"queue_size": 1, "flush_interval": "10s"})
    tracer = eventflows.get_tracer("shop")
    for number in range(3):
        tracer.add_event("Lead", {**LEAD, **PERSON, "event_id": f"d{number}"})
    eventflows.shutdown(5_000)
    eventflows.configure([meta, old, *others], sending_queue={"storage": str(tmp_path)}, retry_on_failure=FAST)
    sandbox.fault("meta", status=503, times=2)
    sandbox.fault("tiktok", status=429, retry_after=0.1, times=1)
    good = {**LEAD, **PERSON, "value": 5, "currency": "EUR", "conversion.click.fbp": "fb.1.1795430000000.1"}
    tracer.add_event("Purchase", {**good, "order_id": "70331"})
    tracer.add_event("Purchase", {**good, "currency": "none"})
    tracer.add_event("Lead", {**good, "conversion.consent.ad_storage": "denied"})
    tracer.add_event("Lead", good, time.time_ns() - 8 * 86_400 * 10**9)
    assert eventflows.force_flush(20_000)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        meters.shutdown()
    assert not [one for one in (*CANARIES, "70331", "abc") if one in text.lower()]
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def check(queries: list[tuple[str, str]], scraped: dict[str, set[str]]) -> None:
    """Each series exists, and so do the labels that it is selected, grouped and joined by."""
    for title, query in queries:
        for node in parts(parsed(query)):
            if isinstance(node, promql_parser.VectorSelector):
                assert node.name in scraped, f"{title}: nothing writes {node.name}"
                for matcher in node.matchers.matchers if node.matchers else ():
                    assert matcher.name in scraped[node.name] | SCRAPED, f"{title}: {node.name} has no {matcher.name}"
        names = {n.name for n in parts(parsed(query)) if isinstance(n, promql_parser.VectorSelector)}
        known = set().union(*(scraped[name] for name in names), SCRAPED)
        for grouping in re.findall(r"\b(?:by|on|group_left) ?\(([^)]*)\)", query):
            assert set(re.findall(r"\w+", grouping)) <= known, f"{title}: ({grouping})"


def test_the_dashboard_shows_what_is_there(scraped: dict[str, set[str]]) -> None:
    check(list(panels()), scraped)
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            names = {n.name for n in parts(parsed(target["expr"])) if isinstance(n, promql_parser.VectorSelector)}
            labels = set().union(*(scraped[name] for name in names))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, panel["title"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.match(r"label_values\((\w+).*, (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            assert label in scraped[name] | SCRAPED


def test_the_alerts_watch_what_is_there(scraped: dict[str, set[str]]) -> None:
    recorded = {
        rule["record"]: {"eventflows_provider", "eventflows_match_key"}
        for group in RULES["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    check(list(rules()), scraped | recorded)
    for group in RULES["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] in ("warning", "critical")
                said = " ".join(rule["annotations"].values())
                names = {n.name for n in parts(parsed(rule["expr"])) if isinstance(n, promql_parser.VectorSelector)}
                labels = set().union(*((scraped | recorded)[name] for name in names))
                assert set(re.findall(r"\$labels\.(\w+)", said)) <= labels, rule["alert"]


def test_every_metric_of_ours_is_in_the_dashboard_or_an_alert(scraped: dict[str, set[str]]) -> None:
    used = " ".join(query for _, query in [*panels(), *rules()])
    ours = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in scraped if name.startswith("eventflows_")}
    assert {name for name in ours if not re.search(rf"\b{name}", used)} == set()


def test_every_alert_has_its_line_in_the_operations_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert {name for name, _ in rules() if name.startswith("EventFlows") and f"`{name}`" not in page} == set()
