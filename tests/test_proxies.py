"""Whose address a request has: nobody but a trusted proxy is believed, and where nobody knows there is none."""

from __future__ import annotations

import time
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventflows.errors import ConfigurationError
from eventflows.proxies import MAX_HOPS, client_address, networks

TRUSTED = networks(["private", "loopback", "2001:db8:ff::/48"])
PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"
OTHER = "198.51.100.9"


# --- the setting


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        (["10.1.2.3"], "10.1.2.3/32"),
        (["10.0.0.0/8", " 2001:db8::/32 "], "10.0.0.0/8 2001:db8::/32"),
        (["10.1.2.3/8", "10.0.0.0/8"], "10.0.0.0/8"),
        (["::1"], "::1/128"),
        (["private"], "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"),
        (["Loopback"], "127.0.0.0/8 ::1/128"),
        (["link-local"], "169.254.0.0/16 fe80::/10"),
        (["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"], "10.0.0.0/8 192.0.2.1/32"),
        ("10.0.0.1, loopback,", "10.0.0.1/32 127.0.0.0/8 ::1/128"),
    ],
)
def test_networks(values: list[str] | str, expected: str) -> None:
    """Addresses, networks and the three words; one string with commas reads as a list."""
    assert " ".join(map(str, networks(values))) == expected


@pytest.mark.parametrize(
    "value", ["", "*", "publc", "10.0.0", "10.0.0.0/33", "proxy.example.com", "10.0.0.1:80", 10, None]
)
def test_what_is_no_network_is_a_configuration_error(value: str) -> None:
    """It names the key, the value and what is allowed."""
    with pytest.raises(ConfigurationError) as error:
        networks(["private", value])
    for part in ("trusted_proxies", repr(value), "10.0.0.0/8", "private", "loopback", "link-local"):
        assert part in str(error.value)


# --- the peer


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (CLIENT, CLIENT),
        (f" {CLIENT}:41234 ", CLIENT),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:203.0.113.7", CLIENT),
        ("[::ffff:203.0.113.7]:80", CLIENT),
        ("testclient", None),
        ("203.0.113", None),
        ("203.0.113.07", None),
        ("203.0.113.7:port", None),
        ("203.0.113.7 10.0.0.1", None),
        ("unix:", None),
        ("", None),
        (None, None),
    ],
)
def test_without_trusted_proxies_the_peer_is_the_client(peer: str | None, expected: str | None) -> None:
    """In its normal form, and whatever the headers say; what is no address is none."""
    assert client_address(peer, OTHER, f"for={OTHER}", ()) == expected
    assert client_address(peer, None, None, ()) == expected
    if peer:
        assert client_address(peer, None, None, TRUSTED) == expected


def test_a_peer_that_is_no_trusted_proxy_is_the_client() -> None:
    """Its headers are its own claims."""
    assert client_address(CLIENT, OTHER, None, TRUSTED) == CLIENT
    assert client_address(CLIENT, None, f"for={OTHER}", TRUSTED) == CLIENT
    assert client_address("garbage", OTHER, None, TRUSTED) is None


@pytest.mark.parametrize(
    "peer", [PROXY, "::ffff:10.0.0.1", "[::1]:8080", "2001:db8:ff::1", "127.0.0.1:80", None, "", " "]
)
def test_a_trusted_peer_is_believed(peer: str | None) -> None:
    """So is the unknown one of a Unix socket."""
    assert client_address(peer, CLIENT, None, TRUSTED) == CLIENT
    assert client_address(peer, None, f"for={CLIENT}", TRUSTED) == CLIENT


@pytest.mark.parametrize(("peer", "expected"), [(PROXY, PROXY), ("::ffff:10.0.0.1", PROXY), (None, None), ("", None)])
def test_without_headers_the_peer_is_the_client(peer: str | None, expected: str | None) -> None:
    """A health check of the proxy itself; a blank header is none."""
    assert client_address(peer, None, None, TRUSTED) == expected
    assert client_address(peer, " ", "", TRUSTED) == expected


