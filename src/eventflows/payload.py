"""JSON in UTF-8, as requests carry it. An event is written once; what surrounds it in a request is put around its bytes.

With `orjson` (extra `fast`) it is written in a tenth of the time. The bytes mean the same: what `orjson` would write in
another way, or refuses, is left to the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from json import JSONEncoder, encoder
from typing import Any

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

# Without the check for circles, which costs a sixth; what holds itself ends in a RecursionError, and is refused as well.
_standard = JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
# What `encode` of the encoder makes anew for each value, which costs a seventh; None where Python has no such thing.
_make = getattr(encoder, "c_make_encoder", None)
_parts: Callable[[Any, int], Iterable[str]] = (
    _make(None, _standard.default, encoder.encode_basestring, None, ":", ",", False, False, False)
    if _make is not None
    else lambda value, _indent: _standard.iterencode(value)
)


def _encode_standard(value: Any) -> bytes:
    return "".join(_parts(value, 0)).encode("utf-8", "replace")  # half a surrogate pair becomes a question mark


def _encode_fast(value: Any) -> bytes:
    try:
        content = orjson.dumps(value, option=_PLAIN)
    except TypeError:  # half a surrogate pair, an integer of more than 64 bits, keys that are no strings, or nonsense
        return _encode_standard(value)
    # A null may stand for a NaN, which the standard library refuses. From behind it is looked for in half the time of `in`.
    if content.rfind(b"null") >= 0:
        return _encode_standard(value)
    # A copy, since orjson's own keeps some kilobytes that it reserved for as long as the event waits.
    return memoryview(content).tobytes()


# Dates and dataclasses are no JSON; the standard library does not write them.
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME if orjson is not None else 0


def encode(value: Any) -> bytes:
    """Compact JSON.

    Raises:
        ValueError, TypeError, RecursionError: It holds a NaN or infinity, which no other parser takes, or what is no JSON.
    """
    return _encode_fast(value) if orjson is not None else _encode_standard(value)


def around(envelope: Mapping[str, Any], path: Sequence[str]) -> tuple[bytes, bytes]:
    """What stands before and behind the events of a body.

    Args:
        envelope: The body without its events.
        path: The keys that lead to the list of events; none where the list is the whole body.

    >>> around({"test": 1}, ["data"])
    (b'{"test":1,"data":[', b']}')
    """
    if not path:
        return b"[", b"]"
    key, *deeper = path
    head, tail = around(envelope.get(key, {}), deeper)
    others = encode({name: value for name, value in envelope.items() if name != key})[:-1]
    return others + (b"," if len(others) > 1 else b"") + encode(key) + b":" + head, tail + b"}"


def body(envelope: Mapping[str, Any], path: Sequence[str], events: Sequence[bytes]) -> bytes:
    """A request's body around its events, which are JSON already."""
    return b"".join(portions(envelope, path, events)[1])


PORTION = 65_536
"""Bytes that are put together at once. A copy of a whole body would stay for as long as the platform takes to answer; and from
twice as many on each copy gets new pages from the kernel, which takes longer than sending it."""


def portions(
    envelope: Mapping[str, Any], path: Sequence[str], events: Sequence[bytes], size: int = PORTION
) -> tuple[int, Iterator[bytes]]:
    """The length of a request's body, and the body in portions of about so many bytes."""
    head, tail = around(envelope, path)
    length = len(head) + sum(map(len, events)) + max(0, len(events) - 1) + len(tail)
    return length, _portions(head, events, tail, size)


def _portions(head: bytes, events: Sequence[bytes], tail: bytes, size: int) -> Iterator[bytes]:
    before, start, length = head, 0, 0
    for end, event in enumerate(events, start=1):
        length += len(event) + 1
        if length >= size and end < len(events):
            yield before + b",".join(events[start:end])
            before, start, length = b",", end, 0
    yield before + b",".join(events[start:]) + tail
