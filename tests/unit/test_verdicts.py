"""What each answer means, of a file and of an API: every status, every error code, every kind of nonsense."""

import json

import pytest
import urllib3

from tasks.verdicts import WHAT, Answer, classify, opted_out, outcome_of


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"), (206, "ok"), (301, "denied"), (304, "not_modified"),
        (400, "denied"), (401, "denied"), (403, "denied"), (404, "gone"),
        (408, "unavailable"), (410, "gone"), (418, "denied"), (425, "unavailable"), (429, "rate_limited"),
        (451, "denied"),
        (500, "unavailable"), (502, "unavailable"), (503, "unavailable"), (504, "unavailable"), (599, "unavailable"),
    ],
)  # fmt: skip
def test_every_status_has_one_meaning(status: int, outcome: str) -> None:
    """Gone is not denied, and only what may pass is transient."""
    assert outcome_of(status) == outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (urllib3.exceptions.ConnectTimeoutError(None, ""), "unavailable"),
        (urllib3.exceptions.SSLError("bad certificate"), "unavailable"),
        (urllib3.exceptions.ProtocolError("Connection broken: ConnectionResetError(104)"), "unavailable"),
        (urllib3.exceptions.IncompleteRead(3, 5), "truncated"),
        (urllib3.exceptions.ProtocolError("Connection broken: IncompleteRead(3 bytes read)"), "truncated"),
        (urllib3.exceptions.DecodeError("bad gzip"), "truncated"),
    ],
)
def test_exceptions_of_the_libraries_mean_unreachable_or_cut(error: Exception, outcome: str) -> None:
    """A transfer that broke off is asked for again at once; a host that does not answer is not."""
    assert outcome_of(error) == outcome


@pytest.mark.parametrize(
    ("value", "is_out"),
    [
        ("noai", True), ("noindex, NoImageAI", True), ("somebot: noimageai", True), ("noindex", False), ("none", False),
        ("", False), ("anoai", False),
    ],
)  # fmt: skip
def test_opting_out_is_respected(value: str, is_out: bool) -> None:
    """noai and noimageai, whichever robot they are addressed to; a search engine's rules are not ours."""
    assert opted_out({"X-Robots-Tag": value}) is is_out


def test_every_outcome_of_a_file_has_a_verdict() -> None:
    """Whatever stands in a row as a reason says what to do; only what may pass is tried again."""
    assert {what: [name for name in WHAT if WHAT[name] == what] for what in sorted(set(WHAT.values()))} == {
        "denied": ["denied", "opted_out", "too_large", "forbidden_host"],
        "gone": ["gone"],
        "ok": ["ok", "not_modified"],
        "retry": ["rate_limited", "unavailable", "truncated"],
    }
    assert classify(Answer("https://h/1", "truncated", 200, detail="cut")).what == "retry"
    assert classify(Answer("https://h/1", "denied", 403, detail="HTTP 403")).reason == "HTTP 403"


def reply(body: object, status: int = 200) -> Answer:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer("https://h/", outcome_of(status), status, body=text, detail=f"HTTP {status}")


def fail(code: object, message: str = "m") -> Answer:
    return reply({"stat": "fail", "code": code, "message": message})


SEARCH, PHOTO = "flickr.photos.search", "flickr.photos.getInfo"
DENIED = [2, 3, 4, 5, 11, 12, 15, 16, 17, 18, 19]
CONFIG = [95, 96, 97, 98, 99, 100, 111, 112, 114, 115, 116]


