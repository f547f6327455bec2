"""Reading answers of HTTP/1 from a socket, in whatever pieces they come."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import pytest

from eventflows import answer
from eventflows.answer import Answer, read

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def arriving(*pieces: bytes, pause: float = 0, closed: bool = True) -> Iterator[socket.socket]:
    """The client's end of a connection on which these arrive one after the other."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)

    def serve() -> None:
        with suppress(OSError):
            for piece in pieces:
                theirs.sendall(piece)
                time.sleep(pause)
            if closed:
                theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours, theirs:
        yield ours
        ours.close()
        thread.join()


class Pieces:
    """A socket on which these arrive, each at once; then nothing more, as long as it is open."""

    def __init__(self, pieces: Iterable[bytes], *, closed: bool) -> None:
        self._pieces = iter(pieces)
        self._end = b"" if closed else None

    def settimeout(self, _seconds: float) -> None:
        """There is nothing to wait for."""

    def recv(self, _length: int) -> bytes:
        piece = next(self._pieces, self._end)
        if piece is None:
            raise TimeoutError
        return piece


ANSWERS = {
    "a length": (HEAD + b"Content-Length: 2\r\n\r\n{}", 200, b"{}", True),
    "a length that stands there twice": (HEAD + b"Content-Length: 2\r\ncontent-length:2 \r\n\r\n{}", 200, b"{}", True),
    "no length": (HEAD + b"\r\n{}", 200, b"{}", False),
    "no headers and no content": (HEAD + b"\r\n", 200, b"", False),
    "no reason": (b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, b"", True),
    "no content by its status": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "no content, whatever it says": (b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n00a;x=y\r\n0123456789\r\n0\r\n\r\n",
               200, b"{0123456789", True),
    "chunks and trailers": (HEAD + b"transfer-encoding: CHUNKED\r\nContent-Length: 1\r\n\r\n"
                            b"2 \r\n{}\r\n0\r\nX: y\r\nA: b\r\n\r\n", 200, b"{}", True),
    "chunks that two servers claim": (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
                                      b"2\r\n{}\r\n0\r\n\r\n", 200, b"{}", True),
    "after others": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
                     + HEAD + b"Content-Length: 2\r\n\r\n{}", 200, b"{}", True),
    "no further request": (HEAD + b"Connection: Close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "HTTP/1.0 that keeps": (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
    "line feeds alone": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", 200, b"{}", True),
    "line ends in its content": (HEAD + b"Content-Length: 9\r\n\r\n\r\n\r\n{}\r\n\n", 200, b"\r\n\r\n{}\r\n\n", True),
    "another name with a known end": (HEAD + b"X-Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "content", "keeps"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_the_same_in_one_piece_and_in_many(sent: bytes, status: int, content: bytes, keeps: bool) -> None:
    bytewise = (bytes([byte]) for byte in sent)
    for pieces in (bytewise, *((sent[:cut], sent[cut:]) for cut in range(1, len(sent)))):
        found = read(cast("socket.socket", Pieces(pieces, closed=not keeps)), 5)
        assert (found.status, found.content, found.keeps) == (status, content, keeps)


def test_the_headers_that_matter_are_given() -> None:
    sent = HEAD + b"Server: x\r\nRETRY-AFTER:  7 \r\nContent-Encoding: gzip\r\nContent-Length: 0\r\nX: a: b\r\n\r\n"
    with arriving(sent) as sock:
        assert read(sock, 5) == Answer(
            200, {"retry-after": "7", "content-encoding": "gzip", "content-length": "0"}, b"", True
        )


def test_what_comes_behind_an_answer_is_not_taken_for_the_next_one() -> None:
    with arriving(HEAD + b"Content-Length: 2\r\n\r\n{}" + HEAD + b"Content-Length: 2\r\n\r\n[]") as sock:
        assert not read(sock, 5).keeps


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 2",
        HEAD,
        HEAD + b"Content-Length: 3\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_none(sent: bytes) -> None:
    """The server has answered, so the connection was no idle one that it had closed."""
    with arriving(sent) as sock, pytest.raises(OSError, match="breaks off"):
        read(sock, 5)


@pytest.mark.parametrize(("sent", "dropped"), [(b"", True), (HEAD, False)])
def test_a_connection_that_breaks_in_an_answer_was_not_idle_either(sent: bytes, dropped: bool) -> None:
    class Breaking(Pieces):
        def recv(self, _length: int) -> bytes:
            if piece := next(self._pieces, b""):
                return piece
            raise ConnectionResetError

    with pytest.raises(OSError) as raised:  # noqa: PT011 reason: its class is what is told
        read(cast("socket.socket", Breaking([sent], closed=True)), 5)
    assert isinstance(raised.value, ConnectionError) == dropped


def test_another_protocol_is_no_answer_and_not_waited_for() -> None:
    """What would follow is no HTTP, and the server keeps the connection open."""
    sent = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    with arriving(sent, closed=False) as sock, pytest.raises(ValueError, match="protocol"):
        read(sock, 5)


def test_a_connection_that_is_closed_without_an_answer_is_told_from_that() -> None:
    with arriving() as sock, pytest.raises(ConnectionError):
        read(sock, 5)


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: +2\r\n\r\n{}",
        HEAD + b"Content-Length: \xb2\r\n\r\n{}",
        HEAD + b"Content-Length:\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        HEAD + b"X: " + b"x" * 100_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
    ],
)
def test_what_is_no_answer_is_not_guessed_at(sent: bytes) -> None:
    with arriving(sent) as sock, pytest.raises(ValueError):  # noqa: PT011 reason: its text is for nobody
        read(sock, 5)


@pytest.mark.parametrize("head", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n", HEAD + b"\r\n"])
def test_the_time_is_for_the_whole_answer(head: bytes) -> None:
    """Every byte of it comes well in time."""
    with arriving(head, *[b"x"] * 100, pause=0.02, closed=False) as sock:
        sock.settimeout(0.2)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            read(sock, 0.2)
        assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    "head", [b"\r\n", b"Content-Length: 900000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\ndbba0\r\n"]
)
def test_the_room_is_for_the_whole_answer(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "MOST", 100_000)
    with arriving(HEAD + head, b"x" * 900_000) as sock, pytest.raises(OSError, match="without an end"):
        read(sock, 5)
