"""Which bytes count as a photo, when to try again, and when a whole batch is nobody's."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from PIL import Image

from storage import blobs
from storage.layout import Layout
from tasks.download import PHOTOS_TO_BLAME_HOST, Site, check_reached, climb, fetch, judge, next_try_at, withheld
from tasks.errors import CredentialsRejected, Interrupted, PermanentSourceError, SourceChanged, SourceUnavailable
from tasks.sources.base import Seen
from tasks.web import Answer

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def picture(image_format: str = "JPEG") -> bytes:
    stream = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(stream, image_format)
    return stream.getvalue()


def good(body: bytes = b"", content_type: str = "image/jpeg", url: str = "https://h/1.jpg") -> Answer:
    return Answer(url, "ok", 200, {"Content-Type": content_type}, body)


NO_MACHINES = {"X-Robots-Tag": "noai"}
DENIED = Answer("https://h/1", "denied", 403)
KEY = {"source": "500px", "photo_id": "1", "attempt": 0}


@pytest.mark.parametrize(
    ("reason", "attempt", "after"),
    [
        (None, 0, None), ("opted_out", 0, None), ("forbidden_host", 3, None), ("too_large", 0, None),
        ("too_many_pixels", 0, None), ("rate_limited", 0, 0 * DAY), ("unavailable", 9, 0 * DAY), ("gone", 0, 30 * DAY),
        ("denied", 5, 30 * DAY), ("no_image_url", 0, 30 * DAY), ("not_downloadable", 0, 30 * DAY),
        ("truncated", 0, DAY), ("truncated", 1, 2 * DAY),
        ("empty", 4, 16 * DAY), ("html", 5, 30 * DAY), ("corrupt", 500, 30 * DAY), ("not_an_image", 2, 4 * DAY),
    ],
)  # fmt: skip
def test_the_next_try_depends_on_the_reason(reason: str | None, attempt: int, after: timedelta | None) -> None:
    """At once what may pass, ever more rarely what is broken, monthly what is gone, never what is not wanted."""
    assert next_try_at(reason, attempt, NOW) == (None if after is None else NOW + after)


@pytest.mark.parametrize(
    ("answer", "reason", "image_format"),
    [
        (good(picture()), None, "JPEG"),
        (good(picture("PNG")), None, "PNG"),
        (good(picture("WEBP"), "application/octet-stream"), None, "WEBP"),
        (good(b""), "empty", None),
        (good(b"", "text/html"), "empty", None),
        (good(b"<!DOCTYPE html><html>", "image/jpeg"), "html", None),
        (good(b"Sorry", "text/html; charset=utf-8"), "html", None),
        (good(picture()[:-200]), "truncated", None),
        (good(b"%PDF-1.7 something else"), "not_an_image", None),
        (Answer("https://h/1.jpg", "gone", 404), "gone", None),
        (Answer("https://h/1.jpg", "truncated", 200), "truncated", None),
        (Answer("https://h/1.jpg", "opted_out", 200), "opted_out", None),
        (Answer("https://h/1.jpg", "not_modified", 304), "unavailable", None),
        (good(picture(), url="https://h/photo_unavailable_l.png"), "gone", None),
        (Answer("https://elsewhere/photo_unavailable.png", "forbidden_host"), "gone", None),
    ],
)
def test_the_bytes_decide(answer: Answer, reason: str | None, image_format: str | None) -> None:
    """Names and declared types may lie; what does not decode to the end is no photo."""
    fetched = judge(answer)
    assert (fetched.reason, fetched.format) == (reason, image_format)


def test_not_modified_is_an_answer_to_those_who_hold_the_file() -> None:
    """The owner's word counts in it too."""
    same, refused = (Answer("https://h/1.jpg", "not_modified", 304, headers) for headers in ({}, NO_MACHINES))
    assert judge(same, '"v1"').reason == "not_modified"
    assert judge(refused, '"v1"').reason == "opted_out"


def test_a_304_that_nobody_asked_for_is_no_photo(where: Layout) -> None:
    """The photo is due at once, and not held; a held one whose first address is gone is not said to be the same."""
    same = Answer("https://h/1.jpg", "not_modified", 304)
    row = fetch(KEY | {"renditions": RUNGS}, Site(Script(o=[same])), where)
    assert (row["download_reason"], row["next_try_at"]) == ("unavailable", row["fetched_at"])
    held = {"sha256": blobs.put(where, picture(), "JPEG"), "bytes": 9, "format": "JPEG", "etag": '"v1"'}
    row = fetch(KEY | held | {"renditions": RUNGS}, Site(Script(o=[GONE], l=[same])), where)
    assert (row["download_reason"], row["sha256"], row["next_try_at"]) == (None, held["sha256"], row["fetched_at"])


class Script:
    """Answers a script for each URL, and remembers what was asked."""

    def __init__(self, **script: list[Answer]) -> None:
        self.script = script
        self.asked: list[str] = []

    def __call__(self, url: str, etag: str | None = None, /) -> Answer:
        self.asked.append(url)
        return self.script[url].pop(0)


