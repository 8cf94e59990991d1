"""The HTTP client's pure half: what a status means, where it may go, how fast, and what it keeps to itself."""

import logging
from datetime import UTC, datetime

import pytest
import requests
import urllib3

from tasks import web
from tasks.errors import PermanentSourceError, RateLimited, SourceUnavailable
from tasks.web import Answer, Limits, TokenBucket, classify, failure, is_allowed, redact, retry_after

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOSTS = frozenset({"live.staticflickr.com", "127.0.0.1:8123", "[::1]:80"})


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def bucket(per_s: float, burst: int) -> tuple[TokenBucket, Clock]:
    clock = Clock()
    return TokenBucket(per_s, burst, clock, clock.sleep), clock


def turns(of: TokenBucket, clock: Clock, count: int) -> list[float]:
    """Seconds, from now, at which ``count`` turns are given."""
    start, given = clock.now_s, []
    for _ in range(count):
        of.take()
        given.append(round(clock.now_s - start, 6))
    return given


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    """Three turns are free, the next ones come every half second."""
    assert turns(*bucket(2, 3), 6) == [0, 0, 0, 0.5, 1.0, 1.5]


def test_rest_fills_a_bucket_to_its_burst_and_no_further() -> None:
    """A day without requests does not save up more than one burst."""
    of, clock = bucket(2, 3)
    turns(of, clock, 3)
    clock.sleep(86400)
    assert turns(of, clock, 5) == [0, 0, 0, 0.5, 1.0]


def test_an_hour_never_sees_more_than_the_rate_and_one_burst() -> None:
    """With the figures for Flickr's API an hour stays below its 3,600 calls."""
    limits = Limits()
    given = turns(*bucket(limits.api_per_s, limits.api_burst), 4000)
    assert sum(turn < 3600 for turn in given) <= 3000 + limits.api_burst + 1 < 3600


def test_a_pause_stops_everybody_and_halves_the_rate() -> None:
    """After a 429 nobody gets a turn for the pause, no burst follows it, and turns come at half the rate."""
    of, clock = bucket(2, 3)
    of.pause(60)
    assert of.paused_s == 60
    assert turns(of, clock, 3) == [60, 61, 62]


def test_a_pause_that_begins_during_a_wait_is_waited_for() -> None:
    """A thread that sleeps towards its turn does not slip through when the host asks for a pause meanwhile."""
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now_s == 1001.0:
            of.pause(10)

    of = TokenBucket(1, 1, clock, sleep)
    of.take()
    of.take()
    assert clock.now_s >= 1011.0


def test_many_threads_that_hit_one_limit_slow_the_host_down_once() -> None:
    """Eight 429s in the same moment halve the rate once, and good answers bring it back."""
    of, _ = bucket(8, 1)
    for _ in range(8):
        of.pause(5)
    assert of.per_s == 4
    for _ in range(100):
        of.recover()
    assert of.per_s == 8


def test_the_rate_never_falls_to_nothing() -> None:
    """However often a host complains, the next turn comes within its lifetime."""
    of, clock = bucket(64, 1)
    for _ in range(50):
        of.pause(1)
        clock.sleep(2)
    assert of.per_s == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"), (206, "ok"), (301, "denied"), (400, "denied"), (401, "denied"), (403, "denied"), (404, "gone"),
        (408, "unavailable"), (410, "gone"), (418, "denied"), (425, "unavailable"), (429, "rate_limited"),
        (451, "denied"),
        (500, "unavailable"), (502, "unavailable"), (503, "unavailable"), (504, "unavailable"), (599, "unavailable"),
    ],
)  # fmt: skip
def test_every_status_has_one_meaning(status: int, outcome: str) -> None:
    """Gone is not denied, and only what may pass is transient."""
    assert classify(status) == outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (requests.ConnectTimeout(), "unavailable"),
        (requests.ConnectionError(), "unavailable"),
        (urllib3.exceptions.ProtocolError("Connection broken: ConnectionResetError(104)"), "unavailable"),
        (urllib3.exceptions.IncompleteRead(3, 5), "truncated"),
        (urllib3.exceptions.ProtocolError("Connection broken: IncompleteRead(3 bytes read)"), "truncated"),
        (urllib3.exceptions.DecodeError("bad gzip"), "truncated"),
    ],
)
def test_exceptions_of_the_libraries_mean_unreachable_or_cut(error: Exception, outcome: str) -> None:
    """A transfer that broke off is asked for again at once; a host that does not answer is not."""
    assert classify(error) == outcome


