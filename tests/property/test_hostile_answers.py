"""Whatever a site sends, it is an answer, a verdict, a row, or an error that says what to do; never a stack trace."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storage.partial import Body, is_sendable, validator
from storage.records import SCHEMAS
from tasks.errors import DarkroomError, SourceChanged
from tasks.sources.base import Query
from tasks.sources.flickr import Pages
from tasks.sources.flickr_api import parse_licences, readable
from tasks.sources.flickr_rows import listing as flickr_listing
from tasks.sources.px500 import Walk
from tasks.sources.px500_api import GUESSES, parse_reply
from tasks.sources.px500_rows import forbidden
from tasks.sources.px500_rows import listing as px500_listing
from tasks.verdicts import PAUSE_MOST_S, Answer, announced, classify, failure, opted_out, outcome_of, retry_after
from tasks.web import Client, Limits

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
METHODS = ("flickr.photos.search", "flickr.photos.getInfo", "searchResource", "getPhotoById")
EXTRAS = (
    "owner ownername title tags license dateupload datetaken datetakenunknown accuracy latitude longitude url_o "
    "width_o height_o url_k"
)
ODD_TEXTS = (
    "\xb2", "9" * 5000, "1e400", "-1", "http://[", "//", "bytes \xb2-9/\xb9", f"bytes {'9' * 5000}-1/*", '"\r\n x"',
    "Mon, 01 Jan 2024 00:00:00 +99999999999999999999", "Mon, 01 Jan 0001 00:00:00 +2359", '"\x00"', "half \ud83d",
    "0000-00-00 00:00:00", "9999-12-31T23:59:59-23:59", "bytes 0-1/2", "gzip, gzip, gzip, gzip, gzip, gzip, gzip",
)  # fmt: skip
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=30)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, 1e400, float("nan"), -1, 0, 2**31, 2**63])
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    leaves, lambda each: st.lists(each, max_size=3) | st.dictionaries(texts, each, max_size=3), max_leaves=6
)


def objects(*names: str, of: st.SearchStrategy[Any] = values) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of the fields ``names``, each of any type."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, of))


def either(*likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One of ``likely``, or anything."""
    return st.one_of(*likely, values)


def nested(depth: int) -> Any:
    """Lists in lists, deeper than can be written out again."""
    found: Any = 0
    for _ in range(depth):
        found = [found]
    return found


flickr_photos = st.builds(dict, objects("id", *EXTRAS.split()), id=either(st.just("53")))
flickr_replies = st.builds(
    dict, objects("code", "message", "licenses", "photo"), stat=either(st.just("ok"), st.just("fail")),
    photos=either(st.builds(
        dict, objects("perpage"), total=either(st.just("5")), pages=either(st.just(1)),
        photo=either(st.lists(flickr_photos)),
    )),
)  # fmt: skip
errors = either(st.lists(either(objects("message", "extensions", of=either(objects("code"))))))
px500_photos = st.builds(
    dict,
    objects(
        "title", "category", "downloadable", "isDeleted", "uploadedAt", "takenAt", "width", "height", "isNsfw",
        "licensing", "uploader", "urls", of=either(objects("id", "username", "displayName", "status", "size_4k")),
    ),
    id=either(st.just("a")), __typename=either(st.just("Photo")),
)  # fmt: skip
edges = either(st.lists(either(st.builds(dict, node=either(px500_photos)))))
found = st.builds(dict, objects("totalCount"), edges=edges, pageInfo=either(objects("endCursor", "hasNextPage")))
px500_replies = st.builds(
    dict, objects("errors", of=errors),
    data=either(st.builds(dict, searchResource=either(found), getPhotoById=either(px500_photos))),
)  # fmt: skip


