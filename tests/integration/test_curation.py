"""Measure, filter, rotate, dedup and split joined, over real files and real Parquet."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from storage import blobs, manifest
from storage.layout import Layout
from storage.records import ManifestRef
from tasks.dedup import DedupRules, dedup
from tasks.errors import BlobCorrupt
from tasks.filter import FilterRules, filter_photos
from tasks.measure import measure
from tasks.pictures import imaging
from tasks.rotate import rotate
from tasks.split import SplitRules, split

RULES = FilterRules(min_long_px=90, min_short_px=40)


def clouds(seed: int, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((width, height), 3)
        for cells in (3, 6, 12)
    ]
    return Image.fromarray(np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8))


def file(image: Image.Image, image_format: str = "JPEG", orientation: int = 1) -> bytes:
    out, block = io.BytesIO(), Image.Exif()
    block[0x0112] = orientation
    image.save(out, image_format, exif=block)
    return out.getvalue()


def with_somebody(image: Image.Image) -> Image.Image:
    """A dark disc of a sixth of the width."""
    seen = image.copy()
    ImageDraw.Draw(seen).ellipse((100, 60, 140, 100), fill=(20, 25, 30))
    return seen


LANDSCAPE = file(clouds(0, 240, 160))
FILES: dict[str, tuple[bytes, str]] = {
    "copy": (LANDSCAPE, "JPEG"),
    "landscape": (LANDSCAPE, "JPEG"),
    "other": (file(clouds(4, 120, 80)), "JPEG"),
    "portrait": (file(clouds(1, 160, 240), orientation=3), "JPEG"),
    "repost": (file(clouds(0, 240, 160).resize((180, 120)), "PNG"), "PNG"),
    "small": (file(clouds(2, 60, 40)), "JPEG"),
    "square": (file(clouds(3, 96, 96)), "JPEG"),
    "truncated": (LANDSCAPE[:-2000], "JPEG"),
    "unaligned": (file(clouds(5, 122, 183)), "JPEG"),
}
OWNERS = {"copy": "ann", "landscape": "bob", "portrait": "cid", "repost": "dan", "other": "eve"}
OWNER_ROWS = [{"source": "s", "photo_id": name, "owner_id": owner} for name, owner in OWNERS.items()]


def held(root: Layout, names: list[str]) -> ManifestRef:
    """The files ``names`` as a shard of held photos."""
    rows = [
        {"source": "s", "photo_id": name, "format": FILES[name][1], "sha256": blobs.put(root, *FILES[name])}
        for name in names
    ]
    return manifest.write_rows(root, "held", rows)


def owners(root: Layout) -> ManifestRef:
    return manifest.write_rows(root, "owners", OWNER_ROWS)


def decided(root: Layout, **decisions: str) -> ManifestRef:
    rows = [{"source": "s", "photo_id": name, "decision": decision} for name, decision in decisions.items()]
    return manifest.write_rows(root, "decided", rows)


def unpublished(root: Layout) -> ManifestRef:
    return manifest.write_rows(root, "given", [])


def rows_of(root: Layout, *refs: ManifestRef) -> dict[str, dict[str, Any]]:
    return {row["photo_id"]: row for row in manifest.read_all(root, refs).to_pylist()}


@pytest.fixture
def measured(root: Layout) -> list[ManifestRef]:
    """Two shards of measures."""
    names = sorted(FILES)
    return [measure.fn(held(root, names[:4])), measure.fn(held(root, names[4:]))]


def test_every_photo_has_a_row_and_every_rejected_one_its_reason(root: Layout, measured: list[ManifestRef]) -> None:
    """Measure and filter drop no row; a damaged photo is a row with a reason and nothing else."""
    rows = rows_of(root, *measured)
    assert set(rows) == set(FILES)
    broken = rows["truncated"]
    assert broken["measure_reason"] == "truncated"
    assert {name for name, value in broken.items() if value is not None} == {
        "source", "photo_id", "sha256", "format", "measure_reason",
    }  # fmt: skip
    judged = rows_of(root, filter_photos.fn(measured, decided(root), RULES))
    reasons = {name: row["filter_reason"] for name, row in judged.items()}
    assert {name: reason for name, reason in reasons.items() if reason} == {
        "small": "too_small",
        "square": "wrong_aspect",
    }
    assert set(reasons) == set(FILES)


def test_turned_blobs_decode_as_the_plan_says(root: Layout, measured: list[ManifestRef]) -> None:
    """Each kept photo's blob, read with its net_op, is the upright picture turned by its landscape_turns."""
    rotated = rows_of(root, *(rotate.fn(ref, "landscape") for ref in measured))
    assert rotated["truncated"] == {
        "source": "s", "photo_id": "truncated", "blob": None, "net_op": None, "landscape_turns": None,
        "rotate_reason": None,
    }  # fmt: skip
    photos = rows_of(root, *measured)
    for name, row in rotated.items():
        if row["blob"] is not None:
            data = blobs.get(root, row["blob"], FILES[name][1])
            got = imaging.decode_upright(data, row["net_op"])
            upright = imaging.decode_upright(FILES[name][0], photos[name]["exif_orientation"])
            assert np.abs(got.astype(int) - np.rot90(upright, row["landscape_turns"])).mean() < 1
            assert got.shape[1] >= got.shape[0]
    assert rotated["portrait"]["landscape_turns"] in {1, 3}
    assert rotated["portrait"]["net_op"] == 1
    assert rotated["portrait"]["blob"] != photos["portrait"]["sha256"]
    assert rotated["unaligned"]["net_op"] in {6, 8}
    assert rotated["unaligned"]["blob"] == photos["unaligned"]["sha256"]


