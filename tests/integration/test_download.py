"""Downloads from the stand-in photo site, over real HTTP, into real files: what is kept, resumed, repeated, refused."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from storage import blobs, catalog, journal, ledger, manifest, removals
from storage.layout import Layout
from storage.records import ManifestRef
from storage.settings import apply_environment, settings
from tasks import download as stage
from tasks import sources, web
from tasks.download import download, room_left
from tasks.errors import DiskFull, Interrupted, SourceUnavailable
from tasks.sources.base import Query
from tasks.sources.standin import Catalogue, Fault, Photo, StandIn
from tasks.stopping import STOPPING

KEY = "0123456789abcdef0123456789abcdef"
SHORT = web.Limits(
    connect_s=5, read_s=5, deadline_s=10, retries=1, backoff_s=0.001, backoff_max_s=0.002, pauses=1, pause_s=0.01,
    pause_max_s=1, api_per_s=10_000, api_burst=1000, images_per_s=10_000, images_burst=1000,
)  # fmt: skip
IMPATIENT = {"stall": replace(SHORT, read_s=0.5), "slow_drip": replace(SHORT, deadline_s=0.5)}
PAST = datetime(2003, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


@pytest.fixture
def root(where: Layout, environment: Callable[..., None]) -> Layout:
    """A data root of the test's own, which tasks write to."""
    environment(DARKROOM_ROOT=str(where.root))
    return where


@pytest.fixture
def limits() -> web.Limits:
    """A client that gives up soon."""
    return SHORT


Serve = Callable[..., StandIn]


def point_at(url: str) -> None:
    apply_environment(
        FLICKR_API_KEY=KEY, DARKROOM_FLICKR_URL=f"{url}/services/rest/", DARKROOM_IMAGE_HOSTS=urlsplit(url).netloc
    )


@pytest.fixture(scope="module")
def small() -> Catalogue:
    """A photo of every kind of trouble, few pixels each."""
    return Catalogue.synthetic(70, min_long_px=144, max_long_px=162)