# --- the headers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}, 10.0.0.2, 192.168.1.1", CLIENT),
        (f"{OTHER}, {CLIENT}, 10.0.0.2", CLIENT),
        (f"10.9.9.9, {CLIENT}", CLIENT),  # a trusted address left of the client's is the client's invention
        (f"{CLIENT}:41234,10.0.0.2:80", CLIENT),
        ("[2001:db8::7]:443, ::ffff:10.0.0.2", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # all trusted: a client within
        (f"{CLIENT}, unknown", None),
        (f"{CLIENT}, unknown, 10.0.0.2", None),
        (f"unknown, {CLIENT}", CLIENT),
        ("unknown, 10.0.0.2", None),
        ("unknown", None),
        (f"{CLIENT}, unix:", None),
        (f"{CLIENT},", None),
        (f"{CLIENT}, , 10.0.0.2", None),
        (f", {CLIENT}", CLIENT),
        (",", None),
        ("_hidden", None),
        (f"{CLIENT}; {OTHER}", None),
    ],
)
def test_x_forwarded_for(header: str, expected: str | None) -> None:
    """The right-most untrusted address; nobody where a hop on the way is unknown: no proxy, nor what stands left of it."""
    assert client_address(PROXY, header, None, TRUSTED) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # RFC 7239
        ('for="_gazonk"', None),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        (f'for="{CLIENT}:_port1"', CLIENT),
        (f"for={CLIENT},for=10.0.0.2", CLIENT),
        (f"host=a.example;FOR={CLIENT} ; proto=https,  for=10.0.0.2", CLIENT),
        (f'for={CLIENT};by="a,b;for={OTHER}", for=10.0.0.2', CLIENT),
        (f'for="{CLIENT[:-1]}\\{CLIENT[-1]}"', CLIENT),
        (f'for={CLIENT};by="\\"", for=10.0.0.2', CLIENT),
        (f'for={CLIENT};by="\\\\", for=10.0.0.2', CLIENT),
        (f";for={CLIENT};", CLIENT),
        # as some write it
        ("for=[2001:db8:cafe::17]:4711", "2001:db8:cafe::17"),
        ("for=2001:db8:cafe::17", "2001:db8:cafe::17"),
        # nobody knows
        (f"for={CLIENT}, for=unknown, for=10.0.0.2", None),
        (f"for={CLIENT}, for=_secret", None),
        (f"for={CLIENT}, proto=https", None),
        (f"for={CLIENT},", None),
        (f"for={OTHER};for={CLIENT}", None),
        (f"for = {CLIENT}", None),
        (f'for="{CLIENT}', None),
        (f'for="{CLIENT}"x', None),
        ("for=", None),
        ("for", None),
        (CLIENT, None),
    ],
)
def test_forwarded(header: str, expected: str | None) -> None:
    """The same by RFC 7239, with its quotes, names in any case, brackets and ports."""
    assert client_address(PROXY, None, header, TRUSTED) == expected


@pytest.mark.parametrize(
    "forged", ['"', 'for="', 'for="\\', '"\\"', f'for={OTHER}, for="', f'for="{OTHER}', "\\", ",,,", ";"]
)
@pytest.mark.parametrize(
    "added", [f'for="{CLIENT}"', f"for={CLIENT};by=10.0.0.1", f'by="x";for="{CLIENT}:80";proto="a,b"']
)
def test_a_quote_left_open_does_not_swallow_what_the_proxy_adds(forged: str, added: str) -> None:
    assert client_address(PROXY, None, f"{forged}, {added}", TRUSTED) == CLIENT


