"""The HTTP client over real sockets: what hosts do to it, and where it does not go."""

import contextlib
import errno
import gzip
import json
import logging
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from functools import partial as partial_of
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from storage import partial
from tasks import web
from tasks.errors import DiskFull, Interrupted
from tasks.pace import Lease
from tasks.stopping import STOPPING
from tasks.web import Answer, Client, Limits

FILE = bytes(range(240)) * 250  # 60,000 bytes
SHORT = Limits(
    connect_s=5, read_s=5, deadline_s=10, body_bytes=70_000, retries=2, backoff_s=0.001, backoff_max_s=0.002, pauses=2,
    pause_s=0.01, pause_max_s=2, api_per_s=10_000, api_burst=1000, images_per_s=10_000, images_burst=1000,
)  # fmt: skip


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {  # what is sent at once, and what again and again
    "/drip-status": (b"HTTP/1.1 200 ", b"O"),
    "/drip-header": (OK + b"X-Long: ", b"a"),
    "/drip-continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "/drip-error": (b"HTTP/1.1 500 No\r\nContent-Length: 60000\r\n\r\n", b"."),
    "/drip-length": (CHUNKED + b"5;", b"x"),
    "/drip-trailer": (CHUNKED + b"2\r\nok\r\n0\r\n", b"X-A: 1\r\n"),
    "/drip-nothing": (
        OK + b"Content-Encoding: gzip\r\nContent-Length: 60000\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        b"\x00\x00\x00\xff\xff",  # a block of no bytes
    ),
}


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
        if length != -1 and status != 304:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    @property
    def site(self) -> "Site":
        return self.server  # type: ignore[return-value]

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
        self.send(200, bytes(80_000))

    def stall_briefly(self, n: int) -> None:
        time.sleep(0.4)
        self.send(200, b"good")

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

    def slowly(self, n: int) -> None:
        first, again = DRIPS[urlsplit(self.path).path]
        with contextlib.suppress(OSError):
            self.wfile.write(first)
            for _ in range(40):
                self.wfile.write(again)
                time.sleep(0.05)
        self.close_connection = True

    drip_status = drip_header = drip_continue = drip_error = drip_length = drip_trailer = drip_nothing = slowly

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

    def endless_length(self, n: int) -> None:
        self.send(200, b"x", length=10**12)
        time.sleep(0.6)
        self.close_connection = True

    def endless(self, n: int) -> None:
        self.send(200, b"", length=-1)
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(10_000))
        self.close_connection = True

    def echo(self, n: int) -> None:
        self.send(200, self.sent)

    def refuse(self, n: int) -> None:
        self.send(422, b"CSRF invalid")

    def elsewhere(self, n: int) -> None:
        self.send(302, Location=self.site.elsewhere)

    def back(self, n: int) -> None:
        self.reset(n) if self.site.is_down else self.send(200, b"good")

    def file(self, first: bytes, **marks: str) -> None:
        """FILE of which only ``first`` is sent, or the range of it that is asked for."""
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") in marks.values():
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(FILE):
                self.send(416, Content_Range=f"bytes */{len(FILE)}")
            else:
                self.send(206, FILE[start:], Content_Range=f"bytes {start}-{len(FILE) - 1}/{len(FILE)}", **marks)
        else:
            self.send(200, first, length=len(FILE), **marks)
            self.close_connection = len(first) < len(FILE)

    def cut_once(self, n: int) -> None:
        self.file(FILE[:20_000], ETag='"v1"')

    def stall_once(self, n: int) -> None:
        self.file(FILE[:20_000], ETag='"v1"')
        time.sleep(0.4 if n == 1 else 0)

    def reset_once(self, n: int) -> None:
        self.file(FILE[:20_000], ETag='"v1"')
        if n == 1:
            self.wfile.flush()
            time.sleep(0.1)
            self.reset(n)

    def changed(self, n: int) -> None:
        if n == 1:
            self.send(200, b"o" * 20_000, length=len(FILE), ETag='"v0"')
            self.close_connection = True
        else:
            self.file(FILE, ETag='"v1"')

    def no_ranges(self, n: int) -> None:
        self.send(200, FILE[:20_000] if n == 1 else FILE, length=len(FILE), ETag='"v1"')
        self.close_connection = True

    def other_range(self, n: int) -> None:
        if n == 2:
            self.send(206, FILE[30_000:], Content_Range=f"bytes 30000-{len(FILE) - 1}/{len(FILE)}", ETag='"v1"')
        else:
            self.no_ranges(n)

    def ignores_if_range(self, n: int) -> None:
        if n == 2:
            self.send(206, FILE[20_000:], Content_Range=f"bytes 20000-{len(FILE) - 1}/{len(FILE)}", ETag='"v1"')
        else:
            self.changed(n)

    def dated_ignores_if_range(self, n: int) -> None:
        if n == 2:
            marks = {"Last_Modified": "Sun, 22 Nov 2026 12:00:00 GMT", "ETag": 'W/"v1"'}
            self.send(206, FILE[20_000:], Content_Range=f"bytes 20000-{len(FILE) - 1}/{len(FILE)}", **marks)
        else:
            self.dated(n) if n == 1 else self.no_ranges(n)

    def says_not_of_which(self, n: int) -> None:
        if n == 2:
            self.send(206, FILE[20_000:], Content_Range=f"bytes 20000-{len(FILE) - 1}/{len(FILE)}")
        else:
            self.changed(n)

    def not_to_the_end(self, n: int) -> None:
        if n == 2:
            self.send(206, FILE[20_000:30_000], Content_Range=f"bytes 20000-29999/{len(FILE)}", ETag='"v1"')
        else:
            self.no_ranges(n)

    def marked_weakly_by_now(self, n: int) -> None:
        if n == 2:
            self.send(206, FILE[20_000:], Content_Range=f"bytes 20000-{len(FILE) - 1}/{len(FILE)}", ETag='W/"v1"')
        else:
            self.no_ranges(n)

    def short_by_now(self, n: int) -> None:
        self.send(416, Content_Range="bytes */300") if n == 2 else self.no_ranges(n)

    def all_there(self, n: int) -> None:
        if n == 1:
            self.send(200, FILE, length=len(FILE) + 1, ETag='"v1"')
            self.close_connection = True
        else:
            self.file(FILE, ETag='"v1"')

    def unmarked(self, n: int) -> None:
        self.file(FILE[:20_000] if n == 1 else FILE)

    def weakly_marked(self, n: int) -> None:
        self.file(FILE[:20_000] if n == 1 else FILE, ETag='W/"v1"')

    def dated(self, n: int) -> None:
        if self.headers.get("If-None-Match") == '"v1"':
            self.send(304, ETag='"v1"')
        else:
            self.file(FILE[:20_000], Last_Modified="Sun, 22 Nov 2026 11:00:00 GMT")

    def slow_file(self, n: int) -> None:
        self.send(200, FILE[:30_000], length=len(FILE), ETag='"v1"')
        time.sleep(0.2)
        self.wfile.write(FILE[30_000:])

    def do_POST(self) -> None:
        self.sent = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

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
        self.hosts = frozenset({self.netloc})
        self.elsewhere = ""
        self.is_down = False
        self.open: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.append(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        """End what clients keep open."""
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up on a body that it does not want is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def count(self, path: str) -> int:
        return sum(urlsplit(seen).path == path for seen in self.asked)


class Peer(socket.socket):
    """A connection that says to lead to ``address``."""

    def __init__(self, number: int, address: str) -> None:
        super().__init__(fileno=number)
        self.address = address

    def getpeername(self) -> tuple[str, int]:
        return self.address, 80


@contextlib.contextmanager
def other_site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.hang_up()
    thread.join()
    server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with other_site() as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The folder of transfers that were cut."""
    return tmp_path / "partial"


@contextlib.contextmanager
def client_of(limits: Limits, parts: Path) -> Iterator[Client]:
    """A client as another process would have it."""
    found = Client("https://example.org/contact", limits, parts=parts)
    yield found
    found.close()


@pytest.fixture
def client(parts: Path) -> Iterator[Client]:
    with client_of(SHORT, parts) as found:
        yield found


@pytest.fixture
def get(site: Site, client: Client) -> Iterator[Callable[..., Answer]]:
    """GET of one path of the site; the connection is given up before the site ends."""

    def ask(path: str, **options: object) -> Answer:
        return client.get(
            f"http://{site.netloc}{path}", **({"kind": "image", "hosts": frozenset({site.netloc})} | options)
        )

    yield ask
    client.close()


def unused() -> str:
    """An address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


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
        ("/cut", "truncated", 200, b"", 3),
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


@pytest.mark.parametrize("kind", ["api", "image"])
@pytest.mark.parametrize("path", DRIPS)
def test_no_part_of_an_answer_outlasts_the_deadline(get: Get, site: Site, client: Client, path: str, kind: str) -> None:
    """A byte now and then, wherever in an answer, keeps nobody waiting for longer, and is no good answer."""
    client.limits = replace(SHORT, deadline_s=0.4)
    started = time.monotonic()
    answer = get(path, kind=kind)
    assert time.monotonic() - started < 1
    assert (answer.outcome, site.count(path)) == ("unavailable", 1 if path != "/drip-error" or kind == "api" else 3)
    assert answer.detail == ("HTTP 500" if path == "/drip-error" else "not done in 0 s")


@pytest.mark.parametrize("path", ["/drip-header", "/drip-nothing", "/drip-error"])
def test_whoever_receives_may_give_up(get: Get, site: Site, path: str) -> None:
    """Ctrl-C ends the wait for a slow answer within a second, wherever in it."""
    timer = threading.Timer(0.2, STOPPING.set)
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            get(path, kind="api")
    finally:
        STOPPING.clear()
    assert time.monotonic() - started < 1.5
    assert site.count(path) == 1


def test_an_error_page_is_read_as_far_as_it_comes(get: Get, client: Client) -> None:
    """Its status stands, and what it has said until the deadline is told."""
    client.limits = replace(SHORT, deadline_s=0.2)
    answer = get("/drip-error", kind="api")
    assert (answer.status, set(answer.body)) == (500, {ord(".")})


def test_a_deadline_is_over_with_its_answer(get: Get, site: Site, client: Client) -> None:
    """A connection that is used again waits as long as the new request may."""
    client.limits = replace(SHORT, deadline_s=0.3)
    assert get("/good").outcome == "ok"
    client.limits = SHORT
    time.sleep(0.35)
    assert get("/stall-briefly").outcome == "ok"
    assert len(site.open) == 1


@pytest.mark.parametrize("path", ["/busy-once", "/busy-until"])
def test_a_pause_that_a_host_asks_for_is_kept(get: Get, site: Site, client: Client, path: str) -> None:
    """Retry-After is waited for, as a number and as a date, by the next request of anybody; then the answer comes."""
    slept: list[float] = []
    client.sleep = lambda seconds: (slept.append(seconds), time.sleep(seconds))[1]
    assert get(path).outcome == "ok"
    assert site.count(path) == 2
    assert 0 < sum(slept) <= 1


def test_whoever_waits_for_a_turn_does_not_wait_for_a_host_that_wants_an_hour(site: Site, parts: Path) -> None:
    """One 429 that asks for too long a pause is the answer to all that stand in line, within seconds."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert sum(slept) < 20
        time.sleep(seconds)

    url, hosts = f"http://{site.netloc}/busy-for-an-hour", frozenset({site.netloc})
    with client_of(replace(SHORT, images_per_s=4, images_burst=1), parts) as client:
        client.sleep = sleep
        with ThreadPoolExecutor(8) as threads:
            answers = [threads.submit(client.get, url, kind="image", hosts=hosts) for _ in range(8)]
        assert {answer.result().outcome for answer in answers} == {"rate_limited"}
    assert len(site.asked) < 8


def test_a_host_that_wants_a_long_pause_is_left_alone(get: Get, site: Site) -> None:
    """After Retry-After of an hour nothing more is sent to that host: further requests are refused at home."""
    first = get("/busy-for-an-hour")
    assert (first.outcome, first.retry_after_s) == ("rate_limited", pytest.approx(3600, abs=60))
    again = get("/good")
    assert again.outcome == "rate_limited"
    assert again.retry_after_s == pytest.approx(3600, abs=60)
    assert site.asked == ["/busy-for-an-hour"]
    assert get("/good", kind="api").outcome == "ok"


def test_a_picture_that_opts_out_is_left_unread(get: Get) -> None:
    """A billion bytes behind a header that opts out are never waited for; pages of an API are no pictures."""
    answer = get("/marked")
    assert (answer.outcome, answer.body) == ("opted_out", b"")
    assert get("/marked", kind="api").outcome == "too_large"


def test_an_announced_size_is_believed(get: Get, site: Site) -> None:
    """A body that says to be too large is not waited for."""
    started = time.monotonic()
    assert get("/endless-length").outcome == "too_large"
    assert time.monotonic() - started < 0.5


def test_an_endless_body_ends(get: Get, site: Site) -> None:
    """A host that never stops is left after as many bytes as a picture may have."""
    assert get("/endless").outcome == "too_large"


def test_a_cut_reply_of_an_api_is_the_callers(get: Get, site: Site) -> None:
    """Who reads replies decides how often to ask again; the client does not multiply that."""
    assert get("/cut", kind="api").outcome == "truncated"
    assert site.count("/cut") == 1


def test_json_is_posted(site: Site, client: Client) -> None:
    """Body and headers arrive as given, nothing is remembered, and what an error says comes back."""
    url, hosts = f"http://{site.netloc}", frozenset({site.netloc})
    answer = client.post_json(f"{url}/echo", {"a": [1, "ü"]}, hosts=hosts, headers={"Cookie": "c=1"})
    assert (answer.outcome, json.loads(answer.body)) == ("ok", {"a": [1, "ü"]})
    assert (site.headers[0]["Cookie"], site.headers[0]["Content-Type"]) == ("c=1", "application/json")
    client.post_json(f"{url}/echo", {}, hosts=hosts)
    assert "Cookie" not in site.headers[1]
    refused = client.post_json(f"{url}/refuse", {}, hosts=hosts)
    assert (refused.outcome, refused.status, refused.body) == ("denied", 422, b"CSRF invalid")
    assert client.post_json(f"{url}/down", {}, hosts=hosts).outcome == "unavailable"
    assert site.count("/down") == 3
    client.close()


def test_headers_of_ours_do_not_follow_to_another_host(site: Site, client: Client) -> None:
    """A redirect to another host goes there without what was meant for the first."""
    with other_site() as other:
        site.elsewhere = f"http://{other.netloc}/good"
        hosts = frozenset({site.netloc, other.netloc})
        for path, netloc in (("/elsewhere", other), ("/hop", site)):
            assert (
                client.get(
                    f"http://{site.netloc}{path}", kind="api", hosts=hosts, headers={"X-Session": "s3cret"}
                ).outcome
                == "ok"
            )
            assert ("X-Session" in netloc.headers[-1]) is (netloc is site)
        client.close()


@pytest.mark.parametrize(
    ("kind", "begin", "end", "asked"),
    [("api", "https", "http", 1), ("api", "HTTPS", "HTTP", 1), ("api", "http", "http", 2), ("api", "http", "https", 2),
     ("api", "https", "https", 2), ("image", "https", "http", 2)],
)  # fmt: skip
def test_a_key_is_never_led_into_the_clear(
    client: Client, monkeypatch: pytest.MonkeyPatch, kind: Any, begin: str, end: str, asked: int
) -> None:
    """What an API is asked over TLS is not asked again without it, whatever the site says; a picture has no key."""
    answers = [
        Answer("x", "denied", 301, {"Location": f"{end}://api.example/?api_key=s3cret"}), Answer("x", "ok", 200),
    ]  # fmt: skip
    monkeypatch.setattr(Client, "_ask", lambda *_: answers.pop(0))
    answer = client.get(f"{begin}://api.example/?api_key=s3cret", kind=kind, hosts=frozenset({"api.example"}))
    assert (len(answers), answer.outcome) == (2 - asked, "ok" if asked == 2 else "forbidden_host")


def test_a_host_that_grants_nothing_is_soon_left_alone(
    site: Site, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 to everything: hundreds of pictures cost a few requests, in this process and in the next one."""
    monkeypatch.setattr("tasks.pace.PATIENCE_S", 0.05)
    url, outcomes = f"http://{site.netloc}/busy", set()
    for _ in range(2):
        client = Client("", SHORT, pauses=parts)
        with ThreadPoolExecutor(8) as threads:
            found = [threads.submit(client.get, url, kind="image", hosts=site.hosts) for _ in range(300)]
            outcomes |= {each.result().outcome for each in found}
        client.close()
    assert outcomes == {"rate_limited"}
    assert 8 <= len(site.asked) < 50


def test_a_host_has_one_lane_however_it_is_spelled(client: Client) -> None:
    """Its pace, its pause and its budget are one."""
    urls = ("http://IMG.example.org/1", "https://img.example.org/2", "http://img.example.org:80/3",
            "http://img.example.org./4")  # fmt: skip
    assert len({id(client._lane(web.Request(url, "image", frozenset()))) for url in urls}) == 1


@pytest.mark.parametrize("path", ["/cut-once", "/stall-once", "/reset-once"])
def test_a_transfer_goes_on_where_it_stopped(get: Get, site: Site, client: Client, parts: Path, path: str) -> None:
    """Cut, stalled, reset: the rest is asked for by range, if the file is still the same, and nothing is left over."""
    client.limits = replace(SHORT, read_s=0.2)
    answer = get(path)
    assert (answer.outcome, answer.status, answer.body) == ("ok", 206, FILE)
    assert [headers.get("Range") for headers in site.headers] == [None, "bytes=20000-"]
    assert site.headers[1]["If-Range"] == '"v1"'
    assert list(parts.glob("*")) == []


def test_a_killed_transfer_goes_on_in_another_process(site: Site, parts: Path) -> None:
    """What a process that is gone left behind is where the next one begins."""
    with client_of(replace(SHORT, retries=0), parts) as first:
        assert first.get(f"http://{site.netloc}/cut-once", kind="image", hosts=site.hosts).outcome == "truncated"
    assert len(list(parts.glob("*"))) == 1
    with client_of(SHORT, parts) as second:
        answer = second.get(f"http://{site.netloc}/cut-once", kind="image", hosts=site.hosts)
    assert (answer.outcome, answer.body, site.headers[1]["Range"]) == ("ok", FILE, "bytes=20000-")
    assert list(parts.glob("*")) == []


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/changed", [None, "bytes=20000-"]),  # 200: another file by now
        ("/no-ranges", [None, "bytes=20000-"]),  # 200: the host knows no ranges
        ("/other-range", [None, "bytes=20000-", None]),  # 206, but from elsewhere
        ("/ignores-if-range", [None, "bytes=20000-", None]),  # 206: the rest, but of another file
        ("/dated-ignores-if-range", [None, "bytes=20000-", None]),
        ("/says-not-of-which", [None, "bytes=20000-", None]),  # 206: the rest, but of another file for all it says
        ("/not-to-the-end", [None, "bytes=20000-", None]),  # 206: some of the rest
        ("/marked-weakly-by-now", [None, "bytes=20000-"]),  # 206: of the same file, packed for the way
        ("/short-by-now", [None, "bytes=20000-", None]),  # 416: the file is shorter now
        ("/all-there", [None, "bytes=60000-"]),  # 416: there is nothing more to come
        ("/unmarked", [None, None]),  # neither ETag nor Last-Modified: nobody could tell
        ("/weakly-marked", [None, None]),
        ("/dated", [None, "bytes=20000-"]),
    ],
)
def test_whatever_a_host_makes_of_a_range_the_file_is_right(
    get: Get, site: Site, parts: Path, path: str, asked: list[str | None]
) -> None:
    """Pieces of two files are never put together."""
    answer = get(path)
    assert (answer.outcome, answer.body) == ("ok", FILE)
    assert [headers.get("Range") for headers in site.headers] == asked
    assert list(parts.glob("*")) == []


