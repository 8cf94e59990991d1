"""The one HTTP client: who we are, how fast we may ask, which requests are tried again, and what is never said aloud.

An answer is a value, also when there was none: a photo that cannot be fetched is a row with a reason. Whoever needs an
exception calls ``failure``. The exceptions of requests and urllib3 end here, without ``from``: their texts hold the
whole URL, and a traceback would print the key in it.

Source: RFC 9110 sections 10.2.3 (Retry-After) and 15 (status codes); GCRA, ITU-T I.371 annex A (the token bucket).
"""

import ipaddress
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from threading import Lock
from typing import Literal
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from storage.settings import settings
from tasks.errors import DarkroomError, PermanentSourceError, RateLimited, SourceUnavailable

Kind = Literal["api", "image"]
Outcome = Literal[
    "ok", "gone", "denied", "opted_out", "rate_limited", "unavailable", "truncated", "too_large", "forbidden_host"
]

_SECRET = re.compile(r"(?i)\b(api_key|api_sig|oauth_\w+|\w*token|\w*secret|password)=[^&\s'\"<>)]+")
_CHUNK_BYTES = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SERVER_FAULTS = frozenset({500, 502, 503, 504})
_CONNECTIONS = 32  # kept open per host: a few batches of eight threads


@dataclass(frozen=True)
class Limits:
    """Every number of the client."""

    connect_s: float = 10.0
    read_s: float = 30.0  # of silence
    deadline_s: float = 300.0  # for one whole body
    body_bytes: int = 100_000_000  # Flickr takes photos up to 200 MB, but a JPEG of 100 MB is none we can train on
    redirects: int = 5
    retries: int = 3  # after a reset, a refused connection, a time-out or a 5xx
    backoff_s: float = 0.5  # doubled with each retry, plus up to as much again
    backoff_max_s: float = 20.0
    pauses: int = 3  # how often one request waits for a host that answers 429
    pause_s: float = 10.0  # doubled each time, if the host does not say for how long
    pause_max_s: float = 120.0  # a host that wants more is reported instead of waited for
    api_per_s: float = 3000 / 3600  # Flickr wants less than 3,600 an hour and key; retries live on the rest
    api_burst: int = 60
    images_per_s: float = 20.0
    images_burst: int = 8

    def backoff(self, attempt: int) -> float:
        """Seconds to wait before the retry after ``attempt`` (0 is the first)."""
        wait_s = self.backoff_s * 2.0**attempt
        return min(self.backoff_max_s, wait_s + random.uniform(0, wait_s))


LIMITS = Limits()


@dataclass(frozen=True)
class Answer:
    """What came back from ``url`` (the last one, after redirects; secrets blanked out). ``status`` 0: nothing did."""

    url: str
    outcome: Outcome
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    detail: str = ""
    retry_after_s: float | None = None


def redact(text: str) -> str:
    """``text`` with the values of keys, tokens and secrets blanked out."""
    return _SECRET.sub(r"\1=***", text)


def classify(event: int | Exception) -> Outcome:
    """What a status code, or an exception of requests or urllib3, means for the photo or page that was asked for."""
    if isinstance(event, Exception):
        is_cut = "IncompleteRead" in repr(event) or isinstance(event, urllib3.exceptions.DecodeError)
        return "truncated" if is_cut else "unavailable"
    if 200 <= event < 300:
        return "ok"
    if event in (404, 410):
        return "gone"
    if event == 429:
        return "rate_limited"
    return "unavailable" if event in (408, 425) or event >= 500 else "denied"


def failure(answer: Answer) -> DarkroomError | None:
    """The exception that says what to do about ``answer``; None if it is good."""
    host = urlsplit(answer.url).netloc
    match answer.outcome:
        case "ok":
            return None
        case "rate_limited":
            wait = "a while" if answer.retry_after_s is None else f"{answer.retry_after_s:.0f} s"
            return RateLimited(f"{host} has had enough of our requests: run again in {wait}", answer.retry_after_s)
        case "unavailable" | "truncated":
            return SourceUnavailable(
                f"{host} gave no usable answer ({answer.detail or answer.outcome}): check that it can be reached from "
                "here, or run again later"
            )
        case _:
            return PermanentSourceError(
                f"{answer.url} is refused ({answer.detail or answer.outcome}): asking again will not help"
            )


