"""Where a request may go, and what of its address is never said aloud."""

import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit

from storage.signatures import anonymous

DEFAULT_PORTS = {"http": 80, "https": 443}
_NAMES = (
    r"(?:[\w-]*api[_-]?key|access_?key|api_sig|auth_key|hmac|oauth_\w+|[\w-]*token[\w-]*|[\w-]*secret|password|csrf|sig|"
    r"signature|expiry|expires|x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|key-pair-id|policy|credential)"
)
_VALUE = r"[^&\s'\"<>);]+"
_SECRET = re.compile(
    rf"(?i)(\b{_NAMES}(?:=|%3D)['\"]?|['\"]{_NAMES}['\"]\s*:\s*['\"]|\bx-[\w-]*token[\w-]*:\s*"
    rf"|[?&](?:key|auth|jwt)=|\bauthorization['\"]?[:=]\s*['\"]?(?:\w+\s+)?){_VALUE}"
)
_USER = re.compile(r"(//)[^/?#\s'\"<>]+(@)")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What Python counts as public: IPv4 in IPv6 and sites (both deprecated), NAT64 within a network, Azure's metadata.
_INSIDE = [ipaddress.ip_network(each) for each in ("::/96", "fec0::/10", "64:ff9b:1::/48", "168.63.129.16/32")]


def redact(text: str, key: str = "") -> str:
    """``text`` with the values of keys, tokens, signatures and secrets blanked out, and ``key`` wherever it stands."""
    text = text.replace(key, "***") if key else text
    return _USER.sub(r"\1***\2", _SECRET.sub(r"\1***", text))


def without_query(url: str) -> str:
    """``url`` up to its question mark, behind which may be a signature, without a password: what names a picture."""
    return anonymous(url).partition("#")[0].partition("?")[0]


def netloc(url: str) -> str:
    """``host:port`` of a URL, in small letters, the default port spelled out. Raises ValueError, KeyError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or DEFAULT_PORTS[parts.scheme]}"


def host_of(url: str) -> str:
    """The host of a URL, in the one spelling that its pace is kept by: small letters, no dot at the end, ``xn--`` for
    what is not ASCII, and a port only if it is not the default one. Raises ValueError, KeyError.
    """
    host, _, port = netloc(url).rpartition(":")
    with suppress(UnicodeError):  # a host that has no such form will not be found
        host = host.encode("idna").decode()
    host = host.rstrip(".")
    return host if int(port) == DEFAULT_PORTS[urlsplit(url).scheme] else f"{host}:{port}"


def is_set(url: str, hosts: frozenset[str]) -> bool:
    """Whether the very ``host:port`` of ``url`` is among ``hosts``: then it may also be an address of this machine."""
    return netloc(url) in hosts


def is_allowed(url: str, hosts: frozenset[str]) -> bool:
    """Whether ``url`` is plain http(s) to one of ``hosts``: ``host`` (at its default port) or ``host:port``.

    An address that is not public is allowed only with its port.
    """
    try:
        parts = urlsplit(url)
        there, default = netloc(url), DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return False
    if not parts.hostname or parts.username is not None:
        return False
    host, _, port = there.rpartition(":")
    return there in hosts or (host in hosts and int(port) == default and not is_inside(parts.hostname))


def is_inside(host: str) -> bool:
    """Whether ``host`` is an address that is not public: of this machine, a private network, a cloud's metadata.

    A name is none; what it leads to is asked when the connection stands.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = embedded or address
    return not address.is_global or address.is_multicast or any(address in network for network in _INSIDE)


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