def answered(reply: Any, status: int = 200) -> Answer:
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return Answer("https://h/", outcome_of(status), status, body=body, detail=f"HTTP {status}")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(ODD_TEXTS) | st.text(st.characters(max_codepoint=255)))
@example("Mon, 01 Jan 2024 00:00:00 +9990000")
def test_no_header_is_too_odd_to_be_read(value: str) -> None:
    """Each header means something or nothing, and what is kept of it may be sent back."""
    wait_s = retry_after({"Retry-After": value}, NOW)
    assert wait_s is None or 0 <= wait_s <= PAUSE_MOST_S
    assert (announced({"Content-Length": value}) or 0) >= 0
    assert opted_out({"X-Robots-Tag": value}) in (True, False)
    body = Body()
    body.begin({"ETag": '"v1"'})
    body.add(b"abc")
    assert not (body.goes_on({"Content-Range": value, "ETag": '"v1"'}) and body.is_whole({"Content-Range": value}))
    kept = validator({"ETag": value}) or validator({"Last-Modified": value})
    assert kept == "" or is_sendable(kept)
    assert failure(Answer(value, "denied")) is not None


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(METHODS), st.sampled_from([200, 400, 422, 500]),
    flickr_replies | px500_replies | values | st.binary() | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000]),
)  # fmt: skip
@example(METHODS[0], 200, b'{"stat": "fail", "code": 1e400}')
@example(METHODS[2], 200, {"errors": 5})
@example(METHODS[2], 200, {"errors": [{"message": "x", "extensions": "x"}]})
def test_every_reply_has_a_verdict(method: str, status: int, reply: Any) -> None:
    """Whatever stands in a reply, and wherever, somebody has decided what to do about it."""
    answer = answered(reply, status)
    assert classify(answer, method).what in ("ok", "retry", "split", "gone", "denied", "fatal")
    with contextlib.suppress(DarkroomError):
        readable(method, answer) if method.startswith("flickr.") else parse_reply(answer, method, GUESSES)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flickr_replies)
@example(
    {
        "photos": {
            "total": 1,
            "pages": 1,
            "photo": [{"id": "1"} | dict.fromkeys(EXTRAS.split(), 10**400) | {"accuracy": 9}],
        }
    }
)
def test_a_page_of_flickr_is_rows_or_says_what_changed(reply: dict[str, Any]) -> None:
    """Each photo becomes a row that the table takes, or the reply is refused as a whole."""
    query = Query(text="harbour")
    with contextlib.suppress(DarkroomError):
        parse_licences(reply)
    with contextlib.suppress(DarkroomError):
        as_table([flickr_listing(photo, query, {}, NOW) for photo in Pages(query).read(reply)])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(found)
@example({"totalCount": 10**400, "edges": [{"node": {"__typename": "Photo", "id": "a", "title": 1e400}}]})
def test_a_page_of_500px_is_rows_or_says_what_changed(reply: dict[str, Any]) -> None:
    """Each photo becomes a row that the table takes, and the next page can be asked for."""
    walk = Walk(Query(text="harbour"), frozenset())
    with contextlib.suppress(DarkroomError):
        photos = walk.read({"searchResource": reply})
        as_table([px500_listing(photo, walk.query, NOW) for photo in photos])
        assert all(forbidden(photo) is None or isinstance(forbidden(photo), str) for photo in photos)
    assert 0 <= walk.total < 2**63
    json.dumps(walk.place)


def test_what_is_nested_too_deep_to_be_written_out_is_nothing() -> None:
    """A reply that could just be read may be too deep for whatever else is done with it."""
    deep, query, walk = nested(5000), Query(text="harbour"), Walk(Query(text="harbour"), frozenset())
    photo = {"id": "1"} | dict.fromkeys(EXTRAS.split(), deep)
    as_table([flickr_listing(photo, query, {}, NOW)])
    with pytest.raises(SourceChanged):
        Pages(query).read({"photos": {"photo": [{"id": deep}]}})
    assert parse_licences({"licenses": {"license": [dict.fromkeys(("id", "name", "url"), deep)]}}) == {}
    nodes = [{"__typename": "Photo", "id": "a", "title": deep, "isNsfw": 1}, {"__typename": deep}] * 2
    info = {"endCursor": deep, "hasNextPage": True}
    assert walk.read({"searchResource": {"edges": [{"node": node} for node in nodes], "pageInfo": info}}) == []
    assert walk.is_at_end
    assert walk.place == {}


