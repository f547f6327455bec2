"""Click ids from cookies and queries: the layouts that browsers really send, and that nothing malformed gets through."""

from __future__ import annotations

import re
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflows import semconv as sc
from eventflows.cookies import MAX_COOKIES, MAX_HEADER, MAX_STREAMS, clicks, clicks_of_cookies, clicks_of_query

FBCLID = "IwZXh0bgNhZW0CMTAAAR3-Lamp_Click-01_aem_Zm9vYmFy"
GCLID = "Cj0KCQiA-Lamp_Click-01ALw_wcB"
UUID = "70d79c3a-f35a-4733-92d1-b6c196544886"
UUID_2 = "0b7c2f1e-1111-4d2a-8c3b-5e6f7a8b9c0d"
NOON = 1_790_000_000_123_456_789


# --- queries


@pytest.mark.parametrize("parameter", sc.QUERY_CLICK_IDS)
def test_each_click_parameter_becomes_its_click_id(parameter: str) -> None:
    assert clicks_of_query(f"utm_source=x&{parameter}=Abc-1_2&a=b") == {sc.QUERY_CLICK_IDS[parameter]: "Abc-1_2"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("page=2&sort=price", {}),
        ("?gclid=A", {"gclid": "A"}),
        (f"fbclid={FBCLID}", {"fbclid": FBCLID}),
        ("gclid=A&gbraid=B&wbraid=C", {"gclid": "A", "gbraid": "B", "wbraid": "C"}),
        ("ScCid=6d1f0a52-0000-4c7e-9a11-1f2e3d4c5b6a", {"sc_click_id": "6d1f0a52-0000-4c7e-9a11-1f2e3d4c5b6a"}),
        ("sccid=low", {"sc_click_id": "low"}),
        ("GCLID=A&FbClId=B", {}),  # not what the platforms write
        ("gclid=A%2DB%2Fc", {"gclid": "A-B/c"}),
        ("gclid=A%252D", {"gclid": "A%2D"}),  # once only
        ("gclid=A+B", {"gclid": "A+B"}),
        ("gclid=A%zz", {"gclid": "A%zz"}),
        ("gclid=AbC&gclid=second", {"gclid": "AbC"}),
        ("gclid=&gclid=a%20b&gclid=third", {"gclid": "third"}),
        ("my_gclid=A&gclid_2=B&gclidA", {}),
        ("gclid", {}),
        ("gclid=A#gclid=B&twclid=C", {"gclid": "A"}),
        ("next=/x?gclid=A", {}),
        ("gclid=A=B==", {"gclid": "A=B=="}),
    ],
)
def test_queries(query: str, expected: dict[str, str]) -> None:
    """Values are percent-decoded once and never changed otherwise; names are those of the platforms."""
    assert clicks_of_query(query) == expected


@pytest.mark.parametrize(
    "value",
    [
        "a%20b", "%20a", "a%0Ab", "a%00", "a%7F", "a\tb", "a%C2%A0b", "a%E2%80%8Bb", "%FF%FE", "\ud800", "", "x" * 4097,
        "ann@example.com", "ann%40example.com", "ann%2540example.com", "a-ann%40example.com-b", "a@b",
    ],
)  # fmt: skip
def test_a_malformed_click_id_is_left_out_alone(value: str) -> None:
    """Spaces, control characters, what is no UTF-8, overlong ones, and e-mail addresses however encoded."""
    assert clicks_of_query(f"ttclid={value}&twclid=ok") == {"twclid": "ok"}
    assert clicks_of_cookies(f"ttclid={value}; li_fat_id=ok") == {"li_fat_id": "ok"}


def test_a_long_click_id_is_kept() -> None:
    """TikTok's are longer than 256 characters."""
    assert clicks_of_query("ttclid=" + "E" * 4096) == {"ttclid": "E" * 4096}


def test_an_fbclid_has_no_dot_since_it_would_shift_the_parts_of_an_fbc() -> None:
    assert clicks("", "fbclid=a.b", NOON) == {}


