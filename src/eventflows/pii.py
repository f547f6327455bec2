"""Normal forms of what identifies a person, and their SHA-256 digests.

The platforms do not agree on one form, so an identifier is *sealed* into several named forms, each hashed,
and the raw value is dropped. The names below are part of the wire format between processes (see
`eventflows.semconv.SEALED`). Sources are the platforms' own pages on customer information parameters.

    email.lower       trimmed, lower case                        Meta, TikTok
    email.gmail       no spaces, gmail without dots              Google
    email.alnum       no +alias, letters and digits only         Reddit
    phone.digits      calling code and number, digits            Meta
    phone.e164        the same with a leading plus               Google, TikTok, Reddit
    *_name.compact    no punctuation, no spaces                  Meta
    *_name.unpunctuated  no punctuation, inner spaces kept       TikTok
    *_name.letters    no digits, no symbols, inner spaces kept   Google
    date_of_birth.yyyymmdd, gender.letter (f or m), street.words (no symbols)
    external_id.trim  as given                                   TikTok, Reddit
    external_id.lower lower case without spaces                  Meta
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import lru_cache
from hashlib import sha256
from typing import Any

from .country import US_STATES
from .errors import Unusable
from .phone import e164

# Meta's parameter builder appends a dot and a short marker to the digests it makes; the digest counts.
_DIGEST = re.compile(r"([0-9a-f]{64})(?:\.[\w-]{2,8})?", re.IGNORECASE)
_EMAIL = re.compile(r"[^\s@,;<>()\[\]]+@[^\s@,;<>()\[\]]+\.[^\s@,;.<>()\[\]]{2,}")
_ENCODED_AT = re.compile(r"%(?:25)*40")
_BEFORE_AT = re.compile(r"[\w.+%-]")
_AFTER_AT = re.compile(r"[\w-]{1,255}\.[\w-]")
_YEAR_FIRST = re.compile(r"(\d{4})[-/.]?(\d{2})[-/.]?(\d{2})(?:[T ].*)?|(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_GENDERS = {"f": "f", "female": "f", "woman": "f", "m": "m", "male": "m", "man": "m"}
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD])


def digest(text: str) -> str:
    """The SHA-256 of the UTF-8 bytes, as 64 lower-case hex digits."""
    return sha256(text.encode() if text.isascii() else text.encode("utf-8", "surrogatepass")).hexdigest()


def is_digest(text: str) -> bool:
    """Whether it is a SHA-256 digest in hex, also with the marker of Meta's parameter builder."""
    return 64 <= len(text) <= 73 and _DIGEST.fullmatch(text) is not None


def contains_email(text: str) -> bool:
    """Whether an e-mail address stands anywhere in the text, also percent-encoded, as often as URLs lie in one another."""
    if "%" in text:
        text = _ENCODED_AT.sub("@", text)
    # Around each @ by itself: one search over all of a long text would take the square of its length.
    at = text.find("@")
    while at >= 0:
        if _BEFORE_AT.search(text, max(0, at - 1), at) and _AFTER_AT.match(text, at + 1):
            return True
        at = text.find("@", at + 1)
    return False


def _clean(text: str) -> str:
    if text.isascii():
        return text.strip()
    # One composed form, since "é" written in two ways would give two digests.
    return unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip()


_ASCII_OF: Mapping[str, bytes] = {
    categories: bytes(n for n in range(128) if unicodedata.category(chr(n))[0] in categories)
    for categories in ("PS", "PSN", "N")
}
"""Punctuation, symbols and digits among the ASCII characters, by their Unicode categories."""


def _without(text: str, categories: str) -> str:
    """The text without the characters of some Unicode categories, one of the keys of `_ASCII_OF`."""
    words = text.replace(" ", "")
    if words.isalpha() or ("N" not in categories and words.isalnum()):
        return text
    if text.isascii():
        return text.encode().translate(None, _ASCII_OF[categories]).decode()
    return "".join([c for c in text if unicodedata.category(c)[0] not in categories])


def _squeeze(text: str) -> str:
    return "".join(text.split())


# Most conversions come from few places, so their forms are kept. That keeps nothing about anybody: a city, a region or a
# postal code is shared by many, and what is kept is not tied to a conversion.
_kept_for_places = lru_cache(maxsize=4096)


@_kept_for_places
def compact_place(text: str) -> str:
    """Lower case without punctuation and spaces; accents stay."""
    return _squeeze(_without(_clean(text).lower(), "PS"))


@_kept_for_places
def letters(text: str) -> str:
    """Lower case without digits and symbols, trimmed: Google's form of names, cities and regions."""
    return _without(_clean(text).lower(), "PSN").strip()


