"""What came back, and what it means: ok, retry, split, gone, denied or fatal. Every failure of a site has a class here.

An ``Answer`` is what a host said, or that it said nothing; its ``outcome`` is the word that stands in a photo's row.
``classify`` turns an answer into a ``Verdict``, which says what to do about it. APIs say more inside an answer that is
good HTTP: for them ``classify`` is given the method that was called.

Source: RFC 9110 sections 10.2.3 (Retry-After) and 15 (status codes); https://www.flickr.com/services/api/ (error codes
of each method).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import urllib3

from tasks.errors import DarkroomError, PermanentSourceError, RateLimited, SourceUnavailable

Outcome = Literal[
    "ok", "not_modified", "gone", "denied", "opted_out", "rate_limited", "unavailable", "truncated", "too_large",
    "forbidden_host",
]  # fmt: skip
What = Literal["ok", "retry", "split", "gone", "denied", "fatal"]
WHAT: dict[Outcome, What] = {
    "ok": "ok", "not_modified": "ok", "gone": "gone", "denied": "denied", "opted_out": "denied",
    "rate_limited": "retry", "unavailable": "retry", "truncated": "retry", "too_large": "denied",
    "forbidden_host": "denied",
}  # fmt: skip

PAUSE_MOST_S = 86400.0  # that a host may ask for; who means longer says so again

_OPT_OUT = re.compile(r"(?i)\b(noai|noimageai)\b")
_OUT_OF_ORDER = "not currently available"  # the words of Flickr's codes 0 and 201, whatever the code
_ABOUT_A_PHOTO = frozenset({
    "flickr.photos.getInfo", "flickr.photos.getSizes", "flickr.photos.getExif", "flickr.photos.getAllContexts",
    "flickr.photos.licenses.getLicenseHistory",
})  # fmt: skip
_EVERY_METHOD: dict[int, What] = {
    0: "retry", 105: "retry", 106: "retry", 201: "retry",
    95: "fatal", 96: "fatal", 97: "fatal", 98: "fatal", 99: "fatal", 100: "fatal",
    111: "fatal", 112: "fatal", 114: "fatal", 115: "fatal", 116: "fatal",
}  # fmt: skip
_SEARCH: dict[int, What] = {10: "retry", 20: "split"}
_PHOTO: dict[int, What] = {1: "gone", 15: "gone"}
_RETIRED = "1503"  # what 500px answers with, inside HTTP 200, where an API is no more
_NOT_THERE = re.compile(r"(?i)not[ _]?found|not exist|deleted|private|no such")


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


@dataclass(frozen=True)
class Verdict:
    """What to do about an answer, and why; ``reply`` is what an API said, where that could be read.

    retry: it may pass. split: ask for less at once. gone: what was asked for is not there. denied: this request will
    never be answered, others may be. fatal: none will, until a person acts.
    """

    what: What
    reason: str
    reply: Mapping[str, Any] = field(default_factory=dict)


def outcome_of(event: int | Exception) -> Outcome:
    """What a status code, or an exception of urllib3, means for the photo or page that was asked for."""
    if isinstance(event, Exception):
        is_cut = "IncompleteRead" in repr(event) or isinstance(event, urllib3.exceptions.DecodeError)
        return "truncated" if is_cut else "unavailable"
    if 200 <= event < 300:
        return "ok"
    if event in (404, 410):
        return "gone"
    if event in (304, 429):
        return "not_modified" if event == 304 else "rate_limited"
    return "unavailable" if event in (408, 425) or event >= 500 else "denied"


def briefly(error: Exception) -> str:
    """What went wrong, without the URL that the libraries put into their messages."""
    names = {"NewConnectionError": "no connection", "NameResolutionError": "no such host", "SSLError": "no safe line"}
    name = type(error).__name__
    return names.get(name, "no answer in time" if "Timeout" in name else f"the connection broke: {name}")


def opted_out(headers: Mapping[str, str]) -> bool:
    """Whether the owner asks that no machine learn from the picture, whichever robot is addressed.

    Source: https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag (X-Robots-Tag; noai and
    noimageai are the opt-outs of photo sites).
    """
    return _OPT_OUT.search(headers.get("X-Robots-Tag", "")) is not None


def failure(answer: Answer) -> DarkroomError | None:
    """The exception that says what to do about ``answer``; None if it is good."""
    host = answer.url.partition("//")[2].partition("/")[0]
    match answer.outcome:
        case "ok" | "not_modified":
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


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date; None if it asks for nothing."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), PAUSE_MOST_S)
    try:
        then = parsedate_to_datetime(value)
        wait_s = (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()
    except (ValueError, OverflowError):  # the second for a zone that is years from here
        return None
    return min(max(0.0, wait_s), PAUSE_MOST_S)


def announced(headers: Mapping[str, str]) -> int | None:
    """The bytes that Content-Length promises; None if it promises nothing that can be read."""
    length = headers.get("Content-Length", "")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def classify(answer: Answer, method: str | None = None) -> Verdict:
    """What to do about ``answer``: of a file, or of the API ``method`` (flickr.*, or an operation of 500px)."""
    if method is None:
        return Verdict(WHAT[answer.outcome], answer.detail or answer.outcome)
    return classify_reply(method, answer)


def classify_reply(method: str, answer: Answer) -> Verdict:
    """What to do about the answer to a call of ``method``; a reply that nobody can read may be a passing fault."""
    if answer.outcome != "ok" and not (answer.body and not method.startswith("flickr.")):
        return classify(answer)
    try:
        reply = json.loads(answer.body)
    except (ValueError, RecursionError):  # the second for lists in lists in lists
        is_page = answer.body.lstrip()[:1] == b"<"
        return classify(answer) if answer.outcome != "ok" else Verdict("retry", "html" if is_page else "not_json")
    if not isinstance(reply, Mapping):
        return Verdict("retry", "not_json")
    return _flickr(method, reply) if method.startswith("flickr.") else _px500(method, reply, answer)


def _flickr(method: str, reply: Mapping[str, Any]) -> Verdict:
    """A reply of Flickr's REST API, whose errors come with HTTP 200."""
    if reply.get("stat") == "ok":
        return Verdict("ok", "ok", reply)
    if reply.get("stat") != "fail":
        return Verdict("retry", "no stat", reply)
    message = _text(reply.get("message"))
    try:
        code = int(reply.get("code", -1))
    except (TypeError, ValueError, OverflowError):  # the last for 1e400, which JSON reads as infinite
        code = -1
    reason = f"{code}: {message}"
    if _OUT_OF_ORDER in message:
        return Verdict("retry", reason, reply)
    own = _PHOTO if method in _ABOUT_A_PHOTO else _SEARCH
    return Verdict(own.get(code) or _EVERY_METHOD.get(code, "denied"), reason, reply)


