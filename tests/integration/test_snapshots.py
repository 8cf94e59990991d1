"""Published versions compared, verified, asked with SQL and published anew, on real Parquet, old files among them."""

import json
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import catalog, manifest, overrides, removals, snapshots, splits, views
from storage.errors import BlobCorrupt, SchemaMismatch
from storage.layout import Layout, write_bytes
from storage.records import SCHEMA_VERSION, SCHEMAS, SPLITS, SnapshotRef
from tasks import purge, rollback
from tasks.dedup import DedupRules
from tasks.publish import publish_snapshot, published
from tasks.split import SplitRules

OLD = Path(__file__).parents[1] / "data" / "schema_1.zip"  # a root that Darkroom 0.2 wrote: dataset "old"
Row = dict[str, Any]


def photo(photo_id: str, split: str | None = "train", **facts: Any) -> Row:
    row: Row = {
        "source": "flickr", "photo_id": photo_id, "owner_id": f"o{photo_id}", "title": f"Title of {photo_id}",
        "group_id": photo_id, "split": split, "verdict": True, "entropy": 7.0, "labels": ["sea"],
    }  # fmt: skip
    return row | facts


def rejected(photo_id: str, reason: str = "too_small", **facts: Any) -> Row:
    return photo(photo_id, None, verdict=False, reason=reason, reason_stage="filter", filter_reason=reason) | facts


BEFORE = [photo("a"), photo("b"), photo("c", "val"), photo("d", "test"), rejected("e"), rejected("f"), photo("g")]
AFTER = [
    photo("a"), photo("b", "test"), rejected("c", "edited"), photo("d", "test", title="Another", labels=["sea", "sky"]),
    photo("e"), rejected("f"), photo("h"), rejected("i"),
]  # fmt: skip


def publishing(
    where: Layout, rows: list[Row], rules: dict[str, object] | None = None, name: str = "crops"
) -> SnapshotRef:
    joined = manifest.write_rows(where, "publish", rows)
    write_bytes(where.root / "page.html", b"<html></html>")
    pages = {"report.html": manifest.file_ref(where, where.root / "page.html")}
    return publish_snapshot(where, name, rules or {}, joined, pages, allow_jump=True)


@pytest.fixture
def versions(where: Layout) -> Layout:
    """A root with versions 1 and 2 of ``crops``."""
    publishing(where, BEFORE)
    publishing(where, AFTER)
    return where


@pytest.fixture
def old(where: Layout) -> Layout:
    """The root of an older Darkroom."""
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(where.root)
    return where


def test_a_diff_names_photos_and_columns(versions: Layout) -> None:
    """What came, what went, what changed and how, from the published files."""
    diff = snapshots.diff_versions(versions, "crops", 1, 2)
    assert diff.added["photo_id"].to_pylist() == ["h", "i"]
    assert diff.removed["photo_id"].to_pylist() == ["g"]
    assert {row["photo_id"]: sorted(row["columns"]) for row in diff.changed.to_pylist()} == {
        "b": ["split"],
        "c": ["filter_reason", "reason", "reason_stage", "split", "verdict"],
        "d": ["labels", "title"],
        "e": ["filter_reason", "reason", "reason_stage", "split", "verdict"],
    }
    assert [(row["was_split"], row["split"]) for row in diff.moved.to_pylist()] == [("train", "test")]
    assert [(row["photo_id"], row["reason"]) for row in diff.newly_rejected.to_pylist()] == [("c", "edited")]
    assert [(row["photo_id"], row["was_reason"]) for row in diff.newly_kept.to_pylist()] == [("e", "too_small")]
    summary = diff.summary
    assert (summary.added, summary.removed, summary.changed, summary.moved) == (2, 1, 4, 1)
    assert (summary.newly_kept, summary.newly_rejected, summary.reasons) == (1, 1, {"edited": 1})
    assert summary.by_column["split"] == 3


