"""Phone numbers in E.164: as `phonenumbers` writes them where it is installed (extra `phone`), else by rules of our own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .country import CALLING, CALLING_CODES, LEADING_ZERO_CODES, LONGEST
from .errors import Unusable

_EXTENSION = re.compile(r"(?:;?\s*ext\.?=?|\s*x|\s*#|;ext=)\s*\d{1,6}$", re.IGNORECASE)
_PHONE_SEPARATORS = re.compile(r"[\s().\-/\u2010-\u2015\u00b7]")
_BARE_NANP = re.compile(r"1[2-9]\d{2}[2-9]\d{6}")


def e164(text: str, default_country: str | None) -> str:
    """Plus, calling code and number.

    Args:
        default_country: ISO 3166-1 alpha-2 code for numbers without a calling code.

    Raises:
        Unusable: It is no phone number, or does not say of which country.
    """
    return _written_internationally(text) or _by_rules(text, default_country)


def _calling_code(number: str) -> str | None:
    return next((number[:n] for n in (1, 2, 3) if number[:n] in CALLING_CODES), None)


_PLAIN_CODES = CALLING_CODES - {code for code, trunk in CALLING.values() if trunk not in ("", "0")}
_PLAIN_CODES -= LEADING_ZERO_CODES | {"54", "370"}  # more than a zero may be dropped there
_PLAIN_PREFIXES = {f"{n:03}": code for n in range(1000) if (code := _calling_code(f"{n:03}")) in _PLAIN_CODES}
"""The first three digits of a number → its calling code, where nothing but a zero may stand between it and the number."""


def _written_internationally(text: str) -> str | None:
    """The E.164 form of a number such as `+46 70 123 45 67`, which needs no rules of its country; None for all others."""
    if text[0] != "+":
        return None
    digits = text[1:]
    if not digits.isdigit():
        digits = digits.replace(" ", "").replace("-", "")
    if not (digits.isascii() and digits.isdigit() and 9 <= len(digits) <= 15):
        return None
    if digits[0] == "1":
        return f"+{digits}" if len(digits) == 11 and digits[1] > "1" else None
    code = _PLAIN_PREFIXES.get(digits[:3])
    return f"+{digits}" if code is not None and digits[len(code)] != "0" else None


def _by_rules(text: str, default_country: str | None) -> str:
    text = "".join(str(unicodedata.digit(c, c)) for c in text.replace("\uff0b", "+")) if not text.isascii() else text
    if text.lower().startswith("tel:"):
        text = text[4:]
    parse = _phonenumbers()
    if parse is not None:
        found = parse(text, default_country)
        if found is None:
            raise Unusable("not a phone number, or one without a country code")
        return found
    number = _PHONE_SEPARATORS.sub("", _EXTENSION.sub("", text).replace("(0)", ""))
    if number.startswith("00"):
        number = "+" + number[2:]
    if number.startswith("+"):
        return _international(number[1:])
    if not number.isdigit():
        raise Unusable("not a phone number")
    if default_country is None:
        return _international(number) if _is_bare_international(number) else _no_country()
    code, trunk = CALLING[default_country]
    if trunk and number.startswith(trunk):
        number = number[len(trunk) :]
        return _international(code + number) if len(number) <= LONGEST[default_country] else _no_country()
    if len(number) > LONGEST[default_country] and not (number[0] == "0" and code in LEADING_ZERO_CODES):
        # Too long for a number of this country, hence one with a calling code and without its plus.
        if number.startswith(code) or _is_bare_international(number):
            return _international(number)
        return _no_country()
    # Written without its trunk prefix it may as well be a foreign number without its plus, unless the length tells.
    return _international(code + number) if not trunk or (code == "1" and len(number) == 10) else _no_country()


def _no_country() -> str:
    raise Unusable("a phone number without a country code needs default_country (and the extra 'phone')")


def _is_bare_international(number: str) -> bool:
    """Digits that begin with a calling code, as Meta's own format writes them, and are too long to be national."""
    if number.startswith("1"):
        return _BARE_NANP.fullmatch(number) is not None
    return 11 <= len(number) <= 15 and _calling_code(number) is not None


def _international(number: str) -> str:
    code = _calling_code(number) if number.isdigit() and 8 <= len(number) <= 15 else None
    if code is None or (code == "1" and len(number) != 11):
        raise Unusable("not a phone number with a country code")
    if number[len(code)] == "0" and code not in LEADING_ZERO_CODES:
        raise Unusable("a phone number with both a country code and a trunk zero needs the extra 'phone'")
    return "+" + number


@lru_cache(maxsize=1)
def _phonenumbers() -> Callable[[str, str | None], str | None] | None:
    """A parser on the `phonenumbers` library where it is installed (extra `phone`), else None."""
    try:
        import phonenumbers
    except ImportError:
        return None

    def possible(text: str, country: str | None) -> Any:
        try:
            number = phonenumbers.parse(text, country)
        except phonenumbers.NumberParseException:
            return None
        return number if phonenumbers.is_possible_number(number) else None

    def parse(text: str, country: str | None) -> str | None:
        text = text.replace("(0)", "")
        if text.startswith("00"):
            text = "+" + text[2:]
        found = [possible(text, country)]
        if not text.startswith("+"):
            digits = re.sub(r"\D", "", text)
            code, trunk = CALLING.get(country or "", ("", ""))
            if trunk and digits.startswith(code):  # without its trunk prefix it is hardly a national number
                found.insert(0, possible("+" + digits, None))
            elif _is_bare_international(digits):
                found.append(possible("+" + digits, None))
        found = sorted(filter(None, found), key=phonenumbers.is_valid_number, reverse=True)
        return str(phonenumbers.format_number(found[0], phonenumbers.PhoneNumberFormat.E164)) if found else None

    return parse
