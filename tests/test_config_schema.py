"""The published JSON Schema, tables and variables are the model's, and the schema takes good files and refuses bad ones."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from eventflows import ConfigurationError, cli, config
from eventflows.config_schema import schema
from eventflows.model import SETTINGS
from eventflows.provider_settings import SHARED
from tests import config_docs
from tests.test_config_sources import YAML

accepts = fastjsonschema.compile(schema())
REFRESH = "run: python -m tests.config_docs"


def test_what_the_documentation_says_is_up_to_date() -> None:
    assert config_docs.SCHEMA.read_text(encoding="utf-8") == config_docs.schema_file(), REFRESH
    assert config_docs.PAGE.read_text(encoding="utf-8") == config_docs.page(), REFRESH


def test_the_variables_of_opentelemetry_instrument_are_up_to_date() -> None:
    written: dict[str, Any] = {}
    exec(config_docs.variables_file(), written)  # noqa: S102 reason: our own text; its layout is the formatter's
    module = importlib.import_module("eventflows.environment_variables")
    names = [name for name in dir(module) if name.startswith("OTEL_")]
    assert sorted(name for name in written if name.startswith("OTEL_")) == names, REFRESH
    assert all(getattr(module, name) == name for name in names)


def test_every_setting_is_described() -> None:
    for path, _, about, _ in config_docs.rows(SETTINGS):
        assert about, path
    assert set(SHARED) <= set(config_docs.documented(config_docs.Provider))


def examples() -> list[str]:
    """Every YAML file of our own in the documentation."""
    page = config_docs.PAGE.read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    return [block for block in blocks if "file_format" not in block]


@pytest.mark.parametrize("text", [YAML, *examples()])
def test_a_good_file_is_accepted_by_schema_and_model(text: str, tmp_path: Path) -> None:
    import yaml

    accepts(yaml.safe_load(text))
    pytest.importorskip("jsonschema").validate(yaml.safe_load(text), schema())
    (tmp_path / "meta_eu").write_text("t0ken")
    (tmp_path / "c.yaml").write_text(text.replace("/run/secrets", str(tmp_path)))
    names = "META_ACCESS_TOKEN GA4_API_SECRET TOKEN_A TOKEN_B GA4_SECRET PIXEL TOKEN".split()
    assert config.from_file(tmp_path / "c.yaml", dict.fromkeys(names, "x")).providers


META = {"pixel_id": "1", "access_token": "t"}
BAD: list[Any] = [
    [],
    {},
    {"providers": {}},
    {"providers": {"metta": META}},
    {"providers": {"meta/": META}},
    {"providers": {"meta": {"pixel_id": "1"}}},
    {"providers": {"meta": {**META, "pixelid": "1"}}},
    {"providers": {"meta": {**META, "sample": 0}}},
    {"providers": {"meta": {**META, "sample": 1.5}}},
    {"providers": {"meta": {**META, "events": 3}}},
    {"providers": {"meta": {**META, "events": {"includes": []}}}},
    {"providers": {"meta": {**META, "needs_consent": ["marketing"]}}},
    {"providers": {"meta": {**META, "sending_queue": {"storage": "/x"}}}},
    {"providers": {"meta": {**META, "tenant": "a"}}},
    {"providers": {"meta": {"tenants": {"attribute": "a"}}}},
    {"providers": {"meta": {"tenants": {"attribute": "a", "values": {"x": {"nonsense": 1}}}}}},
    {"providers": {"ga4": {"api_secret": "x", "measurement_id": "G-1", "region": "mars"}}},
    {"providers": {"ga4": {"api_secret": "x", "measurement_id": "G-1", "debug_mode": "perhaps"}}},
    {"providers": {"console": {}}, "timeout": "soon"},
    {"providers": {"console": {}}, "timeout": 0},
    {"providers": {"console": {}}, "timeout": True},
    {"providers": {"console": {}}, "sending_queue": {"queue_size": 0}},
    {"providers": {"console": {}}, "sending_queue": {"queue_size": 1.5}},
    {"providers": {"console": {}}, "retry_on_failure": {"multiplier": 0.5}},
    {"providers": {"console": {}}, "endpoint": "localhost:1"},
    {"providers": {"console": {}}, "default_country": "Norway"},
    {"providers": {"console": {}}, "consent": {"default": "perhaps"}},
    {"providers": {"console": {}}, "events": {"order.placed": "bought"}},
    {"providers": {"console": {}}, "environments": {"staging": "off"}},
    {"providers": {"console": {}}, "commit": "later"},
    {"providers": {"console": {}}, "tls": {"ca": "/x"}},
    {"providers": {"console": {}}, "proxy_url": "proxy:3128"},
    {"providers": {"console": {}}, "nonsense": 1},
]


@pytest.mark.parametrize("given", BAD, ids=json.dumps)
def test_a_bad_file_is_refused_by_schema_and_model(given: Any, tmp_path: Path) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaException):
        accepts(given)
    (tmp_path / "c.json").write_text(json.dumps(given))
    with pytest.raises(ConfigurationError):
        config.from_file(tmp_path / "c.json", {})


def test_the_command_prints_the_schema(capsys: Any) -> None:
    assert cli.main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
