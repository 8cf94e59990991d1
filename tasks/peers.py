"""Connections whose answers are due at a moment; among them such as end at public addresses only, whatever their name.

The address that is asked is the one that the socket is connected to, so that no second look-up of the name can differ
from the first. What libraries call a read time-out is the silence before one receive: a host that sends a byte now and
then could make a header, the length of a chunk, or what a decoder waits for, last for days. So each receive is given no
more time than is left.
"""

import io
import socket
import time
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import Any

from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from tasks.addresses import is_inside


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
        """How many bytes came. Raises TimeoutError after silence, and at the deadline."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("past its deadline")
        if left_s < self._silence_s:
            self._sock.settimeout(left_s)
        received: int | None = self._stream.readinto(buffer)
        return received

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


def any_connections(pool: PoolManager) -> PoolManager:
    """``pool``, opening connections to whatever address."""
    pool.pool_classes_by_scheme = {"http": PunctualPool, "https": PunctualSafePool}
    return pool


def public_connections(pool: PoolManager) -> PoolManager:
    """``pool``, opening connections to public addresses only."""
    pool.pool_classes_by_scheme = {"http": PublicPool, "https": PublicSafePool}
    return pool
