"""What the catalogue makes of a ledger: which photos are wanted, under which licence each was downloaded."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage import catalog, ledger, manifest, removals
from storage.errors import SnapshotMissing
from storage.layout import Layout, write_bytes
from storage.records import SCHEMAS
from tasks.audit import photos_due

NOW = datetime(2024, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def listed(where: Layout, photo_id: str = "1", at: datetime = NOW, **facts: Any) -> None:
    row = {
        "source": "flickr", "photo_id": photo_id, "query_id": "q", "observed_at": at, "owner_id": "ann",
        "licence": "CC BY 4.0", "image_url": f"https://h/{photo_id}_o.jpg", "size_label": "Original",
        "listed_width": 100, "listed_height": 50, "uploaded_at": at - 9 * DAY,
        "fallbacks": [{"label": "Large", "url": f"https://h/{photo_id}_b.jpg"}],
    }  # fmt: skip
    ledger.adopt(where, "d", manifest.write_rows(where, "listings", [row | facts]))


def tried(where: Layout, photo_id: str = "1", at: datetime = NOW, keep: bool = True, **facts: Any) -> None:
    row = {"source": "flickr", "photo_id": photo_id, "attempt": 0, "fetched_at": at}
    row |= {"fetched_url": f"https://h/{photo_id}_o.jpg", "fetched_label": "Original"}
    if keep:
        sha256 = photo_id.zfill(64)
        path = where.blob(sha256, "JPEG")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a picture")
        row |= {"sha256": sha256, "bytes": 9, "format": "JPEG"}
    ledger.adopt(where, "d", manifest.write_rows(where, "attempts", [row | facts]))


def wanted(where: Layout, at: datetime = NOW) -> list[dict[str, Any]]:
    return list(catalog.wanted(where, "d", at).to_pylist())


def fact(where: Layout, photo_id: str = "1") -> dict[str, Any]:
    [row] = [row for row in catalog.facts(where, "d").to_pylist() if row["photo_id"] == photo_id]
    return dict(row)


def test_a_photo_that_was_never_asked_for_is_wanted(where: Layout) -> None:
    """With its ladder, largest first, as its first attempt."""
    listed(where, licence=None)
    [row] = wanted(where)
    assert (row["attempt"], row["owner_id"]) == (0, "ann")
    assert [rung["label"] for rung in row["renditions"]] == ["Original", "Large"]


def test_whether_a_forbidden_photo_may_be_had_is_asked_however_open_it_was(where: Layout) -> None:
    """It was listed with its original; its owner forbade downloads since."""
    listed(where, is_open=True)
    tried(where)
    no = {"attempt": 1, "download_reason": "not_downloadable", "next_try_at": NOW + 30 * DAY}
    tried(where, at=NOW + DAY, keep=False, **no)
    assert not wanted(where, NOW + 29 * DAY)
    assert [row["is_open"] for row in wanted(where, NOW + 31 * DAY)] == [False]


def checked(where: Layout, at: datetime, may: bool) -> None:
    row = {"source": "flickr", "photo_id": "1", "checked_at": at, "state": "present", "is_download_allowed": may}
    ledger.adopt(where, "d", manifest.write_rows(where, "checks", [row]))


@pytest.mark.parametrize("reason", ["unavailable", "denied", "gone", "rate_limited"])
def test_an_attempt_that_failed_makes_nobody_forget_what_the_owner_said(where: Layout, reason: str) -> None:
    """The site is asked about a photo that was forbidden until it says that it may be had."""
    listed(where, is_open=True)
    tried(where)
    tried(where, at=NOW + DAY, keep=False, attempt=1, download_reason="not_downloadable")
    failed = {"keep": False, "download_reason": reason, "next_try_at": NOW}
    tried(where, at=NOW + 2 * DAY, attempt=2, **failed)
    assert [row["is_open"] for row in wanted(where, NOW + 3 * DAY)] == [False]
    checked(where, NOW + 3 * DAY, True)
    assert [row["is_open"] for row in wanted(where, NOW + 4 * DAY)] == [True]


def test_a_photo_that_was_had_with_leave_is_open_again(where: Layout) -> None:
    """Until its owner, in the meantime, forbids it: then the site is asked, though no attempt has said so yet."""
    listed(where, is_open=True)
    tried(where, keep=False, download_reason="not_downloadable")
    tried(where, at=NOW + DAY, attempt=1)
    where.blob("1".zfill(64), "JPEG").unlink()
    assert [row["is_open"] for row in wanted(where, NOW + 2 * DAY)] == [True]
    checked(where, NOW + 2 * DAY, False)
    assert [row["is_open"] for row in wanted(where, NOW + 3 * DAY)] == [False]


def test_a_photo_that_is_held_is_not_wanted(where: Layout) -> None:
    """Not today and not in ten years, while its file is there and its address is offered."""
    listed(where, licence=None)
    tried(where, etag='"x"')
    assert wanted(where, NOW + 3650 * DAY) == []


def test_a_photo_that_failed_is_wanted_when_it_is_due(where: Layout) -> None:
    """Not before, and with one attempt more."""
    listed(where)
    tried(where, keep=False, download_reason="truncated", next_try_at=NOW + DAY)
    assert wanted(where) == []
    assert [row["attempt"] for row in wanted(where, NOW + DAY)] == [1]


def test_a_held_photo_whose_new_file_did_not_come_is_due_again(where: Layout) -> None:
    """The old file counts until then."""
    listed(where)
    tried(where, next_try_at=NOW + 30 * DAY)
    assert wanted(where) == []
    [row] = wanted(where, NOW + 30 * DAY)
    assert (row["sha256"], row["attempt"]) == ("1".zfill(64), 1)
    assert fact(where)["download_reason"] is None


def test_a_lost_file_is_wanted_again(where: Layout) -> None:
    """Without the tag of a file that is no longer here."""
    listed(where)
    tried(where, etag='"x"')
    where.blob("1".zfill(64), "JPEG").unlink()
    [row] = wanted(where)
    assert row["etag"] is None


def test_a_replaced_file_is_wanted_again(where: Layout) -> None:
    """Its address is offered no more: another one leads to another file."""
    listed(where)
    tried(where)
    listed(where, at=NOW + DAY, image_url="https://h/1_new_o.jpg", fallbacks=[])
    [row] = wanted(where, NOW + DAY)
    assert (row["renditions"][0]["url"], row["etag"]) == ("https://h/1_new_o.jpg", None)


def test_a_file_that_was_written_over_is_wanted_again(where: Layout) -> None:
    """Its path is the same, its tag is not; a tag that nobody knows says nothing."""
    local = {"source": "folder", "image_url": "file:///p/1.jpg", "fallbacks": []}
    listed(where, listed_etag='"a"', **local)
    tried(where, source="folder", fetched_url="file:///p/1.jpg", etag='"a"')
    assert wanted(where) == []
    listed(where, at=NOW + DAY, listed_etag='"b"', **local)
    assert [row["etag"] for row in wanted(where, NOW + DAY)] == [None]
    listed(where, at=NOW + 2 * DAY, **local)
    assert wanted(where, NOW + 2 * DAY) == []


def test_a_broken_file_is_wanted_when_it_was_mended(where: Layout) -> None:
    """Not before it was written again, and then at once."""
    local = {"source": "folder", "image_url": "file:///p/1.jpg", "fallbacks": []}
    listed(where, listed_etag='"a"', **local)
    broken = {"download_reason": "truncated", "etag": '"a"', "next_try_at": NOW + 30 * DAY}
    tried(where, keep=False, source="folder", fetched_url="file:///p/1.jpg", **broken)
    assert wanted(where) == []
    listed(where, at=NOW + DAY, listed_etag='"b"', **local)
    assert [row["attempt"] for row in wanted(where, NOW + DAY)] == [1]


def test_a_signed_address_may_change_without_a_new_file(where: Layout) -> None:
    """What stands behind the question mark expires, and a password before the host is not kept; the photo is the
    same."""
    listed(where, image_url="https://h/1_o.jpg?sig=a", fallbacks=[])
    tried(where)
    for days, url in enumerate(("https://h/1_o.jpg?sig=b", "https://ann:pw@h/1_o.jpg?sig=@b"), start=1):
        listed(where, at=NOW + days * DAY, image_url=url, fallbacks=[])
        assert wanted(where, NOW + days * DAY) == []


def test_a_smaller_size_that_stood_in_is_enough(where: Layout) -> None:
    """The original was not there; what was fetched instead is still on the ladder."""
    listed(where)
    tried(where, fetched_url="https://h/1_b.jpg", fetched_label="Large")
    assert wanted(where) == []


def test_the_address_of_a_table_is_looked_at_again(where: Layout) -> None:
    """After three months, with the tag of what it gave: a table's addresses stay, their files may not."""
    for moment in (NOW, NOW + 89 * DAY):
        listed(where, at=moment, source="table")
    tried(where, source="table", etag='"x"')
    assert wanted(where, NOW + 89 * DAY) == []
    [row] = wanted(where, NOW + 91 * DAY)
    assert (row["etag"], row["bytes"], row["sha256"]) == ('"x"', 9, "1".zfill(64))
    where.blob("1".zfill(64), "JPEG").unlink()
    assert [row["etag"] for row in wanted(where, NOW + 91 * DAY)] == [None], "nothing is here to be compared with"


