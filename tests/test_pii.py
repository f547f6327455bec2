"""Normal forms and digests: the platforms' own vectors, the edges of each kind, and properties that always hold."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflows import phone, pii
from eventflows.country import CALLING
from eventflows.errors import Unusable


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(params=["phonenumbers", "without"])
def phones(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the library of the extra `phone`, and as if it were not installed."""
    if request.param == "without":
        monkeypatch.setattr(phone, "_phonenumbers", lambda: None)
    return str(request.param)


VECTORS = [
    # Meta: customer information parameters
    (
        "email",
        "John_Smith@gmail.com",
        "email.lower",
        "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
    ),
    ("first_name", "Mary", "first_name.compact", sha("mary")),
    ("first_name", "Valéry", "first_name.compact", sha("valéry")),
    ("first_name", "정", "first_name.compact", sha("정")),
    (
        "date_of_birth",
        "1997-02-16",
        "date_of_birth.yyyymmdd",
        "01acdbf6ec7b4f478a225f1a246e5d6767eeab1a7ffa17f025265b5b94f40f0c",
    ),
    # TikTok: report web events
    ("email", "alice_abc@gmail.com", "email.lower", sha("alice_abc@gmail.com")),
    ("phone", "+12133734253", "phone.e164", sha("+12133734253")),
    # Reddit: manual advanced matching
    (
        "email",
        "Al.ice$+Apple@Example.Com",
        "email.alnum",
        "ff8d9819fc0e12bf0d24892e45987e249a28dce836a85cad60e28eaaa8c6d976",
    ),
    ("phone", "+1 (555) 444-1234", "phone.e164", "e5b124c58580eb16bd959b8d0cac12b12c952e2ceae0203d416cff94f10b994a"),
]


@pytest.mark.parametrize(("kind", "raw", "form", "expected"), VECTORS)
def test_vectors_of_the_platforms(kind: str, raw: str, form: str, expected: str) -> None:
    """What the platforms print as examples is what we make."""
    assert pii.seal(kind, raw)[form] == (expected,)


NORMAL = [
    ("email", "  User@Example.com ", {"email.lower": "user@example.com", "email.gmail": "user@example.com"}),
    ("email", "J.o.e+shop@Gmail.com", {"email.lower": "j.o.e+shop@gmail.com", "email.gmail": "joe+shop@gmail.com"}),
    ("email", "j.o.e@googlemail.com", {"email.gmail": "joe@googlemail.com", "email.alnum": "joe@googlemail.com"}),
    ("email", "a_b-c.d+x@shop.se", {"email.alnum": "abcd@shop.se", "email.gmail": "a_b-c.d+x@shop.se"}),
    ("email", "jörg@bücher.de", {"email.lower": "jörg@bücher.de", "email.alnum": "jörg@bücher.de"}),
    ("email", "\u200buser@example.com\u00a0", {"email.lower": "user@example.com"}),
    ("first_name", " Anna-Maria ", {"first_name.compact": "annamaria", "first_name.unpunctuated": "annamaria"}),
    ("first_name", "Mary Ann", {"first_name.compact": "maryann", "first_name.unpunctuated": "mary ann"}),
    ("last_name", "O'Brien", {"last_name.compact": "obrien", "last_name.letters": "obrien"}),
    ("last_name", "Vale\u0301ry", {"last_name.compact": "val\u00e9ry"}),
    ("last_name", "King 3rd", {"last_name.letters": "king rd", "last_name.unpunctuated": "king 3rd"}),
    ("date_of_birth", "19870605", {"date_of_birth.yyyymmdd": "19870605"}),
    ("date_of_birth", "1987/6/5", {"date_of_birth.yyyymmdd": "19870605"}),
    ("date_of_birth", "1900-01-01", {"date_of_birth.yyyymmdd": "19000101"}),
    ("date_of_birth", "5.6.1987", {"date_of_birth.yyyymmdd": "19870605"}),
    ("date_of_birth", "25/12/1987", {"date_of_birth.yyyymmdd": "19871225"}),
    ("date_of_birth", "12/25/1987", {"date_of_birth.yyyymmdd": "19871225"}),
    ("gender", "Female", {"gender.letter": "f"}),
    ("gender", "m", {"gender.letter": "m"}),
    ("street", "Kungsgatan 12, 3 tr.", {"street.words": "kungsgatan 12 3 tr"}),
    ("external_id", " Cust 88 ", {"external_id.trim": "Cust 88", "external_id.lower": "cust88"}),
]


