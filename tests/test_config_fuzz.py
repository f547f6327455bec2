"""Whatever is given as a configuration, nothing but a ConfigurationError comes out of it, and never what was secret in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventflows import ConfigurationError, config
from eventflows.model import SETTINGS, leaves
from eventflows.variables import PREFIX

COMMON = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
CANARY = "canary-of-a-secret"


def tried(make: Callable[[], object]) -> ConfigurationError | None:
    """The error of a wrong configuration, which holds its problems; anything else is raised."""
    try:
        make()
    except ConfigurationError as error:
        found = error
    else:
        return None
    assert found.problems
    return found


KEYS = [
    *sorted({part for path, _ in leaves(SETTINGS) for part in path.split(".")}),
    "meta", "meta/eu", "ga4", "console", "acme", "pixel_id", "access_token", "api_secret", "measurement_id", "when", "sample",
    "rename", "extra", "properties", "tenants", "attribute", "values", "include", "exclude", "name", "tenant", "", "*", "DE",
    "a b",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["10s", "live", "purchase", "granted", "${X}", "${file:/nowhere}", "http://127.0.0.1:1", 'a == "b"', "private"]
    )
    | st.binary(max_size=3)
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)
accounts = st.dictionaries(st.sampled_from(KEYS), trees, max_size=5)
configurations = st.fixed_dictionaries(
    {
        "providers": st.dictionaries(
            st.sampled_from(["meta", "meta/eu", "ga4", "console", "tiktok"]), accounts, max_size=3
        )
        | trees
    },
    optional={path.partition(".")[0]: trees for path, _ in leaves(SETTINGS) if path != "providers"},
)


@COMMON
@given(given=configurations)
def test_any_mapping(given: Any) -> None:
    tried(lambda: config.settings(**given))


@COMMON
@given(given=st.dictionaries(st.text(max_size=5) | st.sampled_from(KEYS), trees | st.just(object()), max_size=4))
def test_any_keywords(given: dict[str, Any]) -> None:
    tried(lambda: config.settings(**given))


@COMMON
@given(
    environ=st.dictionaries(
        st.lists(
            st.sampled_from(["META", "GA4", "CONSOLE", "EU", *(key.upper() for key in KEYS if key.isidentifier())]),
            max_size=4,
        )
        .map("_".join)
        .map(PREFIX.__add__),
        st.text(max_size=20)
        | st.sampled_from(["true", "1", "a=b", "{}", '{"a": {"b": 1}}', "{", "a,b", "[" * 2000, "{" * 2000]),
        max_size=6,
    )
)
def test_any_environment(environ: dict[str, str]) -> None:
    environ.pop(config.CONFIG, None)
    tried(lambda: config.from_environment(environ))


PIECES = [
    "providers:", " meta:", " console:", "\n", "\n  ", "\n    ", ": ", "- ", "{", "}", "[", "]", ",", '"', "'", "&a ", "*a",
    "<<: ", "|", ">", "#", "!!int ", "!x ", "---", "${A}", "$${A}", "${A:-b}", "${file:/x}", "${", "timeout", "10s", "\t", "?",
    "%", "@", "é", "\x07",
]  # fmt: skip
pieces = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@COMMON
@given(text=pieces | st.text(max_size=60), ending=st.sampled_from([".yaml", ".json"]))
def test_any_file(text: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"c{ending}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    tried(lambda: config.from_file(file, {"A": "x: [1]"}))


@COMMON
@given(content=st.binary(max_size=200), ending=st.sampled_from([".yaml", ".json"]))
def test_any_bytes(content: bytes, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"c{ending}"
    file.write_bytes(content)
    tried(lambda: config.from_file(file))


@COMMON
@given(
    key=st.sampled_from(["access_token", "api_secret", "acces_token", "proxy_url", "tenants", "extra_"]),
    wrap=st.sampled_from(
        [lambda s: s, lambda s: [s], lambda s: {"a": s}, lambda s: f"{s}\n{s}", lambda s: f"ü{s}", str.encode]
    ),
    kind=st.sampled_from(["meta", "ga4", "tiktok", "console", "nothing"]),
)
def test_no_error_shows_a_secret(key: str, wrap: Any, kind: str) -> None:
    reddit = {"pixel_id": "1", "access_token": CANARY, "test_mode": 3}
    error = tried(lambda: config.settings({kind: {key: wrap(CANARY)}, "reddit": reddit}))
    assert CANARY not in str(error) + repr(error)