def test_a_licence_that_nobody_explains_keeps_a_photo_out(where: Layout) -> None:
    """It is not fetched, and says why; explained, it is wanted."""
    listed(where, licence="unknown:17")
    assert wanted(where) == []
    assert fact(where)["download_reason"] == "unknown_licence"
    listed(where, at=NOW + DAY)
    assert len(wanted(where, NOW + DAY)) == 1
    assert fact(where)["download_reason"] is None


def test_the_licence_is_the_one_at_download(where: Layout) -> None:
    """What the owner says later stands beside it."""
    listed(where, at=NOW - 2 * DAY, licence="CC0", licence_url="u0")
    listed(where, at=NOW - DAY)
    tried(where)
    assert (fact(where)["licence"], fact(where)["licence_now"]) == ("CC BY 4.0", None)
    listed(where, at=NOW + DAY, licence="All Rights Reserved", licence_url=None)
    row = fact(where)
    assert (row["licence"], row["licence_now"]) == ("CC BY 4.0", "All Rights Reserved")


def test_a_check_of_the_licence_counts(where: Layout) -> None:
    """The audit may be the first to see that it changed."""
    listed(where, at=NOW - DAY)
    tried(where)
    check = {"source": "flickr", "photo_id": "1", "checked_at": NOW + DAY, "state": "present", "licence": "CC0"}
    ledger.adopt(where, "d", manifest.write_rows(where, "checks", [check]))
    assert fact(where)["licence_now"] == "CC0"