@pytest.mark.parametrize(("kind", "raw", "expected"), NORMAL)
def test_normal_forms(kind: str, raw: str, expected: dict[str, str]) -> None:
    """Each form is the digest of exactly this text."""
    sealed = pii.seal(kind, raw)
    assert {form: (sha(text),) for form, text in expected.items()} == {form: sealed[form] for form in expected}


PHONES = [
    ("+46 70-123 45 67", None, "+46701234567"),
    ("+46 (0)70-123 45 67", None, "+46701234567"),
    ("0046701234567", None, "+46701234567"),
    ("+1 (650) 555-1212", None, "+16505551212"),
    ("16505551212", None, "+16505551212"),
    ("46701234567", None, "+46701234567"),
    ("46 70 123 45 67", "SE", "+46701234567"),
    ("tel:+16505551212", None, "+16505551212"),
    ("+44 20 7946 0958", None, "+442079460958"),
    ("+39 06 6982 1234", None, "+390669821234"),
    ("+1 650 555 1212 ext. 33", None, "+16505551212"),
    ("\uff0b46\uff17\uff10 123 45 67", None, "+46701234567"),
    ("070-123 45 67", "SE", "+46701234567"),
    ("(650) 555-1212", "US", "+16505551212"),
    ("0151 23456789", "DE", "+4915123456789"),
    ("+49 151 23456789", "SE", "+4915123456789"),
    ("46701234567", "SE", "+46701234567"),
    ("46701234567", "ES", "+46701234567"),
    ("612 34 56 78", "ES", "+34612345678"),
    ("34612345678", "ES", "+34612345678"),
    ("4532123456", "DK", "+4532123456"),
    ("47123456", "NO", "+4747123456"),
    ("16505551212", "ES", "+16505551212"),
    ("5511912345678", "BR", "+5511912345678"),
    ("06 6981 2345", "IT", "+390669812345"),
    ("3931234567", "IT", "+393931234567"),
    ("393931234567", "IT", "+393931234567"),
    ("79161234567", "RU", "+79161234567"),
    ("8613812345678", "CN", "+8613812345678"),
]


@pytest.mark.parametrize(("raw", "country", "e164"), PHONES)
def test_phones_are_the_same_with_and_without_the_library(
    phones: str, raw: str, country: str | None, e164: str
) -> None:
    """What is unambiguous gives one number, whoever parses it."""
    assert pii.seal("phone", raw, country) == {"phone.digits": (sha(e164[1:]),), "phone.e164": (sha(e164),)}


@pytest.mark.parametrize(
    ("raw", "country", "e164"),
    [
        ("4915123456789", "DE", "+4915123456789"),
        ("62218350123", "ID", "+62218350123"),
        ("468123456", "SE", "+468123456"),
    ],
)
def test_digits_with_a_calling_code_are_told_from_a_long_number_of_the_country(
    phones: str, raw: str, country: str, e164: str
) -> None:
    """As far as the library knows; without it such a number is left out."""
    try:
        sealed = pii.seal("phone", raw, country)
    except Unusable:
        assert phones == "without"
        return
    assert sealed["phone.e164"] == (sha(e164),)


# Their numbers are of so many lengths that some may as well be shorter ones with a calling code.
OF_ALL_LENGTHS = ("AD", "LU", "NU", "TK", "WS")