def test_a_diff_is_the_same_with_and_without_kept_hashes(versions: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows in memory, of files, of files with hashes of their rows; and these are used only for their own rows."""
    expected = snapshots.diff_versions(versions, "crops", 1, 2).rows
    tables = [published(versions, "crops", version) for version in (1, 2)]
    assert snapshots.diff(*tables).rows == expected
    for version in (1, 2):
        folder = versions.snapshot("crops", version)
        snapshots.write_row_hashes(folder, dict(catalog.card(versions, "crops", version)["files"]))  # type: ignore[call-overload]
    with monkeypatch.context() as without:
        without.setattr(snapshots, "_fetch_hashes", None)
        assert snapshots.diff_versions(versions, "crops", 1, 2).rows == expected
    shutil.copy(versions.snapshot("crops", 2) / snapshots.ROW_HASHES, versions.snapshot("crops", 1))
    assert snapshots.diff_versions(versions, "crops", 1, 2).rows == expected


def test_what_was_taken_down_is_removed_and_not_changed(versions: Layout) -> None:
    """Its columns are scrubbed, which nobody takes for a change; nor does it count as new where it came later."""
    before = published(versions, "crops", 1)
    gone = [{"source": "flickr", "photo_id": key, "reason": "asked"} for key in ("a", "g", "h")]
    removals.add(versions, [row | {"proof": "a letter", "removed_at": datetime.now(UTC)} for row in gone])
    purge.purge_removed(versions)
    summary = snapshots.diff(before, published(versions, "crops", 2)).summary
    assert (summary.added, summary.removed, summary.taken_down, summary.changed) == (1, 2, 1, 4)
    summary = snapshots.diff_versions(versions, "crops", 1, 2).summary
    assert (summary.added, summary.removed, summary.taken_down, summary.changed) == (1, 1, 1, 4)
    assert snapshots.verify(versions, "crops", 1) == []


def test_a_damaged_version_is_told(versions: Layout) -> None:
    """File by file."""
    assert snapshots.verify(versions, "crops", 2) == []
    folder = versions.snapshot("crops", 2)
    (folder / "val.parquet").write_bytes((folder / "test.parquet").read_bytes())
    (folder / "README.md").unlink()
    said = snapshots.verify(versions, "crops", 2)
    assert ["val.parquet" in sentence for sentence in sorted(said)] == [False, True]
    assert any("README.md" in sentence and "missing" in sentence for sentence in said)


def test_views_know_all_versions(versions: Layout) -> None:
    """So that a version is a condition; of other datasets too."""
    publishing(versions, [photo("z")], name="other")
    with views.connect(versions) as db:
        count = "select count(*) from photos where dataset = 'crops' and "
        assert db.sql(f"{count} version = 1").fetchall() == [(5,)]
        assert db.sql(f"{count} is_latest").fetchall() == [(5,)]
        assert db.sql("select distinct reason from rejected where version = 2 order by 1").fetchall() == [
            ("edited",), ("too_small",),
        ]  # fmt: skip
        rows = db.sql("select dataset, version, parent, train, rejected, is_latest from snapshots order by 1, 2")
        assert rows.fetchall() == [
            ("crops", 1, None, 3, 2, False), ("crops", 2, 1, 3, 3, True), ("other", 1, None, 1, 0, True),
        ]  # fmt: skip
        assert db.sql("select count(*) from runs").fetchall() == [(0,)]


def test_views_leave_removed_photos_out_at_once(versions: Layout) -> None:
    """By photo, by owner and by file, even before the purge."""
    publishing(versions, [*AFTER, photo("k", sha256="f" * 64)])
    moment = {"proof": "a letter", "reason": "asked", "removed_at": datetime.now(UTC)}
    removals.add(versions, [
        moment | {"source": "flickr", "photo_id": "a"}, moment | {"source": "flickr", "owner_id": "ob"},
        moment | {"sha256": "f" * 64}, moment | {"source": "elsewhere", "photo_id": "d"},
    ])  # fmt: skip
    with views.connect(versions) as db:
        rows = db.sql("select photo_id from photos where version = 3 order by 1").fetchall()
        assert [photo_id for (photo_id,) in rows] == ["d", "e", "h"]
        assert db.sql("select count(*) from removals").fetchall() == [(4,)]


RUN = {"recipe": {"name": "tiny"}, "seed": 7}
DAMAGED = [b"", b"{", b"[]", b"null", b"\xff", b"{}", b"[" * 100_000]
DAMAGED += [
    json.dumps(RUN | wrong).encode()
    for wrong in ({"seed": "x"}, {"seed": 10**30}, {"recipe": None}, {"recipe": {"name": 5}})
]
UNJUDGED = [b"", b"{", b"{}", b'{"figures": 5}', b'{"figures": [{}]}', b'{"figures": [{"name": null, "value": 1}]}']
UNJUDGED += [b'{"figures": [{"name": "loss", "value": "low"}]}', b'{"figures": [{"name": "\\ud800", "value": 1}]}']


@pytest.mark.parametrize(
    ("card", "judged"), [*((text, None) for text in DAMAGED), *((None, text) for text in UNJUDGED)]
)
def test_a_damaged_card_of_a_run_does_not_end_the_views(
    where: Layout, caplog: pytest.LogCaptureFixture, card: bytes | None, judged: bytes | None
) -> None:
    """Its row lacks what it cannot say, the others have all; which file it is stands in the log."""
    for run_id in ("odd", "sound"):
        write_bytes(where.run(run_id) / "train.run.json", json.dumps(RUN).encode())
        figures = {"figures": [{"name": "loss", "value": 0.5}]}
        write_bytes(where.run(run_id) / "evaluation.json", json.dumps(figures).encode())
    damaged = where.run("odd") / ("train.run.json" if judged is None else "evaluation.json")
    damaged.write_bytes(card or judged or b"")
    with views.connect(where) as db:
        odd, sound = db.sql("select run_id, recipe, seed, is_evaluated, figures from runs order by 1").fetchall()
    assert sound == ("sound", "tiny", 7, True, {"loss": 0.5})
    told = ("odd", None, None, True, {"loss": 0.5}) if judged is None else ("odd", "tiny", 7, False, {})
    assert odd == told
    assert "for it is damaged" in caplog.text
    assert str(damaged) in caplog.text


@pytest.mark.parametrize("name", ["snapshot.json", "train.parquet", "rejected.parquet"])
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[" * 100_000, None])
def test_a_damaged_version_is_left_out_of_the_views(
    versions: Layout, caplog: pytest.LogCaptureFixture, name: str, content: bytes | None
) -> None:
    """All others are there, of datasets with odd names too, and the log says which is not."""
    publishing(versions, [photo("z")], name="other")
    (versions.root / "datasets" / "other").rename(versions.root / "datasets" / "o'brien")
    damaged = versions.snapshot("crops", 1) / name
    damaged.unlink() if content is None else damaged.write_bytes(content)
    with views.connect(versions) as db:
        found = db.sql("select distinct dataset, version from photos order by 1").fetchall()
    assert found == [("crops", 2), ("o'brien", 1)]
    is_no_version = (name, content) == ("snapshot.json", None)
    assert ("the views leave out version 1 of 'crops'" in caplog.text) != is_no_version


BARE = {"long_px", "short_px", "aspect_milli"}


def test_the_sides_of_photos_are_stored_as_they_are(versions: Layout) -> None:
    """Neither packed nor as codes of a dictionary, in what measure writes and in what is published, for everything is
    filtered by them; whoever reads Parquet reads them. All other columns are packed.
    """
    rows = [
        {"source": "s", "photo_id": f"{n:05d}", "long_px": 1000 + n % 7, "short_px": 700, "aspect_milli": 1500 + n % 3}
        for n in range(5000)
    ]
    measured = manifest.path(versions, manifest.write_rows(versions, "measure", rows))
    files = [
        measured,
        *versions.snapshot("crops", 2).glob("*.parquet"),
        *versions.root.glob("stages/publish/*.parquet"),
    ]
    groups = [found.row_group(0) for found in map(pq.read_metadata, files) if found.num_row_groups]
    assert len(groups) >= 5
    for group in groups:
        columns = [group.column(number) for number in range(group.num_columns)]
        plain = {each.path_in_schema: each for each in columns if each.path_in_schema in BARE}
        assert set(plain) == BARE
        for each in plain.values():
            assert (each.compression, each.has_dictionary_page) == ("UNCOMPRESSED", False)
            assert set(each.encodings) == {"PLAIN", "RLE"}, "RLE: which values are null"
        assert {each.compression for each in columns if each.path_in_schema not in BARE} == {"ZSTD"}
    with duckdb.connect() as db:
        found = db.sql(f"select long_px, short_px, aspect_milli from read_parquet('{measured}') order by photo_id")
        assert found.fetchall() == [(row["long_px"], row["short_px"], row["aspect_milli"]) for row in rows]
    assert manifest.read_file(measured)["long_px"].to_pylist() == [row["long_px"] for row in rows]


def test_an_empty_root_has_empty_views(where: Layout) -> None:
    """With all of their columns."""
    with views.connect(where) as db:
        assert db.sql("select * from photos").columns == ["dataset", "version", "is_latest", *SCHEMAS["publish"].names]
        assert [db.sql(f"select count(*) from {view}").fetchall() for view in ("rejected", "snapshots")] == [[(0,)]] * 2


def test_versions_of_an_older_schema_are_read(old: Layout) -> None:
    """By whatever reads a version: what was not known then is null, and is not called a change."""
    assert snapshots.verify(old, "old", 1) == []
    table = published(old, "old", 1)
    assert table.schema.equals(SCHEMAS["publish"])
    assert (table["entropy"].null_count, table["label"].to_pylist().count("harbour")) == (6, 4)
    folder = old.snapshot("old", 1)
    assert manifest.read_file(folder / "val.parquet")["phash"].null_count == 0
    now = [{**row, "entropy": 7.0, "labels": ["harbour"], "quantisation": "x"} for row in table.to_pylist()]
    now[0]["title"] = "Another"
    publishing(old, now, name="old")
    for diff in (snapshots.diff_versions(old, "old", 1, 2), snapshots.diff(table, published(old, "old", 2))):
        assert diff.summary.by_column == {"title": 1}
    with views.connect(old) as db:
        rows = db.sql("select version, count(*), count(entropy) from photos group by 1 order by 1").fetchall()
        assert rows == [(1, 4, 0), (2, 4, 4)]


def test_an_older_version_is_scrubbed_and_restored_like_any_other(old: Layout) -> None:
    """Takedowns and rollbacks do not mind when it was written."""
    removals.add(old, [
        {"source": "flickr", "photo_id": "a", "reason": "asked", "proof": "a letter", "removed_at": datetime.now(UTC)}
    ])  # fmt: skip
    purge.purge_removed(old)
    assert snapshots.verify(old, "old", 1) == []
    restored = manifest.read(old, rollback.restored(old, "old", 1))
    assert sorted(restored["photo_id"].to_pylist()) == ["b", "c", "d", "gone", "small"]


def test_a_version_of_a_newer_schema_is_refused_in_a_sentence(versions: Layout) -> None:
    """Wherever it is read."""
    file = versions.snapshot("crops", 2) / "train.parquet"
    with duckdb.connect() as db:
        db.execute(f"""
            copy (from read_parquet('{file}')) to '{file}' (format parquet, kv_metadata {{
                'darkroom.stage': 'publish', 'darkroom.schema_version': '{SCHEMA_VERSION + 1}'}})
        """)
    with pytest.raises(SchemaMismatch, match="newer one; update"):
        published(versions, "crops", 2)
    with pytest.raises(SchemaMismatch, match="newer one; update"), views.connect(versions):
        pass


def test_a_restored_version_has_the_rows_and_rules_of_then(versions: Layout) -> None:
    """All of them, and says whose they are; what it replaced stays."""
    joined = rollback.restored(versions, "crops", 1)
    assert rollback.unchanged(versions, "crops", 1, joined) is None
    pages = {"report.html": manifest.file_ref(versions, versions.root / "page.html")}
    ref = publish_snapshot(versions, "crops", {}, joined, pages, allow_jump=True, restores=1)
    assert (ref.version, ref.counts) == (3, {"train": 3, "val": 1, "test": 1, "rejected": 2})
    card = json.loads((versions.snapshot("crops", 3) / "snapshot.json").read_text())
    assert (card["parent"], card["restores"]) == (2, 1)
    assert snapshots.diff_versions(versions, "crops", 1, 3).rows.num_rows == 0
    same = rollback.unchanged(versions, "crops", 1, rollback.restored(versions, "crops", 1))
    assert same is not None
    assert (same.version, same.is_new) == (3, False)


def test_nothing_brings_a_removed_photo_back(versions: Layout) -> None:
    """Neither its row nor its key, whether or not it was purged yet, and whoever was removed."""
    removals.add(versions, [
        {"source": "flickr", "owner_id": "oa", "reason": "asked", "proof": "a letter", "removed_at": datetime.now(UTC)}
    ])  # fmt: skip
    for _ in range(2):
        restored = manifest.read(versions, rollback.restored(versions, "crops", 1))
        assert sorted(restored["photo_id"].to_pylist()) == ["b", "c", "d", "e", "f", "g"]
        purge.purge_removed(versions)


def test_a_version_whose_photos_are_gone_is_not_restored(where: Layout) -> None:
    """A snapshot promises the files of its photos."""
    publishing(where, [photo("a", blob="0" * 64, sha256="0" * 64, format="JPEG")])
    with pytest.raises(BlobCorrupt, match="1 of its photos are gone"):
        rollback.restored(where, "crops", 1)


def test_splits_are_all_there(versions: Layout) -> None:
    """A version that lacks a file is no version that can be compared."""
    (versions.snapshot("crops", 1) / f"{SPLITS[0]}.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        snapshots.diff_versions(versions, "crops", 1, 2)


def test_what_was_rejected_by_hand_since_is_not_published_again(versions: Layout) -> None:
    """It comes back as a rejected row, without group or split; a rejection that was taken back does not count."""
    moment = {"source": "flickr", "note": None, "decided_by": "me", "label": None}
    decisions = [("a", "reject", 1), ("b", "reject", 1), ("b", "clear", 2), ("c", "keep", 1), ("e", "reject", 1)]
    rows = [
        moment | {"photo_id": photo_id, "decision": decision, "decided_at": datetime(2026, 11, day, tzinfo=UTC)}
        for photo_id, decision, day in decisions
    ]
    overrides.record(versions, "crops", pa.Table.from_pylist(rows[:2] + rows[3:], schema=SCHEMAS["overrides"]))
    overrides.record(versions, "crops", pa.Table.from_pylist(rows[2:3], schema=SCHEMAS["overrides"]))
    restored = manifest.read(versions, rollback.restored(versions, "crops", 1))
    before = {row["photo_id"]: row for row in published(versions, "crops", 1).to_pylist()}
    after = {row["photo_id"]: row for row in restored.to_pylist()}
    told = {name: after["a"][name] for name in ("verdict", "reason", "reason_stage", "filter_reason", "decision")}
    assert told == {
        "verdict": False, "reason": "rejected_by_hand", "reason_stage": "filter", "filter_reason": "rejected_by_hand",
        "decision": "reject",
    }  # fmt: skip
    assert (after["a"]["split"], after["a"]["group_id"], after["a"]["title"]) == (None, None, "Title of a")
    assert {key: row for key, row in after.items() if key != "a"} == {k: r for k, r in before.items() if k != "a"}
    assert rollback.rejected_since(versions, "crops", 1) == 1


def test_a_restored_version_proves_what_it_has(versions: Layout) -> None:
    """The proof counts the photos that come back, and the account of labels comes with all of them only."""
    folder = versions.snapshot("crops", 1)
    rules: dict[str, object] = {"split": SplitRules().model_dump(mode="json"), "dedup": DedupRules().model_dump()}
    card: dict[str, object] = catalog.card(versions, "crops", 1) | {"rules": rules}
    write_bytes(folder / "snapshot.json", json.dumps(card).encode())
    write_bytes(folder / "labels.json", b"{}")
    none = {"across_splits": {"near_duplicates": 0}, "wider_pairs": 0}
    write_bytes(folder / "leakage.json", json.dumps(none).encode())
    joined = rollback.restored(versions, "crops", 1)
    assert set(rollback.proofs(versions, "crops", 1, joined)) == {"leakage.json", "labels.json"}
    moment = {"reason": "asked", "proof": "a letter", "removed_at": datetime.now(UTC)}
    removals.add(versions, [moment | {"source": "flickr", "photo_id": "a"}])
    found = rollback.proofs(versions, "crops", 1, rollback.restored(versions, "crops", 1))
    assert set(found) == {"leakage.json"}
    proof = json.loads((versions.root / found["leakage.json"].path).read_bytes())
    assert (proof["is_clean"], proof["shares"]["photos"]) == (True, 4)
    assert {split: part["photos"] for split, part in proof["shares"]["splits"].items()} == {
        "train": 2, "val": 1, "test": 1,
    }  # fmt: skip


def test_a_version_that_does_not_say_how_it_was_split_gives_no_splits(old: Layout) -> None:
    """Whoever asks for what was given gets nothing, and a later version that says so is read as ever."""
    assert splits.given(old, "old", splits.rules_digest({"salt": "x"})).num_rows == 0
    assert not splits.grant(old, "old")
    publishing(old, published(old, "old", 1).to_pylist(), {"split": {"salt": "x"}}, name="old")
    assert splits.given(old, "old", splits.rules_digest({"salt": "x"})).num_rows == 4
