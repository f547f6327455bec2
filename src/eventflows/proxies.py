"""The client's address behind reverse proxies: the right-most address that no trusted proxy has.

`X-Forwarded-For` and `Forwarded` (RFC 7239) are lists that each proxy adds to at the right, so everything left of what a
trusted proxy has added may be the client's own invention.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import TypeAlias

from .errors import ConfigurationError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

MAX_HOPS = 50

_WORDS: Mapping[str, tuple[str, ...]] = {
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # RFC 1918, RFC 4193
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
}
_MAPPED = IPv6Network("::ffff:0:0/96")
# With a port, which RFC 7239 lets a proxy obscure; an IPv6 address without brackets has none.
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[^\]]+)?)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
# Addresses with colons stand in quotes by RFC 7239; not all proxies know.
_PAIR = re.compile(
    r"""[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"\\;,]*))[ \t]*)?(?:;|\Z)""", re.ASCII
)
_MARK = re.compile(r'\\*"|\\+|,')  # a quote goes with the backslashes before it


def networks(values: Iterable[str]) -> tuple[Network, ...]:
    """The networks of trusted proxies.

    Args:
        values: IP addresses, networks such as `10.0.0.0/8`, and the words `private`, `loopback` and `link-local`; also as
            one string with commas.

    Raises:
        ConfigurationError: One of them is none of these.
    """
    given = [part for part in values.split(",") if part.strip()] if isinstance(values, str) else values
    found: dict[Network, None] = {}
    for value in given:
        word = str(value).strip()
        for network in _WORDS.get(word.lower(), (word,)):
            try:
                found[_unmapped(ip_network(network, strict=False))] = None
            except ValueError:
                raise ConfigurationError(
                    f"trusted_proxies: {value!r} is neither an IP address nor a network such as 10.0.0.0/8, "
                    f"nor one of the words {', '.join(_WORDS)}"
                ) from None
    return tuple(found)


def client_address(
    peer: str | None, x_forwarded_for: str | None, forwarded: str | None, trusted: Sequence[Network]
) -> str | None:
    """Who sent the request, or None where nobody knows.

    The headers count only where the peer is a trusted proxy, which must set or remove them. The client is the right-most
    address in the header that is not itself a trusted proxy's, or the left-most where all are. A hop on the way there that
    is no address (`unknown`, `_hidden`) ends the search: nobody vouches for what stands left of it. If both headers are
    there and lead to different answers, one may be the client's own invention, which the proxy passed on untouched. Which
    one it is nobody knows, so neither counts.

    Args:
        peer: The other end of the connection; None or empty for a Unix socket, where a proxy must be sitting.
        x_forwarded_for: The header, several of them joined by commas.
        forwarded: The same.
        trusted: See `networks`. Without any the peer is the client.
    """
    address = _address(peer or "")
    if not trusted:
        return str(address) if address else None
    if peer and peer.strip() and (address is None or not _is_among(address, trusted)):
        return str(address) if address else None
    chains = []
    if x_forwarded_for and x_forwarded_for.strip():
        chains.append(reversed(x_forwarded_for.rsplit(",", MAX_HOPS)))
    if forwarded and forwarded.strip():
        chains.append(map(_forwarded_for, _elements_from_the_right(forwarded)))
    clients = {_client(hops, trusted) for hops in chains} if chains else {address}
    client = clients.pop()
    return str(client) if client and not clients else None


def _client(hops: Iterator[str], trusted: Sequence[Network]) -> Address | None:
    """The client of a chain of hops, the nearest first."""
    address = None
    for hop in islice(hops, MAX_HOPS):
        address = _address(hop)
        if address is None or not _is_among(address, trusted):
            return address
    return None if next(hops, None) is not None else address


def _is_among(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _address(node: str) -> Address | None:
    """An address without its port, brackets and zone; an IPv4 one also where it is written as IPv6 (`::ffff:10.0.0.1`)."""
    node = node.strip()
    try:
        return IPv4Address(socket.inet_pton(socket.AF_INET, node))  # the usual form, in a third of the time
    except (OSError, ValueError):
        pass
    if match := _NODE.fullmatch(node):
        node = match[1] or match[2]
    try:
        address = ip_address(node)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))  # the number has no zone
    return address


def _unmapped(network: Network) -> Network:
    """Addresses are compared as IPv4 where they are that, so a network must be as well."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _elements_from_the_right(header: str) -> Iterator[str]:
    """The elements of a `Forwarded` header, the last one first.

    Read from the right, a quote that the client left open cannot swallow what the proxies have added behind it.
    """
    end, quoted = len(header), False
    for match in reversed(list(_MARK.finditer(header))):
        mark = match[0]
        if mark == "," and not quoted:
            yield header[match.end() : end]
            end = match.start()
        elif mark.endswith('"'):
            # From the right the closing quote comes first. Backslashes in pairs escape each other, not the opening quote.
            quoted = not quoted or len(mark) % 2 == 0
    yield header[:end]


def _forwarded_for(element: str) -> str:
    """The value of `for=` in an element; empty, hence no address, where it is missing, stands twice, or cannot be read."""
    found: list[str] = []
    at = 0
    element = element.strip(" \t")
    while at < len(element):
        match = _PAIR.match(element, at)
        if match is None:
            return ""
        at = match.end()
        if match[1] and match[1].lower() == "for":
            found.append(match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2]))
    return found[0] if len(found) == 1 else ""