@pytest.mark.parametrize("country", sorted(CALLING.keys() - {"TA"}))
def test_each_country_s_numbers_are_read_as_they_are_written_there_or_not_at_all(phones: str, country: str) -> None:
    """Never as another's: that would be sent, and match nobody or somebody else."""
    library = pytest.importorskip("phonenumbers")
    written = library.PhoneNumberFormat
    for kind in (library.PhoneNumberType.MOBILE, library.PhoneNumberType.FIXED_LINE):
        number = library.example_number_for_type(country, kind)
        if number is None:
            continue
        e164 = library.format_number(number, written.E164)
        given = [
            library.format_number(number, one) for one in (written.INTERNATIONAL, written.NATIONAL, written.RFC3966)
        ]
        if country not in OF_ALL_LENGTHS or phones == "phonenumbers":
            given.append(e164[1:])
        for raw in given:
            try:
                assert pii.seal("phone", raw, country)["phone.e164"] == (sha(e164),), raw
            except Unusable:
                assert phones == "without" or raw == e164[1:]


RUBBISH = [
    *(("email", raw) for raw in ("user", "@x.com", "a@b", "a b@x.com", "a@b@x.com", "x" * 64, "", "  ", 5, None, True)),
    *(
        ("phone", raw)
        for raw in ("0701234567", "650-555-1212", "call me", "", "+", "+0000000", "1" * 20, "99912345678", None, 1.5)
    ),
    *(("first_name", raw) for raw in ("", "  ", "---", "123", "a@b.com")),
    *(
        ("date_of_birth", raw)
        for raw in (
            "03/04/1990",
            "1990-13-01",
            "1990-02-30",
            "yesterday",
            "0099-01-01",
            "1899-12-31",
            "2101-01-01",
            "90-01-02",
        )
    ),
    *(("gender", raw) for raw in ("x", "diverse", "")),
    ("street", "..."),
    *(("external_id", raw) for raw in ("", True, 1.5, b"u1", ["u1"], None)),
]


@pytest.mark.parametrize(("kind", "raw"), RUBBISH)
def test_rubbish_is_refused_with_a_reason_that_does_not_show_it(phones: str, kind: str, raw: object) -> None:
    with pytest.raises(Unusable) as problem:
        pii.seal(kind, raw)
    assert str(problem.value)
    assert not isinstance(raw, str) or len(raw.strip()) < 4 or raw not in str(problem.value)


@pytest.mark.parametrize("kind", pii.KINDS)
def test_a_digest_passes_through_in_every_form(kind: str) -> None:
    """Upper case and the marker of Meta's parameter builder are forgiven; a digest is never hashed again."""
    made = sha("somebody")
    for given_digest in (made, made.upper(), made + ".AQYBAQIA"):
        assert set(pii.seal(kind, given_digest).values()) == {(made,)}


@given(st.text(max_size=80), st.sampled_from(pii.KINDS))
def test_any_text_seals_to_digests_or_is_unusable(text: str, kind: str) -> None:
    """No input raises anything else, and nothing but digests of known forms comes out."""
    try:
        sealed = pii.seal(kind, text)
    except Unusable:
        return
    assert sealed.keys() <= pii.FORMS
    assert all(len(d) == 64 and set(d) <= set("0123456789abcdef") for (d,) in sealed.values())


@given(st.emails())
def test_case_and_surrounding_space_of_an_email_do_not_matter(email: str) -> None:
    try:
        expected = pii.seal("email", email)
    except Unusable:
        return
    assert expected == pii.seal("email", f"  {email.lower()}\n")


@given(st.text(alphabet=st.characters(categories=["Lu", "Ll", "Lo", "Mn"]), min_size=1, max_size=20))
def test_sealing_a_seal_changes_nothing(name: str) -> None:
    try:
        sealed = pii.seal("first_name", name)
    except Unusable:
        return
    for form, (made,) in sealed.items():
        assert pii.seal("first_name", made)[form] == (made,)