def unused() -> str:
    """An address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def wanted(root: Layout, rows: list[Row], attempt: int = 0, **more: Any) -> ManifestRef:
    """What the flow asks download for: each photo with its ladder."""
    photos = []
    for row in rows:
        best = [{"label": row["size_label"], "url": row["image_url"]}] if row["image_url"] else []
        who = {name: row[name] for name in ("source", "photo_id", "owner_id")}
        photos.append({**who, "attempt": attempt, "renditions": best + row["fallbacks"], **more})
    return manifest.write_rows(root, "wanted", photos)


def fetched(root: Layout, rows: list[Row], attempt: int = 0, **more: Any) -> dict[str, Row]:
    """Attempts by photo."""
    ref = download.fn("flickr", "d", wanted(root, rows, attempt, **more))
    return {row["photo_id"]: row for row in manifest.read(root, ref).to_pylist()}


def found(root: Layout, **fields: Any) -> list[Row]:
    query = Query(**({"uploaded_after": PAST} | fields))
    return sources.named("flickr").search(query, None, frozenset(), settings()).listings


def sound(catalogue: Catalogue) -> list[Photo]:
    return [p for p in catalogue.listed() if p.defect is None and p.is_original_public and p.original_format == "jpg"]


def files(root: Layout) -> set[Path]:
    return {file for file in root.root.rglob("*") if file.is_file()}


def parts(root: Layout) -> list[Path]:
    return list(root.root.rglob("*.part"))


REASONS = {
    None: None, "truncated": "truncated", "zero_bytes": "empty", "html": "html", "png_named_jpg": None,
    "corrupt": "corrupt", "bomb": "too_many_pixels", "noimageai": "opted_out",
}  # fmt: skip


def test_every_photo_is_bytes_or_a_reason(
    root: Layout, serve: Serve, small: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    """Sound originals are kept byte for byte under their digest; each broken kind is a row with its reason."""
    serve(small)
    caplog.set_level(logging.INFO, "tasks")
    rows = found(root)
    caplog.clear()
    attempts = fetched(root, rows)
    assert set(attempts) == {photo.id for photo in small.listed()}
    seen = set()
    for photo in small.listed():
        row = attempts[photo.id]
        seen.add(photo.defect)
        if photo.defect == "missing":
            assert (row["download_reason"], row["http_status"]) == ("gone", 404)
            continue
        if photo.is_original_public:
            assert (photo.defect, row["download_reason"]) == (photo.defect, REASONS[photo.defect])
        if row["download_reason"] is None:
            blob = root.blob(row["sha256"], row["format"]).read_bytes()
            assert len(blob) == row["bytes"]
            assert row["next_try_at"] is None
            assert not photo.is_original_public or blob == small.original(photo.id)
        if photo.defect == "png_named_jpg":
            assert row["format"] == "PNG"
    assert seen == {*REASONS, "missing"}
    assert parts(root) == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "fetched=" in caplog.text


def test_the_manifest_of_a_batch_is_sorted_and_whole(root: Layout, serve: Serve, small: Catalogue) -> None:
    """One row per wanted photo, by photo id, whatever order eight threads finish in."""
    serve(small)
    ref = download.fn("flickr", "d", wanted(root, found(root, limit=20)))
    photo_ids = [row["photo_id"] for row in manifest.read(root, ref).to_pylist()]
    assert photo_ids == sorted(photo_ids)
    assert (ref.stage, ref.rows, len(set(photo_ids))) == ("attempts", 20, 20)


def test_the_ladder_gives_the_next_size(root: Layout, serve: Serve, small: Catalogue) -> None:
    """A file replaced since the search has new addresses; sizes that still answer stand in, largest first."""
    site = serve(Catalogue())
    photo = replace(sound(small)[0], id="77")
    picture = replace(photo.picture, width=1200, height=800)
    site.catalogue.put([replace(photo, picture=picture)])
    rows = found(root)
    assert [rung["label"] for rung in rows[0]["fallbacks"]] == ["Large", "Medium 800", "Medium 640"]
    site.catalogue.change("77", original_secret="0" * 10)
    row = fetched(root, rows)["77"]
    assert (row["download_reason"], row["fetched_label"], row["http_status"]) == (None, "Large", 200)
    assert site.stats()["images"] == {"404": 1, "200": 1}
    site.catalogue.delete("77")
    row = fetched(root, rows, attempt=1)["77"]
    assert (row["download_reason"], row["fetched_label"], row["attempt"]) == ("gone", "Medium 640", 1)


@pytest.mark.parametrize(
    ("fault", "reason", "status"),
    [
        (Fault("image", "http_403"), "denied", 403),
        (Fault("image", "http_404"), "gone", 404),
        (Fault("image", "http_410"), "gone", 410),
        (Fault("image", "http_429"), "rate_limited", 429),
        (Fault("image", "redirect_unavailable"), "gone", 200),
        (Fault("image", "noimageai"), "opted_out", 200),
        (Fault("image", "truncated_stream"), "truncated", 200),
        (Fault("image", "zero_bytes"), "empty", 200),
        (Fault("image", "html"), "html", 200),
        (Fault("image", "http_503"), "unavailable", 503),
        (Fault("image", "stall", seconds=0.7), "unavailable", None),
        (Fault("image", "slow_drip", seconds=2), "unavailable", 200),
        (Fault("image", "reset"), "unavailable", None),
    ],
)  # fmt: skip
def test_each_fault_is_its_reason(
    root: Layout, serve: Serve, small: Catalogue, fault: Fault, reason: str, status: int | None
) -> None:
    """A photo that a fault strikes is a row with a reason, and the photo beside it is fetched; a part is no photo."""
    one, other = sound(small)[:2]
    site = serve(Catalogue(), faults=[replace(fault, match=one.original_secret)])
    site.catalogue.put([one, other])
    web.client().limits = IMPATIENT.get(fault.kind, SHORT)
    rows = [{**row, "fallbacks": []} for row in found(root)]
    attempts = fetched(root, rows)
    assert (attempts[one.id]["download_reason"], attempts[one.id]["http_status"]) == (reason, status)
    assert attempts[one.id]["sha256"] is None
    assert attempts[other.id]["download_reason"] in (None, "rate_limited")
    assert len(parts(root)) == (fault.kind in ("truncated_stream", "slow_drip"))


@pytest.mark.parametrize("kind", ["truncated_stream", "zero_bytes", "html", "corrupt", "reset", "stall", "http_503"])
def test_a_cut_transfer_is_asked_for_again_at_once(root: Layout, serve: Serve, small: Catalogue, kind: str) -> None:
    """One broken transfer does not cost a photo."""
    photo = sound(small)[0]
    site = serve(Catalogue(), faults=[Fault("image", kind, times=1, seconds=0.7)])
    site.catalogue.put([photo])
    web.client().limits = IMPATIENT.get(kind, SHORT)
    row = fetched(root, found(root))[photo.id]
    assert (row["download_reason"], row["bytes"]) == (None, len(small.original(photo.id)))
    assert sum(site.stats()["faults"].values()) == 1


def test_a_busy_image_host_is_given_time(root: Layout, serve: Serve, small: Catalogue) -> None:
    """A host that refuses some files is asked more slowly, and every photo comes."""
    site = serve(Catalogue(), faults=[Fault("image", "http_429", times=6)])
    site.catalogue.put(sound(small)[:12])
    web.client().limits = replace(SHORT, pauses=6)
    attempts = fetched(root, found(root))
    assert {row["download_reason"] for row in attempts.values()} == {None}
    assert site.stats()["images"] == {"200": 12, "429": 6}


def test_a_forbidden_host_is_never_asked(root: Layout, serve: Serve, small: Catalogue) -> None:
    """A listing that points elsewhere is a row with a reason, and that host hears nothing from us."""
    site = serve(small)
    rows = found(root, limit=2)
    rows[0]["image_url"] = "http://169.254.169.254/latest/meta-data/"
    attempts = fetched(root, rows)
    row = attempts[rows[0]["photo_id"]]
    assert (row["download_reason"], row["next_try_at"], row["http_status"]) == ("forbidden_host", None, None)
    assert site.stats()["images_total"] >= 1


def test_a_password_before_a_host_is_neither_sent_nor_kept(root: Layout, serve: Serve, small: Catalogue) -> None:
    """Its photo is a row with a reason, and no column of that has the password."""
    site = serve(small)
    rows = found(root, limit=2)
    own = urlsplit(site.url).netloc
    rows[0]["image_url"] = f"http://ann:s3cret@{own}/1.jpg?sig=s3cret"
    row = fetched(root, rows)[rows[0]["photo_id"]]
    assert (row["download_reason"], row["fetched_url"]) == ("forbidden_host", f"http://{own}/1.jpg")
    assert "s3cret" not in str(row)


def test_a_photo_without_any_url_is_kept_as_a_row(root: Layout, serve: Serve, small: Catalogue) -> None:
    """A small photo with a hidden original offers no size of the ladder; it is listed, and its row says so."""
    site = serve(Catalogue())
    photo = replace(sound(small)[0], is_original_public=False)
    site.catalogue.put([photo])
    (row,) = found(root)
    assert (row["image_url"], row["fallbacks"]) == (None, [])
    assert fetched(root, [row])[photo.id]["download_reason"] == "no_image_url"


def test_a_batch_that_nobody_waits_for_ends_with_what_it_has(
    root: Layout, serve: Serve, small: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No photo is begun any more; what was fetched stands in the journal, and the next run asks for the rest."""
    serve(small)
    rows, fetch, calls = found(root, limit=40), stage.fetch, []

    def interrupted(*arguments: Any) -> Row:
        calls.append(arguments)
        if len(calls) == 5:
            STOPPING.set()
        return fetch(*arguments)

    monkeypatch.setattr(stage, "fetch", interrupted)
    try:
        with pytest.raises(Interrupted, match="what was fetched is kept"):
            download.fn("flickr", "d", wanted(root, rows))
    finally:
        STOPPING.clear()
    begun = len(calls)
    assert 5 <= begun < 5 + stage.THREADS
    assert 0 < noted(root) <= begun
    kept = noted(root)
    assert len(fetched(root, rows)) == len(rows)
    assert len(calls) == begun + len(rows) - kept