def test_copies_are_grouped_and_owners_are_not_welded_together(root: Layout, measured: list[ManifestRef]) -> None:
    """Copies by other owners point at the one that is kept, and only its owner names the group of the split."""
    judged = filter_photos.fn(measured, decided(root), RULES)
    deduped = dedup.fn(measured, judged, owners(root), decided(root), unpublished(root), DedupRules())
    rows = rows_of(root, deduped)
    assert set(rows) == {"copy", "landscape", "other", "portrait", "repost", "unaligned"}
    assert {name: row["duplicate_of"] for name, row in rows.items() if row["dedup_reason"]} == {
        "landscape": "s/copy", "repost": "s/copy",
    }  # fmt: skip
    labels = manifest.write_rows(root, "labels", [{"source": "s", "photo_id": name} for name in rows])
    given = rows_of(root, split.fn(deduped, owners(root), labels, unpublished(root), SplitRules()))
    assert {name: row["group_id"] for name, row in given.items() if row["group_id"]} == {
        "copy": "owner:s/ann", "other": "owner:s/eve", "portrait": "owner:s/cid", "unaligned": "photo:s/unaligned",
    }  # fmt: skip


def test_a_copy_that_a_person_keeps_stands_for_its_group(root: Layout, measured: list[ManifestRef]) -> None:
    """The decision is above the size, and the other copies point at it."""
    kept = decided(root, repost="keep")
    judged = filter_photos.fn(measured, kept, RULES)
    rows = rows_of(root, dedup.fn(measured, judged, owners(root), kept, unpublished(root), DedupRules()))
    assert {name: row["duplicate_of"] for name, row in rows.items() if row["dedup_reason"]} == {
        "copy": "s/repost", "landscape": "s/repost",
    }  # fmt: skip


def test_a_published_photo_stays_when_a_larger_copy_comes(root: Layout, measured: list[ManifestRef]) -> None:
    """Whoever posts it: the newcomers are its duplicates."""
    judged = filter_photos.fn(measured, decided(root), RULES)
    was = {"source": "s", "photo_id": "repost", "group_id": "owner:s/dan", "split": "train"}
    given = manifest.write_rows(root, "given", [was])
    rows = rows_of(root, dedup.fn(measured, judged, owners(root), decided(root), given, DedupRules()))
    assert {name: row["duplicate_of"] for name, row in rows.items() if row["dedup_reason"]} == {
        "copy": "s/repost", "landscape": "s/repost",
    }  # fmt: skip