# --- cookies


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", {}),
        ("session=abc; theme=dark", {}),
        # Meta
        ("_fbp=fb.1.1596403881668.1116446470", {"fbp": "fb.1.1596403881668.1116446470"}),
        ("_fbp=fb.2.1760778312473.662763495889949214", {"fbp": "fb.2.1760778312473.662763495889949214"}),
        ("_fbp=fb.1.1596403881668.1116446470.AQYBAQIA", {"fbp": "fb.1.1596403881668.1116446470.AQYBAQIA"}),
        (f"_fbc=fb.1.1554763741205.{FBCLID}", {"fbc": f"fb.1.1554763741205.{FBCLID}"}),
        (f"_fbc=fb.1.1554763741205.{FBCLID}.Bg", {"fbc": f"fb.1.1554763741205.{FBCLID}.Bg"}),
        (f"_fbc=fb.1.1554763741205.{FBCLID}.AQ_B-QIA", {"fbc": f"fb.1.1554763741205.{FBCLID}.AQ_B-QIA"}),
        ("_fbc=fb.1.1554763741205", {}),
        ("_fbc=fb.1.1554763741205.", {}),
        (f"_fbc={FBCLID}", {}),
        (f"_fbc=fb.1.1554763741.{FBCLID}", {}),  # seconds
        (f"_fbc=fb.1.1554763741205.fb.1.1554763741205.{FBCLID}", {}),  # wrapped twice
        (f"_fbc=fb.1.1554763741205.{FBCLID}.AQY", {}),
        (f"_fbc=fb.1.1554763741205.{FBCLID}.AQ.AQ", {}),
        ("_fbc=fb.1.1554763741205.a%20b", {}),
        ("_fbc=undefined; _fbp=null", {}),
        # Google Analytics
        ("_ga=GA1.1.1836402915.1795431201", {"ga_client_id": "GA1.1.1836402915.1795431201"}),
        ("_ga=GA1.2-2.1836402915.1795431201", {"ga_client_id": "GA1.2-2.1836402915.1795431201"}),
        ("_ga=amp-abcdef", {}),
        ("_ga=GA1.1.1836402915", {}),
        ("_gid=GA1.2.1836402915.1795431201; _gat=1", {}),
        ("_ga_G05J2RCJLS=GS1.1.1689765380.3.1.1689766550.0.0.0", {"ga_session_id.G05J2RCJLS": "1689765380"}),
        ("_ga_HSVH9T016H=GS2.1.s1761709041$o11$g0$t1761709041$j60$l0$h0", {"ga_session_id.HSVH9T016H": "1761709041"}),
        ("_ga_HSVH9T016H=GS2.1.o11$g0$t1761709049$s1761709041", {"ga_session_id.HSVH9T016H": "1761709041"}),
        ("_ga_HSVH9T016H=GS2.1.s1761709041%24o11%24g0", {"ga_session_id.HSVH9T016H": "1761709041"}),
        ("_ga_A1=GS1.1.1689765380.3; _ga_B2=GS2.2.s1761709041", {"ga_session_id.A1": "1689765380"}
         | {"ga_session_id.B2": "1761709041"}),
        ("_ga_HSVH9T016H=GS2.1.o11$g0", {}),
        ("_ga_HSVH9T016H=GS1.1.s1761709041$o11", {}),
        ("_ga_HSVH9T016H=GS3.1.1761709041", {}),
        ("_ga_not.a.stream=GS1.1.1689765380.3; _ga_=GS1.1.1689765380.3", {}),
        # Google Ads
        (f"_gcl_aw=GCL.1790219680.{GCLID}", {"gclid": GCLID}),
        ("_gcl_ag=2.1.kProbe_Gbraid-002$i1790219695", {"gbraid": "Probe_Gbraid-002"}),
        ("_gcl_ag=2.1.kProbe%24i1790219695", {"gbraid": "Probe"}),
        ("_gcl_gb=GCL.1790219714.Probe_Wbraid-003", {"wbraid": "Probe_Wbraid-003"}),
        (f"FPGCLAW=2.1.k{GCLID}$i1790219695", {"gclid": GCLID}),
        (f"FPGCLAW=2.1.k{GCLID}%2C{GCLID}$i1790219695", {"gclid": GCLID}),
        (f"FPGCLAW=GCL.1790219695.server; _gcl_aw=GCL.1790219680.{GCLID}", {"gclid": GCLID}),
        ("_gcl_au=1.1.139790349.1790219680; _gcl_gs=2.1.k1$i1790219695$u242214610", {}),
        ("_gcl_aw=GCL.1790219680; _gcl_gb=GCL.x.y; _gcl_ag=2.1.i1790219695", {}),
        ("_gcl_aw=GCL.1790219680.label.id", {}),  # Google's own tag takes three parts only
        # TikTok
        ("_ttp=2aBcDeFgHiJkLmNoPqRsTuVwXyZ", {"ttp": "2aBcDeFgHiJkLmNoPqRsTuVwXyZ"}),
        ("_ttp=01K0AAAAAAAAAAAAAAAAAAAAA0_.tt.1; ttclid=E.C.P.q7Zk2f", {"ttp": "01K0AAAAAAAAAAAAAAAAAAAAA0_.tt.1"}
         | {"ttclid": "E.C.P.q7Zk2f"}),
        # Reddit
        (f"_rdt_uuid=1754915740517.{UUID}", {"rdt_uuid": f"1754915740517.{UUID}"}),
        (f"_rdt_uuid={UUID}; _rdt_cid=5123456789", {"rdt_uuid": UUID, "rdt_cid": "5123456789"}),
        ("_rdt_uuid=1754915740517.not-a-uuid", {}),
        (f"_rdt_uuid=1754915740517.{UUID[:-1]}", {}),
        (f"_rdt_uuid=1754915740517.{UUID}; _rdt_uuid=1654915740517.{UUID_2}", {"rdt_uuid": f"1654915740517.{UUID_2}"}),
        (f"_rdt_uuid={UUID}; _rdt_uuid=1654915740517.{UUID_2}", {"rdt_uuid": f"1654915740517.{UUID_2}"}),
        (f"_rdt_uuid=1.bad; _rdt_uuid=1654915740517.{UUID_2}", {"rdt_uuid": f"1654915740517.{UUID_2}"}),
        # Snapchat, Pinterest, LinkedIn, Microsoft
        (f"_scid={UUID}; _scclid={UUID_2}", {"sc_cookie1": UUID, "sc_click_id": UUID_2}),
        ("_epik=dj0yJnU9TGFtcA; _derived_epik=dj0yJnU9b3RoZXI", {"epik": "dj0yJnU9TGFtcA"}),
        (f"li_fat_id={UUID}", {"li_fat_id": UUID}),
        ("_uetmsclkid=_uetb1240587f865192a03586c5b00000000", {"msclkid": "b1240587f865192a03586c5b00000000"}),
        ("_uetmsclkid=_uet; _uetvid=cd70f0e04a5211f08916973290bf5e71", {}),
        # X
        ("_twclid=23opevexample0013lu8d020q", {"twclid": "23opevexample0013lu8d020q"}),
        ("twclid=stape; _twclid=own", {"twclid": "own"}),
        ('_twclid={"pixelVersion":"3.0.0","twclid":"26l6ex"}', {"twclid": "26l6ex"}),
        ("_twclid=" + quote('{"source": "url", "twclid": "26l6ex"}'), {"twclid": "26l6ex"}),
        ("_twclid=" + quote('{"twclid": {"twclid": "26l6ex"}}'), {"twclid": "26l6ex"}),
        ("_twclid=" + quote('{"twclid": "{\\"twclid\\": \\"26l6ex\\"}"}'), {"twclid": "26l6ex"}),
        ("_twclid=" + quote('{"twclid": null}') + "; twclid=stape", {"twclid": "stape"}),
        ("_twclid=" + quote('{"twclid": 12}'), {}),
        ("_twclid=" + quote('{"twclid": "26l'), {}),
        ("_twclid=" + quote('{"twclid":' * 9 + '"x"' + "}" * 9), {}),
        ("_twclid=" + quote('{"a":' + "[" * 2000), {}),
        ("_twclid=" + quote(quote('{"twclid": "26l6ex"}')), {}),
    ],
)  # fmt: skip
def test_cookies(header: str, expected: dict[str, str]) -> None:
    """What each platform's cookie holds comes out; of what has another layout nothing does."""
    assert clicks_of_cookies(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("  ttclid = a ;_rdt_cid=b;;  ; li_fat_id=c", {"ttclid": "a", "rdt_cid": "b", "li_fat_id": "c"}),
        ('ttclid="quoted"; _rdt_cid="', {"ttclid": "quoted", "rdt_cid": '"'}),
        ("ttclid=a=b==; =x; ttclid", {"ttclid": "a=b=="}),
        ("ttclid=specific; ttclid=general", {"ttclid": "specific"}),
        ("ttclid=; ttclid=second", {"ttclid": "second"}),
        ("ttclid=a%2Fb%zz", {"ttclid": "a/b%zz"}),
        ("ttclid=a+b", {"ttclid": "a+b"}),
        ("TTCLID=a", {}),
    ],
)
def test_the_syntax_of_the_header(header: str, expected: dict[str, str]) -> None:
    """RFC 6265, and the sloppy ways in which it is written."""
    assert clicks_of_cookies(header) == expected