RUNGS = [{"label": "Original", "url": "o"}, {"label": "Large", "url": "l"}]
GONE = Answer("https://h/1", "gone", 404)


@pytest.mark.parametrize(
    ("site", "asked", "label", "reason"),
    [
        (lambda: Script(o=[good(picture())]), ["o"], "Original", None),
        (lambda: Script(o=[GONE], l=[good(picture())]), ["o", "l"], "Large", None),
        (lambda: Script(o=[GONE], l=[GONE]), ["o", "l"], "Large", "gone"),
        (lambda: Script(o=[Answer("https://h/1", "denied", 403)]), ["o"], "Original", "denied"),
        (lambda: Script(o=[good(b""), good(picture())]), ["o", "o"], "Original", None),
        (lambda: Script(o=[good(b""), good(b"")]), ["o", "o"], "Original", "empty"),
        (lambda: Script(o=[good(b""), GONE], l=[good(picture())]), ["o", "o", "l"], "Large", None),
        (lambda: Script(o=[Answer("https://h/1", "unavailable")]), ["o"], "Original", "unavailable"),
    ],
)
def test_the_ladder_is_climbed_down(
    site: Callable[[], Script], asked: list[str], label: str, reason: str | None
) -> None:
    """Only what is gone leads to the next smaller size; broken bytes are asked for once more, and no more."""
    answers = site()
    rendition, fetched = climb(RUNGS, answers)
    assert (answers.asked, rendition["label"], fetched.reason) == (asked, label, reason)


def test_a_photo_without_a_url_is_a_row_with_a_reason(where: Layout) -> None:
    """Nothing is asked for, and the row says why."""
    wanted = {"source": "flickr", "photo_id": "1", "attempt": 0, "renditions": []}
    assert fetch(wanted, Site(Script()), where)["download_reason"] == "no_image_url"


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Seen("present", ""), None), (Seen("present", "", is_download_allowed=False), "not_downloadable"),
        (Seen("gone", ""), "gone"), (Seen("unknown", ""), None), (SourceUnavailable("busy"), "unavailable"),
    ],
)  # fmt: skip
def test_a_photo_whose_original_is_hidden_is_asked_about_first(
    where: Layout, seen: Seen | Exception, reason: str | None
) -> None:
    """An owner who forbids downloads hides the original: the site is asked, once, and its word is heeded."""
    asked = []

    def inspect(photo_id: str) -> Seen:
        asked.append(photo_id)
        if isinstance(seen, Exception):
            raise seen
        return seen

    for is_open, expected in ((False, reason), (True, None), (None, None)):
        wanted = KEY | {"renditions": [{"label": "Large", "url": "l"}], "is_open": is_open}
        answers = Script(l=[good(picture())])
        row = fetch(wanted, Site(answers, inspect=inspect), where)
        assert row["download_reason"] == expected
        assert answers.asked == ([] if expected else ["l"])
    assert asked == ["1"]


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (GONE, True), (DENIED, True), (Answer("https://h/1", "unavailable", 503), True), (good(b"<html>"), True),
        (Answer("https://h/1", "opted_out", 200), False),
    ],
)  # fmt: skip
def test_what_is_held_stays_when_it_cannot_be_had_anew(where: Layout, answer: Answer, is_kept: bool) -> None:
    """A file that was replaced, or is looked at again, and does not come: the old one counts, and a day is set for the
    next try. Only the owner's word takes it away.
    """
    old = blobs.put(where, picture(), "JPEG")
    held = {"sha256": old, "bytes": 9, "format": "JPEG"}
    wanted = KEY | held | {"renditions": [{"label": "Large", "url": "l"}]}
    row = fetch(wanted, Site(Script(l=[answer, answer])), where)
    assert (row.get("sha256"), row["download_reason"] is None) == ((old, True) if is_kept else (None, False))
    assert (row["next_try_at"] is not None) is is_kept
    where.blob(old, "JPEG").unlink()
    assert fetch(wanted, Site(Script(l=[answer, answer])), where)["download_reason"] is not None, "it is not here"


def attempt(reason: str | None) -> dict[str, str | None]:
    asked = {} if reason == "no_image_url" else {"fetched_url": "https://live.staticflickr.com/1/2_o.jpg"}
    return {"download_reason": reason, **asked}


def test_only_a_batch_without_any_answer_is_an_error() -> None:
    """A site that gives nothing at all is named with the remedy; one answer, even a refusal, makes rows of all."""
    with pytest.raises(SourceUnavailable, match=r"none of 8 photos.*live\.staticflickr\.com"):
        check_reached([*[attempt("unavailable")] * PHOTOS_TO_BLAME_HOST, attempt("no_image_url")])
    check_reached([*[attempt("unavailable")] * PHOTOS_TO_BLAME_HOST, attempt("gone")])
    check_reached([attempt("unavailable")] * (PHOTOS_TO_BLAME_HOST - 1))
    check_reached([attempt("no_image_url")])
    check_reached([])


def renewing(answers: Script, fresh: list[dict[str, str]], asked: list[str]) -> Site:
    def renew(photo_id: str) -> list[dict[str, str]]:
        asked.append(photo_id)
        return fresh

    return Site(answers, renew)


