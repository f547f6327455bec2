"""The commands on a storage folder, as a person at a terminal runs them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import journal, journals
from eventflows.cli import main
from eventflows.providers.base import Encoded
from eventflows.sandbox import Sandbox
from tests.conftest import CANARIES, PERSON, environment, four

from .test_pipeline import FAST, LEAD

PREFIX = "OTEL_EXPORTER_EVENTFLOWS_"
GOOD = {**LEAD, **PERSON, "user.id": "u-81", "value": 5, "currency": "EUR", "url": "https://shop.example/"}


@pytest.fixture
def folder(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Order 1 is delivered; 2 lacks what Meta requires; 3 was denied to ad platforms; a lead is too old for all but TikTok."""
    found = tmp_path / "storage"
    eventflows.configure(four(sandbox.url), sending_queue={"storage": str(found)}, retry_on_failure=FAST)
    tracer = eventflows.get_tracer("shop")
    tracer.add_event("Purchase", {**GOOD, "order_id": "1"})
    tracer.add_event("Purchase", {**GOOD, "order_id": "2", "currency": "crowns"})
    tracer.add_event("Purchase", {**GOOD, "order_id": "3", "conversion.consent.ad_storage": "denied"})
    tracer.add_event("Lead", {**GOOD, "event_id": "old"}, time.time_ns() - 8 * 86_400 * 10**9)
    assert eventflows.force_flush(10_000)
    eventflows.shutdown(5_000)
    sandbox.reset()
    monkeypatch.setenv(PREFIX + "SENDING_QUEUE_STORAGE", str(found))
    monkeypatch.setenv(PREFIX + "ENDPOINT", sandbox.url)
    monkeypatch.setenv(PREFIX + "META_PIXEL_ID", "123")
    monkeypatch.setenv(PREFIX + "META_ACCESS_TOKEN", "sekret")
    monkeypatch.setenv(PREFIX + "REDDIT_PIXEL_ID", "a2_123")
    monkeypatch.setenv(PREFIX + "REDDIT_ACCESS_TOKEN", "sekret")
    return found


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(argv)
    out = capsys.readouterr()
    said = (out.out + out.err).lower()
    assert not [text for text in (*CANARIES, "sekret") if text in said]
    return code, out.out


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    code, out = run(capsys, *argv, "--json")
    return code, json.loads(out)


def test_dead_letters_are_listed_with_their_reasons(folder: Path, capsys: Any) -> None:
    code, found = run_json(capsys, "dead-letters", "list")
    assert code == 0
    assert {(one["id"], one["provider"], one["status"]) for one in found} == {
        ("purchase-2", "meta", "refused"), ("old", "meta", "expired"), ("old", "ga4", "expired"), ("old", "reddit", "expired"),
    }  # fmt: skip
    _, refused = run_json(capsys, "dead-letters", "list", "--provider", "meta", "--reason", "currency")
    assert [one["id"] for one in refused] == ["purchase-2"]
    code, table = run(capsys, "dead-letters", "list", "--provider", "meta")
    assert "a purchase needs value and currency" in table
    assert "\033" not in table
    assert run(capsys, "dead-letters", "list", "--provider", "x") == (0, "There are no dead letters.\n")


def test_dead_letters_are_counted_by_reason(folder: Path, capsys: Any) -> None:
    _, found = run_json(capsys, "dead-letters", "list", "--by-reason")
    assert {(one["provider"], one["status"], one["count"]) for one in found} == {
        ("meta", "refused", 1), ("meta", "expired", 1), ("ga4", "expired", 1), ("reddit", "expired", 1),
    }  # fmt: skip
    code, table = run(capsys, "dead-letters", "list", "--by-reason", "--provider", "meta")
    assert (code, table.count("meta")) == (0, 3)  # one of the reasons names it


def test_a_dead_letter_is_shown_sealed(folder: Path, capsys: Any) -> None:
    code, out = run(capsys, "dead-letters", "show", "2")
    assert code == 0
    assert "email.lower" in out
    assert run(capsys, "dead-letters", "show", "1")[0] == 1


