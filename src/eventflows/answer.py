"""Reading the answer to an HTTP request (RFC 9112) from its connection: as a whole, in so many seconds, up to so many bytes.

`http.client` has an answer's headers read by the parser of e-mails, which takes longer than all else that is done to send a
request. And a socket's timeout is for each piece of an answer: with one byte a second it would never be too late.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

MOST = 32 * 1024 * 1024
"""Bytes of an answer; a platform's has some hundred."""
_MOST_HEAD = 65_536
_PORTION = 16_384  # as much as TLS decrypts at once
# A line may end with a line feed alone: section 2.2.
_LINE_END = re.compile(rb"\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?![^ \r\n])")
# Those that matter here.
_HEADER = re.compile(
    r"\n(connection|content-encoding|content-length|retry-after|transfer-encoding):[ \t]*([^\r\n]*)", re.IGNORECASE
)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")
_EMPTY = (204, 304)
_SWITCHED = 101
_BREAKS_OFF = "an answer that breaks off"


class Answer(NamedTuple):
    """An answer.

    Attributes:
        headers: `Retry-After` and those about connection and content, by their names in lower case; several of a name with
            commas between.
        keeps: The connection is ready for another request.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    keeps: bool


def read(sock: socket.socket, seconds: float) -> Answer:
    """Read the answer to a request that has just been sent, and is not a HEAD.

    Args:
        sock: Its timeout is as many seconds, too.

    Raises:
        TimeoutError: The answer was not complete in time.
        ConnectionError: The connection was closed, or broke, before anything came.
        OSError, ValueError: What came breaks off, has no end, or is no HTTP.
    """
    arriving = _Arriving(sock, seconds)
    minor, status, headers = _parsed(arriving.before(_HEAD_END))
    while status < 200:  # 100 Continue, 103 Early Hints
        if status == _SWITCHED:
            raise ValueError("another protocol, which nobody asked for")
        minor, status, headers = _parsed(arriving.before(_HEAD_END))
    connection = headers.get("connection", "").lower()
    keeps = "close" not in connection if minor else "keep-alive" in connection
    if status in _EMPTY:
        content = b""
    elif headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked":
        content = _unchunked(arriving)
    elif (length := headers.get("content-length")) is not None:
        content = arriving.take(_size(length))
    else:
        content, keeps = arriving.rest(), False
    return Answer(status, headers, content, keeps and not arriving.unread)


class _Arriving:
    """What a server sends."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._deadline = time.monotonic() + seconds
        self._count = 0
        self.unread = bytearray()

    def _wait(self) -> bool:
        """Wait for more; False where the server has closed the connection."""
        if self._count:
            if (left := self._deadline - time.monotonic()) <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
        try:
            came = self._sock.recv(_PORTION)
        except ConnectionError as problem:
            if self._count:
                raise OSError(_BREAKS_OFF) from problem
            raise
        self._count += len(came)
        if self._count > MOST:
            raise OSError("an answer without an end")
        self.unread += came
        return bool(came)

    def _wait_for_the_rest(self) -> None:
        if not self._wait():
            raise OSError(_BREAKS_OFF) if self._count else ConnectionResetError

    def before(self, end: re.Pattern[bytes]) -> bytes:
        """All before this end, which is left out."""
        start = 0
        while (found := end.search(self.unread, start)) is None:
            if len(self.unread) > _MOST_HEAD:
                raise ValueError("a head without an end")
            start = max(0, len(self.unread) - 3)
            self._wait_for_the_rest()
        content = bytes(self.unread[: found.start()])
        del self.unread[: found.end()]
        return content

    def take(self, length: int) -> bytes:
        """So many bytes."""
        while len(self.unread) < length:
            self._wait_for_the_rest()
        content = bytes(self.unread[:length])
        del self.unread[:length]
        return content

    def rest(self) -> bytes:
        """All that comes until the connection is closed."""
        while self._wait():
            pass
        return self.take(len(self.unread))


def _parsed(head: bytes) -> tuple[int, int, dict[str, str]]:
    """The minor version, the status, and the headers that matter."""
    text = head.decode("latin-1")
    match = _STATUS.match(text)
    if match is None:
        raise ValueError("no answer of HTTP/1")
    headers: dict[str, str] = {}
    for name, value in _HEADER.findall(text):
        known = headers.get(name := name.lower())
        headers[name] = value.rstrip() if known is None else f"{known}, {value.rstrip()}"
    return int(match[1]), int(match[2]), headers


def _size(content_length: str) -> int:
    """The number of a Content-Length, which may stand there several times."""
    (length,) = set(content_length.replace(" ", "").split(","))
    if not (length.isascii() and length.isdigit()):
        raise ValueError("a length that is no number")
    return int(length)


def _unchunked(arriving: _Arriving) -> bytes:
    content = bytearray()
    while True:
        match = _CHUNK_SIZE.fullmatch(arriving.before(_LINE_END))
        if match is None:
            raise ValueError("a chunk without a size")
        if not (size := int(match[1], 16)):
            break
        content += arriving.take(size)
        if arriving.before(_LINE_END):
            raise ValueError("a chunk that is longer than it says")
    while arriving.before(_LINE_END):
        pass  # trailers
    return bytes(content)
