"""The HTTP client over real sockets: what hosts do to it, and where it does not go."""

import gzip
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tasks.web import Answer, Client, Limits

SHORT = Limits(
    connect_s=5, read_s=5, deadline_s=10, body_bytes=50_000, retries=2, backoff_s=0.001, backoff_max_s=0.002, pauses=2,
    pause_s=0.01, pause_max_s=2, api_per_s=10_000, api_burst=1000, images_per_s=10_000, images_burst=1000,
)  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Does what the path says; the server counts requests by path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        server: Site = self.server  # type: ignore[assignment]
        server.asked.append(self.path)
        server.headers.append(dict(self.headers.items()))
        getattr(self, path.strip("/").replace("-", "_"))(sum(urlsplit(seen).path == path for seen in server.asked))

    def send(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def good(self, n: int) -> None:
        self.send(200, b"good", Set_Cookie="id=1")

    def missing(self, n: int) -> None:
        self.send(404, b"no")

    def heals(self, n: int) -> None:
        self.send(*((200, b"healed") if n == 3 else (503, b"")))

    def down(self, n: int) -> None:
        self.send(500)

    def busy_once(self, n: int) -> None:
        self.send(200, b"good") if n > 1 else self.send(429, Retry_After="1")

    def busy_until(self, n: int) -> None:
        self.send(200, b"good") if n > 1 else self.send(429, Retry_After=formatdate(time.time() + 1, usegmt=True))

    def busy(self, n: int) -> None:
        self.send(429)

    def busy_for_an_hour(self, n: int) -> None:
        self.send(429, Retry_After="3600")

    def cut(self, n: int) -> None:
        self.send(200, b"half", length=8)
        self.close_connection = True

    def packed(self, n: int) -> None:
        self.send(200, gzip.compress(b"unpacked"), Content_Encoding="gzip")

    def bomb(self, n: int) -> None:
        self.send(200, gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")

    def huge(self, n: int) -> None:
        self.send(200, bytes(60_000))

    def stall(self, n: int) -> None:
        time.sleep(0.4)
        self.close_connection = True

    def drip(self, n: int) -> None:
        self.send(200, b"", length=100)
        try:
            for _ in range(20):
                self.wfile.write(b".")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def reset(self, n: int) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)

    def hop(self, n: int) -> None:
        self.send(302, Location="good")

    def round_trip(self, n: int) -> None:
        self.send(302, Location="/round-trip")

    def away(self, n: int) -> None:
        self.send(302, Location="http://169.254.169.254/latest/meta-data/?api_key=s3cret")

    def to_a_file(self, n: int) -> None:
        self.send(302, Location="file:///etc/passwd")

    def nowhere(self, n: int) -> None:
        self.send(302)

    def marked(self, n: int) -> None:
        self.send(200, b"", length=10**9, X_Robots_Tag="noai")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Site(ThreadingHTTPServer):
    """The scripted host."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.netloc = f"127.0.0.1:{self.server_address[1]}"

    def count(self, path: str) -> int:
        return sum(urlsplit(seen).path == path for seen in self.asked)


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client() -> Iterator[Client]:
    found = Client("https://example.org/contact", SHORT)
    yield found
    found.close()


@pytest.fixture
def get(site: Site, client: Client) -> Iterator[Callable[..., Answer]]:
    """GET of one path of the site; the connection is given up before the site ends."""

    def ask(path: str, **options: object) -> Answer:
        return client.get(
            f"http://{site.netloc}{path}", **({"kind": "image", "hosts": frozenset({site.netloc})} | options)
        )

    yield ask
    client.close()


Get = Callable[..., Answer]
IMPATIENT = {"/stall": replace(SHORT, read_s=0.2), "/drip": replace(SHORT, deadline_s=0.5)}


@pytest.mark.parametrize(
    ("path", "outcome", "status", "body", "requests"),
    [
        ("/good", "ok", 200, b"good", 1),
        ("/packed", "ok", 200, b"unpacked", 1),
        ("/missing", "gone", 404, b"", 1),
        ("/heals", "ok", 200, b"healed", 3),
        ("/down", "unavailable", 500, b"", 3),
        ("/busy", "rate_limited", 429, b"", 3),
        ("/busy-for-an-hour", "rate_limited", 429, b"", 1),
        ("/cut", "truncated", 200, b"", 1),
        ("/huge", "too_large", 200, b"", 1),
        ("/bomb", "too_large", 200, b"", 1),
        ("/stall", "unavailable", 0, b"", 3),
        ("/drip", "unavailable", 200, b"", 1),
        ("/reset", "unavailable", 0, b"", 3),
        ("/hop", "ok", 200, b"good", 1),
        ("/round-trip", "denied", 302, b"", 6),
        ("/away", "forbidden_host", 0, b"", 1),
        ("/to-a-file", "forbidden_host", 0, b"", 1),
        ("/nowhere", "denied", 302, b"", 1),
    ],
)
def test_whatever_a_host_does_is_an_outcome(
    get: Get, site: Site, client: Client, path: str, outcome: str, status: int, body: bytes, requests: int
) -> None:
    """Nothing that a host does raises; only what may pass is asked for again, and only so often."""
    client.limits = IMPATIENT.get(path, SHORT)
    answer = get(path)
    assert (answer.outcome, answer.status, answer.body) == (outcome, status, body)
    assert site.count(path) == requests


@pytest.mark.parametrize("path", ["/busy-once", "/busy-until"])
def test_a_pause_that_a_host_asks_for_is_kept(get: Get, site: Site, client: Client, path: str) -> None:
    """Retry-After is waited for, as a number and as a date, by the next request of anybody; then the answer comes."""
    slept: list[float] = []
    client.sleep = lambda seconds: (slept.append(seconds), time.sleep(seconds))[1]
    assert get(path).outcome == "ok"
    assert site.count(path) == 2
    assert 0 < sum(slept) <= 1


def test_a_host_that_wants_a_long_pause_is_left_alone(get: Get, site: Site) -> None:
    """After Retry-After of an hour nothing more is sent to that host: further requests are refused at home."""
    first = get("/busy-for-an-hour")
    assert (first.outcome, first.retry_after_s) == ("rate_limited", pytest.approx(3600, abs=60))
    again = get("/good")
    assert again.outcome == "rate_limited"
    assert again.retry_after_s == pytest.approx(3600, abs=60)
    assert site.asked == ["/busy-for-an-hour"]
    assert get("/good", kind="api").outcome == "ok"


def test_a_veto_leaves_the_body_unread(get: Get) -> None:
    """A billion bytes behind a header that opts out are never waited for."""
    answer = get("/marked", veto=lambda headers: "opted_out" if headers.get("X-Robots-Tag") == "noai" else None)
    assert (answer.outcome, answer.body) == ("opted_out", b"")


def test_a_host_that_is_not_listed_is_never_asked(get: Get, site: Site) -> None:
    """Not even the first request leaves for a host that is not allowed."""
    assert get("/good", hosts=frozenset({"live.staticflickr.com"})).outcome == "forbidden_host"
    assert site.asked == []


def test_nothing_is_remembered_between_requests(get: Get, site: Site) -> None:
    """We say who we are and how to reach us, and send no cookie back."""
    get("/good")
    get("/good")
    agent = site.headers[1]["User-Agent"]
    assert agent.startswith("Darkroom/")
    assert agent.endswith("(+https://example.org/contact)")
    assert "Cookie" not in site.headers[1]


def test_a_host_that_is_not_there_is_unavailable(client: Client) -> None:
    """A refused connection says so in three words, without the libraries' own text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        netloc = f"127.0.0.1:{free.getsockname()[1]}"
    answer = client.get(f"http://{netloc}/x", kind="api", hosts=frozenset({netloc}), params={"api_key": "s3cret"})
    assert (answer.outcome, answer.status, answer.detail) == ("unavailable", 0, "no connection")
    assert "s3cret" not in repr(answer)


@pytest.mark.parametrize("path", ["/good", "/down", "/stall", "/reset", "/away", "/cut", "/busy"])
def test_a_key_reaches_the_host_and_nobody_else(
    get: Get, site: Site, client: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """The key goes out in the request; neither the answer nor any log line of any library has it."""
    client.limits = IMPATIENT.get(path, SHORT)
    caplog.set_level(logging.DEBUG)
    answer = get(path, params={"api_key": "s3cret"}, kind="api")
    assert "api_key=s3cret" in site.asked[0]
    assert "s3cret" not in repr(answer)
    assert "s3cret" not in caplog.text