@given(st.text(st.one_of(st.sampled_from("Aé 1²Ⅷ-'$_\u2028"), st.characters()), max_size=12))
def test_names_and_streets_lose_exactly_the_characters_of_these_unicode_categories(text: str) -> None:
    def without(categories: str) -> str:
        lower = unicodedata.normalize("NFC", text.translate(dict.fromkeys(pii._INVISIBLE))).strip().lower()
        return "".join(c for c in lower if unicodedata.category(c)[0] not in categories).strip()

    words, letters = without("PS"), without("PSN")
    if letters and "@" not in text:
        assert pii.seal("last_name", text) == {
            "last_name.compact": (pii.digest("".join(words.split())),),
            "last_name.unpunctuated": (pii.digest(words),),
            "last_name.letters": (pii.digest(letters),),
        }
    if words:
        assert pii.seal("street", text) == {"street.words": (pii.digest(words),)}


@given(st.text("aB1.+-_'éİ²", min_size=1, max_size=12), st.sampled_from(["X.se", "gmail.com", "a-b.co.uk"]))
def test_forms_of_an_email_are_those_that_the_platforms_describe(local: str, domain: str) -> None:
    local, domain = unicodedata.normalize("NFC", local), domain.lower()
    lower = local.lower()
    expected = {"email.lower": f"{lower}@{domain}", "email.gmail": f"{lower}@{domain}"}
    if domain == "gmail.com":
        expected["email.gmail"] = f"{lower.replace('.', '')}@{domain}"
    if alnum := "".join(c for c in lower.partition("+")[0] if c.isalnum()):
        expected["email.alnum"] = f"{alnum}@{domain}"
    assert pii.seal("email", f"{local}@{domain}") == {form: (pii.digest(text),) for form, text in expected.items()}


@given(st.integers(1, 9).map(str), st.text("0123456789", min_size=9, max_size=9), st.text(" -().", max_size=3))
def test_separators_in_a_phone_do_not_matter(first: str, rest: str, separator: str) -> None:
    number = f"+49{first}{rest}"
    try:
        expected = pii.seal("phone", number)
    except Unusable:
        return
    assert expected == pii.seal("phone", f"+49 {first}{separator.replace('(', '').replace(')', '')}{rest}")


@pytest.mark.parametrize(
    ("region", "country", "expected"),
    [("CA", "US", "ca"), ("US-CA", None, "ca"), ("California", "US", "ca"), ("SE-C", "SE", "c"),
     ("Västra Götaland", "SE", "västragötaland"), ("New York", None, "ny"), ("District of Columbia", "US", "dc")],
)  # fmt: skip
def test_states(region: str, country: str | None, expected: str) -> None:
    assert expected == pii.state_code(region, country)


@pytest.mark.parametrize(
    ("code", "country", "expected"),
    [("94103-1234", "US", "94103"), ("94103-1234", None, "94103"), ("M1 1AE", "GB", "m11ae"), ("753 20", "SE", "75320"),
     ("01310-100", "BR", "01310100")],
)  # fmt: skip
def test_postal_codes(code: str, country: str | None, expected: str) -> None:
    assert expected == pii.postal(code, country)


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        ("Ada King", ("Ada", "King")),
        ("King, Ada", ("Ada", "King")),
        ("John F. Smith", ("John", "Smith")),
        ("Ada", None),
    ],
)
def test_full_names(full: str, expected: tuple[str, str] | None) -> None:
    assert expected == pii.split_full_name(full)


@pytest.mark.parametrize(
    "text", ["a@b.example", "@shop, write to a@b.example", "x@y, a@b.example", "u=a%40b.example", "u=a%2540b.example"]
)
def test_an_email_address_is_found_anywhere_in_a_text(text: str) -> None:
    assert pii.contains_email(text)


@pytest.mark.parametrize("text", ["@shop", "a@b", "a @b.example", "100 % @ home", "x@", ""])
def test_not_every_at_is_one_of_an_email_address(text: str) -> None:
    assert not pii.contains_email(text)