def test_a_whole_header_of_a_browser() -> None:
    header = (
        "PHPSESSID=l1vr8; _gcl_au=1.1.319662932.1652635949; _ga=GA1.2.836800589.1652635949; _gid=GA1.2.836800589.1652635949; "
        f"_rdt_uuid=1652635948721.{UUID}; _scid={UUID_2}; _tt_enable_cookie=1; _ttp=5aeeda13-8417-43be-bf53-95225f97e960; "
        "_fbp=fb.1.1652635948931.865645072; cart=%7B%22items%22%3A%5B%5D%7D; _ga_79LJR1R713=GS1.1.1652635948.1.0.1652635950.58"
    )
    assert clicks_of_cookies(header) == {
        "fbp": "fb.1.1652635948931.865645072",
        "ga_client_id": "GA1.2.836800589.1652635949",
        "ttp": "5aeeda13-8417-43be-bf53-95225f97e960",
        "rdt_uuid": f"1652635948721.{UUID}",
        "sc_cookie1": UUID_2,
        "ga_session_id.79LJR1R713": "1652635948",
    }


def test_floods_are_bounded() -> None:
    """Overlong headers are ignored, and so are cookies and streams beyond a number that no browser comes near."""
    assert clicks_of_cookies("ttclid=a; x=" + "x" * MAX_HEADER) == {}
    assert clicks_of_cookies("x=1; " * (MAX_COOKIES - 1) + "ttclid=a") == {"ttclid": "a"}
    assert clicks_of_cookies("x=1; " * MAX_COOKIES + "ttclid=a") == {}
    assert len(clicks_of_cookies("".join(f"_ga_S{n}=GS1.1.1652635948.1; " for n in range(99)))) == MAX_STREAMS


