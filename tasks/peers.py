"""Connections that end at public addresses only, whatever name they were opened by.

The address that is asked is the one that the socket is connected to, so that no second look-up of the name can differ
from the first.
"""

import socket

from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from tasks.addresses import is_inside


class PrivateAddress(HTTPError):
    """A name led to an address of this machine, of a private network, or of a cloud's metadata."""


def checked(sock: socket.socket) -> socket.socket:
    """``sock``, if its other end is public; else it is closed, unspoken to. Raises PrivateAddress."""
    address = str(sock.getpeername()[0])
    if is_inside(address):
        sock.close()
        raise PrivateAddress(f"connected to {address}")
    return sock


class PublicConnection(HTTPConnection):
    """A plain connection to a public address."""

    def _new_conn(self) -> socket.socket:
        return checked(super()._new_conn())


class PublicSafeConnection(HTTPSConnection):
    """A TLS connection to a public address."""

    def _new_conn(self) -> socket.socket:
        return checked(super()._new_conn())


class PublicPool(HTTPConnectionPool):
    """Plain connections."""

    ConnectionCls = PublicConnection


class PublicSafePool(HTTPSConnectionPool):
    """TLS connections."""

    ConnectionCls = PublicSafeConnection


def public_connections(pool: PoolManager) -> PoolManager:
    """``pool``, opening connections to public addresses only."""
    pool.pool_classes_by_scheme = {"http": PublicPool, "https": PublicSafePool}
    return pool