@_kept_for_places
def state_code(region: str, country: str | None) -> str:
    """A region in lower case: the two-letter code in the US, without the country prefix of ISO 3166-2 (`US-CA`)."""
    region = _clean(region)
    prefix, dash, rest = region.partition("-")
    if dash and len(prefix) == 2 and prefix.isalpha() and 1 <= len(rest) <= 3 and rest.isalnum():
        region, country = rest, prefix.upper()
    compact = compact_place(region)
    return US_STATES.get(compact, compact) if country in (None, "US") else compact


_ISO_REGION = re.compile(r"([A-Za-z]{2})-[A-Za-z0-9]{1,3}")


@_kept_for_places
def iso_place(region: str, country: str | None) -> tuple[str | None, str | None]:
    """Country and region in ISO 3166 codes; a region that is only known by name is None, but for the states of the US."""
    region = region.strip()
    iso = _ISO_REGION.fullmatch(region)
    country = country or (iso[1].upper() if iso else None)
    code = state_code(region, country).upper() if iso or country == "US" else region
    known = re.fullmatch(r"[A-Z]{2}" if country == "US" else r"[A-Z0-9]{1,3}", code)
    if not country or not known or (iso and iso[1].upper() != country):
        return country, None
    return country, code


@_kept_for_places
def postal(postal_code: str, country: str | None) -> str:
    """A postal code in lower case without spaces and dashes; in the US the first five digits."""
    code = _clean(postal_code).lower()
    if country == "US" or (country is None and re.fullmatch(r"\d{5}-\d{4}", code)):
        return code[:5]
    return re.sub(r"[\s\-\u2010-\u2015]", "", code)


@_kept_for_places
def place_digest(form: Callable[..., str], *given: str | None) -> str:
    """The digest of a city, region, postal code or country in one of the forms above; empty where nothing is left of it."""
    text = form(*given)
    return digest(text) if text else ""


_MOBILE_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def mobile_id(advertising_id: str, os_name: str | None = None) -> tuple[str, str] | None:
    """`("idfa", UPPER)` or `("gaid", lower)`; None for an id that is malformed or the all-zero of an opted-out device.

    Without an operating system the case decides, since Apple writes its ids in capitals and Google does not.
    """
    value = advertising_id.strip()
    if not _MOBILE_ID.fullmatch(value) or not value.replace("-", "").strip("0"):
        return None
    system = (os_name or "").lower()
    apple = system in ("ios", "ipados", "darwin") or (system != "android" and value == value.upper())
    return ("idfa", value.upper()) if apple else ("gaid", value.lower())


# --- the kinds: raw text in, the digests of its normal forms out; equal ones are hashed once, and are one object -------

Digests = dict[str, tuple[str, ...]]
"""Normal form → its digests, each once."""


_new_hash = sha256().copy  # a fifth quicker than another `sha256()`


def _hashed(text: str) -> tuple[str, ...]:
    made = _new_hash()
    made.update(text.encode("utf-8", "surrogatepass"))
    return (made.hexdigest(),)


def _email(text: str, _country: str | None) -> Digests:
    lower = text.lower()
    if not _EMAIL.fullmatch(lower):
        raise Unusable("not an e-mail address")
    local, _, domain = lower.rpartition("@")
    digests = gmail = _hashed(lower)
    if "." in local and domain in ("gmail.com", "googlemail.com"):
        gmail = _hashed(f"{local.replace('.', '')}@{domain}")
    if local.isalnum():
        return {"email.lower": digests, "email.gmail": gmail, "email.alnum": digests}
    alnum = local.partition("+")[0].replace(".", "").replace("-", "").replace("_", "")  # no more in most
    if not alnum.isalnum() and not (alnum := "".join(filter(str.isalnum, alnum))):
        return {"email.lower": digests, "email.gmail": gmail}
    return {"email.lower": digests, "email.gmail": gmail, "email.alnum": _hashed(f"{alnum}@{domain}")}


def _phone(text: str, default_country: str | None) -> Digests:
    number = e164(text, default_country)
    return {"phone.digits": _hashed(number[1:]), "phone.e164": _hashed(number)}


def _name(kind: str) -> Callable[[str, str | None], Digests]:
    as_compact, as_unpunctuated, as_letters = (f"{kind}.{form}" for form in ("compact", "unpunctuated", "letters"))

    def seal_name(text: str, _country: str | None) -> Digests:
        lower = text.lower()
        unpunctuated = _without(lower, "PS").strip()
        letters = _without(unpunctuated, "N").strip()
        if not letters or "@" in text:
            raise Unusable("not a name")
        compact, digests = _squeeze(unpunctuated), _hashed(unpunctuated)
        return {
            as_compact: digests if compact == unpunctuated else _hashed(compact),
            as_unpunctuated: digests,
            as_letters: digests if letters == unpunctuated else _hashed(letters),
        }

    return seal_name


