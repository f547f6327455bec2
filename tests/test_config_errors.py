"""A wrong configuration: all problems in one go, each with its path, its line and what is allowed, and never a secret."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import ConfigurationError, ConsoleProvider, MetaProvider, config, running
from eventflows.variables import PREFIX

BROKEN = """\
providers:
  meta:
    pixelid: "123"
    access_token: ${META_TOKEN}
    events: {include: [purchase, lead], exclude: [Purchase]}
  meta/eu: {pixel_id: 0123, access_token: "${META TOKEN}", tls: {cert_file: /nowhere.pem}}
  ga4: {api_secret: canary-secret, region: mars}
  tiktok:
    timeout: 0
    tenants:
      attribute: shop.id
      values:
        a: {pixel_code: X, access_token: canary-secret}
        b: {pixel_code: X, when: "a == "}
  metta: {}
  console:
  console:
timeout: soon
sending_queue:
  queue_size: 1.5
  storag: /var/lib/eventflows
retry_on_failure: {initial_interval: 1m, max_interval: 30s}
consent: {regions: {Mars: denied}}
default_country: Norway
"""

EXPECTED = [
    (3, "providers.meta.pixelid", "did you mean providers.meta.pixel_id? Allowed: pixel_id, access_token"),
    (2, "providers.meta.pixel_id", "required"),
    (4, "providers.meta.access_token", "required, a non-empty string (META_TOKEN is not set in the environment)"),
    (5, "providers.meta.events.exclude", "purchase is included as well"),
    (6, "providers.meta/eu.access_token", "write ${NAME}, ${NAME:-default} or ${file:<path>}"),
    (6, "providers.meta/eu.tls.cert_file", "there is no file /nowhere.pem"),
    (7, "providers.ga4.region", "'mars' is not one of us, eu"),
    (7, "providers.ga4.measurement_id", "either this (web) or firebase_app_id (app) is required"),
    (9, "providers.tiktok.timeout", "0 is not a duration: use milliseconds (5000) or a unit (5s, 15m)"),
    (14, "providers.tiktok.tenants.values.b.access_token", "required"),
    (14, "providers.tiktok.tenants.values.b.when", "column 5: expected a text in quotes, a number, true or false"),
    (15, "providers.metta", "no provider of type 'metta', did you mean meta?"),
    (17, "providers.console", "is there twice"),
    (18, "timeout", "'soon' is not a duration"),
    (20, "sending_queue.queue_size", "1.5 must be a whole number of at least 1"),
    (21, "sending_queue.storag", "did you mean sending_queue.storage?"),
    (22, "retry_on_failure.max_interval", "must not be shorter than initial_interval"),
    (23, "consent.regions.Mars", "neither a country (DE) nor a part of one (US-CA) nor EU nor EEA"),
    (24, "default_country", "'Norway' is not an ISO 3166-1 code"),
]


def test_all_problems_of_a_file_are_found_in_one_go(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(BROKEN)
    with pytest.raises(ConfigurationError) as error:
        config.from_file(file, {})
    found = [(problem.line, problem.path) for problem in error.value.problems]
    assert sorted(found) == sorted((line, path) for line, path, _ in EXPECTED)
    told = str(error.value)
    for line, path, message in EXPECTED:
        assert any(
            row.strip().startswith(f"{file}, line {line}: {path}: ") and message in row for row in told.splitlines()
        ), (path, told)
    assert told.startswith(f"{len(EXPECTED)} problems:\n")
    assert "canary" not in told


def test_all_problems_of_the_environment_name_their_variables() -> None:
    environ = {
        "META_PIXELID": "1", "META_ACCESS_TOKEN": "canary", "REDDIT_PIXEL_ID": "1", "TIMEOUT": "soon",
        "CONSENT_REGIONS": "EEA", "NONSENSE": "1", "GA4_EXTRA": "canary", "META_EVENTS": "lead", "GA4_EVENTS_EXCLUDE": "a",
    }  # fmt: skip
    with pytest.raises(ConfigurationError) as error:
        config.from_environment({PREFIX + name: value for name, value in environ.items()})
    told = str(error.value)
    for message in (
        "META_PIXELID: no such setting, did you mean OTEL_EXPORTER_EVENTFLOWS_META_PIXEL_ID?",
        "META_PIXEL_ID: required",
        "REDDIT_ACCESS_TOKEN: required",
        "TIMEOUT: 'soon' is not a duration",
        "CONSENT_REGIONS: 'EEA' must be a list of name=value",
        "NONSENSE: no such setting",
        "GA4_EXTRA: must be a JSON object",
        "GA4_API_SECRET: required",
    ):
        assert f"  {PREFIX}{message}" in told, told
    assert "canary" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("providers: {console: \n", "line 2: not YAML"),
        (
            "providers:\n  meta: {access_token: ${TOKEN}, pixel_id: '1'}\n",
            "line 2: not YAML: expected ',' or '}', but got '{': between { } or [ ] put ${...} in quotes",
        ),
        ("- console\n", "c.yaml: must be a mapping of settings"),
        ("\x00", "not YAML"),
        ("", "providers: none configured"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("providers: !python/object:os.system {}\n", "line 1: providers: the tag !python/object:os.system means nothing"),
        ("providers: &a {console: *a}\n", "providers.console: contains itself"),
        ("providers: {? [a] : 1}\n", "a key must be a text"),
        ("providers: [console]\n", "providers: str is not a Provider"),
        ("providers: {meta: [1]}\n", "providers.meta: must be a mapping, not list"),
        ("providers: {console: }\nextra: ${file:/x}\n", "extra: no such setting"),
        ("providers: {console: {endpoint: 'http://${file:/x}'}}\n", "${file:...} must be the whole value"),
        ("providers: {console: {tls: {ca_file: a, insecure_skip_verify: true}}}\n", "contradicts ca_file"),
        ("providers: {console: {tls: {key_file: a}}}\n", "cert_file: required with key_file"),
        ("providers: {console: }\nproxy_url: ftp://user:canary@x\n", "proxy_url: must be a URL such as http://proxy:3128"),
        (
            "providers: {console: }\nconsent: {default: {sec_gpc: denied}, sec_gpc: ignore}\n",
            "contradicts consent.default.sec_gpc",
        ),
        ("providers: {console: }\nstorage: /x\n", "storage: no such setting, did you mean sending_queue.storage? Allowed"),
        ("providers: {console: {sample: 0}}\n", "sample: 0 must be a number above 0 and at most 1"),
        ("providers: {console: }\nretry_on_failure: {multiplier: 1000}\n", "1000 must be a number from 1 to 100"),
        ("providers: {console: {sample: 2}}\n", "sample: 2 must be a number above 0 and at most 1"),
        (
            "providers: {console: {retry_on_failure: {initial_interval: 1m, max_interval: 1s}}}\n",
            "console.retry_on_failure.max_interval: must not be",
        ),
        ("providers: {console: {sending_queue: {storage: /x}}}\n", "console.sending_queue.storage: no such setting"),
        ("providers: {meta: {tenants: {values: {}}}}\n", "tenants.attribute: None must be"),
        (
            "providers: {meta: {tenants: {attribute: a, values: {'a b': , 'a/b': }}}}\n",
            "would have the id meta/a-b, as 'a b' has",
        ),
        ("providers: {console: {tenant: a}}\n", "console.tenant: no such setting"),
        ("providers: {console: }\ndefault_country: false\n", '(in quotes: "NO")'),
    ],
)  # fmt: skip
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        config.from_file(file, {})
    assert said in str(error.value)
    assert "canary" not in str(error.value)


def test_aliases_of_aliases_cannot_fill_the_memory(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    file = tmp_path / "c.yaml"
    file.write_text("\n".join(levels))
    with pytest.raises(ConfigurationError, match="holds more than 50000 values"):
        config.from_file(file)


@pytest.mark.parametrize("ending", [".yaml", ".json"])
def test_what_is_no_file_or_no_text(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.*: cannot be read: No such file"):
        config.from_file(tmp_path / f"nowhere{ending}")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        config.from_file(tmp_path)
    (tmp_path / f"latin{ending}").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        config.from_file(tmp_path / f"latin{ending}")
    (tmp_path / f"deep{ending}").write_text("[" * 100_000)
    with pytest.raises(ConfigurationError, match=r"nested too deeply|not (YAML|JSON)"):
        config.from_file(tmp_path / f"deep{ending}")
    (tmp_path / f"large{ending}").write_text(" " * 1_000_001)
    with pytest.raises(ConfigurationError, match="larger than 1000000 bytes"):
        config.from_file(tmp_path / f"large{ending}")


def test_wrong_json_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"providers":\n  {"console": {},, }}')
    with pytest.raises(ConfigurationError, match=r"c\.json, line 2: not JSON"):
        config.from_file(tmp_path / "c.json")
    (tmp_path / "c.json").write_text('{"providers": {"console": {}, "console": {}}}')
    with pytest.raises(ConfigurationError, match=r"providers\.console: is there twice"):
        config.from_file(tmp_path / "c.json")


def test_a_bad_configuration_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"providers: {{console: }}\nsending_queue: {{storage: {tmp_path}/journals}}\ntimeout: soon\n")
    with pytest.raises(ConfigurationError):
        eventflows.configure(config=file)
    assert running.current() is None
    assert not (tmp_path / "journals").exists()


def test_a_variables_text_is_never_read_as_a_reference(tmp_path: Path) -> None:
    """No structure, no further variable and no file comes in by the environment."""
    secret = tmp_path / "secret"
    secret.write_text("canary-of-the-file")
    file = tmp_path / "c.yaml"
    file.write_text('providers:\n  meta: {pixel_id: "${A}", access_token: "${B}", extra: {x: "${C}"}}\n')
    environ = {"A": "${B}", "B": f"${{file:{secret}}}", "C": "{y: [1, 2]}"}
    provider: Any = config.from_file(file, environ).providers[0]
    assert (provider.pixel_id, provider.extra) == ("${B}", {"x": "{y: [1, 2]}"})
    assert provider.access_token.reveal() == f"${{file:{secret}}}"


def test_secrets_are_masked_in_every_text(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    built = config.settings(
        [MetaProvider("1", "canary-1", proxy_url="http://u:canary-2@127.0.0.1:1"), ConsoleProvider()],
        proxy_url="http://u:canary-3@127.0.0.1:1",
    )
    shown = repr(built) + repr([built.lane(provider) for provider in built.providers])
    with pytest.raises(ConfigurationError) as error:
        config.settings(
            {"meta": {"pixel_id": "1", "access_token": ["canary"], "proxy_url": "canary:1", "acces_token": "canary"}}
        )
    assert "canary" not in shown + str(error.value) + repr(error.value) + caplog.text
