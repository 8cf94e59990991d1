"""A site that means harm: what it says stays text, what it sends stays small, and nobody else hears from us."""

import csv
import re
import resource
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.refresh import refresh_dataset
from storage import catalog, ledger
from storage.layout import Layout
from tasks import publish, web
from tasks.dataset import Dataset
from tasks.errors import DarkroomError, PermanentSourceError
from tasks.sources.standin import Catalogue, Fault, Photo, StandIn

pytestmark = pytest.mark.timeout(60)
Serve = Callable[..., StandIn]
Refresh = Callable[[Dataset], None]
Account = Callable[[Layout, str, set[str]], dict[str, dict[str, Any]]]
METADATA = "http://169.254.169.254/latest/meta-data/iam"
TITLES = (
    "../../../../etc/cron.d/photo", "..\\..\\windows", "/etc/passwd", "<script>alert(1)</script>", "two\nlines\r\n3",
    "</title><img src=x onerror=alert(1)>", "=cmd|'/c calc'!A1", "'; drop table x; --", "\x00nul\x1b[31mred",
    "{{ 7 * 7 }}", "%s {0}", "\u202egpj.exe", "a" * 5000, "half a face: \ud83d", "| a | b |\n|---|---|\n# head",
)  # fmt: skip


@pytest.fixture
def sound() -> list[Photo]:
    """Small photos with nothing wrong."""
    photos = Catalogue.synthetic(60, min_long_px=144, max_long_px=162).listed()
    photos = [p for p in photos if p.defect is None and p.is_original_public and p.original_format == "jpg"]
    return [photo for photo in photos if photo.duplicate_kind is None]


class Bystander:
    """Somebody else on this machine, who ought to hear nothing. ``heard``: connections to it."""

    def __init__(self) -> None:
        self.heard = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.netloc = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                line, _ = self._socket.accept()
                self.heard += 1
                line.close()

    def close(self) -> None:
        """Stop listening."""
        self._is_over.set()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def bystander() -> Iterator[Bystander]:
    """Listens at another port."""
    somebody = Bystander()
    yield somebody
    somebody.close()


def filled(photos: list[Photo]) -> Catalogue:
    catalogue = Catalogue()
    catalogue.put(photos)
    return catalogue


def ids(site: StandIn) -> set[str]:
    return {photo.id for photo in site.catalogue.listed()}


def elsewhere(netloc: str, own: str) -> list[str]:
    """Addresses that a listing, or a redirect, may not lead to."""
    port = netloc.rpartition(":")[2]
    return [
        f"http://{netloc}/1.jpg", f"http://localhost:{port}/1.jpg", METADATA, "http://[::ffff:169.254.169.254]/",
        "file:///etc/passwd", f"ftp://{netloc}/1.jpg", f"//{netloc}/1.jpg", f"http://{own}@{netloc}/1.jpg",
        f"http://{netloc}#@{own}/1.jpg", f"http://{netloc}\\@{own}/1.jpg", f"http://{own}.evil.example:{port}/1.jpg",
        f"http://2130706433:{port}/1.jpg", f"http://0x7f.1:{port}/1.jpg", "http://[::1/1.jpg", "http://:80/1.jpg",
        "http://127.0.0.1:99999/1.jpg", "data:image/png;base64,AAAA", "javascript:alert(1)", "not an address", "\x00",
        f"http://{own}:x/1.jpg", f"http://127.0.0.1\r\nX-Injected: yes\r\n:{port}/1.jpg",
    ]  # fmt: skip