@pytest.mark.parametrize(
    "filler", ["a", "@", "%", "%40", "a.", ".k", ".ka", "$", "$s", "&", "gclid=&", ";_fbc=", '{"', "[", '"', "1"]
)
def test_the_work_is_linear(filler: str) -> None:
    """No value makes a pattern go back and forth: a header's worth of anything takes a fraction of a second."""
    started = time.perf_counter()
    for name in ("_fbc", "_ga", "_ga_A", "_gcl_ag", "_gcl_aw", "_rdt_uuid", "_twclid", "ttclid"):
        for opening in ("", "fb.1.1554763741205.", "GS2.1.", "GCL.1.", "2.1.k", '{"twclid":', "a@"):
            clicks_of_cookies(f"{name}={opening}" + filler * (12000 // len(filler)))
            clicks_of_query(f"fbclid={opening}" + filler * (12000 // len(filler)))
    assert time.perf_counter() - started < 5


# --- both


def test_a_click_id_of_the_query_is_newer_than_the_cookies() -> None:
    assert clicks("_gcl_aw=GCL.1790219680.old; ttclid=old; _epik=kept", "gclid=new&ttclid=new", NOON) == {
        "gclid": "new",
        "ttclid": "new",
        "epik": "kept",
    }


@pytest.mark.parametrize("appendix", ["", ".AQ", ".AQYBAQIA"])
def test_fbc_stays_while_the_query_tells_nothing_newer(appendix: str) -> None:
    """Replacing it would move the time of the click."""
    fbc = f"fb.1.1554763741205.{FBCLID}{appendix}"
    assert clicks(f"_fbc={fbc}", "", NOON) == {"fbc": fbc}
    assert clicks(f"_fbc={fbc}", "fbclid=a%20b", NOON) == {"fbc": fbc}
    assert clicks(f"_fbc={fbc}", f"fbclid={FBCLID}", NOON) == {"fbc": fbc, "fbclid": FBCLID}


@pytest.mark.parametrize("cookie", ["", f"_fbc=fb.1.1554763741205.{FBCLID}old", "_fbc=malformed", f"_fbc={FBCLID}"])
def test_fbc_is_made_from_a_newer_fbclid_with_the_time_of_the_request(cookie: str) -> None:
    """In milliseconds and in the id's own case."""
    assert clicks(cookie, f"fbclid={FBCLID}", NOON) == {"fbclid": FBCLID, "fbc": f"fb.1.1790000000123.{FBCLID}"}


def test_fbp_is_never_made_and_never_replaced() -> None:
    fbp = "fb.1.1596403881668.1116446470"
    assert clicks(f"_fbp={fbp}", "fbclid=x&fbp=fb.1.1596403881668.2", NOON)["fbp"] == fbp
    assert "fbp" not in clicks("", "fbclid=x&fbp=fb.1.1596403881668.2", NOON)


# --- what always holds

SHAPES = {
    "fbc": r"fb\.\d\.\d{13}\.[^.\s]+(\.[\w-]{2}|\.[\w-]{8})?",
    "fbp": r"fb\.\d\.\d{13}\.[^.\s]+(\.[\w-]{2}|\.[\w-]{8})?",
    "ga_client_id": r"GA1\.[\d-]+\.\d+\.\d+",
    "rdt_uuid": r"(\d+\.)?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}
NAMES = [
    "_fbp", "_fbc", "_ga", "_ga_ABC", "_ga_D4", "_ttp", "ttclid", "_rdt_uuid", "_rdt_cid", "_scid", "_scclid", "_epik",
    "li_fat_id", "_twclid", "twclid", "_uetmsclkid", "_gcl_aw", "_gcl_ag", "_gcl_gb", "FPGCLAW", *sc.QUERY_CLICK_IDS,
]  # fmt: skip
pieces = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [*NAMES, "=", ";", "; ", "&", "%", "%20", "%40", '"', "$", "s1761709041", ".", "@", "{", "}", UUID]
    ),
    st.sampled_from(
        ["fb.1.1554763741205.", "GA1.1.183.179", "GS1.1.", "GS2.1.", "GCL.1790219680.", "2.1.k", "$i1", "_uet"]
    ),
)
almost = st.lists(pieces, max_size=12).map("".join)
values = st.lists(pieces.filter(lambda piece: ";" not in piece and "&" not in piece), max_size=5).map("".join)
headers = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=6).map(
    lambda p: "; ".join(f"{n}={v}" for n, v in p)
)
queries = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=6).map(
    lambda p: "&".join(f"{n}={v}" for n, v in p)
)


@given(header=almost | headers, query=almost | queries)
def test_whatever_comes_in_only_click_ids_in_their_shape_come_out(header: str, query: str) -> None:
    """Nothing raises, no name is unknown, and no value has a space, a control character or an e-mail address in it."""
    for name, value in clicks(header, query, NOON).items():
        field, _, stream = name.partition(".")
        assert field in sc.CLICK_IDS
        assert value.isprintable()
        assert not re.search(r"\s|@|%40", value)
        assert re.fullmatch(SHAPES.get(field, ".+"), value)
        if field == "ga_session_id":
            assert stream.isalnum()
            assert re.fullmatch(r"[1-9]\d*", value)


@given(
    header=headers,
    others=st.lists(
        st.tuples(st.text("abcxyz_-", min_size=1, max_size=8).map("other-".__add__), values), min_size=1, max_size=4
    ),
    at=st.integers(0, 6),
)
def test_unknown_cookies_change_nothing(header: str, others: list[tuple[str, str]], at: int) -> None:
    """Before, between or after the known ones."""
    known = header.split("; ")
    at = min(at, len(known))
    mixed = [*known[:at], *(f"{name}={value}" for name, value in others), *known[at:]]
    assert clicks_of_cookies("; ".join(mixed)) == clicks_of_cookies(header)


@given(value=st.text("ABCabc019-_", min_size=1, max_size=40))
def test_a_well_formed_id_comes_out_as_it_came(value: str) -> None:
    """Encoded or not, from the query as from a cookie, in its own case."""
    for written in (value, "".join(f"%{ord(c):02X}" for c in value)):
        assert clicks_of_query(f"gclid={written}") == {"gclid": value}
        assert clicks_of_cookies(f"_epik={written}; _gcl_aw=GCL.1.{written}; twclid={written}") == {
            "epik": value,
            "gclid": value,
            "twclid": value,
        }
