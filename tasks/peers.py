"""Connections whose answers are due at a moment; among them such as end at public addresses only, whatever their name.

The address that is asked is the one that the socket is connected to, so that no second look-up of the name can differ
from the first. What libraries call a read time-out is the silence before one receive: a host that sends a byte now and
then could make a header, the length of a chunk, or what a decoder waits for, last for days. So each receive is given no
more time than is left, and ends as soon as somebody gives up waiting.
"""

import io
import socket
import ssl
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from http.client import HTTPResponse
from typing import Any

import certifi
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from tasks import stopping
from tasks.addresses import is_inside

CONNECTIONS = 64  # kept open per host: a few batches of sixteen threads
LOOK_EVERY_S = 0.5  # of whoever receives: whether somebody gave up waiting


class PrivateAddress(HTTPError):
    """A name led to an address of this machine, of a private network, or of a cloud's metadata."""


DEADLINE: ContextVar[float] = ContextVar("DEADLINE", default=float("inf"))  # of the next answer, on time.monotonic


class Punctual(io.RawIOBase):
    """What ``sock`` receives, until DEADLINE and no longer; ``stream`` is the file that reads it."""

    def __init__(self, sock: socket.socket, stream: io.RawIOBase) -> None:
        self._sock, self._stream = sock, stream
        self._deadline, self._silence_s = DEADLINE.get(), sock.gettimeout() or float("inf")

    def readable(self) -> bool:
        """It is, or nothing could buffer it."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """How many bytes came. Raises TimeoutError after silence, and at the deadline; Interrupted."""
        until = min(self._deadline, time.monotonic() + self._silence_s)
        while (left_s := until - time.monotonic()) > 0:
            stopping.check()
            self._sock.settimeout(min(left_s, LOOK_EVERY_S))
            with suppress(TimeoutError):  # ``_stream`` would not be read again after one
                return self._sock.recv_into(buffer)
        raise TimeoutError("past its deadline, or silent")

    def close(self) -> None:
        """Let go of the socket, which its connection may use again."""
        self._stream.close()
        super().close()


class PunctualResponse(HTTPResponse):
    """An answer that is due at DEADLINE, from its first byte to its last."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(Punctual(sock, self.fp.detach()))


class PunctualConnection(HTTPConnection):
    """A plain connection."""

    response_class = PunctualResponse


class PunctualSafeConnection(HTTPSConnection):
    """A TLS connection."""

    response_class = PunctualResponse


class PunctualPool(HTTPConnectionPool):
    """Plain connections."""

    ConnectionCls = PunctualConnection


class PunctualSafePool(HTTPSConnectionPool):
    """TLS connections."""

    ConnectionCls = PunctualSafeConnection


def checked(sock: socket.socket) -> socket.socket:
    """``sock``, if its other end is public; else it is closed, unspoken to. Raises PrivateAddress."""
    address = str(sock.getpeername()[0])
    if is_inside(address):
        sock.close()
        raise PrivateAddress(f"connected to {address}")
    return sock


class PublicConnection(PunctualConnection):
    """A plain connection to a public address."""

    def _new_conn(self) -> socket.socket:
        return checked(super()._new_conn())


class PublicSafeConnection(PunctualSafeConnection):
    """A TLS connection to a public address."""

    def _new_conn(self) -> socket.socket:
        return checked(super()._new_conn())


class PublicPool(HTTPConnectionPool):
    """Plain connections to public addresses."""

    ConnectionCls = PublicConnection


class PublicSafePool(HTTPSConnectionPool):
    """TLS connections to public addresses."""

    ConnectionCls = PublicSafeConnection


def any_connections(headers: dict[str, str]) -> PoolManager:
    """Connections to whatever address; each request has ``headers``."""
    pool = _pool(headers)
    pool.pool_classes_by_scheme = {"http": PunctualPool, "https": PunctualSafePool}
    return pool


def public_connections(headers: dict[str, str]) -> PoolManager:
    """Connections to public addresses only; each request has ``headers``."""
    pool = _pool(headers)
    pool.pool_classes_by_scheme = {"http": PublicPool, "https": PublicSafePool}
    return pool


def _pool(headers: dict[str, str]) -> PoolManager:
    """Connections without memory: no cookies, no proxy, and nothing that differs from one request to the next."""
    return PoolManager(8, headers=headers, maxsize=CONNECTIONS, ssl_context=_trusted())


@cache
def _trusted() -> ssl.SSLContext:
    """Whom we believe: the authorities of this machine, and those that come with the libraries."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
