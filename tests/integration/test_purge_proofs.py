"""Purging removed photos from exports, and from what versions prove of themselves."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import manifest, removals, snapshots
from storage.layout import Layout, write_bytes
from storage.records import SCHEMAS
from tasks import publish, purge, reproving
from tasks.dedup import DedupRules
from tasks.split import SplitRules

PAGES = {"leakage.json": "proof.json", "report.html": "page.html"}


def remove(where: Layout, **what: str) -> None:
    moment = datetime(2026, 11, 22, 3, tzinfo=UTC)
    removals.add(where, [{"reason": "asked", "proof": "a letter", "removed_at": moment, **what}])


@pytest.mark.parametrize("folder", ["mine", "sub/mine", "sub/deep/mine.part", "."])
def test_exports_are_found_however_deep_they_lie(where: Layout, folder: str) -> None:
    """Below the folder of exports, whole or half made; others stay."""
    made, other = where.exports / folder, where.exports.parent / "exports" / "sub" / "other"
    for export, photo in ((made, "a"), (other, "b")):
        export.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"source": ["flickr"], "photo_id": [photo]}), export / "photos.parquet")
        (export / "picture.jpg").write_bytes(b"a picture")
    remove(where, source="flickr", photo_id="a")
    assert purge.purge_removed(where).exports == 1
    assert not made.exists()
    assert other.is_dir() == (folder != "."), "what lies in an export goes with it"


def test_a_proof_speaks_of_the_photos_that_are_left(where: Layout) -> None:
    """Shares, labels and counts, in leakage.json, snapshot.json and the card."""
    rows = [
        {
            "source": "flickr",
            "photo_id": photo,
            "owner_id": f"o{photo}",
            "sha256": photo,
            "group_id": f"o{photo}",
            "labels": ["sea"],
            "label": "sea",
            "split": split,
            "verdict": True,
            "bytes": 1,
            "net_op": 1,
        }
        for photo, split in (("a", "train"), ("b", "train"), ("c", "val"), ("d", "test"))
    ]
    rules: dict[str, Any] = {"split": SplitRules().model_dump(mode="json"), "dedup": DedupRules().model_dump()}
    table = manifest.conform("publish", pa.Table.from_pylist(rows, schema=SCHEMAS["publish"]))
    none = {"across_splits": {"near_duplicates": 0}, "wider_pairs": 0}
    proof = reproving.reproved(where, table, rules, none)
    assert proof is not None
    write_bytes(where.root / "proof.json", reproving.page_of(proof))
    write_bytes(where.root / "page.html", b"")
    pages = {name: manifest.file_ref(where, where.root / file) for name, file in PAGES.items()}
    joined = manifest.write_rows(where, "publish", rows)
    publish.publish_snapshot(where, "proven", rules, joined, pages)
    remove(where, source="flickr", photo_id="a")
    purge.purge_removed(where)
    folder = where.snapshot("proven", 1)
    found, card = (json.loads((folder / name).read_bytes()) for name in ("leakage.json", "snapshot.json"))
    assert found["shares"]["splits"]["train"] | {"best": 0} == {
        "photos": 1, "target": 0.75, "achieved": 0.333333, "best": 0,
    }  # fmt: skip
    assert [each["photos"] for each in found["labels"]] == [3]
    assert card["leakage"] == reproving.told(found)
    assert "| train | 1 | 75.00% | 33.33% |" in (folder / "README.md").read_text()
    assert snapshots.verify(where, "proven", 1) == []
    searched = reproving.reproved(where, table, rules, none | {"wider_pairs": 1})
    assert searched is None, "these rows have no pictures to search"