def test_a_file_fetched_again_keeps_its_first_licence(where: Layout) -> None:
    """The right to keep it was given then."""
    listed(where, at=NOW - DAY, licence="CC0")
    tried(where)
    listed(where, at=NOW + DAY)
    tried(where, at=NOW + 2 * DAY, attempt=1)
    assert (fact(where)["licence"], fact(where)["licence_now"]) == ("CC0", "CC BY 4.0")


def test_a_path_on_this_machine_is_not_published(where: Layout) -> None:
    """Whoever gets the dataset need not know whose home it came from."""
    listed(where, source="folder", image_url="file:///home/ann/1.jpg")
    assert fact(where)["image_url"] is None


@pytest.mark.parametrize(
    "removal",
    [{"source": "flickr", "photo_id": "1"}, {"source": "flickr", "owner_id": "ann"}, {"sha256": "1".zfill(64)}],
)
def test_what_was_removed_is_nowhere(where: Layout, removal: dict[str, str]) -> None:
    """By photo, by owner or by its bytes: no question of the catalogue brings it back."""
    listed(where)
    listed(where, "2", owner_id="bob")
    tried(where)
    tried(where, "2")
    removals.add(where, [removal | {"reason": "asked", "proof": "letter", "removed_at": NOW}])
    for answer in (catalog.facts, catalog.held, catalog.owners, catalog.known):
        assert answer(where, "d")["photo_id"].to_pylist() == ["2"]
    where.blob("1".zfill(64), "JPEG").unlink()
    assert wanted(where, NOW + 365 * DAY) == []