@pytest.mark.parametrize(
    ("method", "code", "what"),
    [
        *((method, code, "retry") for method in (SEARCH, PHOTO) for code in (0, 105, 106, 201)),
        *((method, code, "fatal") for method in (SEARCH, PHOTO) for code in CONFIG),
        (SEARCH, 10, "retry"), (SEARCH, 20, "split"), (SEARCH, 1, "denied"),
        *((SEARCH, code, "denied") for code in DENIED),
        *((method, 1, "gone") for method in (
            PHOTO, "flickr.photos.getSizes", "flickr.photos.getExif", "flickr.photos.licenses.getLicenseHistory")),
        *((method, 2, "denied") for method in ("flickr.photos.getSizes", "flickr.photos.getExif")),
        (PHOTO, 15, "gone"), (PHOTO, 20, "denied"), (SEARCH, 4711, "denied"), (SEARCH, "105", "retry"),
        (SEARCH, None, "denied"), (SEARCH, "x", "denied"),
    ],
)  # fmt: skip
def test_every_code_of_flickr_has_its_class(method: str, code: object, what: str) -> None:
    """Inside HTTP 200, as a number or as text: passing, to be divided, gone, refused, or wrong for good."""
    assert classify(fail(code), method).what == what


@pytest.mark.parametrize("code", [0, 1, 201, 999])
def test_flickr_out_of_order_is_known_by_its_words(code: int) -> None:
    """The sentence counts, whatever code comes with it."""
    answer = fail(code, "Sorry, the Flickr API service is not currently available.")
    assert classify(answer, PHOTO).what == "retry"


@pytest.mark.parametrize(
    ("answer", "what", "reason"),
    [
        (reply({"stat": "ok", "photos": {}}), "ok", "ok"),
        (reply(b"<!DOCTYPE html><html>"), "retry", "html"),
        (reply(b'{"stat": "ok",}'), "retry", "not_json"),
        (reply(b'{"stat": "ok", "pho'), "retry", "not_json"),
        (reply(b""), "retry", "not_json"),
        (reply([1, 2]), "retry", "not_json"),
        (reply({"photos": {}}), "retry", "no stat"),
        (reply(b"<html>Too Many Requests", 429), "retry", "HTTP 429"),
        (reply(b"<html>", 502), "retry", "HTTP 502"),
        (reply(b"<html>", 403), "denied", "HTTP 403"),
        (reply(b"", 404), "gone", "HTTP 404"),
        (Answer("https://h/", "unavailable", detail="no connection"), "retry", "no connection"),
        (Answer("https://h/", "truncated", 200), "retry", "truncated"),
    ],
)
def test_what_is_no_reply_of_flickr_may_pass(answer: Answer, what: str, reason: str) -> None:
    """A page instead of JSON, half a body, a comma too many: asked again; the status says the rest."""
    found = classify(answer, SEARCH)
    assert (found.what, found.reason) == (what, reason)


def test_a_good_reply_comes_with_its_verdict() -> None:
    """Nobody parses a body twice."""
    assert classify(reply({"stat": "ok", "photos": {"page": 1}}), SEARCH).reply["photos"] == {"page": 1}


def errors(message: str, code: str | None = None) -> list[dict[str, object]]:
    return [{"message": message} | ({"extensions": {"code": code}} if code else {})]


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (reply({"data": {"getPhotoById": {"id": "a"}}}), "ok"),
        (reply({"data": {"getPhotoById": None}}), "gone"),
        (reply({"data": {"getPhotoById": None}, "errors": errors("photo not found")}), "gone"),
        (reply({"data": {"getPhotoById": None}, "errors": errors("internal")}), "retry"),
        (reply({"data": None, "errors": errors("A fresh version is rolling out", "1503")}), "fatal"),
        (reply({"data": None, "errors": errors("try again")}), "retry"),
        (reply({"data": {}}), "fatal"),
        (reply({"data": None, "errors": ["odd", {"message": "x", "extensions": None}]}), "retry"),
        (reply({"errors": errors("variables should be provided as an object")}, 400), "fatal"),
        (reply({"errors": errors("CSRF invalid")}, 422), "fatal"),
        (reply({"errors": errors("device")}, 500), "retry"),
        (reply(b"<html>", 500), "retry"),
        (reply(b"<html>", 403), "denied"),
        (reply(b"", 429), "retry"),
        (reply(b"<html>"), "retry"),
    ],
)
def test_every_answer_of_500px_has_its_class(answer: Answer, what: str) -> None:
    """A retired API, a refused session and a photo that is gone are told from faults that pass."""
    assert classify(answer, "getPhotoById").what == what
