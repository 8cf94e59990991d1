"""Sections of a dataset's report that not every dataset has: changes, decisions, labels, the proof about the splits."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from storage import blobs, manifest, removals, snapshots
from storage.layout import Layout
from storage.records import SCHEMAS
from tasks import report
from tasks.pages import page_changes, page_galleries, page_labels, page_proof, page_rows, thumbnails

Row = dict[str, Any]
SPLIT_OF = ("train", "train", "val", "test")


@pytest.fixture
def layout(tmp_path: Any) -> Layout:
    """An empty data root."""
    return Layout(tmp_path)


def stored(layout: Layout, brightness: int, width: int = 60, height: int = 40) -> Row:
    """The columns of an even picture that is kept below ``layout``."""
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), brightness, dtype=np.uint8)).save(stream, "PNG")
    sha256 = blobs.put(layout, stream.getvalue(), "PNG")
    return {
        "sha256": sha256, "blob": sha256, "format": "PNG", "bytes": len(stream.getvalue()), "width": width,
        "height": height, "long_px": max(width, height), "short_px": min(width, height), "net_op": 1,
        "exif_orientation": 1, "brightness": float(brightness), "sharpness": 0.0, "entropy": 0.0,
    }  # fmt: skip


def photo(index: int, **columns: Any) -> Row:
    """A joined row without a picture, kept unless ``columns`` say otherwise."""
    row: Row = dict.fromkeys(SCHEMAS["publish"].names)
    return row | {
        "source": "flickr", "photo_id": f"{index:04}", "owner_id": f"owner{index}", "title": f"photo {index}",
        "licence": "CC0", "verdict": True, "split": SPLIT_OF[index % 4], "duplicate_group": f"g{index}",
        "group_id": f"owner{index}",
    } | columns  # fmt: skip


def rejected(index: int, reason: str = "too_small", **columns: Any) -> Row:
    """A joined row that the filter rejects."""
    return photo(index, verdict=False, split=None, reason=reason, reason_stage="filter", **columns)


def joined(rows: list[Row]) -> pa.Table:
    """``rows`` as they are published."""
    return manifest.conform("publish", pa.Table.from_pylist(rows, schema=SCHEMAS["publish"]))


def section(show: Callable[..., Any], layout: Layout, rows: list[Row], *more: Any) -> Any:
    """What one section shows of ``rows``."""
    with page_rows.database(joined(rows)) as db:
        return show(db, layout, *more)


def changes(layout: Layout, rows: list[Row], before: pa.Table) -> Row:
    """The section of changes of ``rows`` since ``before``."""
    now = joined(rows)
    with page_rows.database(now, before) as db:
        return page_changes.changes(db, layout, snapshots.diff(before, now))


def test_changes_are_counted_by_their_kind(layout: Layout) -> None:
    """Photos that came, went, and changed sides or columns are counted, each once, with the reasons of the rejected."""
    before = [photo(0), photo(1), photo(2), rejected(3), rejected(4), photo(5)]
    now = [
        photo(0, title="renamed"),
        rejected(1, "wrong_aspect"),
        photo(3),
        rejected(4),
        photo(5),
        photo(6),
        rejected(7),
    ]
    shown = changes(layout, now, joined(before))
    assert shown["counts"] == {
        "added": 1, "gone": 1, "newly_kept": 1, "newly_rejected": 1, "moved": 0, "added_rejected": 1,
        "gone_rejected": 0, "taken_down": 0,
    }  # fmt: skip
    assert [(bar.label, bar.photos, bar.note) for bar in shown["reasons"]] == [("wrong aspect", 1, "filter")]
    assert ("title", 1) in shown["columns"]
    assert {sheet.title: [each.note for each in sheet.pictures] for sheet in shown["sheets"]} == {
        page_changes.KINDS["added"]: ["in val"],
        page_changes.KINDS["gone"]: [""],
        page_changes.KINDS["newly_kept"]: ["was too small"],
        page_changes.KINDS["newly_rejected"]: ["wrong aspect"],
    }


def test_a_photo_that_moves_to_another_split_is_an_alarm(layout: Layout) -> None:
    """The page says so where a kept photo changes its split, and says that none does where none does."""
    for split, says in (("train", "No photo moved"), ("test", "1 photo moved to another split")):
        page = report.dataset_report(joined([photo(0, split=split)]), "crops", layout, before=joined([photo(0)]))
        assert says in page
        assert ('class="verdict bad" id="moved"' in page) == (split == "test")


def test_a_removed_photo_is_not_shown_again(layout: Layout) -> None:
    """A photo that somebody had removed is counted among those that are gone, but not shown."""
    before = [photo(0), photo(1, title="secret", **stored(layout, 90)), photo(2, title="left", **stored(layout, 120))]
    removals.add(layout, [{"source": "flickr", "photo_id": "0001", "removed_at": datetime(2020, 1, 1, tzinfo=UTC)}])
    [gone] = changes(layout, [photo(0)], joined(before))["sheets"]
    assert (gone.photos, [each.title for each in gone.pictures]) == (2, ["left"])


def test_a_version_of_an_older_schema_is_compared(layout: Layout) -> None:
    """Columns that the version before had not heard of are no change."""
    old = joined([photo(0), photo(1)]).drop_columns(["entropy", "labels", "label", "decision"])
    shown = changes(layout, [photo(0, entropy=1.0)], old)
    assert (shown["columns"], shown["counts"]["gone"]) == ([], 1)


def test_labels_are_counted_by_split(layout: Layout) -> None:
    """A photo of several labels counts for each of them; rejected ones count for none; one label alone is enough."""
    rows = [photo(0, label="cat", labels=["cat", "dog"]), photo(2, label="cat"), photo(3), rejected(4, label="cow")]
    shown = section(page_labels.labels, layout, rows, None)
    assert [(row["label"], row["photos"], row["splits"]) for row in shown["table"]] == [
        ("cat", 2, [1, 1, 0]), ("dog", 1, [1, 0, 0]),
    ]  # fmt: skip
    assert shown["without"] == 1
    assert [(sheet.title, len(sheet.pictures)) for sheet in shown["sheets"]] == [("cat", 2), ("dog", 1)]


def test_many_labels_have_a_row_each_and_few_a_sheet(layout: Layout) -> None:
    """Of 200 labels all stand in the tables, most of them folded away, and the commonest are shown."""
    rows = [photo(index, label=f"label {index % 200:03}") for index in range(400)]
    page = report.dataset_report(joined(rows), "many", layout)
    assert page.count('<th scope="row"><bdi>label ') == 200
    assert "176 rarer labels" in page
    assert page.count('<div class="group"><h3><bdi>label ') == page_labels.LABELS_SHOWN


def test_the_account_of_labels_tells_merges_and_losses(layout: Layout) -> None:
    """Which tags became which label, what was lost and why, and how many photos that is."""
    tag = {"tag": "<cakes>", "photos": 3}
    account = {
        "steps": {"tags": 9, "written": 8, "lemmas": 7, "grouped": 6, "labels": 5},
        "pairs": {"all": 20, "in_labels": 12},
        "labels": [
            {"label": "cake", "photos": 4, "found": 5, "tags_in_all": 30, "tags": [tag] * 30},
            {"label": "cat", "photos": 4, "found": 5, "tags_in_all": 1, "tags": [tag]},
        ],
        "lost": [{"loss": "rare", "pairs": 0, "tags_in_all": 0, "tags": []},
                 {"loss": "unmapped", "pairs": 8, "tags_in_all": 1, "tags": [tag]}],
    }  # fmt: skip
    page = report.dataset_report(joined([photo(0, label="cake")]), "cakes", layout, label_account=account)
    assert "12 of 20 tags" in page
    assert "&lt;cakes&gt;" in page
    assert "and 20 more" in page
    told = page_labels.told(account)
    assert [bar.photos for bar in told["steps"]] == [9, 8, 7, 6, 5]
    assert [each["label"] for each in told["merged"]] == ["cake"]
    assert [each["bar"].label for each in told["lost"]] == ["not in the map"]


def proof(**across: int) -> Row:
    """What an audit of two kept photos finds, with so much in several splits."""
    splits = {
        split: {"photos": 1, "target": 0.3, "achieved": 0.5, "best": 0.4} for split in ("train", "val", "test")
    }  # fmt: skip
    shares = {"photos": 2, "groups": 2, "off_points": 20.0, "best_off_points": 10.0, "is_best_exact": True,
              "largest_group_share": 0.5, "splits": splits}  # fmt: skip
    return {
        "is_clean": not across, "undivided": ["duplicates", "owner"],
        "across_splits": dict.fromkeys(page_proof.NAMES, 0) | across, "max_distance_bits": 64,
        "wider_distance_bits": 80, "wider_pairs": 1, "bridges_splits": 1,
        "examples": [{"first": "flickr/0000", "second": "flickr/0002", "is_wider": not across}],
        "shares": shares, "labels": [{"label": "cat", "missing_from": ["val"], **shares}],
    }  # fmt: skip


@pytest.mark.parametrize("across", [{}, {"near_duplicates": 1}])
def test_the_proof_stands_in_the_page(layout: Layout, across: dict[str, int]) -> None:
    """Zeros are proven, anything else is an alarm; shares stand beside their targets, close pairs beside each other."""
    rows = [photo(0, **stored(layout, 90)), photo(2, **stored(layout, 100))]
    shown = section(page_proof.proof, layout, rows, proof(**across))
    assert [each.mark for each in shown["pairs"][0].pictures] == ["train", "val"]
    page = report.dataset_report(joined(rows), "proven", layout, leakage=proof(**across))
    assert ('<p class="verdict bad leak" id="proof">' in page) == bool(across)
    assert ("What leaks</h2>" if across else "Nothing leaks</h2>") in page
    assert all(figure in page for figure in ("30.0 %", "50.0 %", "40.0 %"))
    assert page.count('<td class="number lacks">50.0 %</td>') == 1
    assert page.count(">best possible</th>") == 1
    found = proof(**across)
    found["shares"]["is_best_exact"] = False
    page = report.dataset_report(joined(rows), "proven", layout, leakage=found)
    assert "can come nearer than 10.0 points" in page
    assert "best possible" not in page


def test_what_a_person_decided_is_shown(layout: Layout) -> None:
    """Photos kept, rejected and relabelled by hand stand under their headings, with what became of them."""
    rows = [
        photo(0, decision="keep"), rejected(1, "rejected_by_hand", decision="reject"), photo(2, relabel="dog"),
        photo(3),
    ]  # fmt: skip
    sheets = section(page_galleries.decisions, layout, rows)
    assert {sheet.title: [each.note for each in sheet.pictures] for sheet in sheets} == {
        "Kept by hand": ["in train"], "Rejected by hand": ["rejected by hand"], "Relabelled": ["now dog"],
    }  # fmt: skip
    assert section(page_galleries.decisions, layout, [photo(0)]) == []


def test_extremes_are_the_ends_of_their_scales(layout: Layout) -> None:
    """The darkest and the brightest kept photos come first, each file once; a handful of photos has no extremes."""
    rows = [photo(index, **stored(layout, 10 * index % 230 + 5)) for index in range(30)]
    rows += [rejected(99, **stored(layout, 1))]
    sheets = {sheet.title: sheet for sheet in section(page_galleries.extremes, layout, rows)}
    darkest = [each.note for each in sheets["Darkest"].pictures]
    assert darkest[:2] == ["brightness 5", "brightness 15"]
    assert len(set(darkest)) == page_galleries.EXTREME_PHOTOS
    assert sheets["Brightest"].pictures[0].note == "brightness 225"
    assert section(page_galleries.extremes, layout, rows[:5]) == []


def test_a_group_of_duplicates_is_led_by_its_representative(layout: Layout) -> None:
    """The photo that stands for a group comes first and is marked; others say by how many bits they differ."""
    twin = {"duplicate_group": "twins", "duplicate_of": "0005"}
    rows = [
        rejected(0, "near_duplicate", distance_bits=31, **twin, **stored(layout, 80)),
        rejected(1, "duplicate", distance_bits=0, **twin, **stored(layout, 90)),
        photo(5, **stored(layout, 90)) | {"duplicate_group": "twins"},
        photo(6, **stored(layout, 70)),
    ]
    shown = section(page_galleries.duplicates, layout, rows)
    assert (shown["groups"], shown["photos"], shown["exact"]) == (1, 3, 0)
    [group] = shown["largest"]
    assert [each.mark for each in group.pictures] == ["stands for all", "", ""]
    assert [each.note.split(",")[0] for each in group.pictures[1:]] == ["the same file", "31 of 256 bits differ"]


def test_the_number_of_bytes_of_a_page_is_bounded() -> None:
    """All pictures that a page can hold, each as large as it may be, leave room below 15 MB for words and charts."""
    most = (
        3 * page_galleries.SHEET_PHOTOS + page_galleries.REASON_PHOTOS * page_galleries.REASONS_SHOWN
        + page_labels.LABEL_PHOTOS * page_labels.LABELS_SHOWN
        + page_galleries.GROUP_PHOTOS * (page_galleries.GROUPS_SHOWN + page_galleries.FAR_SHOWN)
        + page_galleries.EXTREME_PHOTOS * len(page_galleries.EXTREMES) + 4 * page_galleries.TIER_PHOTOS
        + 3 * page_galleries.DECIDED_PHOTOS + page_changes.CHANGED_PHOTOS * len(page_changes.KINDS)
        + 2 * page_proof.PAIRS_SHOWN
    )  # fmt: skip
    assert most * thumbnails.PAGE_BYTES * 4 / 3 < 13_000_000


@pytest.mark.parametrize("size", [(4000, 400), (300, 3000), (1, 1), (900, 700)])
def test_every_picture_keeps_to_its_bytes_and_its_place(size: tuple[int, int]) -> None:
    """Noise of any shape fits into the bytes of a picture; neither a panorama nor a tower bursts a row of photos."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    small = thumbnails.shrink(noise, thumbnails.PAGE_HEIGHT_PX)
    data = thumbnails.within(small, thumbnails.PAGE_BYTES, thumbnails.webp, thumbnails.PAGE_QUALITIES)
    assert len(data) <= thumbnails.PAGE_BYTES
    assert small.height <= thumbnails.PAGE_HEIGHT_PX
    assert thumbnails.NARROWEST_ASPECT <= small.width / small.height <= thumbnails.WIDEST_ASPECT
    assert thumbnails.is_cut(*size) == (size in {(4000, 400), (300, 3000)})
