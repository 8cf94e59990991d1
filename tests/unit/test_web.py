"""The HTTP client's pure half: which error an answer is, how long it waits, and what it keeps to itself."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from tasks import web
from tasks.errors import PermanentSourceError, RateLimited, SourceUnavailable
from tasks.verdicts import Answer, failure, retry_after

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_failures_say_what_to_do() -> None:
    """Each outcome becomes the class of error that says whether to wait, to check the line, or to stop."""
    assert failure(Answer("https://a/b", "ok", 200)) is None
    assert failure(Answer("https://a/b", "not_modified", 304)) is None
    limited = failure(Answer("https://a/b", "rate_limited", 429, retry_after_s=90.0))
    assert isinstance(limited, RateLimited)
    assert limited.retry_after_s == 90
    assert isinstance(failure(Answer("https://a/b", "unavailable")), SourceUnavailable)
    assert isinstance(failure(Answer("https://a/b", "truncated")), SourceUnavailable)
    for outcome in ("gone", "denied", "too_large", "forbidden_host", "opted_out"):
        assert isinstance(failure(Answer("https://a/b", outcome)), PermanentSourceError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), ("0", 0.0), ("Sun, 22 Nov 2026 12:01:30 GMT", 90.0), ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None), ("-5", None), ("", None), ("\xb2", None), ("9" * 5000, 86400.0),
        ("Sun, 22 Nov 2426 12:01:30 GMT", 86400.0), ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    """Seconds, or the time until a date, a day at most; nonsense asks for nothing."""
    assert retry_after({"Retry-After": value}, NOW) == seconds


def test_threads_that_begin_together_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients would keep two paces of one host, and lease two budgets."""
    made = []

    def slow(*args: object, **options: object) -> object:
        time.sleep(0.01)
        made.append(object())
        return made[-1]

    monkeypatch.setattr(web, "Client", slow)
    web.client.cache_clear()
    with ThreadPoolExecutor(32) as threads:
        clients = list(threads.map(lambda _: web.client(), range(64)))
    web.client.cache_clear()
    assert len(made) == len(set(map(id, clients))) == 1


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