def test_what_a_query_says_does_not_depend_on_which_was_asked_last(where: Layout) -> None:
    """The label is that of the first query that has one, the file the largest; titles are as they were seen last."""
    small = {"image_url": "https://h/1_b.jpg", "size_label": "Large", "listed_width": 10, "listed_height": 5}
    for first, second in ((0, 1), (1, 0)):
        listed(where, at=NOW + first * DAY, query_id="sea", label="sea", title=f"{first}")
        listed(where, at=NOW + second * DAY, query_id="boat", label="boat", title=f"{second}", fallbacks=[], **small)
        for order, label in ((["boat", "sea"], "boat"), (["sea", "boat"], "sea"), (["hill", "sea"], "sea")):
            [row] = catalog.facts(where, "d", order).to_pylist()
            assert row["title"] == "1"
            assert (row["image_url"], row["size_label"], row["listed_width"]) == ("https://h/1_o.jpg", "Original", 100)
            assert catalog.tagged(where, "d", order)["label"].to_pylist() == [label]
            [wish] = catalog.wanted(where, "d", NOW + 2 * DAY, order).to_pylist()
            assert [rung["label"] for rung in wish["renditions"]] == ["Original", "Large"]


def test_rows_of_a_clock_that_was_ahead_do_not_stand_above_others(where: Layout) -> None:
    """What was seen next year was not: the latest facts are those of today, and they grow old in time."""
    today = datetime.now(UTC)
    listed(where, at=today + 365 * DAY, title="ahead", uploaded_at=NOW)
    listed(where, at=today, title="today", uploaded_at=NOW)
    assert fact(where)["title"] == "today"
    [(uploaded_at, seen_at)] = catalog.sightings(where, "d")["q"]
    assert (uploaded_at, seen_at) == (NOW, today)