def test_two_headers_count_only_where_they_agree() -> None:
    """Many proxies set one of them and pass on the other as the client wrote it."""
    assert client_address(PROXY, f"{CLIENT}, 10.0.0.2", f"for={CLIENT}", TRUSTED) == CLIENT
    assert client_address(PROXY, f"::ffff:{CLIENT}", f'for="{CLIENT}:80"', TRUSTED) == CLIENT
    assert client_address(PROXY, CLIENT, f"for={OTHER}", TRUSTED) is None
    assert client_address(PROXY, CLIENT, "for=unknown", TRUSTED) is None
    assert client_address(PROXY, "unknown", f"for={CLIENT}", TRUSTED) is None
    assert client_address(PROXY, "unknown", "for=_hidden", TRUSTED) is None


def test_no_more_hops_are_looked_at_than_can_be_real() -> None:
    """Beyond them nobody knows the client."""
    proxies = ["10.0.0.2"] * (MAX_HOPS - 1)
    for forged in ([], ["10.0.0.3"], [OTHER], [OTHER] * 200):
        assert _of_both([*forged, CLIENT, *proxies]) == CLIENT
    assert _of_both(["10.0.0.3", *proxies]) == "10.0.0.3"
    assert _of_both([CLIENT, "10.0.0.3", *proxies]) is None
    assert _of_both(["10.0.0.4", "10.0.0.3", *proxies]) is None


def _of_both(hops: list[str]) -> str | None:
    """What each of the headers leads to on its own."""
    found = {
        client_address(PROXY, ", ".join(hops), None, TRUSTED),
        client_address(PROXY, None, ", ".join(f"for={hop}" for hop in hops), TRUSTED),
    }
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("filler", [",", '"', "\\", '\\"', "a", "1", ":", ";", "for=1;", "[", "%", " ", "10.0.0.1,"])
def test_the_work_is_linear(filler: str) -> None:
    """No header makes a pattern go back and forth."""
    started = time.perf_counter()
    flood = filler * (60_000 // len(filler))
    for header in (flood, f"for={flood}", f'for="{flood}', f'for="{flood}"', f"[{flood}]"):
        client_address(PROXY, header, header, TRUSTED)
        client_address(header, header, None, TRUSTED)
    assert time.perf_counter() - started < 5


# --- what always holds

addresses = st.ip_addresses().map(str)
pieces = st.one_of(
    addresses,
    st.text(max_size=8),
    st.sampled_from(
        [PROXY, CLIENT, "unknown", "_hidden", "for=", "by=", '"', ",", ", ", ";", "[", "]", ":80", "%eth0", "\\"]
    ),
)
texts = st.lists(pieces, max_size=10).map("".join)
maybe = st.none() | texts


@given(peer=maybe | addresses, x_forwarded_for=maybe, forwarded=maybe, trusted=st.sampled_from([(), TRUSTED]))
def test_whatever_comes_in_an_address_in_normal_form_or_none_comes_out(
    peer: str | None, x_forwarded_for: str | None, forwarded: str | None, trusted: tuple
) -> None:
    found = client_address(peer, x_forwarded_for, forwarded, trusted)
    assert found is None or found == str(ip_address(found))
    assert found is None or "%" not in found


@given(
    forged=texts, client=addresses, proxies=st.lists(st.sampled_from(["10.0.0.2", "::1", "192.168.0.9:80"]), max_size=5)
)
def test_hops_that_the_client_forges_never_change_the_answer(forged: str, client: str, proxies: list[str]) -> None:
    """Whatever stands left of the address that a trusted proxy wrote down, in either header."""
    plain = client_address(client, None, None, ())
    assume(plain is not None and not any(ip_address(plain) in network for network in TRUSTED))
    hops = [client, *proxies]
    assert client_address(PROXY, ", ".join([forged, *hops]), None, TRUSTED) == plain
    quoted = [f'for="[{hop}]"' if hop.count(":") > 1 else f'for="{hop}"' for hop in hops]
    assert client_address(PROXY, None, ", ".join([forged, *quoted]), TRUSTED) == plain


@given(text=st.text(max_size=30) | texts)
def test_any_setting_is_read_or_refused_as_configuration(text: str) -> None:
    with suppress(ConfigurationError):
        networks([text])