def test_two_that_fetch_one_file_do_not_share_a_part(site: Site, parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one transfer has the part file, another of the same URL does without, and both get the file."""
    monkeypatch.setattr(partial, "MANY_BYTES", 1)
    url = f"http://{site.netloc}/slow-file"
    with client_of(SHORT, parts) as one, client_of(SHORT, parts) as other, ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda it: it.get(url, kind="image", hosts=site.hosts), [one, other]))
    assert [answer.body for answer in answers] == [FILE, FILE]
    assert [headers.get("Range") for headers in site.headers] == [None, None]
    assert list(parts.glob("*")) == []


def test_a_part_belongs_to_whoever_has_it(parts: Path) -> None:
    """Two transfers of one URL that both want to keep their bytes: the first one's stay as they are."""
    many, marks = partial.MANY_BYTES, {"ETag": '"v1"'}
    with partial.claim(parts, "u") as one, partial.claim(parts, "u") as other:
        for body, byte in ((one, b"1"), (other, b"2")):
            body.begin(marks)
            body.add(byte * many)
        with partial.claim(parts, "u") as third:
            assert not third.data
            third.begin(marks)
            third.add(b"3" * many)
    with partial.claim(parts, "u") as found:
        assert (bytes(found.data), found.validator) == (b"1" * many, '"v1"')


def test_old_parts_are_swept_away(parts: Path) -> None:
    """A part that nobody went on with for a week goes; a younger one stays."""
    with partial.claim(parts, "u") as body:
        body.begin({"ETag": '"v1"'})
        body.add(b"x")
    assert partial.sweep(parts) == 0
    assert partial.sweep(parts, time.time() + partial.KEEP_S + 60) == 1
    assert list(parts.glob("*")) == []


def test_a_file_that_is_held_is_not_sent_again(site: Site, parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If-None-Match: 304 is an answer, and a good one."""
    with client_of(SHORT, parts) as client:
        monkeypatch.setattr(web, "client", lambda: client)
        answer = web.pictures(site.hosts)(f"http://{site.netloc}/dated", '"v1"')
        assert (answer.outcome, answer.status, answer.body) == ("not_modified", 304, b"")
    assert list(parts.glob("*")) == []


def test_a_full_disk_is_named(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space for a part: DiskFull, not a strange answer."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(partial, "_append", full)
    with pytest.raises(DiskFull, match="no space left"):
        get("/dated")


def test_a_host_that_is_gone_is_not_asked_for_ever(client: Client) -> None:
    """After eight requests without an answer the others come back at once; other hosts are asked as ever."""
    netloc = unused()
    answers = [client.get(f"http://{netloc}/{n}", kind="image", hosts=frozenset({netloc})) for n in range(50)]
    assert {answer.outcome for answer in answers} == {"unavailable"}
    assert [answer.detail for answer in answers[:2]] == ["no connection", "no connection"]
    assert all(answer.detail.startswith("circuit open") for answer in answers[3:])


def test_a_circuit_closes_when_the_host_is_back(site: Site, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request tries; its answer lets all pass."""
    monkeypatch.setattr("tasks.pace.OPEN_S", 0.2)
    ask = partial_of(client.get, f"http://{site.netloc}/back", kind="image", hosts=site.hosts)
    site.is_down = True
    assert {ask().outcome for _ in range(12)} == {"unavailable"}
    assert ask().detail.startswith("circuit open")
    site.is_down = False
    time.sleep(0.25)
    assert [ask().outcome for _ in range(3)] == ["ok"] * 3
    client.close()


def test_a_few_broken_files_are_not_a_dead_host(get: Get, site: Site) -> None:
    """A 5xx is an answer of somebody: it counts once a file, not once a try."""
    for _ in range(4):
        assert get("/down").detail == "HTTP 500"
    assert get("/good").outcome == "ok"


def test_every_request_takes_a_turn(site: Site) -> None:
    """Retries are paced and counted like first tries."""
    taken: list[str] = []

    def lease(name: str, per_s: float) -> Lease:
        taken.append(name)
        return Lease(1, 60)

    client = Client("", SHORT, lease=lease)
    client.get(f"http://{site.netloc}/down", kind="api", hosts=site.hosts)
    client.get(f"http://{site.netloc}/busy", kind="image", hosts=site.hosts)
    client.close()
    api, image = (f"darkroom-{kind}-{site.netloc}" for kind in ("api", "image"))
    assert Counter(taken) == {api: site.count("/down"), image: site.count("/busy")} == {api: 3, image: 3}


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
def test_a_name_that_leads_inside_is_refused(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """A listed name whose look-up gives an inner address is not spoken to: the connected peer decides."""
    port = site.server_address[1]
    there = ("127.0.0.1", port)

    def connect(*_: object, **__: object) -> socket.socket:
        found = socket.create_connection(there)
        return Peer(found.detach(), address)

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    answer = client.get("http://pictures.example/good", kind="image", hosts=frozenset({"pictures.example"}))
    assert (answer.outcome, site.asked) == ("forbidden_host", [])
    assert address in answer.detail


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
    netloc = unused()
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
