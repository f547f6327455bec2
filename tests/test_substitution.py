"""OpenTelemetry's rules of substitution: the specification's examples, and properties over any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventflows import ConfigurationError, config
from eventflows.config_file import read_file
from eventflows.substitution import WrongReference, substitute

ENVIRON = {
    "STRING_VALUE": "value",
    "BOOL_VALUE": "true",
    "INT_VALUE": "1",
    "FLOAT_VALUE": "1.1",
    "HEX_VALUE": "0xdeadbeef",
    "INVALID_MAP_VALUE": "value\nkey:value",
    "DO_NOT_REPLACE_ME": "Never use this value",
    "REPLACE_ME": "${DO_NOT_REPLACE_ME}",
    "VALUE_WITH_ESCAPE": "value$$",
    "EMPTY": "",
}
SPECIFIED: list[tuple[str, Any]] = [
    ("${STRING_VALUE}", "value"),
    ("${BOOL_VALUE}", True),
    ("${INT_VALUE}", 1),
    ("${FLOAT_VALUE}", 1.1),
    ('"${STRING_VALUE}"', "value"),
    ('"${BOOL_VALUE}"', "true"),
    ('"${INT_VALUE}"', "1"),
    ('"${FLOAT_VALUE}"', "1.1"),
    ("${env:STRING_VALUE}", "value"),
    ("foo ${STRING_VALUE} ${FLOAT_VALUE}", "foo value 1.1"),
    ("${INVALID_MAP_VALUE}", "value\nkey:value"),
    ("${UNDEFINED_KEY}", None),
    ("${UNDEFINED_KEY:-fallback}", "fallback"),
    ("${EMPTY:-fallback}", "fallback"),
    ("${UNDEFINED_KEY:-}", None),
    ("${UNDEFINED_KEY:-3}", 3),
    ("${STRING_VALUE:-fallback}", "value"),
    ("${REPLACE_ME}", "${DO_NOT_REPLACE_ME}"),
    ("${UNDEFINED_KEY:-${STRING_VALUE}}", "${STRING_VALUE}"),
    ("${VALUE_WITH_ESCAPE}", "value$$"),
    ("a $$ b", "a $ b"),
    ("a $ b", "a $ b"),
    ("$${STRING_VALUE}", "${STRING_VALUE}"),
    ("$$${STRING_VALUE}", "$value"),
    ("$$$${STRING_VALUE}", "$${STRING_VALUE}"),
    ("$${STRING_VALUE:-fallback}", "${STRING_VALUE:-fallback}"),
    ("$${STRING_VALUE:-${STRING_VALUE}}", "${STRING_VALUE:-value}"),
    ("$STRING_VALUE", "$STRING_VALUE"),
]


@pytest.mark.parametrize(("text", "value"), SPECIFIED)
def test_the_examples_of_the_specification(text: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"key: {text}\n")
    found = read_file(file, ENVIRON)
    assert found.problems == ()
    assert found.settings == {"key": value}


def test_keys_and_comments_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("${STRING_VALUE}: ${STRING_VALUE} # ${NOT A REFERENCE}\n")
    assert read_file(file, ENVIRON).settings == {"${STRING_VALUE}": "value"}


@pytest.mark.parametrize(
    "text", ["${1NAME}", "${}", "${A B}", "${A:x}", "${A-b}", "${env:}", "a ${file:/x} b", "${:-x}"]
)
def test_what_is_no_reference_is_an_error(text: str) -> None:
    with pytest.raises(WrongReference):
        substitute(text, ENVIRON)


texts = st.text(alphabet=st.sampled_from("$${}:-_ABCab1 \n'\"#,[]&*!%é\x00"), max_size=60)
environs = st.dictionaries(st.sampled_from(["A", "B", "AB", "_"]), texts, max_size=4)


@given(text=st.text(max_size=80))
def test_a_text_with_its_dollars_doubled_comes_back_as_it_was(text: str) -> None:
    assert substitute(text.replace("$", "$$"), {}).text == text


@given(value=texts, before=st.text(alphabet="ab :", max_size=5))
def test_what_a_variable_holds_is_put_in_as_it_is(value: str, before: str) -> None:
    assert substitute(before + "${A:-}", {"A": value}).text == before + value


@given(text=texts, environ=environs)
def test_nothing_but_its_own_error_comes_out(text: str, environ: dict[str, str]) -> None:
    try:
        found = substitute(text, environ)
    except WrongReference:
        return
    assert "${" in text or found.text == text.replace("$$", "$")
    assert set(found.unset).isdisjoint(name for name, value in environ.items() if value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.text(max_size=60).filter(lambda text: "\x00" not in text))
def test_no_variable_brings_structure_into_a_file(value: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("providers: {console: {extra: {x: '${A}'}}}\ntimeout: 1s\n")
    try:
        found = config.from_file(file, {"A": value})
    except ConfigurationError:
        pytest.fail("a text is a text")
    extra: Any = found.providers[0].extra
    assert extra["x"] in (value or None, "***") or str(extra["x"]) == "***"
    assert found.timeout == 1.0
