"""Conditions on attributes: what each form means, what is wrong in a wrong one, and properties over any text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflows.conditions import Condition, WrongExpression

ATTRIBUTES: dict[str, Any] = {
    "plan": "pro", "n": 10, "price": 9.5, "text10": "10", "flag": True, "no": False, "list": ["a", "b"],
    "url.full": "https://x/y",     "empty": "", "quoted": 'say "hi"', "a-b/c": "1", "one": ["only"],
}  # fmt: skip
HOLDS = """
plan | plan == "pro" | plan == 'pro' | plan != "free" | missing != "x" | not missing | n == 10 | n == "10" | text10 == 10
n == 10.0 | n > 9 | n >= 10 | n < 10.5 | price <= 9.5 | price > -1 | text10 > 9 | flag == true | flag == "true" | no == false
no != true | no | plan in ["free", "pro"] | plan in ["pro"] | plan not in ["free"] | not plan in ["free"] | n in [1, 10]
list == "a" | list in ["z", "b"] | url.full starts_with "https://" | one starts_with "on" | quoted == "say \\"hi\\""
quoted == 'say "hi"' | a-b/c == 1 | empty == "" | empty | plan == "pro" and n == 10 | plan == "x" or n == 10
plan == "x" and n == 1 or flag | (plan == "x" or flag) and n == 10 | not (plan == "x" or n == 1) | not not plan
not plan == "x"
""".replace("\n", "|")
HOLDS_NOT = """
missing | plan == "Pro" | missing == "" | n == 11 | n > 10 | plan > 1 | missing < 1 | missing >= 0 | flag == false | no == true
plan in ["free"] | plan not in ["pro"] | missing in ["x"] | url.full starts_with "http://" | missing starts_with ""
missing starts_with "None" | plan == "x" or n == 1 and flag | not plan | list == "c" | n == true
""".replace("\n", "|")


def cases(text: str) -> list[str]:
    return [one.strip() for one in text.split("|") if one.strip()]


@pytest.mark.parametrize("source", cases(HOLDS))
def test_it_holds(source: str) -> None:
    assert Condition(source).holds(ATTRIBUTES)


@pytest.mark.parametrize("source", cases(HOLDS_NOT))
def test_it_does_not_hold(source: str) -> None:
    assert not Condition(source).holds(ATTRIBUTES)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "column 1: expected an attribute's name, not, or ("),
        ("plan = 'x'", "column 5: \"= 'x'\" is not understood"),
        ("plan ==", "column 8: expected a text in quotes, a number, true or false, found the end"),
        ("plan == pro", "column 9: expected a text in quotes"),
        ("plan == 'pro", "is not understood"),
        ("plan in 'a'", "column 9: expected ["),
        ("plan in []", "column 10: expected a text in quotes"),
        ("plan in ['a' 'b']", "column 14: expected , or ]"),
        ("plan not 'a'", "column 10: expected in"),
        ("(plan", "column 6: expected )"),
        ("plan)", "column 5: expected and, or, or the end"),
        ("plan n", "column 6: expected and, or, or the end"),
        ("and plan", "column 1: expected an attribute's name"),
        ("plan > 'a'", "> compares with a number"),
        ("plan > true", "> compares with a number"),
        ("plan starts_with 1", "starts_with needs a text in quotes"),
        ("(" * 60 + "plan" + ")" * 60, "nested deeper than 50 levels"),
        ("not " * 60 + "plan", "nested deeper than 50 levels"),
        ("a" * 10_001, "longer than 10000 characters"),
    ],
)
def test_a_wrong_expression_says_where(source: str, said: str) -> None:
    with pytest.raises(WrongExpression) as problem:
        Condition(source)
    assert said in str(problem.value)


def test_a_long_chain_is_no_nesting() -> None:
    assert Condition(" and ".join(["plan"] * 1000)).holds(ATTRIBUTES)


def test_a_function_is_a_condition_as_well() -> None:
    condition = Condition(lambda attributes: attributes.get("n") == 10)
    assert condition.holds(ATTRIBUTES)
    assert "lambda" in repr(condition)
    assert Condition("plan") == Condition("plan") != Condition("n")


words = st.sampled_from(
    ["plan", "n", "missing", "==", "!=", "<", ">=", "in", "not", "and", "or", "(", ")", "[", "]", ",", "'a'", '"pro"', "10",
     "true", "starts_with", "-1.5", "$", "'"]
)  # fmt: skip
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3), max_size=3)
)


@given(source=st.lists(words, max_size=14).map(" ".join) | st.text(max_size=40), plan=values, n=values)
def test_any_text_is_a_condition_or_one_clear_error(source: str, plan: Any, n: Any) -> None:
    """And a condition says yes or no, whatever the attributes hold."""
    try:
        condition = Condition(source)
    except WrongExpression:
        return
    assert condition.holds({"plan": plan, "n": n}) in (True, False)


@given(text=st.text(max_size=20), other=st.text(max_size=20))
def test_equality_is_equality(text: str, other: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert Condition(f"x == {quoted}").holds({"x": other}) == (text == other)
    assert Condition(f"x != {quoted}").holds({"x": other}) == (text != other)
    assert Condition(f"x in [{quoted}]").holds({"x": other}) == (text == other)
    assert Condition(f"x starts_with {quoted}").holds({"x": other}) == other.startswith(text)


@given(a=st.booleans(), b=st.booleans(), c=st.booleans())
def test_words_bind_as_in_python(a: bool, b: bool, c: bool) -> None:
    attributes = {name: 1 for name, there in (("a", a), ("b", b), ("c", c)) if there}
    for source in ("a or b and not c", "not a and b or c", "(a or b) and c", "not (a and b) or c"):
        assert Condition(source).holds(attributes) == eval(source, {"a": a, "b": b, "c": c})  # noqa: S307 reason: the four above
