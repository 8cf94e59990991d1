"""Splits and their proof over real Parquet, and what published versions give to the next."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from storage import ledger, manifest, splits
from storage.layout import Layout
from storage.records import SCHEMAS, SPLITS, FileRef, ManifestRef
from tasks.dedup import DedupRules
from tasks.leakage import audit_splits, in_words, is_clean
from tasks.pictures.hashing import hash_facts
from tasks.split import SplitRules, split

RULES = SplitRules(train=0.5, val=0, test=0.5, mode="balanced")
Rows = list[dict[str, Any]]


def facts(seed: int) -> dict[str, Any]:
    """What measure would say of a picture: another one for each seed."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8)).resize((96, 96), 3)
        for cells in (3, 6, 12, 24)
    ]
    grey = np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8)
    thumbnail = np.asarray(Image.fromarray(grey).resize((32, 32), 3)).tobytes()
    return {"long_px": 1500, "short_px": 1000, "thumbnail": thumbnail, **hash_facts(grey)}


def photos(**changes: dict[str, Any]) -> Rows:
    """Twelve photos 00 .. 11 of three owners and two labels, no two alike; ``changes`` by name: p03={...}."""
    return [
        {
            "source": "s", "photo_id": f"p{at:02d}", "sha256": f"{at:064x}", "format": "JPEG", "owner_id": f"o{at % 4}",
            "labels": ["bee" if at % 3 else "fly"], "group_id": f"owner:s/o{at % 4}",
            "split": SPLITS[2 * (at % 2)], **facts(at), **changes.get(f"p{at:02d}", {}),
        }
        for at in range(12)
    ]  # fmt: skip


def written(root: Layout, stage: str, rows: Rows) -> ManifestRef:
    return manifest.write(root, stage, pa.Table.from_pylist(rows, schema=SCHEMAS[stage]))


def audited(root: Layout, rows: Rows, rules: SplitRules = RULES) -> dict[str, Any]:
    """The proof about ``rows`` as they are split."""
    refs = {stage: written(root, stage, rows) for stage in ("dedup", "owners", "labels", "split")}
    measured = [written(root, "measure", rows[:5]), written(root, "measure", rows[5:])]
    ref = audit_splits.fn(measured, *refs.values(), DedupRules(), rules)
    assert isinstance(ref, FileRef)
    assert manifest.intact(root, ref)
    found: dict[str, Any] = json.loads((root.root / ref.path).read_bytes())
    return found


def test_an_honest_split_is_proved(root: Layout) -> None:
    """All counts are zero, and the shares stand beside the target, the best and chi-square, also by label."""
    found = audited(root, photos(p11={"split": None, "group_id": None, "split_reason": "bridges_splits"}))
    assert is_clean(found)
    assert set(found["across_splits"].values()) == {0}
    assert in_words(found) == "nothing in more than one split"
    assert found["bridges_splits"] == 1
    whole = found["shares"]
    assert (whole["photos"], whole["groups"], whole["is_best_exact"]) == (11, 4, True)
    assert whole["splits"]["train"] == {"photos": 6, "target": 0.5, "achieved": 0.545455, "best": 0.545455}
    assert whole["off_points"] == whole["best_off_points"] == pytest.approx(4.5455)
    assert [(part["label"], part["photos"], part["missing_from"]) for part in found["labels"]] == [
        ("bee", 7, []), ("fly", 4, []),
    ]  # fmt: skip


LEAKS: dict[str, Callable[[], Rows]] = {
    "groups": lambda: photos(p00={"group_id": "owner:s/o1"}),
    "owners": lambda: photos(p00={"owner_id": "o1"}),
    "duplicate_groups": lambda: photos(p00={"duplicate_group": "s/p01"}, p01={"duplicate_group": "s/p01"}),
    "files": lambda: photos(p00={"sha256": f"{1:064x}"}, p01={"sha256": f"{1:064x}"}),
    "near_duplicates": lambda: photos(p00=facts(1)),
}


@pytest.mark.parametrize("what", LEAKS)
def test_each_leak_is_found(root: Layout, what: str) -> None:
    """One of each kind across two splits is counted, named, and makes the proof unclean; inside one it is none."""
    found = audited(root, LEAKS[what]())
    assert found["across_splits"] == {name: int(name == what) for name in found["across_splits"]}
    assert not is_clean(found)
    assert "in more than one split" in in_words(found)
    together = [row | {"split": "test", "group_id": "one"} for row in LEAKS[what]()]
    assert is_clean(audited(root, together))


def test_pairs_are_named(root: Layout) -> None:
    """A person can look at the two photos."""
    found = audited(root, photos(p00=facts(1)))
    assert found["examples"] == [{"first": "s/p00", "second": "s/p01", "is_wider": False}]
    assert in_words(found) == "1 pair of near-duplicates in more than one split, such as s/p00 and s/p01"