def test_moments_are_utc_wherever_the_machine_is(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the hour that a clock on the wall shows twice, too."""
    row = {"source": "flickr", "query_id": "q", "state": "listed", "total": 0, "asked_at": NOW}
    edges = [datetime(2024, 10, 27, 0, 30, tzinfo=UTC), datetime(2024, 10, 27, 1, 30, tzinfo=UTC)]
    ref = manifest.write_rows(where, "windows", [row | {"uploaded_after": edges[0], "uploaded_before": edges[1]}])
    ledger.adopt(where, "d", ref)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        [window] = catalog.asked(where, "d")["q"]
        assert window["uploaded_before"] > window["uploaded_after"]
        assert window["uploaded_before"].utcoffset() == 0 * DAY
    finally:
        monkeypatch.undo()
        time.tzset()


def test_files_of_an_older_version_can_be_read(where: Layout) -> None:
    """Columns that came later are null in them."""
    old = SCHEMAS["attempts"].remove(SCHEMAS["attempts"].get_field_index("etag"))
    listed(where)
    tried(where)
    [file] = ledger.files(where, "d", "attempts")
    rows = manifest.read_file(file)
    manifest.write_parquet(file, rows.select(old.names), "attempts")
    assert ledger.read(where, "d", "attempts").to_pylist()[0]["etag"] is None
    assert catalog.held(where, "d").num_rows == 1
    assert wanted(where) == []


def test_many_files_become_one_that_says_the_same(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """First and last sight of equal facts stay, and every change between; what the catalogue says stays."""
    monkeypatch.setattr(ledger, "MANY_FILES", 3)
    for day in range(9):
        listed(where, at=NOW + day * DAY, title="old" if day < 5 else "new", uploaded_at=NOW - 9 * DAY)
    tried(where)
    before = catalog.facts(where, "d"), catalog.sightings(where, "d")
    assert ledger.compact(where, "d") == 9
    assert len(ledger.files(where, "d", "listings")) == 1
    rows = sorted((row["observed_at"], row["title"]) for row in ledger.read(where, "d", "listings").to_pylist())
    assert rows == [(NOW, "old"), (NOW + 4 * DAY, "old"), (NOW + 5 * DAY, "new"), (NOW + 8 * DAY, "new")]
    assert (catalog.facts(where, "d"), catalog.sightings(where, "d")) == before
    assert ledger.compact(where, "d") == 0


@pytest.mark.parametrize(
    "question",
    [
        catalog.facts,
        catalog.held,
        catalog.known,
        lambda *of: ledger.read(*of, "listings"),
        lambda *of: photos_due(*of, NOW, None, True),
    ],
)
def test_files_that_are_put_together_while_they_are_read_are_listed_again(
    where: Layout, monkeypatch: pytest.MonkeyPatch, question: Callable[[Layout, str], pa.Table]
) -> None:
    """Whoever reads without the lock of the dataset, as an audit does, sees each row all the same."""
    for day in range(3):
        listed(where, str(day), at=NOW + day * DAY)
        tried(where, str(day))
    monkeypatch.setattr(ledger, "MANY_FILES", 1)
    files = ledger.files

    def and_then_they_go(*of: Any) -> list[Path]:
        named = files(*of)
        monkeypatch.setattr(ledger, "files", files)
        ledger.compact(where, "d")
        return named

    monkeypatch.setattr(ledger, "files", and_then_they_go)
    assert sorted(question(where, "d")["photo_id"].to_pylist()) == ["0", "1", "2"]


def test_a_file_that_stays_away_is_not_asked_for_for_ever(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no compaction is an error."""
    monkeypatch.setattr(ledger, "files", lambda *of: [where.root / "not-there.parquet"])
    with pytest.raises(FileNotFoundError):
        ledger.read(where, "d", "listings")


def test_the_size_of_a_download_is_judged_by_what_is_held(where: Layout) -> None:
    """Bytes per announced pixel of the files that are here; before there are any, of photographs at large."""
    listed(where, "2")
    assert catalog.expected_bytes(where, "d", catalog.wanted(where, "d", NOW)) == pytest.approx(5000 * 0.36)
    listed(where)
    tried(where, bytes=10_000)
    assert catalog.expected_bytes(where, "d", catalog.wanted(where, "d", NOW)) == pytest.approx(10_000)


@pytest.fixture
def dated(where: Layout) -> Layout:
    """Three versions of ``d``, the second and the third of one day."""
    for version, moment in enumerate(
        ("2026-10-05T03:00:00+00:00", "2026-11-01T03:00:00+00:00", "2026-11-01T23:59:59+00:00")
    ):
        card = {"version": version + 1, "created_at": moment}
        write_bytes(where.snapshot("d", version + 1) / "snapshot.json", json.dumps(card).encode())
    return where


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        ("d", 3), ("d@2", 2), ("d@00002", 2), ("d@2026-11-01", 3), ("d@2026-10-31", 1), ("d@2030-01-01", 3),
        ("d@2026-11-01T03:00:00Z", 2), ("d@2026-11-01T02:59:59", 1), ("d@2026-11-01T05:00:00+02:00", 2),
    ],
)  # fmt: skip
def test_a_snapshot_is_found_by_version_date_and_time(dated: Layout, asked: str, version: int) -> None:
    """A date means the end of its day, and all times are UTC unless they say otherwise."""
    assert catalog.resolve(dated, asked) == ("d", version)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("d@4", r"no version '4'; it has \[1, 2, 3\], and takes dates like d@2026-11-01"),
        ("d@yesterday", "no version 'yesterday'"), ("d@2026-13-01", "no version '2026-13-01'"),
        ("d@2026-10-04", "no version at 2026-10-04: version 1 is of 2026-10-05 03:00 UTC"),
        ("e@2026-10-04", "has no snapshot below"),
    ],
)  # fmt: skip
def test_a_snapshot_that_is_not_there_is_told_in_a_sentence(dated: Layout, asked: str, words: str) -> None:
    """With what there is instead."""
    with pytest.raises(SnapshotMissing, match=words):
        catalog.resolve(dated, asked)