def test_a_site_that_gives_nothing_leaves_nothing(root: Layout, serve: Serve, small: Catalogue) -> None:
    """If not one photo of a batch brings an answer the batch fails, names the host, and writes no manifest."""
    serve(small)
    rows = found(root, limit=12)
    netloc = unused()
    for row in rows:
        row |= {"image_url": f"http://{netloc}/1.jpg", "fallbacks": []}
    point_at(f"http://{netloc}")
    batch = wanted(root, rows)
    before = files(root)
    with pytest.raises(SourceUnavailable, match=f"none of 12 photos could be fetched from {netloc}"):
        download.fn("flickr", "d", batch)
    assert files(root) == before


def test_the_same_bytes_are_kept_once(root: Layout, serve: Serve, small: Catalogue) -> None:
    """Two photos with one file share one blob."""
    site = serve(Catalogue())
    photo = sound(small)[0]
    site.catalogue.put([photo, replace(photo, id="78")])
    attempts = fetched(root, found(root))
    assert len({row["sha256"] for row in attempts.values()}) == 1
    assert [row["download_reason"] for row in attempts.values()] == [None, None]


def test_what_was_fetched_is_in_the_ledger_and_nowhere_else(root: Layout, serve: Serve, small: Catalogue) -> None:
    """A whole batch leaves its rows in the ledger once, an empty journal, and no parts."""
    serve(small)
    rows = found(root)
    fetched(root, rows)
    attempts = ledger.read(root, "d", "attempts").to_pylist()
    assert sorted(row["photo_id"] for row in attempts) == sorted(row["photo_id"] for row in rows)
    assert list(root.journal("d").iterdir()) == parts(root) == []
    assert journal.recover(root, "d") == 0
    assert all("?" not in (row["fetched_url"] or "") for row in attempts)