def test_replay_sends_under_the_same_id_with_todays_mapping(
    folder: Path, sandbox: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused again as long as nothing has changed; once the mapping can say it, it is delivered, and is no dead letter."""
    code, found = run_json(capsys, "dead-letters", "replay", "purchase-2")
    assert (code, [one["status"] for one in found]) == (1, ["refused"])
    from eventflows import MetaProvider

    encode = MetaProvider.encode

    def lenient(self: MetaProvider, conversion: Any) -> Any:

        return encode(self, conversion._replace(currency="SEK"))

    monkeypatch.setattr(MetaProvider, "encode", lenient)
    assert run_json(capsys, "dead-letters", "replay", "purchase-2", "--dry-run")[1][0]["status"] == "ready"
    assert sandbox.events() == []
    sandbox.fault("meta", status=503, times=1)
    code, found = run_json(capsys, "dead-letters", "replay", "--all", "--provider", "meta", "--timeout", "20s")
    assert (code, {one["id"]: one["status"] for one in found}) == (1, {"purchase-2": "delivered", "old": "expired"})
    assert [entry["event"]["event_id"] for entry in sandbox.events("meta")] == ["purchase-2"]
    assert run_json(capsys, "dead-letters", "list", "--reason", "currency")[1] == []
    assert run_json(capsys, "show", "2")[1][0]["providers"]["meta"]["status"] == "delivered"


def test_replay_obeys_what_holds_today(
    folder: Path, sandbox: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules of consent that came later, say: what was refused for its currency then must not go to anybody now."""
    monkeypatch.setattr("eventflows.MetaProvider.encode", lambda *_: Encoded({}))
    assert run_json(capsys, "dead-letters", "replay", "purchase-2", "--dry-run")[1][0]["status"] == "ready"
    monkeypatch.setenv(PREFIX + "CONSENT_DEFAULT", "denied")
    code, (found,) = run_json(capsys, "dead-letters", "replay", "purchase-2")
    assert (code, found["status"], found["reason"]) == (1, "filtered", "consent: ad_storage denied")
    assert sandbox.events() == sandbox.refused() == []
    assert run_json(capsys, "show", "2")[1][0]["providers"]["meta"]["status"] == "filtered"


def test_replay_says_why_where_it_cannot_send(folder: Path, sandbox: Sandbox, capsys: Any) -> None:
    code, found = run_json(capsys, "dead-letters", "replay", "--all", "--provider", "ga4")
    assert (code, found[0]["status"], found[0]["reason"]) == (1, "not sent", "the provider is not configured")
    assert run(capsys, "dead-letters", "replay", "nonsense")[0] == 1
    assert run(capsys, "dead-letters", "replay")[0] == 2


def test_show_tells_times_attempts_and_answers_at_each_provider(folder: Path, capsys: Any) -> None:
    code, (found,) = run_json(capsys, "show", "3")
    assert code == 0
    assert {name: one["status"] for name, one in found["providers"].items()} == {
        "meta": "filtered", "tiktok": "filtered", "reddit": "filtered", "ga4": "delivered",
    }  # fmt: skip
    assert found["providers"]["meta"]["reason"] == "consent: ad_storage denied"
    assert found["providers"]["ga4"]["attempts"] == 1
    code, out = run(capsys, "show", "purchase-1")
    assert (code, out.count("delivered")) == (0, 4)
    assert run(capsys, "show", "nobody")[0] == 1


def test_report_compares_real_orders_with_what_was_delivered(folder: Path, tmp_path: Path, capsys: Any) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text("\ufeffnumber,total\n1,5\n2,5\n3,5\n4,5\n1,5\n", encoding="utf-8")
    code, found = run_json(capsys, "report", str(orders), "--id-column", "number")
    assert (code, found["orders"]) == (1, 4)
    meta = {"delivered": 1, "refused": 1, "filtered": 1, "never recorded": 1}
    assert found["providers"]["meta"] == meta
    assert {"id": "4", "provider": "ga4", "status": "never recorded", "reason": ""} in found["lost"]
    assert [(one["id"], one["status"]) for one in found["lost"] if one["provider"] == "meta"] == [
        ("2", "refused"),
        ("4", "never recorded"),
    ]
    code, table = run(capsys, "report", str(orders), "--id-column", "number", "--provider", "meta")
    assert code == 1
    assert "never recorded" in table
    assert "ga4" not in table
    assert main(["report", str(orders), "--id-column", "number", "--provider", "meta/eu"]) == 1
    out, err = capsys.readouterr()
    assert "meta/eu" in out
    assert "nothing was recorded for 'meta/eu'; there are: ga4, meta" in err
    orders.write_text("order_id\n1\npurchase-3\n")
    assert run(capsys, "report", str(orders))[0] == 0
    assert run(capsys, "report", str(orders), "--since", "2200-01-01")[0] == 1
    assert run(capsys, "report", str(orders), "--id-column", "nr")[0] == 2
    assert run(capsys, "report", str(tmp_path / "none.csv"))[0] == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"order_id\nZo\xe9\n", "not UTF-8; save the file as that"), (b"order_id\n" + b"1" * 200_000, "not CSV: ")],
)
def test_a_list_of_orders_that_cannot_be_read_is_one_clear_error(
    folder: Path, content: bytes, told: str, tmp_path: Path, capsys: Any
) -> None:
    """As a spreadsheet may save it."""
    orders = tmp_path / "orders.csv"
    orders.write_bytes(content)
    assert main(["report", str(orders)]) == 2
    assert f"eventflows: {orders}: {told}" in capsys.readouterr().err


