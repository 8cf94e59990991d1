"""Joining the stages and publishing snapshots, on real Parquet."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from storage import blobs, catalog, ledger, manifest
from storage.errors import SnapshotConflict, SnapshotMissing
from storage.layout import Layout, write_bytes
from storage.records import SCHEMAS, SPLITS, FileRef, SnapshotRef
from tasks import publish
from tasks.dedup import DedupRules
from tasks.errors import GateRefused
from tasks.filter import FilterRules
from tasks.join import join
from tasks.labels import LabelRules

SMALL, DOUBLE = {"small": "too_small"}, {"double": "duplicate"}
RULES: dict[str, object] = {"filter": {"min_long_px": 1440}}


def rows(stage: str, *values: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{"source": "flickr", **value} for value in values], schema=SCHEMAS[stage])


def joined(stages: dict[str, pa.Table], locations: bool = False) -> pa.Table:
    """The rows that a snapshot would consist of."""
    with duckdb.connect() as db:
        for name, table in stages.items():
            db.register(name, table)
        return manifest.conform("publish", join(db, locations).to_arrow_table())


def outputs(kept: int = 1) -> dict[str, pa.Table]:
    """The rows of all stages for ``kept`` good photos, and one that each stage rejected."""
    good = [f"k{number}" for number in range(kept)]
    fetched = [*good, "unread", "small", "double", "bridge"]
    facts = [{"sha256": key, "format": "JPEG", "title": f"Title of {key}", "latitude": 52.5} for key in fetched]
    measured = [{"sha256": key, "long_px": 1500, "short_px": 1000} for key in fetched]
    measured[fetched.index("unread")] |= {"long_px": None, "short_px": None, "measure_reason": "corrupt"}
    splits = [{"photo_id": key, "split": SPLITS[n % 3], "group_id": key} for n, key in enumerate(good)]
    return {
        "facts": rows(
            "facts",
            *({"photo_id": key, "owner_id": key} | each for key, each in zip(fetched, facts, strict=True)),
            {"photo_id": "gone", "download_reason": "gone"},
            {"photo_id": "unasked"},
        ),
        "measure": rows("measure", *({"photo_id": key} | each for key, each in zip(fetched, measured, strict=True))),
        "filter": rows("filter", *({"photo_id": key, "filter_reason": SMALL.get(key)} for key in fetched)),
        "rotate": rows("rotate", *({"photo_id": key, "blob": key, "net_op": 1} for key in fetched)),
        "dedup": rows(
            "dedup", *({"photo_id": key, "dedup_reason": DOUBLE.get(key)} for key in [*good, "double", "bridge"])
        ),
        "labels": rows("labels", *({"photo_id": key, "label": "a"} for key in [*good, "double", "bridge"])),
        "split": rows("split", *splits, {"photo_id": "bridge", "split_reason": "bridges_splits"}),
        "decided": rows("decided"),
    }


def publishing(
    where: Layout, table: pa.Table, rules: dict[str, object] = RULES, allow_jump: bool = False
) -> SnapshotRef:
    ref = manifest.write(where, "publish", table)
    write_bytes(where.root / "report.html", b"<html></html>")
    report: FileRef = manifest.file_ref(where, where.root / "report.html")
    return publish.publish_snapshot(where, "crops", rules, ref, {"report.html": report}, allow_jump)


def test_every_photo_has_a_verdict_and_its_first_reason() -> None:
    """No photo is lost, and a rejected one names the stage and the reason."""
    found = {
        row["photo_id"]: (row["verdict"], row["reason_stage"], row["reason"])
        for row in joined(outputs(), False).to_pylist()
    }
    assert found == {
        "k0": (True, None, None),
        "gone": (False, "download", "gone"),
        "unasked": (False, "download", "not_downloaded"),
        "unread": (False, "measure", "corrupt"),
        "small": (False, "filter", "too_small"),
        "double": (False, "dedup", "duplicate"),
        "bridge": (False, "split", "bridges_splits"),
    }


def test_locations_are_left_out_unless_asked_for() -> None:
    """Where somebody stood is personal."""
    assert joined(outputs(), False)["latitude"].null_count == 7
    assert 52.5 in joined(outputs(), True)["latitude"].to_pylist()


def test_a_snapshot_has_all_its_files_and_their_digests(where: Layout) -> None:
    """What snapshot.json promises is there, and the four manifests hold every photo once."""
    ref = publishing(where, joined(outputs(6), False))
    folder = Path(ref.uri)
    card = json.loads((folder / "snapshot.json").read_text())
    assert ref.counts == {"train": 2, "val": 2, "test": 2, "rejected": 6}
    assert sum(card["reasons"].values()) == 6
    promised = {f"{part}.parquet" for part in (*SPLITS, "rejected")} | {"README.md", "ATTRIBUTION.csv", "report.html"}
    assert promised <= set(card["files"]) == {file.name for file in folder.iterdir()} - {"snapshot.json"}
    assert card["labels"] == {"a": 6}
    assert all(manifest.sha256_file(folder / name) == digest for name, digest in card["files"].items())
    assert publish.published(where, "crops", 1) == joined(outputs(6), False)


def test_nothing_new_publishes_nothing(where: Layout) -> None:
    """The same rows under the same rules are the same version."""
    first = publishing(where, joined(outputs(), False))
    again = publishing(where, joined(outputs(), False))
    assert (first.version, first.is_new, again.version, again.is_new) == (1, True, 1, False)
    assert publishing(where, joined(outputs(), False), {"filter": {"min_long_px": 1}}).version == 2
    assert catalog.versions(where, "crops") == [1, 2]


def test_only_one_run_can_take_a_version(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second is told so, and leaves nothing behind."""
    publishing(where, joined(outputs(3), False))
    monkeypatch.setattr(catalog, "versions", lambda where, name: [])
    with pytest.raises(SnapshotConflict, match="refresh again"):
        publishing(where, joined(outputs(6), False))
    assert [entry.name for entry in where.snapshot("crops", 1).parent.iterdir()] == ["00001"]