def test_what_the_rules_let_be_divided_is_told_and_does_not_count(root: Layout) -> None:
    """Without owner among group_by an owner in two splits is no leak; equal pictures are."""
    rules = RULES.model_copy(update={"group_by": ("duplicates",)})
    found = audited(root, photos(p00={"owner_id": "o1"}), rules)
    assert found["across_splits"]["owners"] == 1
    assert is_clean(found)
    assert not is_clean(audited(root, photos(p00=facts(1)), rules))


def test_the_split_stage_and_its_proof_agree(root: Layout) -> None:
    """From Parquet to Parquet: what the task gives is clean, and under what it gave it gives the same."""
    rows = [{name: value for name, value in row.items() if name not in ("split", "group_id")} for row in photos()]
    deduped, owners, labels = (written(root, stage, rows) for stage in ("dedup", "owners", "labels"))
    ref = split.fn(deduped, owners, labels, written(root, "given", []), RULES)
    table = manifest.read(root, ref)
    given = manifest.write(root, "given", table.select(SCHEMAS["given"].names))
    assert split.fn(deduped, owners, labels, given, RULES) == ref
    sides = {row["photo_id"]: row for row in table.to_pylist()}
    assert is_clean(audited(root, [row | sides[row["photo_id"]] for row in rows]))


def publish(where: Layout, version: int, rules: SplitRules, **sides: str) -> None:
    """A version that gives each photo its side, as far as its files say so."""
    folder = where.snapshot("d", version)
    folder.mkdir(parents=True)
    rows = [
        {"source": "s", "photo_id": name, "group_id": f"photo:s/{name}", "split": side, "verdict": True}
        for name, side in sides.items()
    ]
    for side in SPLITS:
        mine = [row for row in rows if row["split"] == side]
        table = pa.Table.from_pylist(mine, schema=SCHEMAS["publish"])
        manifest.write_parquet(folder / f"{side}.parquet", table, "publish")
    (folder / "snapshot.json").write_text(json.dumps({"rules": {"split": rules.model_dump(mode="json")}}))


def digest(rules: SplitRules) -> str:
    return splits.rules_digest(rules.model_dump(mode="json"))


def given(where: Layout, rules: SplitRules = RULES) -> dict[str, str]:
    rows = splits.given(where, "d", digest(rules)).to_pylist()
    return {row["photo_id"]: row["split"] for row in rows}


@pytest.mark.parametrize("is_granted", [True, False])
def test_what_any_version_gave_is_given(where: Layout, is_granted: bool) -> None:
    """A photo that vanished keeps its split, other rules give nothing, the latest version counts; with a ledger or
    without one, for the versions say the same."""
    stable = RULES.model_copy(update={"mode": "stable"})
    assert given(where) == {}
    versions: list[tuple[SplitRules, dict[str, str]]] = [
        (RULES, {"a": "train", "b": "test"}), (RULES, {"a": "train", "c": "train"}), (stable, {"a": "test"}),
        (RULES, {"a": "test"}),
    ]  # fmt: skip
    for version, (rules, sides) in enumerate(versions, start=1):
        publish(where, version, rules, **sides)
        if is_granted:
            assert splits.grant(where, "d")
            assert not splits.grant(where, "d"), "idempotent"
    assert given(where) == {"a": "test", "b": "test", "c": "train"}
    assert given(where, stable) == {"a": "test"}


def test_a_run_that_was_cut_after_publishing_forgets_nothing(where: Layout) -> None:
    """A version that nobody granted counts, and the next grant makes up for it; only news are written."""
    publish(where, 1, RULES, a="train", b="test")
    splits.grant(where, "d")
    publish(where, 2, RULES, a="train", c="test")
    assert given(where) == {"a": "train", "b": "test", "c": "test"}
    publish(where, 3, RULES, a="train")
    splits.grant(where, "d")
    rows = ledger.read(where, "d", "splits")
    assert sorted(rows["photo_id"].to_pylist()) == ["a", "b", "c"]
    assert given(where) == {"a": "train", "b": "test", "c": "test"}


def test_the_ledger_outlasts_deleted_versions(where: Layout) -> None:
    """What was granted is known without the version that gave it."""
    publish(where, 1, RULES, a="train")
    splits.grant(where, "d")
    publish(where, 2, RULES, b="test")
    (where.snapshot("d", 1) / "snapshot.json").unlink()
    assert given(where) == {"a": "train", "b": "test"}


def test_going_back_to_an_old_version_publishes_its_splits_anew(where: Layout) -> None:
    """A version with the rows of an older one gives what that one gave; photos that came between keep theirs."""
    publish(where, 1, RULES, a="train")
    publish(where, 2, RULES, a="train", b="test")
    splits.grant(where, "d")
    publish(where, 3, RULES, a="train")
    splits.grant(where, "d")
    assert given(where) == {"a": "train", "b": "test"}