def is_allowed(url: str, hosts: frozenset[str]) -> bool:
    """Whether ``url`` is plain http(s) to one of ``hosts``: ``host`` (any port) or ``host:port``.

    A loopback or private address is a host like any other: refused unless it is listed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return False
    if not parts.hostname or parts.username is not None:
        return False
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host in hosts or f"{host}:{port}" in hosts


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date; None if it asks for nothing."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


class TokenBucket:
    """``burst`` turns at once, then ``per_s`` a second; slower after ``pause``, and faster again with each ``recover``.

    Any number of threads may share one.
    """

    def __init__(
        self, per_s: float, burst: int,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._full_per_s = self.per_s = per_s
        self._burst, self._clock, self._sleep, self._lock = burst, clock, sleep, Lock()
        self._next = float("-inf")  # when the next turn would be due if there were no burst
        self._paused_until = float("-inf")

    def take(self) -> None:
        """Wait for a turn, and for the end of a pause that begins while waiting."""
        self._sleep(self._reserve())
        while self.paused_s > 0:
            self._sleep(self._reserve())

    @property
    def paused_s(self) -> float:
        """Seconds that the host still wants to be left alone."""
        return max(0.0, self._paused_until - self._clock())

    def pause(self, seconds: float) -> None:
        """Give nobody a turn for ``seconds``, and halve the rate unless a pause has just done so."""
        with self._lock:
            now = self._clock()
            if now >= self._paused_until:
                self.per_s = max(self.per_s / 2, self._full_per_s / 64)  # down to a file in 3 s
            self._paused_until = max(self._paused_until, now + seconds)
            self._next = max(self._next, self._paused_until)

    def recover(self) -> None:
        """Speed up a little, to the full rate at most."""
        with self._lock:
            self.per_s = min(self._full_per_s, self.per_s + self._full_per_s / 100)

    def _reserve(self) -> float:
        """Take the next free turn; seconds until it."""
        with self._lock:
            now = self._clock()
            spare_s = (self._burst - 1) / self.per_s if now >= self._paused_until else 0.0
            turn = max(self._next, now - spare_s)
            self._next = turn + 1 / self.per_s
            return max(0.0, turn - now)


class Client:
    """Asks sites for pages and pictures; threads may share it, and should: the pace of a host is kept here."""

    def __init__(self, contact: str, limits: Limits, sleep: Callable[[float], None] = time.sleep) -> None:
        self.limits = limits
        self.sleep = sleep
        self._buckets: dict[tuple[str, Kind], TokenBucket] = {}
        self._lock = Lock()
        name = f"Darkroom/{version('darkroom')}"
        self._session = _session(f"{name} (+{contact})" if contact else name, limits)

    def get(
        self, url: str, *, kind: Kind, hosts: frozenset[str], params: Mapping[str, str] | None = None,
        veto: Callable[[Mapping[str, str]], Outcome | None] = lambda headers: None,
    ) -> Answer:  # fmt: skip
        """What ``url`` answers; redirects are followed within ``hosts``. Waits for its turn and for pauses of the host.

        ``veto`` sees the headers of a good answer and may name a reason to leave its body unread.
        """
        full_url = requests.Request("GET", url, params=params).prepare().url if is_allowed(url, hosts) else url
        for _ in range(self.limits.redirects + 1):
            if full_url is None or not is_allowed(full_url, hosts):
                return Answer(redact(full_url or url), "forbidden_host", detail="its host is not an allowed one")
            answer = self._ask_patiently(full_url, kind, veto)
            if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                return answer
            full_url = urljoin(full_url, answer.headers["Location"])
        return replace(answer, outcome="denied", detail="too many redirects")

    def close(self) -> None:
        """End the connections that are kept open."""
        self._session.close()

    def _ask_patiently(self, url: str, kind: Kind, veto: Callable[[Mapping[str, str]], Outcome | None]) -> Answer:
        """One hop; a 429 pauses the host for everybody and is asked again, unless the pause would be too long."""
        bucket = self._bucket(urlsplit(url).netloc, kind)
        for attempt in range(self.limits.pauses + 1):
            if bucket.paused_s > self.limits.pause_max_s:
                return Answer(redact(url), "rate_limited", 429, detail="paused", retry_after_s=bucket.paused_s)
            bucket.take()
            answer = self._ask(url, veto)
            if answer.outcome != "rate_limited":
                bucket.recover()
                break
            bucket.pause(self.limits.pause_s * 2.0**attempt if answer.retry_after_s is None else answer.retry_after_s)
        return answer

    def _ask(self, url: str, veto: Callable[[Mapping[str, str]], Outcome | None]) -> Answer:
        """One hop, once (but for the retries of the transport)."""
        started = time.monotonic()
        try:
            with self._session.get(
                url, stream=True, allow_redirects=False, timeout=(self.limits.connect_s, self.limits.read_s)
            ) as response:
                return self._read(response, started + self.limits.deadline_s, veto)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return Answer(redact(url), classify(error), detail=_briefly(error))

    def _read(
        self, response: requests.Response, deadline: float, veto: Callable[[Mapping[str, str]], Outcome | None]
    ) -> Answer:
        """The answer with its body, as far as it may, can and need be read."""
        answer = Answer(
            redact(response.url), classify(response.status_code), response.status_code, response.headers,
            detail=f"HTTP {response.status_code}", retry_after_s=retry_after(response.headers, datetime.now(UTC)),
        )  # fmt: skip
        if answer.outcome != "ok":
            return answer
        if reason := veto(response.headers):
            return replace(answer, outcome=reason)
        body = bytearray()
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                body += chunk
                if len(body) > self.limits.body_bytes:
                    return replace(answer, outcome="too_large", detail=f"more than {self.limits.body_bytes} bytes")
                if time.monotonic() > deadline:
                    return replace(answer, outcome="unavailable", detail=f"not done in {self.limits.deadline_s:.0f} s")
        except urllib3.exceptions.HTTPError as error:
            return replace(answer, outcome=classify(error), detail=_briefly(error))
        return replace(answer, body=bytes(body))

    def _bucket(self, netloc: str, kind: Kind) -> TokenBucket:
        """The bucket of a host; its API and its pictures have their own."""
        per_s, burst = {
            "api": (self.limits.api_per_s, self.limits.api_burst),
            "image": (self.limits.images_per_s, self.limits.images_burst),
        }[kind]
        with self._lock:
            return self._buckets.setdefault((netloc, kind), TokenBucket(per_s, burst, sleep=self.sleep))


@cache
def client() -> Client:
    """The client of this process."""
    return Client(settings().contact, LIMITS)


class _Retry(Retry):
    """Retries inside one request. A 429 is not among them, Retry-After or not: it is for every thread to heed."""

    RETRY_AFTER_STATUS_CODES = frozenset({503})


def _session(agent: str, limits: Limits) -> requests.Session:
    """A session without memory: no cookies, and nothing that differs from one request to the next."""
    session = requests.Session()
    session.headers.update({"User-Agent": agent, "Accept": "*/*"})
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    retry = _Retry(
        total=limits.retries, status_forcelist=_SERVER_FAULTS, allowed_methods={"GET"}, raise_on_status=False,
        redirect=0, backoff_factor=limits.backoff_s, backoff_max=limits.backoff_max_s, backoff_jitter=limits.backoff_s,
        retry_after_max=int(limits.pause_max_s),
    )  # fmt: skip
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_connections=8, pool_maxsize=_CONNECTIONS))
    return session


def _briefly(error: Exception) -> str:
    """What went wrong, without the URL that the libraries put into their messages."""
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    cause = getattr(cause, "reason", None) or cause
    names = {"NewConnectionError": "no connection", "NameResolutionError": "no such host", "SSLError": "no safe line"}
    name = type(cause).__name__
    return names.get(name, "no answer in time" if "Timeout" in name else f"the connection broke: {name}")


def _blank_secrets(record: logging.LogRecord) -> bool:
    """Blank out the secrets of a record, and let it pass: urllib3 logs the URLs that it tries again."""
    record.msg, record.args = redact(record.getMessage()), ()
    return True


for _name in ("urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_blank_secrets)