def test_a_failed_publish_leaves_nothing(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends while it writes a snapshot publishes none."""

    def fails(*args: object) -> str:
        raise RuntimeError("power cut")

    monkeypatch.setattr(publish.card, "companions", fails)
    with pytest.raises(RuntimeError):
        publishing(where, joined(outputs(), False))
    assert catalog.versions(where, "crops") == []
    assert list(where.snapshot("crops", 1).parent.iterdir()) == []


def test_a_suspicious_jump_is_refused_unless_allowed(where: Layout) -> None:
    """Half of the photos gone under unchanged rules is no news but an accident."""
    publishing(where, joined(outputs(60), False))
    with pytest.raises(GateRefused, match="only 20 photos are kept where 60 were"):
        publishing(where, joined(outputs(20), False))
    with pytest.raises(GateRefused):  # another field of the dataset is no excuse
        publishing(where, joined(outputs(20)), RULES | {"locations": True})
    with pytest.raises(GateRefused):  # nor is a looser rule
        publishing(where, joined(outputs(20)), {"filter": {"min_long_px": 9}})
    strict: dict[str, object] = {"filter": {"min_long_px": 1441}}
    assert publishing(where, joined(outputs(20)), strict).version == 2  # by intent
    with pytest.raises(GateRefused):
        publishing(where, joined(outputs(3)), strict)
    assert publishing(where, joined(outputs(3)), strict, allow_jump=True).version == 3


FILTER, DEDUP, LABELS = FilterRules(), DedupRules(max_per_owner=5), LabelRules(from_tags=True, min_photos=9)
LOOSER: list[tuple[FilterRules | DedupRules | LabelRules, dict[str, Any]]] = [
    (FILTER, {"min_long_px": 1000}), (FILTER, {"aspect": None}), (FILTER, {"aspect_tolerance": 0.1}),
    (FILTER.model_copy(update={"reject_grey": True}), {"reject_grey": False, "min_short_px": 1}),
    (DEDUP, {"max_per_owner": None}), (DEDUP, {"max_per_owner": 6}), (DEDUP, {"max_distance_bits": 3}),
    (LABELS, {"min_photos": 1}),
]  # fmt: skip
STRICTER: list[tuple[FilterRules | DedupRules | LabelRules, dict[str, Any]]] = [
    (FILTER, {"min_long_px": 1441}), (FILTER, {"aspect": 1.4}), (FILTER, {"min_sharpness": 1.0}),
    (FILTER, {"min_long_px": 1000, "reject_grey": True}), (DEDUP, {"max_per_owner": 4}),
    (LABELS, {"language": None}), (LABELS, {"language": "de"}), (LABELS, {"require": True}),
    (LABELS, {"from_tags": False}), (LABELS, {"a rule of tomorrow": 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "changes", "is_stricter"), [(*each, False) for each in LOOSER] + [(*each, True) for each in STRICTER]
)
def test_only_a_rule_that_may_reject_more_is_stricter(
    rules: FilterRules | DedupRules | LabelRules, changes: dict[str, Any], is_stricter: bool
) -> None:
    """What became looser, in one rule or in all, is not; what cannot be compared may be."""
    name = {FilterRules: "filter", DedupRules: "dedup", LabelRules: "labels"}[type(rules)]
    before = {"filter": {}, name: rules.model_dump(mode="json")}
    assert publish.is_stricter(before, {name: before[name] | changes}) == is_stricter
    assert not publish.is_stricter(before, before)


def test_every_rule_says_in_which_direction_it_is_looser() -> None:
    """But for those of labels that merely say other things; a name that means nothing any more stands nowhere."""
    told = publish.LESS_IS_LOOSER | publish.MORE_IS_LOOSER | {"aspect", "from_tags", "language", "mapping"}
    assert told == {*FilterRules.model_fields, *DedupRules.model_fields, *LabelRules.model_fields}


@pytest.mark.parametrize(
    ("before", "now", "worry"),
    [
        ({"train": 10, "rejected": 0}, {"train": 1, "rejected": 9}, None),
        ({"train": 100, "rejected": 0}, {"train": 50, "rejected": 0}, None),
        ({"train": 100, "rejected": 0}, {"train": 49, "rejected": 0}, "only 49 photos"),
        ({"train": 100, "rejected": 0}, {"train": 100, "rejected": 34}, "rose by 25%"),
        ({"train": 100, "rejected": 0}, {"train": 100, "rejected": 33}, None),
    ],
)
def test_the_gate_has_exact_bounds(before: dict[str, int], now: dict[str, int], worry: str | None) -> None:
    """More than half of the photos lost, or a quarter more of them rejected; small datasets may jump."""
    zero = {"val": 0, "test": 0}
    found = publish.gate({"counts": before | zero}, {"counts": now | zero})
    assert (found is None) if worry is None else (found is not None and worry in found)


def test_a_label_that_loses_most_of_its_photos_is_no_news() -> None:
    """The whole may hide what happens to a part of it; a small label may jump."""
    counts = {"train": 100, "val": 0, "test": 0, "rejected": 0}
    before = {"counts": counts, "labels": {"bee": 20, "ant": 19, "fly": 61}}
    assert publish.gate(before, {"counts": counts, "labels": {"bee": 10, "fly": 90}}) is None
    assert "'bee'" in str(publish.gate(before, {"counts": counts, "labels": {"bee": 9, "fly": 91}}))


def test_a_snapshot_is_found_by_name_and_version(where: Layout) -> None:
    """``crops`` is the newest, ``crops@1`` the first; what is not there is named."""
    publishing(where, joined(outputs(1), False))
    publishing(where, joined(outputs(2), False))
    assert catalog.resolve(where, "crops") == ("crops", 2)
    assert catalog.resolve(where, "crops@1") == ("crops", 1)
    with pytest.raises(SnapshotMissing, match="it has \\[1, 2\\]"):
        catalog.resolve(where, "crops@9")
    with pytest.raises(SnapshotMissing, match="refresh it first"):
        catalog.resolve(where, "none")


def test_what_is_wanted_is_what_is_not_held(where: Layout) -> None:
    """New photos are wanted at once, so are lost ones; failed ones when due; held ones and hopeless ones never."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = rows(
        "listings",
        *(
            {"photo_id": key, "observed_at": now, "image_url": "u", "size_label": "Original", "fallbacks": []}
            for key in ("new", "held", "lost", "due", "later", "never")
        ),
    )
    tried = rows(
        "attempts",
        {"photo_id": "held", "attempt": 1, "sha256": blobs.put(where, b"picture", "JPEG"), "format": "JPEG"},
        {"photo_id": "lost", "attempt": 1, "sha256": "0" * 64, "format": "JPEG"},
        {"photo_id": "due", "attempt": 1, "next_try_at": now},
        {"photo_id": "later", "attempt": 1, "next_try_at": now + timedelta(seconds=1)},
        {"photo_id": "never", "attempt": 1},
    )
    for stage, table in (("listings", found), ("attempts", tried)):
        ledger.adopt(where, "crops", manifest.write(where, stage, table))
    wanted = {row["photo_id"]: row["attempt"] for row in catalog.wanted(where, "crops", now).to_pylist()}
    assert wanted == {"new": 0, "lost": 2, "due": 2}
    assert catalog.held(where, "crops")["photo_id"].to_pylist() == ["held", "lost"]


def test_the_newest_listing_counts(where: Layout) -> None:
    """A changed title replaces the old one in the facts of a dataset."""
    for day, title in ((2, "new"), (1, "old")):
        table = rows("listings", {"photo_id": "1", "observed_at": datetime(2026, 1, day, tzinfo=UTC), "title": title})
        ledger.adopt(where, "crops", manifest.write(where, "listings", table))
    assert catalog.facts(where, "crops")["title"].to_pylist() == ["new"]


def test_the_draft_of_a_killed_run_is_no_version(where: Layout) -> None:
    """A folder that was never renamed into place is passed over, though it is complete."""
    publishing(where, joined(outputs(), False))
    final = where.snapshot("crops", 1)
    draft = final.with_name(".00002.0123.part")
    draft.mkdir()
    (draft / "snapshot.json").write_text("{}")
    assert catalog.versions(where, "crops") == [1]
    assert publishing(where, joined(outputs(3), False)).version == 2
