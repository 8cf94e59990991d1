"""The site over HTTP/1.1: two APIs, image hosts and a back door for tests, all on one loopback port.

    with StandIn(Catalogue.synthetic(200)) as site:
        requests.get(site.api_url, params=...)

The back door, which no real site has: ``GET /_standin/stats`` and ``/_standin/photos`` (the truth), ``POST`` (a list of
rules) and ``DELETE /_standin/faults``, ``POST /_standin/change`` (``{"action": "retitle", "arguments": [id, title]}``).
"""

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from tasks.sources.standin.answer import CHUNK_BYTES, Answer, RollingCount
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.facts import Photo
from tasks.sources.standin.faults import LENGTHS, Fault, FaultScript
from tasks.sources.standin.flickr_api import FlickrApi, Keys
from tasks.sources.standin.images import HostHabits, ImageHost
from tasks.sources.standin.photo_search import SearchHabits
from tasks.sources.standin.px500_api import LEGACY_PATH, PX500_PATH, Px500Api, Px500Habits
from tasks.sources.standin.px500_images import Px500Images

API_PATH = "/services/rest"
ACTIONS = ("retitle", "relicense", "make_private", "delete", "replace_file", "add")
DRIPS = 20


class StandIn:
    """A running site; a context manager. ``faults`` may grow while it runs, and so may the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        latency_s: float = 0.0,
        quota_per_hour: int = 3600,
        quota_window_s: float = 3600.0,
        faults: Iterable[Fault] = (),
        port: int = 0,
        keys: Keys | None = None,
        search_habits: SearchHabits | None = None,
        host_habits: HostHabits | None = None,
        px500_habits: Px500Habits | None = None,
    ) -> None:
        self.catalogue, self.latency_s = catalogue, latency_s
        self.faults = FaultScript(tuple(faults))
        self.quota = RollingCount(quota_per_hour, quota_window_s)
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.image_host = self.url
        self.api_url = f"{self.url}{API_PATH}/"
        self.api = FlickrApi(
            catalogue,
            self.quota,
            self.faults,
            image_host=self.image_host,
            keys=keys or Keys(),
            habits=search_habits or SearchHabits(),
        )
        self.images = ImageHost(catalogue, self.faults, host_habits or HostHabits())
        self.px500_url = f"{self.url}{PX500_PATH}"
        px500 = px500_habits or Px500Habits()
        self.px500_images = Px500Images(
            catalogue, self.faults, host_habits or HostHabits(), self.image_host, px500.url_life_s
        )
        self.px500 = Px500Api(catalogue, self.faults, self.px500_images, px500)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="standin", daemon=True)

    def __enter__(self) -> "StandIn":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def stats(self) -> dict[str, Any]:
        """What was asked so far: API calls by method, refused ones, image answers by status, faults that struck."""
        photos = self.catalogue.photos()
        return {
            "calls": dict(self.api.calls),
            "calls_total": sum(self.api.calls.values()),
            "calls_in_window": self.quota.current(),
            "calls_refused": self.quota.refused,
            "images": {str(status): count for status, count in self.images.statuses.items()},
            "images_total": sum(self.images.statuses.values()),
            "px500_calls": dict(self.px500.calls),
            "px500_images": {str(status): count for status, count in self.px500_images.statuses.items()},
            "faults": self.faults.counts(),
            "photos": len(photos),
            "photos_listed": sum(photo.is_listed for photo in photos),
        }


class _Server(ThreadingHTTPServer):
    """Threads that end with the site: it hangs up on clients that keep a connection open."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], site: StandIn) -> None:
        self.site = site
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread of its own."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection and end it."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End all connections."""
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "standin"
    sys_version = ""
    disable_nagle_algorithm = True

    @property
    def _site(self) -> StandIn:
        return cast(_Server, self.server).site

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: request lines hold API keys."""

    def do_GET(self) -> None:
        """API, back door or file."""
        address = urlsplit(self.path)
        headers = {name.title(): value for name, value in self.headers.items()}
        if address.path.rstrip("/") == API_PATH:
            self._deliver(self._site.api.answer(dict(parse_qsl(address.query, keep_blank_values=True))))
        elif address.path.startswith("/_standin/"):
            self._deliver(_back_door_get(self._site, address.path))
        elif address.path == "/":
            self._deliver(self._site.px500.first_page())
        elif address.path.startswith("/p/"):
            self._deliver(self._site.px500_images.answer(self.path, headers, self.client_address[0]))
        else:
            self._deliver(self._site.images.answer(address.path, headers, self.client_address[0]))

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_POST(self) -> None:
        """API with a form, GraphQL, or the back door with JSON."""
        address, body = urlsplit(self.path), self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if address.path.rstrip("/") == API_PATH:
            pairs = parse_qsl(address.query, keep_blank_values=True) + parse_qsl(body.decode(), keep_blank_values=True)
            self._deliver(self._site.api.answer(dict(pairs)))
        elif address.path in (PX500_PATH, LEGACY_PATH):
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._deliver(self._site.px500.answer(address.path, headers, body))
        else:
            self._deliver(_back_door_post(self._site, address.path, body))

    def do_DELETE(self) -> None:
        """Ends all faults."""
        found = self.path == "/_standin/faults"
        if found:
            self._site.faults.clear()
        self._deliver(Answer(204 if found else 404))

    def _deliver(self, answer: Answer) -> None:
        """Send ``answer`` the way it says."""
        site = self._site
        if site.latency_s:
            site.stopping.wait(site.latency_s)
        if answer.delivery == "stall":
            site.stopping.wait(answer.seconds)
        if answer.delivery in ("stall", "reset"):
            self._reset()
        elif answer.delivery in LENGTHS:
            self._start(answer, {"Content-Length": str(int(len(answer.body) * LENGTHS[answer.delivery]))})
            self._write(answer.body)
            self.close_connection = answer.delivery != "length_short"
        elif answer.delivery == "whole":
            self._start(answer, {"Content-Length": str(len(answer.body))})
            self._write(answer.body)
        else:
            self._start(answer, {"Transfer-Encoding": "chunked"})
            self._write_chunks(answer)

    def _start(self, answer: Answer, framing: dict[str, str]) -> None:
        """Status and headers."""
        self.send_response(answer.status)
        no_body = answer.status in (204, 304)
        for name, value in (answer.headers | ({} if no_body else framing)).items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, data: bytes) -> None:
        """``data``, unless only the headers were asked for."""
        if self.command != "HEAD" and data:
            self.wfile.write(data)

    def _write_chunks(self, answer: Answer) -> None:
        """The body in chunks; dripping slowly, or breaking off in the middle, where a fault says so."""
        body, step = answer.body, CHUNK_BYTES
        if answer.delivery == "truncated_stream":
            body = body[: len(body) // 2]
        if answer.delivery == "slow_drip":
            step = max(len(body) // DRIPS, 1)
        for start in range(0, len(body), step):
            if answer.delivery == "slow_drip":
                self._site.stopping.wait(answer.seconds / DRIPS)
            chunk = body[start : start + step]
            self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if answer.delivery == "endless":
            self._write_on(answer.seconds)
        if answer.delivery in ("truncated_stream", "endless"):
            self.close_connection = True
        else:
            self._write(b"0\r\n\r\n")

    def _write_on(self, seconds: float) -> None:
        """Chunk after chunk, until the client hangs up or the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._site.stopping.is_set():
            self._write(b"%x\r\n%b\r\n" % (CHUNK_BYTES, bytes(CHUNK_BYTES)))

    def _reset(self) -> None:
        """Drop the connection at once, with a reset instead of a farewell."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _json_answer(status: int, content: object) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def photo_truth(photo: Photo) -> dict[str, Any]:
    """The facts that a test in another process compares with."""
    return {
        "id": photo.id,
        "secret": photo.secret,
        "owner": photo.owner.nsid,
        "title": photo.title,
        "tags": list(photo.tags),
        "licence": photo.licence,
        "uploaded_at": photo.uploaded_at.isoformat(),
        "width": photo.width,
        "height": photo.height,
        "format": photo.original_format,
        "orientation": photo.orientation,
        "defect": photo.defect,
        "duplicate_of": photo.duplicate_of,
        "duplicate_kind": photo.duplicate_kind,
        "is_listed": photo.is_listed,
        "is_original_public": photo.is_original_public,
    }


def _back_door_get(site: StandIn, path: str) -> Answer:
    if path == "/_standin/stats":
        return _json_answer(200, site.stats())
    if path == "/_standin/photos":
        return _json_answer(200, [photo_truth(photo) for photo in site.catalogue.photos()])
    return Answer(404)


def _back_door_post(site: StandIn, path: str, body: bytes) -> Answer:
    """Add faults or change the catalogue; 400 with the reason if that cannot be done."""
    try:
        content = json.loads(body)
        if path == "/_standin/faults":
            site.faults.add(content if isinstance(content, list) else [content])
            return _json_answer(200, {"faults": site.faults.counts()})
        if path == "/_standin/change":
            return _json_answer(200, _change(site.catalogue, content["action"], content.get("arguments", [])))
    except (ValueError, TypeError, KeyError) as error:
        return _json_answer(400, {"error": f"{type(error).__name__}: {error}"})
    return Answer(404)


def _change(catalogue: Catalogue, action: str, arguments: list[Any]) -> list[dict[str, Any]]:
    """Do one of ACTIONS; the photos that it touched. Raises ValueError for another."""
    if action not in ACTIONS:
        raise ValueError(f"action {action!r}: expected one of {', '.join(ACTIONS)}")
    touched = getattr(catalogue, action)(*arguments)
    return [photo_truth(photo) for photo in (touched if isinstance(touched, list) else [touched])]


def scripted(rules: list[Fault]) -> list[dict[str, Any]]:
    """``rules`` as JSON for ``POST /_standin/faults``."""
    return [asdict(rule) for rule in rules]