def test_texts_stay_texts(
    own_root: Layout, serve: Serve, account: Account, sound: list[Photo], dataset: Dataset,
    prefect_server: None, tmp_path: Path,
) -> None:  # fmt: skip
    """Titles, names and ids that are paths, markup, formulas or control characters come out in every table as they
    are, in every page as text, and name no file anywhere.
    """
    hostile = [replace(p, title=title) for p, title in zip(sound, TITLES, strict=False)]
    hostile += [
        replace(sound[20], id="../../../outside", title="an id"), replace(sound[21], id="1/../../../2", title="an id"),
        replace(sound[22], owner=replace(sound[22].owner, nsid="../../owner", username="<b>\n=1+1</b>")),
    ]  # fmt: skip
    site = serve(filled(hostile + sound[23:]))
    around = {file for file in tmp_path.parent.rglob("*") if own_root.root not in file.parents}
    snapshot = refresh_dataset(dataset)
    latest = account(own_root, dataset.name, ids(site))
    assert {latest[name]["download_reason"] for name in ("../../../outside", "1/../../../2")} == {"gone"}
    rows = {row["photo_id"]: row for row in publish.published(own_root, dataset.name, snapshot.version).to_pylist()}
    assert set(rows) == ids(site)
    for photo in hostile:
        assert (rows[photo.id]["title"] or "") == said(photo.title)
    assert {file for file in tmp_path.parent.rglob("*") if own_root.root not in file.parents} == around
    page = Path(snapshot.uri, "report.html").read_text()
    assert not re.search(r"<script>alert|<img src=x|<b>\n=1", page)
    with Path(snapshot.uri, "ATTRIBUTION.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    kept = [row for row in rows.values() if row["verdict"]]
    assert len(table) == len(kept)
    assert not [cell for row in table for cell in row.values() if cell and cell[0] in "=+@"]


def said(title: str) -> str:
    """``title`` as far as Unicode can hold it."""
    return title.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("given", ["listing", "redirect"])
def test_addresses_that_lead_elsewhere_are_not_followed(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    bystander: Bystander, monkeypatch: pytest.MonkeyPatch, given: str,
) -> None:  # fmt: skip
    """In a listing or in a redirect: each is a row with a reason, and no connection is made but to the site."""
    asked: list[tuple[str, int]] = []
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, at: asked.append(at) or connect(self, at))
    site = serve(Catalogue())
    own = site.url.removeprefix("http://")
    for number, url in enumerate(elsewhere(bystander.netloc, own)):
        photo = replace(sound[number % len(sound)], id=str(10**9 + number))
        if given == "redirect":
            url = url.replace("\r\n", "%0d%0a").replace("\x00", "%00")
            rule = {"where": "image", "kind": "redirect", "location": url, "match": f"/{photo.id}_"}
            site.faults.add([rule])
        site.catalogue.put([replace(photo, file_url=url if given == "listing" else None)])
    refresh(dataset)
    latest = account(own_root, dataset.name, ids(site))
    assert {at[1] for at in asked} == {int(own.rpartition(":")[2])}
    assert {at[0] for at in asked} == {"127.0.0.1"}
    assert bystander.heard == 0
    reasons = {row["download_reason"] for row in latest.values()}
    assert reasons <= {"forbidden_host", "gone", "no_image_url"}, reasons


def test_an_api_that_redirects_gets_no_key_elsewhere(
    own_root: Layout, serve: Serve, refresh: Refresh, sound: list[Photo], dataset: Dataset, bystander: Bystander
) -> None:
    """A redirect of the API to another host is refused in a sentence without the key."""
    site = serve(filled(sound), faults=[Fault("api", "redirect", location=f"http://{bystander.netloc}/rest/?a=b")])
    with pytest.raises(PermanentSourceError) as refusal:
        refresh(dataset)
    assert bystander.heard == 0
    assert "0123456789abcdef" not in str(refusal.value)
    assert site.stats()["calls_total"] <= 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("endless", "too_large"), ("gzip_bomb", "too_large"), ("length_huge", "too_large"), ("bomb", "too_many_pixels")],
)
def test_what_is_too_large_ends_early(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    kind: str, reason: str,
) -> None:  # fmt: skip
    """Bodies without end, bombs and lengths that lie are rows with a reason, in little memory; others are fetched."""
    site = serve(Catalogue())
    web.client().limits = replace(web.LIMITS, body_bytes=4_000_000)
    for photo in sound[:4]:
        site.faults.add([{"where": "image", "kind": kind, "match": f"/{photo.id}_", "seconds": 20}])
    site.catalogue.put(sound[:12])
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refresh(dataset)
    latest = account(own_root, dataset.name, ids(site))
    assert {latest[photo.id]["download_reason"] for photo in sound[:4]} == {reason}
    assert {latest[photo.id]["download_reason"] for photo in sound[4:12]} == {None}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 400_000


def test_an_api_without_end_ends(
    own_root: Layout, serve: Serve, refresh: Refresh, sound: list[Photo], dataset: Dataset
) -> None:
    """A reply that goes on and on is given up at the limit, in a sentence, and not asked for again."""
    site = serve(filled(sound), faults=[Fault("api", "endless", seconds=20)])
    web.client().limits = replace(web.LIMITS, body_bytes=4_000_000)
    with pytest.raises(DarkroomError, match="more than"):
        refresh(dataset)
    assert site.stats()["calls_total"] <= 12


def test_headers_that_come_back_say_nothing_new(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    set_clock: Callable[[timedelta], None],
) -> None:  # fmt: skip
    """An ETag with line breaks and control characters, on a transfer that breaks off: the file comes, and no request
    of ours has a header that the host has written.
    """
    site = serve(filled(sound[:20]), faults=[Fault("image", "odd_headers", 0.6)])
    seen: list[Mapping[str, str]] = []
    answer = site.images.answer

    def noted(path: str, headers: Mapping[str, str], client: str) -> Any:
        seen.append(dict(headers))
        return answer(path, headers, client)

    site.images.answer = noted  # type: ignore[method-assign]
    for month in range(6):
        set_clock(timedelta(days=31 * month))
        with suppress(DarkroomError):
            refresh(dataset)
    latest = account(own_root, dataset.name, ids(site))
    assert {row["download_reason"] for row in latest.values()} == {None}
    assert len(seen) > 20
    assert not [headers for headers in seen if "X-Injected" in headers or "\n" in "".join(headers.values())]
    assert catalog.held(own_root, dataset.name).num_rows == len(latest)
    assert ledger.read(own_root, dataset.name, "attempts").num_rows >= len(latest)
    assert not [row for row in latest.values() if "\n" in (row["etag"] or "")]
