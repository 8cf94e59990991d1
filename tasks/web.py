"""The one HTTP client: who we are, which requests are tried again, where they may go, and what is never said aloud.

An answer is a value, also when there was none: a photo that cannot be fetched is a row with a reason. Whoever needs an
exception calls ``failure``. The exceptions of urllib3 end here, without ``from``: their texts hold the whole URL, and a
traceback would print the key in it. Every request on the wire takes a turn, those that are tried again too.

Source: RFC 9110 sections 10.2.3 (Retry-After), 13.1 and 14.4 (conditions and ranges), 15 (status codes).
"""

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from storage import partial
from storage.layout import layout
from storage.partial import Body
from storage.pauses import PauseFile
from storage.settings import settings
from tasks import budget, stopping
from tasks.addresses import host_of, is_allowed, is_loopback, is_set, redact, without_query
from tasks.pace import MIN_INTERVAL_S, Breaker, Lease, TokenBucket
from tasks.peers import DEADLINE, PrivateAddress, any_connections, public_connections
from tasks.verdicts import Answer, Outcome, announced, briefly, failure, opted_out, outcome_of, retry_after

__all__ = ["Answer", "Ask", "Client", "Limits", "Outcome", "client", "failure", "is_loopback", "pictures", "redact"]

Kind = Literal["api", "image"]
LeaseOf = Callable[[str, float], Lease | None]

_CHUNK_BYTES = 1 << 18
_ERROR_BYTES = 1 << 16  # of an API's error page: what it says may be worth reading
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Limits:
    """Every number of the client."""

    connect_s: float = 5.0
    read_s: float = 30.0  # of silence
    deadline_s: float = 300.0  # for one whole answer, over all tries
    body_bytes: int = 100_000_000  # Flickr takes photos up to 200 MB, but a JPEG of 100 MB is none we can train on
    redirects: int = 5
    retries: int = 3  # after a reset, a refused connection, a time-out, a 5xx, or a picture that was cut
    backoff_s: float = 0.5  # doubled with each retry, plus up to as much again
    backoff_max_s: float = 20.0
    pauses: int = 3  # how often one request waits for a host that answers 429
    pause_s: float = 10.0  # doubled each time, if the host does not say for how long
    pause_max_s: float = 120.0  # a host that wants more is reported instead of waited for
    api_per_s: float | None = None  # None: as the settings say
    api_burst: int = 60  # less for a small budget
    images_per_s: float | None = None
    images_burst: int = 8

    def backoff(self, attempt: int) -> float:
        """Seconds to wait before the retry after ``attempt`` (0 is the first)."""
        wait_s = self.backoff_s * 2.0**attempt
        return min(self.backoff_max_s, wait_s + random.uniform(0, wait_s))

    def pace(self, kind: Kind, host: str) -> tuple[float, int]:
        """Turns a second and burst for one host; an hour never sees more than its rate and one burst."""
        if kind == "image":
            return self.images_per_s or settings().images_per_s, self.images_burst
        per_s = self.api_per_s or settings().api_calls_per_hour / 3600
        if host in MIN_INTERVAL_S:
            return min(per_s, 1 / MIN_INTERVAL_S[host]), 1
        return per_s, max(1, min(self.api_burst, round(72 * per_s)))


LIMITS = Limits()


class Ask(Protocol):
    """How the file behind a URL is fetched. Raises DiskFull and Interrupted only: an answer says what went wrong.

    ``etag`` is that of a file which is held already: ``not_modified`` if it is still the same.
    """

    def __call__(self, url: str, etag: str | None = None, /) -> Answer:
        """The answer, with the whole body if it is good."""


@dataclass(frozen=True)
class Request:
    """One thing to ask for."""

    url: str
    kind: Kind
    hosts: frozenset[str]
    headers: Mapping[str, str] = field(default_factory=dict)
    method: Literal["GET", "POST"] = "GET"
    payload: bytes | None = None

    @property
    def shown(self) -> str:
        """Its address, as it may be shown and kept."""
        return without_query(self.url) if self.kind == "image" else redact(self.url)