@pytest.mark.parametrize("side", ["val", "test"])
def test_a_picture_keeps_its_split_when_its_photo_is_filtered_out(
    root: Layout, measured: list[ManifestRef], side: str
) -> None:
    """Stricter rules reject a published photo: a newcomer's larger copy is given its split, or none if it cannot be."""
    was = [
        {"source": "s", "photo_id": "repost", "group_id": "owner:s/dan", "split": side},
        {"source": "s", "photo_id": "portrait", "group_id": "owner:s/cid", "split": "train"},
    ]
    given = manifest.write_rows(root, "given", was)
    judged = filter_photos.fn(measured, decided(root), FilterRules(min_long_px=200, min_short_px=40))
    deduped = dedup.fn(measured, judged, owners(root), decided(root), given, DedupRules())
    assert {name: row["duplicate_of"] for name, row in rows_of(root, deduped).items() if row["dedup_reason"]} == {
        "landscape": "s/copy", "repost": "s/copy",
    }  # fmt: skip
    labels = manifest.write_rows(root, "labels", [{"source": "s", "photo_id": name} for name in FILES])
    for poster, got in (("ann", (side, None)), ("cid", (None, "bridges_splits"))):
        posted = [row | ({"owner_id": poster} if row["photo_id"] == "copy" else {}) for row in OWNER_ROWS]
        by = manifest.write_rows(root, "owners", posted)
        copy = rows_of(root, split.fn(deduped, by, labels, given, SplitRules(train=1, val=0, test=0)))["copy"]
        assert (copy["split"], copy["split_reason"]) == got


def test_the_same_inputs_give_the_same_references(root: Layout, measured: list[ManifestRef]) -> None:
    """Every stage is a function of its inputs; filter keeps the order of shards, which changes nothing behind it."""
    assert [measure.fn(held(root, sorted(FILES)[:4])), measured[1]] == measured
    judged = filter_photos.fn(measured, decided(root), RULES)
    assert filter_photos.fn(measured, decided(root), RULES) == judged
    backwards = filter_photos.fn(measured[::-1], decided(root), RULES)
    by_key = [("source", "ascending"), ("photo_id", "ascending")]
    assert manifest.read(root, backwards).sort_by(by_key) == manifest.read(root, judged).sort_by(by_key)
    deduped = dedup.fn(measured, judged, owners(root), decided(root), unpublished(root), DedupRules())
    assert dedup.fn(measured[::-1], backwards, owners(root), decided(root), unpublished(root), DedupRules()) == deduped
    assert [rotate.fn(ref, "landscape") for ref in measured] == [rotate.fn(ref, "landscape") for ref in measured]


def test_a_damaged_blob_is_our_fault_and_raises(root: Layout) -> None:
    """Bytes that are not those that were kept end the run; they are no property of the photo."""
    data = file(clouds(9, 48, 32))
    sha256 = blobs.put(root, data, "JPEG")
    ref = manifest.write_rows(root, "held", [{"source": "s", "photo_id": "x", "format": "JPEG", "sha256": sha256}])
    root.blob(sha256, "JPEG").write_bytes(data[:-1])
    with pytest.raises(BlobCorrupt, match=sha256[:12]):
        measure.fn(ref)


def test_somebody_before_the_same_background_is_no_copy(root: Layout) -> None:
    """The files are read again to tell; a mark in a corner, on a file that lies on its side, still makes a copy; a file
    that is gone is one sentence."""
    plain, walked, marked = clouds(0, 240, 160), with_somebody(clouds(0, 240, 160)), clouds(0, 240, 160)
    ImageDraw.Draw(marked).rectangle((200, 130, 240, 160), fill=(240, 240, 240))
    files = {
        "plain": file(plain),
        "walked": file(walked),
        "marked": file(marked.rotate(90, expand=True), orientation=6),
    }
    rows = [
        {"source": "s", "photo_id": name, "format": "JPEG", "sha256": blobs.put(root, data, "JPEG")}
        for name, data in files.items()
    ]
    found = measure.fn(manifest.write_rows(root, "held", rows))
    judged = filter_photos.fn([found], decided(root), RULES)
    deduped = dedup.fn([found], judged, owners(root), decided(root), unpublished(root), DedupRules())
    copies = {name: row["duplicate_of"] for name, row in rows_of(root, deduped).items()}
    assert copies == {"marked": None, "plain": "s/marked", "walked": None}
    root.blob(rows[2]["sha256"], "JPEG").unlink()
    with pytest.raises(BlobCorrupt, match="is missing below"):
        dedup.fn([found], judged, owners(root), decided(root), unpublished(root), DedupRules())