def test_a_batch_that_is_tried_again_asks_for_the_rest_only(
    root: Layout, serve: Serve, small: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host dies amid a batch: what came is in the journal, and the next try asks only for what did not."""
    photos = sound(small)[:20]
    site = serve(Catalogue())
    site.catalogue.put(photos)
    rows = found(root)
    batch = wanted(root, rows)
    for photo in photos[8:]:
        site.faults.add([{"where": "image", "kind": "http_503", "match": photo.original_secret}])
    monkeypatch.setattr("tasks.download.is_last_try", lambda: False)
    monkeypatch.setattr("tasks.pace.OPEN_S", 0.01)
    for row in rows:
        row["fallbacks"] = []
    with pytest.raises(SourceUnavailable, match=r"12 of 20 photos could not be fetched from 127\.0\.0\.1"):
        download.fn("flickr", "d", batch)
    assert noted(root) == 8
    assert ledger.read(root, "d", "attempts").num_rows == 0
    site.faults.clear()
    time.sleep(0.05)
    before = site.stats()["images"]["200"]
    ref = download.fn("flickr", "d", batch)
    assert site.stats()["images"]["200"] - before == 12
    assert [row["download_reason"] for row in manifest.read(root, ref).to_pylist()] == [None] * 20
    assert list(root.journal("d").iterdir()) == []


def test_the_last_try_keeps_what_there_is(root: Layout, serve: Serve, small: Catalogue) -> None:
    """Some came, others did not, and there will be no other try: rows, of which the others are due at once."""
    photos = sound(small)[:20]
    site = serve(Catalogue(), faults=[Fault("image", "http_503", match=p.original_secret) for p in photos[8:]])
    site.catalogue.put(photos)
    rows = [row | {"fallbacks": []} for row in found(root)]
    reasons = [row["download_reason"] for row in fetched(root, rows).values()]
    assert (reasons.count(None), reasons.count("unavailable")) == (8, 12)


CHILD = """
import sys
from storage.layout import layout
from storage.records import ManifestRef
from tasks import web
from tasks.download import download
web.LIMITS = web.Limits(images_per_s=1e4, images_burst=1000)
download.fn("flickr", "d", ManifestRef.model_validate_json(sys.argv[1]))
"""


def test_a_killed_batch_loses_only_what_was_in_flight(root: Layout, serve: Serve, small: Catalogue) -> None:
    """kill -9 amid a batch: the journal gives back what was fetched, and no photo is fetched or counted twice."""
    photos, photos_done = sound(small)[:40], 5
    site = serve(Catalogue(), latency_s=0.15)
    site.catalogue.put(photos)
    rows = found(root)
    batch = wanted(root, rows)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, batch.model_dump_json()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        if noted(root) >= photos_done:
            child.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    assert child.wait() == -signal.SIGKILL
    kept = journal.recover(root, "d")
    assert photos_done <= kept < len(photos)
    assert catalog_ids(ledger.read(root, "d", "attempts").to_pylist()) == catalog_ids(held(root))
    site.latency_s = 0
    before = site.stats()["images_total"]
    rest = [row for row in rows if row["photo_id"] not in catalog_ids(held(root))]
    attempts = fetched(root, rest)
    assert len(attempts) == len(photos) - kept == site.stats()["images_total"] - before
    everything = ledger.read(root, "d", "attempts").to_pylist()
    assert sorted(row["photo_id"] for row in everything) == sorted(photo.id for photo in photos)
    assert {blobs.get(root, row["sha256"], row["format"]) for row in everything} == {
        small.original(photo.id) for photo in photos
    }


def noted(root: Layout) -> int:
    """Rows of the dataset's journal, a torn one among them."""
    return sum(file.read_bytes().count(b"\n") for file in root.journal("d").glob("*"))


def held(root: Layout) -> list[Row]:
    return [row for row in ledger.read(root, "d", "attempts").to_pylist() if row["sha256"]]


def catalog_ids(rows: list[Row]) -> set[str]:
    return {row["photo_id"] for row in rows}


def test_a_journal_that_was_handed_over_twice_counts_once(root: Layout, serve: Serve, small: Catalogue) -> None:
    """Killed between handing over and clearing: the ledger has a row twice, and whoever reads it sees one photo. What a
    process writes that lives is left to it.
    """
    serve(small)
    rows = found(root, limit=3)
    (attempt, *_) = fetched(root, rows).values()
    ledger.adopt(root, "d", manifest.write_rows(root, "listings", rows))
    with journal.keeping(root, "d", "batch") as book:
        book.note(attempt)
        assert journal.recover(root, "d") == 0
    assert journal.recover(root, "d") == 1
    assert list(root.journal("d").iterdir()) == []
    assert ledger.read(root, "d", "attempts").num_rows == 4
    assert catalog.held(root, "d").num_rows + catalog.wanted(root, "d", datetime.now(UTC)).num_rows <= 3


def test_a_transfer_that_breaks_off_goes_on_by_range(root: Layout, serve: Serve, small: Catalogue) -> None:
    """The second request asks only for what is missing, and the file is the site's, byte for byte."""
    site = serve(Catalogue(), faults=[Fault("image", "truncated_stream", times=1)])
    site.catalogue.put(sound(small)[:1])
    (row,) = fetched(root, found(root)).values()
    assert (row["download_reason"], row["http_status"], row["fetched_label"]) == (None, 206, "Original")
    assert blobs.get(root, row["sha256"], row["format"]) == site.catalogue.original(row["photo_id"])
    assert site.stats()["images"] == {"200": 1, "206": 1}
    assert parts(root) == []


def test_a_transfer_that_takes_too_long_goes_on_the_next_time(root: Layout, serve: Serve, small: Catalogue) -> None:
    """What dripped in before the deadline is not asked for again by the next run."""
    site = serve(Catalogue(), faults=[Fault("image", "slow_drip", times=1, seconds=4)])
    site.catalogue.put(sound(small)[:1])
    rows = found(root)
    web.client().limits = IMPATIENT["slow_drip"]
    (row,) = fetched(root, rows).values()
    assert (row["download_reason"], len(parts(root))) == ("unavailable", 1)
    (row,) = fetched(root, rows, attempt=1).values()
    assert (row["download_reason"], row["http_status"], parts(root)) == (None, 206, [])
    assert blobs.get(root, row["sha256"], row["format"]) == site.catalogue.original(row["photo_id"])


def test_a_file_that_is_held_is_only_asked_whether_it_changed(root: Layout, serve: Serve, small: Catalogue) -> None:
    """304: the row says what it said before, and nothing is sent; a file that was lost is sent."""
    site = serve(Catalogue())
    site.catalogue.put(sound(small)[:1])
    rows = found(root)
    (first,) = fetched(root, rows).values()
    assert first["etag"].startswith('"')
    facts = {name: first[name] for name in ("etag", "sha256", "format", "bytes")}
    (again,) = fetched(root, rows, attempt=1, **facts).values()
    assert {name: again[name] for name in facts} == facts
    assert (again["download_reason"], again["http_status"], again["attempt"]) == (None, 304, 1)
    root.blob(first["sha256"], first["format"]).unlink()
    (lost,) = fetched(root, rows, attempt=2, **facts).values()
    assert (lost["sha256"], lost["http_status"]) == (first["sha256"], 200)
    assert site.stats()["images"] == {"200": 2, "304": 1}


def test_what_was_removed_does_not_come_back(root: Layout, serve: Serve, small: Catalogue) -> None:
    """A removed photo, and one of a removed owner, are not asked for; removed bytes are not kept."""
    photos = sound(small)[:12]
    site = serve(Catalogue())
    site.catalogue.put(photos)
    rows = sorted(found(root), key=lambda row: row["photo_id"])
    attempts = fetched(root, rows)
    by_hash = rows[-1]["photo_id"]
    sha256 = attempts[by_hash]["sha256"]
    root.blob(sha256, attempts[by_hash]["format"]).unlink()
    now = datetime.now(UTC)
    why = {"reason": "gone", "proof": "p", "removed_at": now}
    removals.add(root, [
        {"source": "flickr", "photo_id": rows[0]["photo_id"], **why}, {"sha256": sha256, **why},
        {"source": "flickr", "owner_id": rows[1]["owner_id"], **why},
    ])  # fmt: skip
    before = site.stats()["images_total"]
    again = fetched(root, rows, attempt=1)
    removed = {photo_id for photo_id, row in again.items() if row["download_reason"] == "removed"}
    expected = {row["photo_id"] for row in rows if row["owner_id"] == rows[1]["owner_id"]} | {rows[0]["photo_id"]}
    assert removed == expected | {by_hash}
    assert all(again[photo_id]["sha256"] is again[photo_id]["next_try_at"] is None for photo_id in removed)
    assert site.stats()["images_total"] - before == len(rows) - len(expected)
    assert not root.blob(sha256, attempts[by_hash]["format"]).exists()


def test_a_full_disk_ends_a_batch_that_keeps_what_it_had(
    root: Layout, serve: Serve, small: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DiskFull at once, not after every photo of the batch has failed by it; what came before is in the journal."""
    site = serve(Catalogue(), latency_s=0.02)
    site.catalogue.put(sound(small)[:40])
    batch, put, done = wanted(root, found(root)), blobs.put, []

    def small_disk(*args: Any) -> str:
        if len(done) >= 5:
            raise DiskFull("no space left")
        done.append(1)
        return put(*args)

    monkeypatch.setattr(blobs, "put", small_disk)
    monkeypatch.setattr("tasks.download.THREADS", 4)
    with pytest.raises(DiskFull):
        download.fn("flickr", "d", batch)
    assert site.stats()["images_total"] < 30
    assert journal.recover(root, "d") == 5


def test_room_is_what_the_disk_and_the_setting_leave(root: Layout, environment: Callable[..., None]) -> None:
    """Photos may fill the disk but for 2 GB, and no more than the setting allows."""
    free = room_left(root, settings())
    blobs.put(root, bytes(3_000_000), "JPEG")
    environment(DARKROOM_DISK_GB="0.01")
    assert room_left(root, settings()) == 7_000_000 <= free
    environment(DARKROOM_DISK_GB="0.001")
    assert room_left(root, settings()) == 0
