"""A secret is seen by the request that needs it, and by nothing else; a file's is read again when it changes."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import ConfigurationError, GA4Provider, MetaProvider
from eventflows.providers.base import Request
from eventflows.sandbox import Sandbox
from eventflows.secret import Secret, SecretUnavailable, bearer
from eventflows.transport import all_headers, secret_url

TOKEN = "EAAG-canary-secret"


def purchase(order: str) -> dict[str, Any]:
    return {"value": 1, "currency": "EUR", "order_id": order, "user.email": "a@b.example"}


@pytest.mark.parametrize("given", [TOKEN, f" {TOKEN}\n", lambda: TOKEN, Secret(TOKEN)])
def test_the_request_gets_the_text_and_everybody_else_a_mask(given: Any) -> None:
    provider = MetaProvider("123", given)
    request = provider.request([])
    assert all_headers(request)["Authorization"] == f"Bearer {TOKEN}"
    assert all_headers(request, masked=True)["Authorization"] == "Bearer ***"
    shown = [
        repr(provider),
        str(provider.access_token),
        f"{provider.access_token}",
        repr(request),
        repr(asdict(provider)),
    ]
    shown.append(json.dumps(asdict(copy.deepcopy(provider)), default=str))
    shown.append(repr(request.secret_headers))
    assert TOKEN not in "".join(shown)
    with pytest.raises(TypeError, match="not serialised"):
        pickle.dumps(provider)


def test_a_secret_of_the_query_is_masked_as_well() -> None:
    assert TOKEN not in repr(GA4Provider("G-1", TOKEN))
    plain = Request("POST", "https://x.example/collect?a=1", {}, [], secret_params={"api_secret": Secret("a b")})
    assert "a b" not in repr(plain)
    assert secret_url(plain) == "https://x.example/collect?a=1&api_secret=a%20b"
    assert secret_url(plain, masked=True) == "https://x.example/collect?a=1&api_secret=***"


def test_secrets_are_equal_by_their_source() -> None:
    assert MetaProvider("1", "a") == MetaProvider("1", " a ") != MetaProvider("1", "b")
    assert Secret.of("${file:/x}") == Secret.of("${file: /x }") != Secret.of("${file:/y}")
    assert bearer("a") != Secret.of("a")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """And a file that is away or empty for a moment costs nothing: its last text is used."""
    file = tmp_path / "token"
    file.write_text("first\n")
    secret = Secret.of(f"${{file:{file}}}")
    assert secret.reveal() == "first"
    (tmp_path / "new").write_text("second, longer".replace(", ", "-"))
    os.replace(tmp_path / "new", file)
    assert secret.reveal() == "second-longer"
    file.write_text("")
    assert secret.reveal() == "second-longer"
    file.unlink()
    assert secret.reveal() == "second-longer"


@pytest.mark.parametrize("content", [b"", b"  \n", b"two\nlines", b"\xff\xfe", "schlüssel".encode()])
def test_an_unusable_file_is_an_error_at_start_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"providers.meta.access_token: the file .*token is not usable"):
        MetaProvider("123", f"${{file:{file}}}")


def test_a_missing_file_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere is not usable: No such file"):
        MetaProvider("123", f"${{file:{tmp_path}/nowhere}}")


def broken() -> str:
    raise RuntimeError(f"vault says no to {TOKEN}")


def test_a_function_that_fails_costs_no_event_and_tells_nothing(sandbox: Sandbox, caplog: Any) -> None:
    """Its exception may hold the secret, so only its type is told; the event waits until the secret can be had."""
    caplog.set_level(logging.DEBUG)
    answers = [broken, broken, lambda: TOKEN]
    provider = MetaProvider(
        "123", lambda: (answers.pop(0) if len(answers) > 1 else answers[0])(), endpoint=sandbox.url + "/meta"
    )
    pipeline = eventflows.configure([provider], retry_on_failure={"initial_interval": "50ms"})
    pipeline.record("Purchase", purchase("1"))
    assert pipeline.force_flush(20_000)
    assert pipeline.stats()["meta"].delivered == 1
    assert TOKEN not in caplog.text
    with pytest.raises(SecretUnavailable) as problem:
        Secret.of(broken).reveal()
    assert TOKEN not in "".join(traceback.format_exception(problem.value))


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", "", "two\nlines", "naïve"])
def test_a_function_that_returns_no_usable_text_is_unavailable(wrong: Any) -> None:
    with pytest.raises(SecretUnavailable, match="printable ASCII"):
        Secret.of(lambda: wrong).reveal()


def test_a_token_of_a_file_can_be_changed_under_way(sandbox: Sandbox, tmp_path: Path) -> None:
    """The request after the change carries the new token: no restart, no reload."""
    file = tmp_path / "token"
    file.write_text("old")
    provider = MetaProvider("123", f"${{file:{file}}}", endpoint=sandbox.url + "/meta")
    pipeline = eventflows.configure([provider])
    pipeline.record("Purchase", purchase("1"))
    assert pipeline.force_flush(20_000)
    file.write_text("renewed")
    assert all_headers(provider.request([]))["Authorization"] == "Bearer renewed"