def _px500(operation: str, reply: Mapping[str, Any], answer: Answer) -> Verdict:
    """A reply of 500px's GraphQL, whose errors come with HTTP 200 and with others."""
    listed = reply.get("errors")
    errors = [error for error in listed if isinstance(error, Mapping)] if isinstance(listed, list) else []
    said = "; ".join(_text(error.get("message")) for error in errors)[:300]
    extensions = [error.get("extensions") for error in errors]
    codes = {_text(each.get("code")) for each in extensions if isinstance(each, Mapping)}
    if _RETIRED in codes:
        return Verdict("fatal", f"{_RETIRED}: {said}", reply)
    if answer.status in (400, 422) or "csrf" in said.lower():
        return Verdict("fatal", said or answer.detail, reply)
    if answer.outcome != "ok":
        return Verdict(WHAT[answer.outcome], said or answer.detail, reply)
    data = reply.get("data")
    if not isinstance(data, Mapping) or operation not in data:
        return Verdict("retry" if errors else "fatal", said or "no data", reply)
    if data[operation] is None and (not errors or _NOT_THERE.search(said)):
        return Verdict("gone", said or "null", reply)
    return Verdict("retry", said, reply) if errors else Verdict("ok", "ok", reply)


def _text(value: Any) -> str:
    """A text, or a number as text; "" for anything else."""
    return str(value) if isinstance(value, str | int | float) else ""