def test_failures_say_what_to_do() -> None:
    """Each outcome becomes the class of error that says whether to wait, to check the line, or to stop."""
    assert failure(Answer("https://a/b", "ok", 200)) is None
    limited = failure(Answer("https://a/b", "rate_limited", 429, retry_after_s=90.0))
    assert isinstance(limited, RateLimited)
    assert limited.retry_after_s == 90
    assert isinstance(failure(Answer("https://a/b", "unavailable")), SourceUnavailable)
    assert isinstance(failure(Answer("https://a/b", "truncated")), SourceUnavailable)
    for outcome in ("gone", "denied", "too_large", "forbidden_host", "opted_out"):
        assert isinstance(failure(Answer("https://a/b", outcome)), PermanentSourceError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "https://live.staticflickr.com/1/2_b.jpg", "http://LIVE.staticflickr.com/1/2_b.jpg", "http://127.0.0.1:8123/x",
        "http://[::1]/x",
    ],
)  # fmt: skip
def test_listed_hosts_may_be_asked(url: str) -> None:
    """A host is listed with its port, or for all ports."""
    assert is_allowed(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://127.0.0.1:22/x", "http://localhost:8123/x", "http://169.254.169.254/latest",
        "http://10.0.0.1/x", "https://staticflickr.com/x", "https://live.staticflickr.com.evil.org/x",
        "https://live.staticflickr.com@evil.org/x", "https://user@live.staticflickr.com/x", "file:///etc/passwd",
        "ftp://live.staticflickr.com/x", "//live.staticflickr.com/x", "http://[::1/x", "http://live.staticflickr.com:x/",
        "",
    ],
)  # fmt: skip
def test_nobody_else_may_be_asked(url: str) -> None:
    """Neither this machine nor its neighbours, nor a name that only looks like a listed one."""
    assert not is_allowed(url, HOSTS)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), ("0", 0.0), ("Sun, 22 Nov 2026 12:01:30 GMT", 90.0), ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None), ("-5", None), ("", None),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    """Seconds, or the time until a date; nonsense asks for nothing."""
    assert retry_after({"Retry-After": value}, NOW) == seconds


def test_secrets_are_blanked_out() -> None:
    """Neither a URL nor a sentence around it keeps the key; the rest stays readable."""
    url = "https://api.flickr.com/services/rest/?method=flickr.test.echo&api_key=0123abcd&text=a"
    assert redact(url) == "https://api.flickr.com/services/rest/?method=flickr.test.echo&api_key=***&text=a"
    assert "s3cret" not in redact(
        "broken: '/x?oauth_token=s3cret&api_sig=s3cret' client_secret=s3cret, auth_token=s3cret"
    )


def test_urllib3_logs_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """The warnings of urllib3 about a retry name the URL; its key is gone before any handler sees it."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).warning("Retrying (%r) after connection broken: %s", 1, "/rest/?api_key=s3cret")
    assert len(caplog.records) == 2
    assert "s3cret" not in caplog.text


def test_backoff_doubles_with_jitter_up_to_its_bound() -> None:
    """Each retry waits one to two times its share, and never longer than the bound."""
    limits = web.Limits(backoff_s=1, backoff_max_s=6)
    for attempt, low_s, high_s in ((0, 1, 2), (1, 2, 4), (2, 4, 6), (9, 6, 6)):
        assert all(low_s <= limits.backoff(attempt) <= high_s for _ in range(50))