def test_a_country_that_is_none_erases_nobody(folder: Path, capsys: Any) -> None:
    assert main(["erase", "--user", "0701234567", "--default-country", "Sweden-ish", "--yes"]) == 2
    assert "--default-country: " in capsys.readouterr().err


def test_erase_removes_a_person_by_any_identifier(folder: Path, capsys: Any) -> None:
    assert run(capsys, "erase", "--user", "somebody@else.example", "--yes") == (0, "0 events erased.\n")
    assert run_json(capsys, "erase", "--user", " zoe.CANARY@example.com", "--yes")[1] == {"erased": 2}
    assert run_json(capsys, "dead-letters", "list")[1] == []


@pytest.mark.parametrize("value", ["+46701234567", "u-81"])
def test_erase_by_phone_and_by_user_id(value: str, folder: Path, capsys: Any) -> None:
    assert run_json(capsys, "erase", "--user", value, "--yes")[1] == {"erased": 2}


def test_erase_reads_a_phone_number_as_the_app_does(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the default country of the settings."""
    pytest.importorskip("phonenumbers")
    assert run_json(capsys, "erase", "--user", "070 123 45 67", "--yes")[1] == {"erased": 0}
    monkeypatch.setenv(PREFIX + "DEFAULT_COUNTRY", "SE")
    assert run_json(capsys, "erase", "--user", "070 123 45 67", "--yes")[1] == {"erased": 2}


def test_purge_forgets_old_dead_letters(folder: Path, capsys: Any) -> None:
    assert run_json(capsys, "dead-letters", "purge", "--yes")[1] == {"purged": 0}
    assert run_json(capsys, "dead-letters", "purge", "--older-than", "1ms", "--yes")[1] == {"purged": 2}


def test_what_cannot_be_undone_asks_or_wants_yes(folder: Path, capsys: Any) -> None:
    assert run(capsys, "erase", "--user", "a@b.example")[0] == 2
    assert run(capsys, "dead-letters", "purge")[0] == 2


def test_a_missing_folder_is_a_clear_error(capsys: Any, tmp_path: Path) -> None:
    assert run(capsys, "show", "1")[0] == 2
    assert run(capsys, "show", "1", "--storage", str(tmp_path / "nowhere"))[0] == 2


def test_the_console_script_helps(folder: Path) -> None:
    for command in ([], ["dead-letters"], ["report"], ["erase"]):
        done = subprocess.run(
            [sys.executable, "-m", "eventflows.cli", *command, "--help"],
            env=environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage: " in done.stdout
    done = subprocess.run(
        ["eventflows", "show", "1", "--storage", str(folder)],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.count("delivered") == 4


# --- what cannot be read


@pytest.fixture
def spoiled(folder: Path) -> Path:
    """Before the journal there is one that is damaged, and the first dead letter's event cannot be read."""
    (folder / "0.journal").write_bytes(b"nonsense" * 1_000)
    (path,) = (path for path in journals.files(folder) if path.name != "0.journal")
    db = sqlite3.connect(path)
    db.execute("UPDATE history SET body = 'nonsense' WHERE seq = (SELECT min(seq) FROM history WHERE body IS NOT NULL)")
    db.commit()
    db.close()
    return folder


def test_a_person_is_erased_from_what_can_be_read_and_what_cannot_is_said(spoiled: Path, capsys: Any) -> None:
    assert main(["erase", "--user", "zoe.canary@example.com", "--yes"]) == 1
    said = capsys.readouterr()
    assert said.out == "1 event erased.\n"
    assert said.err.count("not all of") == 2
    assert f"{spoiled / '0.'}" in said.err


def test_purge_goes_on_after_what_cannot_be_read(spoiled: Path, capsys: Any) -> None:
    assert run(capsys, "dead-letters", "purge", "--older-than", "1ms", "--yes") == (1, "2 events purged.\n")


def test_dead_letters_that_cannot_be_read_keep_nobody_from_the_others(spoiled: Path, capsys: Any) -> None:
    code, told = run_json(capsys, "dead-letters", "replay", "--all", "--timeout", "5s")
    assert code == 1
    assert {(one["id"], one["status"]) for one in told} >= {("purchase-2", "not sent"), ("old", "expired")}
    code, (shown,) = run_json(capsys, "dead-letters", "show", "purchase-2")
    assert (code, shown["event"]) == (0, "nonsense")


def test_what_is_told_without_a_damaged_journal_is_told_with_a_warning(
    spoiled: Path, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Else an order that is in there would be said never to have been recorded, and nobody would know better."""
    assert run(capsys, "show", "4711")[0] == 1
    assert f"{spoiled / '0.journal'} cannot be read" in caplog.text
    eventflows.configure(four(), sending_queue={"storage": str(spoiled)})
    eventflows.get_tracer("shop").add_event("Lead", GOOD)
    eventflows.shutdown(0)
    caplog.clear()
    assert run(capsys, "show", "4711")[0] == 1
    assert f"{spoiled / '0.damaged'} cannot be read" in caplog.text


def test_an_outcome_of_a_replay_that_cannot_be_written_says_so(
    folder: Path, sandbox: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform has it, so the others must go on, and whoever repeats it must know."""
    monkeypatch.setattr(journal, "BUSY_SECONDS", 0.01)
    (path,) = journals.files(folder)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    code, told = run_json(capsys, "dead-letters", "replay", "--all", "--timeout", "5s")
    db.close()
    assert code == 1
    written = [one["reason"] for one in told if one["status"] != "not sent"]
    assert len(written) == 3
    assert all("not written to the storage" in reason for reason in written)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("command", [["show", "1"], ["report", "-"], ["erase", "--user", "x", "--yes"]])
def test_who_may_not_read_the_folder_is_told_so_and_not_that_nothing_is_there(command: list[str]) -> None:
    program = (
        "import os, sys\nfrom eventflows.cli import main\n"
        "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\nsys.exit(main(sys.argv[1:]))"
    )
    with tempfile.TemporaryDirectory() as folder:  # which nobody else may look into
        given = [sys.executable, "-c", program, *command, "--storage", folder]
        done = subprocess.run(given, env=environment(), input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not yours to read" in done.stderr