def as_table(rows: list[dict[str, Any]]) -> None:
    """``rows`` fit ``listings``; half a character is cut where rows are written, not here."""
    clean = json.loads(json.dumps(rows, default=datetime.isoformat).replace("\\ud", "\\u0"))
    for row in clean:
        for name in ("observed_at", "uploaded_at", "taken_at"):
            row[name] = row[name] and datetime.fromisoformat(row[name])
    pa.Table.from_pylist(clean, schema=SCHEMAS["listings"])


class Parrot:
    """A host that answers each connection with ``sent``, and hangs up."""

    def __init__(self) -> None:
        self.sent = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.netloc = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            line, _ = self._socket.accept()
            with line, contextlib.suppress(OSError):
                if not line.recv(1 << 16):
                    return
                line.sendall(self.sent)

    def close(self) -> None:
        """Stop answering."""
        socket.create_connection(self._socket.getsockname()).close()
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def parrot() -> Iterator[Parrot]:
    host = Parrot()
    yield host
    host.close()


@cache
def client(parts: Path) -> Client:
    limits = Limits(read_s=0.3, deadline_s=0.6, body_bytes=10_000, retries=0, pauses=0, pause_s=0, images_per_s=1e6)
    return Client("", limits, parts=parts)


names = st.sampled_from([
    "Location", "Retry-After", "Content-Length", "Content-Range", "Content-Encoding", "Transfer-Encoding", "ETag",
    "Last-Modified", "X-Robots-Tag", "Set-Cookie", "Connection",
]) | st.text(max_size=9)  # fmt: skip
words = st.sampled_from(
    [b"gzip", b"br", b"deflate", b"chunked", b"/x", b'"v1"', *(t.encode("utf-8", "replace") for t in ODD_TEXTS)]
)
lines = st.tuples(names, words | st.binary(max_size=20)).map(lambda pair: pair[0].encode() + b": " + pair[1])
statuses = st.sampled_from(
    [b"200", b"206", b"302", b"304", b"404", b"416", b"429", b"503", b"100", b"\xb2\xb2\xb2", b""]
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["api", "image"]), statuses, st.lists(lines, max_size=5),
    st.binary(max_size=40) | st.sampled_from([b"5\r\nhello\r\n0\r\n\r\n", b"-5\r\n", b"\x1f\x8b\x08\x00"]),
    st.sampled_from(["/x", "/half \ud83d", "/\r\nX-Injected: 1", "/" + "y" * 70_000]),
)  # fmt: skip
@example("api", b"200", [b"Retry-After: \xb2"], b"", "/x")
@example("image", b"200", [b"Content-Length: \xb2"], b"abc", "/x")
@example("image", b"200", [b"Content-Length: " + b"9" * 5000], b"abc", "/x")
@example("image", b"302", [b"Location: http://["], b"", "/x")
@example("image", b"503", [b"Retry-After: Mon, 01 Jan 2024 00:00:00 +99999999999999999999"], b"", "/x")
def test_whatever_is_sent_there_is_an_answer(
    parrot: Parrot, tmp_path_factory: pytest.TempPathFactory, kind: Any, status: bytes, headers: list[bytes],
    body: bytes, path: str,
) -> None:  # fmt: skip
    """Any status, any headers, any bytes, for any path: the client returns."""
    asking = client(tmp_path_factory.getbasetemp() / "partial")
    asking._lanes.clear()  # what the last example did to the host is over
    parrot.sent = b"HTTP/1.1 " + status + b" x\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body
    answer = asking.get(f"http://{parrot.netloc}{path}", kind=kind, hosts=frozenset({parrot.netloc}))
    assert len(answer.body) <= 1 << 17
    assert (path, status) != ("/x", b"200") or "no request" not in answer.detail
