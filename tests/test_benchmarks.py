"""The benchmark counts what arrives, and shows no figure of a library whose events did not."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks import budgets, documents, environments, figures, report
from benchmarks.measure import child_environment
from benchmarks.peers import PEERS
from benchmarks.sink import ROOT, Sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


def post(sink: Sink, path: str, body: bytes, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=10)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def event(number: int) -> bytes:
    return b'{"data":[{"event_name":"Purchase","order_id":"ev-a1-%07d","event_id":"ev-a1-%07d"}]}' % (number, number)


def test_the_sink_counts_each_id_once_in_any_format_and_says_what_came_twice(sink: Sink) -> None:
    assert post(sink, "/meta/v26.0/1/events", event(1)) == 200
    assert post(sink, "/meta/v26.0/1/events", gzip.compress(event(2)), **{"Content-Encoding": "gzip"}) == 200
    assert post(sink, "/meta/v26.0/1/events", b"data=%7B%22id%22%3A%22ev-a1-0000003%22%7D") == 200
    assert post(sink, "/ga4/mp/collect", event(1)) == 204
    assert post(sink, "/meta/v26.0/1/events", event(2)) == 200
    found = sink.control.wait(4, timeout=10)
    assert found["lanes"] == {"ga4": {"arrived": 1, "requests": 1}, "meta": {"arrived": 3, "requests": 4}}
    assert (found["arrived"], found["twice"]) == (4, 1)
    assert sink.control.missing(["ev-a1-0000001", "ev-a1-0000009"]) == ["ev-a1-0000009"]
    sink.control.forget()
    assert sink.control.report()["arrived"] == 0


def test_what_the_sink_refuses_has_not_arrived(sink: Sink) -> None:
    sink.control.mode(status=500)
    assert post(sink, "/meta/events", event(1)) == 500
    sink.control.mode(hang_up=True)
    with pytest.raises((http.client.HTTPException, OSError)):
        post(sink, "/meta/events", event(1))
    sink.control.mode(down=True)
    with pytest.raises(OSError, match="refused"):
        post(sink, "/meta/events", event(1))
    assert sink.control.report()["arrived"] == 0
    sink.control.mode()
    assert post(sink, "/meta/events", event(1)) == 200


@pytest.mark.parametrize(
    "peer", ["eventflows", "eventflows-otlp", "eventflows-storage", "eventflows-span", "otel-span"]
)
def test_a_measurement_delivers_every_event_once(sink: Sink, peer: str) -> None:
    """In a process as the benchmark starts it, with the library as it is in this environment."""
    counts = {"paced": 20, "burst-2": 40, "purchase": 60, "page_view": 20}
    params = {"counts": counts, "rate": 1_000, "cdnow": ""}
    job = {
        "scenario": "calls",
        "peer": peer,
        "sink": sink.url,
        "control": sink.control.port,
        "tag": "a1",
        "params": params,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", json.dumps(job)],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["lost"], found["twice"]) == (0, 0)
    assert found["burst-2"]["p50"] <= found["burst-2"]["p99"] <= found["burst-2"]["p99.9"]
    assert found["purchase"]["cpu"] > 0


def result(cpu: float, lost: int = 0) -> dict[str, object]:
    return {"purchase": {"cpu": cpu, "wall": cpu}, "lost": lost, "twice": 0}


def test_a_library_of_which_events_are_missing_has_no_figures() -> None:
    samples = {"posthog": [result(9.0), result(8.0, lost=3)], "otel-log": [result(10.0), result(10.0)]}
    table = report.calls_table(samples, report.DELIVERED, ("purchase", "cpu"))
    row = next(line for line in table.splitlines() if "posthog" in line)
    assert "void: 3 events did not arrive" in row
    assert "8.00" not in row
    assert budgets.best(samples, ["posthog", "otel-log"], "purchase", "cpu") == "otel-log"


def test_ratios_are_those_within_a_round() -> None:
    samples = {"posthog": [result(20.0), result(200.0)], "otel-log": [result(10.0), result(100.0)]}
    assert figures.paired(samples, "posthog", "otel-log", "purchase", "cpu") == 2.0


def test_a_budget_says_whether_it_is_kept() -> None:
    calls = {"eventflows": [result(30.0)], "original": [result(40.0)], "floor": [result(10.0)]}
    kept = {one.what: one.kept for one in budgets.budgets({"calls": calls})}
    assert kept == {
        "CPU per delivered event: × original eventflows 0.1.1": True,
        "CPU per delivered event: × floor, json": False,
    }


def test_every_peer_has_an_environment_with_pinned_releases() -> None:
    sections = environments.sections().sections()
    assert {peer.environment for peer in PEERS.values()} <= set(sections)
    loose = [line for name in sections for line in environments.requirements(name) if "==" not in line]
    assert {line.split(" ")[0] for line in loose} == {"-e"}


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_one_place_for_the_figures(path: object) -> None:
    assert len(documents.BLOCK.findall(path.read_text(encoding="utf-8"))) == 1  # type: ignore[attr-defined]