@dataclass(frozen=True)
class Lane:
    """Pace and health of one host; its API and its pictures have their own."""

    bucket: TokenBucket
    breaker: Breaker = field(default_factory=Breaker)


class Client:
    """Asks sites for pages and pictures; threads may share it, and should: the pace of a host is kept here.

    ``lease`` gets turns of a budget that other processes share; ``parts``: the folder of transfers that were cut;
    ``pauses``: that in which processes tell each other which hosts want to be left alone.
    """

    def __init__(
        self, contact: str, limits: Limits, sleep: Callable[[float], None] = stopping.sleep, *,
        lease: LeaseOf = lambda name, per_s: None, parts: Path | None = None, pauses: Path | None = None,
    ) -> None:  # fmt: skip
        self.limits = limits
        self.sleep = sleep
        self._lease, self._parts, self._pauses = lease, parts, pauses
        self._lanes: dict[tuple[str, Kind], Lane] = {}
        self._lock = Lock()
        name = f"Darkroom/{version('darkroom')}"
        agent = {"User-Agent": f"{name} (+{contact})" if contact else name, "Accept": "*/*"}
        self._anywhere, self._public = any_connections(agent), public_connections(agent)

    def get(
        self, url: str, *, kind: Kind, hosts: frozenset[str], params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """What ``url`` answers; redirects are followed within ``hosts``. Waits for its turn and for pauses of the host.

        A picture whose transfer breaks off goes on where it stopped; one whose owner wants no machine to learn from it
        is not read. What an API is asked, and with which key, is never said in the clear where it began with TLS.
        """
        full_url = url + ("&" if urlsplit(url).query else "?") + urlencode(params) if params else url
        request = Request(full_url, kind, hosts, headers or {})
        for _ in range(self.limits.redirects + 1):
            answer = self._ask_if_allowed(request)
            if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                return answer
            try:
                there = urljoin(request.url, answer.headers["Location"])
                old, new = urlsplit(request.url), urlsplit(there)
            except ValueError:
                return replace(answer, outcome="forbidden_host", detail="it leads to what is no address")
            if kind == "api" and old.scheme == "https" != new.scheme:
                return replace(answer, outcome="forbidden_host", detail="it leads from https to what is not")
            request = replace(request, url=there, headers=request.headers if new.netloc == old.netloc else {})
        return replace(answer, outcome="denied", detail="too many redirects")

    def post_json(
        self, url: str, payload: Any, *, kind: Kind = "api", hosts: frozenset[str],
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """What ``url`` answers to ``payload``; redirects are not followed."""
        headers = {"Content-Type": "application/json"} | dict(headers or {})
        return self._ask_if_allowed(Request(url, kind, hosts, headers, "POST", json.dumps(payload).encode()))

    def close(self) -> None:
        """End the connections that are kept open."""
        self._anywhere.clear()
        self._public.clear()

    def _ask_if_allowed(self, request: Request) -> Answer:
        if not is_allowed(request.url, request.hosts):
            return Answer(request.shown, "forbidden_host", detail="its host is not an allowed one")
        return self._ask_patiently(request)

    def _ask_patiently(self, request: Request) -> Answer:
        """One hop; what may pass is asked again, and a 429 pauses the host for everybody, each only so often."""
        lane, tries, pauses, left_s = self._lane(request), 0, 0, self.limits.deadline_s
        while True:
            if lane.bucket.paused_s <= self.limits.pause_max_s and not self._is_admitted(lane):
                return Answer(request.shown, "unavailable", detail="circuit open: it has not answered for a while")
            if not lane.bucket.take(self.limits.pause_max_s):
                paused_s = lane.bucket.paused_s
                return Answer(request.shown, "rate_limited", 429, detail="paused", retry_after_s=paused_s)
            started = time.monotonic()
            answer = self._ask(request, started + left_s)
            left_s -= time.monotonic() - started
            if answer.outcome == "rate_limited":
                lane.breaker.answered()
                lane.bucket.pause(_or(answer.retry_after_s, self.limits.pause_s * 2.0**pauses))
                pauses += 1
                if pauses > self.limits.pauses:
                    return answer
            else:
                wait_s = _or(answer.retry_after_s, self.limits.backoff(tries))
                is_last = tries == self.limits.retries or left_s <= 0 or wait_s > self.limits.pause_max_s
                tries += 1
                if not self._is_tried_again(request, answer, lane, is_last):
                    return answer
                self.sleep(wait_s)

    def _is_admitted(self, lane: Lane) -> bool:
        """Whether the host counts as there; waits while another request finds that out."""
        while (found := lane.breaker.admits()) == "wait":
            self.sleep(_LOOK_EVERY_S)
        return found == "go"

    def _is_tried_again(self, request: Request, answer: Answer, lane: Lane, is_last: bool) -> bool:
        """Whether ``answer`` may be better next time; takes note of how the host is.

        A host that does not answer at all has failed each time, one that answers 5xx when it does so to the last.
        """
        if answer.outcome != "unavailable":
            lane.breaker.answered()
            lane.bucket.recover()
            return answer.outcome == "truncated" and request.kind == "image" and not is_last
        if is_last or answer.status == 0 or lane.breaker.is_open:
            lane.breaker.failed()
        return not is_last

    def _ask(self, request: Request, deadline: float) -> Answer:
        """One hop, once."""
        pool = self._anywhere if is_set(request.url, request.hosts) else self._public
        timeout = urllib3.Timeout(connect=self.limits.connect_s, read=self.limits.read_s)
        coding = {"Accept-Encoding": "identity" if request.kind == "image" else "gzip, deflate"}
        DEADLINE.set(deadline)
        try:
            with self._body(request) as body, pool.request(
                request.method, request.url, body=request.payload, redirect=False, retries=False, timeout=timeout,
                preload_content=False, headers={**pool.headers, **coding, **request.headers, **body.headers},
            ) as response:  # fmt: skip
                return self._read(response, request, body, deadline)
        except PrivateAddress as error:
            return Answer(request.shown, "forbidden_host", detail=f"its name leads inside: {error}")
        except ValueError:  # an address that the libraries cannot read, or no bytes can hold
            return Answer(request.shown, "denied", detail="no request can be made of this address")
        except urllib3.exceptions.HTTPError as error:
            return Answer(request.shown, outcome_of(error), detail=self._why(error, deadline))

    @contextmanager
    def _body(self, request: Request) -> Iterator[Body]:
        """Where the body goes: a picture's also into a file."""
        if request.kind == "api" or self._parts is None:
            yield Body()
        else:
            with partial.claim(self._parts, request.url) as body:
                yield body

    def _read(self, response: urllib3.BaseHTTPResponse, request: Request, body: Body, deadline: float) -> Answer:
        """The answer with its body, as far as it may, can and need be read."""
        answer = Answer(
            request.shown, outcome_of(response.status), response.status, response.headers,
            detail=f"HTTP {response.status}", retry_after_s=retry_after(response.headers, datetime.now(UTC)),
        )  # fmt: skip
        if response.status == 416 and body.headers:
            return _ended(answer, body)
        if answer.outcome != "ok":
            return replace(answer, body=_said(response) if request.kind == "api" else b"")
        if request.kind == "image" and opted_out(response.headers):
            body.begin()
            return replace(answer, outcome="opted_out")
        if response.status == 206:
            if not body.goes_on(response.headers):
                body.begin()
                return replace(answer, outcome="truncated", detail="it sent another range than was asked for")
        else:
            body.begin({} if response.headers.get("Content-Encoding") else response.headers)
        return self._receive(response, answer, body, deadline)

    def _receive(self, response: urllib3.BaseHTTPResponse, answer: Answer, body: Body, deadline: float) -> Answer:
        """``answer`` with what remains of its body. What has arrived of a body that breaks off stays in ``body``."""
        too_large = replace(answer, outcome="too_large", detail=f"more than {self.limits.body_bytes} bytes")
        if len(body.data) + (announced(response.headers) or 0) > self.limits.body_bytes:
            body.begin()
            return too_large
        try:
            while chunk := response.read1(_CHUNK_BYTES, decode_content=True):
                body.add(chunk)
                if len(body.data) > self.limits.body_bytes:
                    body.begin()
                    return too_large
        except urllib3.exceptions.HTTPError as error:
            return replace(answer, outcome=outcome_of(error), detail=self._why(error, deadline))
        return _whole(answer, body)

    def _why(self, error: Exception, deadline: float) -> str:
        """What went wrong, in the words of a row."""
        is_late = time.monotonic() >= deadline
        return f"not done in {self.limits.deadline_s:.0f} s" if is_late else briefly(error)

    def _lane(self, request: Request) -> Lane:
        """Pace and health of the host that ``request`` goes to."""
        host = host_of(request.url)
        with self._lock:
            if (key := (host, request.kind)) not in self._lanes:
                per_s, burst = self.limits.pace(request.kind, host.partition(":")[0])
                name = f"darkroom-{request.kind}-{host}"
                told = PauseFile(self._pauses, name) if self._pauses else None
                bucket = TokenBucket(per_s, burst, sleep=self.sleep, lease=lambda: self._lease(name, per_s), told=told)
                self._lanes[key] = Lane(bucket)
            return self._lanes[key]


class _OneClient:
    """The client of this process, made by whichever thread asks first: two would keep two paces and two budgets."""

    def __init__(self) -> None:
        self._made: Client | None = None
        self._making = Lock()

    def __call__(self) -> Client:
        """The same one every time."""
        with self._making:
            if self._made is None:
                where = layout()
                self._made = Client(
                    settings().contact, LIMITS, lease=budget.lease, parts=where.partial, pauses=where.pauses
                )
            return self._made

    def cache_clear(self) -> None:
        """Make another one next time."""
        self._made = None


client = _OneClient()


def pictures(hosts: frozenset[str]) -> Ask:
    """How pictures of ``hosts`` are fetched."""

    def ask(url: str, etag: str | None = None, /) -> Answer:
        held = {"If-None-Match": etag} if etag and partial.is_sendable(etag) else None
        return client().get(url, kind="image", hosts=hosts, headers=held)

    return ask


def _or(wait_s: float | None, otherwise_s: float) -> float:
    return otherwise_s if wait_s is None else wait_s


def _said(response: urllib3.BaseHTTPResponse) -> bytes:
    """The beginning of an error page, as far as it comes: the status says enough."""
    said = bytearray()
    with suppress(urllib3.exceptions.HTTPError):
        while len(said) < _ERROR_BYTES and (chunk := response.read1(_ERROR_BYTES, decode_content=True)):
            said += chunk
    return bytes(said)


def _whole(answer: Answer, body: Body) -> Answer:
    """``answer`` with all of ``body``, of which no part is kept."""
    data = bytes(body.data)
    body.begin()
    return replace(answer, body=data)


def _ended(answer: Answer, body: Body) -> Answer:
    """A 416: there is nothing more to come, or what had come is of another file and must come anew."""
    if body.is_whole(answer.headers):
        return _whole(replace(answer, outcome="ok", status=206), body)
    body.begin()
    return replace(answer, outcome="truncated", detail="what had arrived is of another file")


def _blank_secrets(record: logging.LogRecord) -> bool:
    """Blank out the secrets of a record, and let it pass: urllib3 logs the URLs that it asks for."""
    record.msg, record.args = redact(record.getMessage()), ()
    return True


for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_blank_secrets)