def _date_of_birth(text: str, _country: str | None) -> Digests:
    digits = text.replace("-", "")
    if len(digits) == 8 and digits.isascii() and digits.isdigit() and text[4] == text[7:8] == "-" and len(text) == 10:
        year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:])
    elif match := _YEAR_FIRST.fullmatch(text):
        year, month, day = (int(part) for part in match.groups() if part is not None)
    elif match := _YEAR_LAST.fullmatch(text):
        first, separator, second, last = match.groups()
        year, (day, month) = int(last), (int(first), int(second))
        if separator != ".":  # dots are always day first; a slash is read only where it can mean one thing
            if day <= 12 and month <= 12 and day != month:
                raise Unusable("a date that can be read in two ways: write it as YYYY-MM-DD")
            if month > 12:
                day, month = month, day
    else:
        raise Unusable("not a date: write it as YYYY-MM-DD")
    try:
        born = date(year, month, day)
    except ValueError:
        raise Unusable("not a date") from None
    if not 1900 <= year <= 2100:
        raise Unusable("not a date of birth")
    return {"date_of_birth.yyyymmdd": _hashed(born.isoformat().replace("-", ""))}


def _gender(text: str, _country: str | None) -> Digests:
    letter = _GENDERS.get(text.lower())
    if letter is None:
        raise Unusable("neither female nor male, the only values platforms take")
    return {"gender.letter": _hashed(letter)}


def _street(text: str, _country: str | None) -> Digests:
    words = _without(text.lower(), "PS").strip()
    if not words:
        raise Unusable("not a street")
    return {"street.words": _hashed(words)}


def _external_id(text: str, _country: str | None) -> Digests:
    lower, digests = _squeeze(text.lower()), _hashed(text)
    return {"external_id.trim": digests, "external_id.lower": digests if lower == text else _hashed(lower)}


_FORMS: Mapping[str, tuple[Callable[[str, str | None], Digests], tuple[str, ...]]] = {
    "email": (_email, ("email.lower", "email.gmail", "email.alnum")),
    "phone": (_phone, ("phone.digits", "phone.e164")),
    "first_name": (_name("first_name"), ("first_name.compact", "first_name.unpunctuated", "first_name.letters")),
    "last_name": (_name("last_name"), ("last_name.compact", "last_name.unpunctuated", "last_name.letters")),
    "date_of_birth": (_date_of_birth, ("date_of_birth.yyyymmdd",)),
    "gender": (_gender, ("gender.letter",)),
    "street": (_street, ("street.words",)),
    "external_id": (_external_id, ("external_id.trim", "external_id.lower")),
}

KINDS = tuple(_FORMS)
FORMS = frozenset(form for _, forms in _FORMS.values() for form in forms)
"""All names of normal forms."""


def seal(kind: str, value: object, default_country: str | None = None) -> Digests:
    """Digests of one identifier in every form a platform may want.

    Args:
        kind: One of `KINDS`.
        value: The raw value, or a SHA-256 digest of it that the caller made (taken for every form).
        default_country: ISO 3166-1 alpha-2 code for phone numbers without a calling code.

    Returns:
        `{form: (digest,)}`.

    Raises:
        Unusable: The value is neither; the message says why and never holds the value.
    """
    if type(value) is str:
        text = value.strip() if value.isascii() else _clean(value)
    else:
        if isinstance(value, date) and kind == "date_of_birth":
            value = value.isoformat()
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise Unusable("not a text")
        text = _clean(str(value))
    if not text:
        raise Unusable("empty")
    sealed, forms = _FORMS[kind]
    if len(text) >= 64 and (match := _DIGEST.fullmatch(text)):
        return dict.fromkeys(forms, (match[1].lower(),))
    return sealed(text, default_country)


def split_full_name(full_name: str) -> tuple[str, str] | None:
    """First and last name of a full one (`Ada King`, `King, Ada`); None where there is only one word."""
    last, comma, first = full_name.partition(",")
    words = full_name.split()
    if comma and first.split() and last.split():
        return first.split()[0], last.strip()
    return (words[0], words[-1]) if len(words) > 1 and not comma else None


def seal_all(kind: str, values: Iterable[Any], default_country: str | None) -> tuple[Digests, str | None]:
    """Seal several values of one kind, and tell the reason of the last unusable one."""
    sealed: Digests = {}
    reason = None
    for value in values:
        try:
            add(sealed, seal(kind, value, default_country))
        except Unusable as problem:
            reason = str(problem)
    return sealed, reason


def add(digests: Digests, more: Digests) -> None:
    """Put more digests to the others."""
    for form, found in more.items():
        digests[form] = tuple(dict.fromkeys((*digests[form], *found))) if form in digests else found