def test_an_address_that_has_expired_is_asked_for_anew_once(where: Layout) -> None:
    """403: the site gives fresh addresses of the photo, no larger than was wanted; they are not renewed again."""
    fresh = [{"label": "8K", "url": "x"}, {"label": "Large", "url": "n"}]
    wanted = KEY | {"renditions": [{"label": "Large", "url": "l?sig=old"}]}
    for last, reason in ((good(picture()), None), (DENIED, "denied")):
        asked: list[str] = []
        answers = Script(**{"l?sig=old": [DENIED], "n": [last]})
        row = fetch(wanted, renewing(answers, fresh, asked), where)
        assert (answers.asked, asked, row["download_reason"]) == (["l?sig=old", "n"], ["1"], reason)


def test_whoever_gives_up_while_an_address_is_renewed_denies_nothing(where: Layout) -> None:
    """No row says of the photo what nobody has found out."""

    def interrupted(photo_id: str) -> list[dict[str, str]]:
        raise Interrupted("stopped")

    wanted = {**KEY, "renditions": [{"label": "l", "url": "l"}]}
    with pytest.raises(Interrupted):
        fetch(wanted, Site(Script(l=[DENIED]), interrupted), where)


@pytest.mark.parametrize("answer", [DENIED, GONE])
def test_what_cannot_be_renewed_stays_denied(where: Layout, answer: Answer) -> None:
    """A site without fresh addresses, or one that fails to give them, leaves the photo as it was."""

    def fails(photo_id: str) -> list[dict[str, str]]:
        raise SourceUnavailable("no answer")

    wanted = KEY | {"renditions": [{"label": "Large", "url": "l"}]}
    for renew in (lambda photo_id: [], fails):
        row = fetch(wanted, Site(Script(l=[answer]), renew), where)
        assert (row["download_reason"], row["http_status"]) == (answer.outcome, answer.status)


def test_no_signature_is_kept(where: Layout) -> None:
    """The address of a row ends before its question mark, wherever a redirect led: it is compared with listings."""
    wanted = KEY | {"renditions": [{"label": "Large", "url": "https://h/p/1.jpg?sig=s3cret&expiry=1"}]}
    script = Script(**{"https://h/p/1.jpg?sig=s3cret&expiry=1": [good(picture(), url="https://cdn/x/1.jpg")]})
    row = fetch(wanted, Site(script), where)
    assert row["fetched_url"] == "https://h/p/1.jpg"
    assert "s3cret" not in repr(row)


def test_a_host_that_dies_amid_a_batch_is_tried_again_until_the_last_try() -> None:
    """Eight failures of one host make the batch be tried again; many hosts with a dead link each do not, nor the
    same eight in a large batch."""
    rows = [attempt(None)] * 20 + [attempt("unavailable")] * PHOTOS_TO_BLAME_HOST
    with pytest.raises(SourceUnavailable, match=r"8 of 28 photos could not be fetched from live\.staticflickr\.com"):
        check_reached(rows, is_last_try=False)
    check_reached(rows)
    rotten = [{"download_reason": "unavailable", "fetched_url": f"https://h{n}/1.jpg"} for n in range(20)]
    check_reached([attempt(None), *rotten], is_last_try=False)
    large = [attempt(None)] * 480 + [attempt("unavailable")] * 32
    with pytest.raises(SourceUnavailable, match=r"32 of 512 photos could not be fetched"):
        check_reached(large, is_last_try=False)
    check_reached([attempt(None), *large[:-1]], is_last_try=False)


def test_hosts_that_are_gone_for_good_end_no_refresh_of_a_table() -> None:
    """Only their photos are wanted by then: they are rows, when all tries have been had."""
    dead = [attempt("unavailable")] * 20
    with pytest.raises(SourceUnavailable, match="none of 20 photos"):
        check_reached(dead, is_last_try=False, has_many_hosts=True)
    check_reached(dead, is_last_try=True, has_many_hosts=True)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Seen("present", "ok"), None), (Seen("present", "ok", is_download_allowed=False), "not_downloadable"),
        (Seen("gone", "code 1"), "gone"), (SourceUnavailable("down"), "unavailable"),
        (PermanentSourceError("refused (2)"), "denied"), (SourceChanged("'photo' cannot be read"), "denied"),
    ],
)  # fmt: skip
def test_a_photo_that_the_site_does_not_explain_is_denied(answer: Seen | Exception, reason: str | None) -> None:
    """One photo that cannot be asked about is a row, and ends no batch."""
    assert withheld(Site(good, inspect=said(answer)), "1") == reason


def test_a_wrong_key_is_no_fault_of_a_photo() -> None:
    """It ends the batch."""
    with pytest.raises(CredentialsRejected):
        withheld(Site(good, inspect=said(CredentialsRejected("no key"))), "1")


def said(answer: Seen | Exception) -> Callable[[str], Seen]:
    """A site that says so of every photo."""

    def inspect(photo_id: str) -> Seen:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return inspect
