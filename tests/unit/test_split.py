"""What a split owes to what was published before, to labels, and to groups that are too large for it."""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from storage.records import SCHEMAS, SPLITS
from tasks.split import SplitRules, missed, split_photos
from tasks.splitting import stratify
from tasks.splitting.shares import account, best, chi_square
from tasks.splitting.stratify import balance, count, strata_of

DATABASE = duckdb.connect(config={"threads": 1})
HALVES = SplitRules(train=0.5, val=0, test=0.5)
Rows = list[dict[str, Any]]


def split(rows: Rows, given: dict[str, str] | None = None, rules: SplitRules = HALVES) -> dict[str, str]:
    """Split or reason by photo_id. ``rows``: columns of dedup, owners and labels; ``given``: split by photo_id."""
    keyed = [{"source": "s", **row} for row in rows]
    before = [{"source": "s", "photo_id": name, "split": side, "group_id": "?"} for name, side in (given or {}).items()]
    taking_part = [row for row in keyed if not row.get("is_filtered")]
    for view, schema, of in (
        ("deduped", "dedup", taking_part),
        ("owners", "owners", keyed),
        ("labels", "labels", keyed),
    ):
        DATABASE.register(view, pa.Table.from_pylist(of, schema=SCHEMAS[schema]))
    DATABASE.register("given", pa.Table.from_pylist(before, schema=SCHEMAS["given"]))
    table = split_photos(DATABASE, rules).to_pylist()
    return {row["photo_id"]: row["split"] or row["split_reason"] for row in table}


def photo(name: str, owner: str = "", group: str | None = None, **more: Any) -> dict[str, Any]:
    return {"photo_id": name, "owner_id": owner, "duplicate_group": group, **more}


ANN_AND_BOB = [photo("a1", "ann"), photo("a2", "ann"), photo("b1", "bob")]
PUBLISHED = {"a1": "train", "a2": "train", "b1": "test"}


@pytest.mark.parametrize("mode", ["stable", "balanced"])
def test_a_larger_copy_takes_no_picture_to_another_split(mode: str) -> None:
    """Bob, of the test set, posts Ann's published picture anew and larger: it is rejected, not carried over."""
    rules = HALVES.model_copy(update={"mode": mode})
    copied = photo("a2", "ann", "s/b2", dedup_reason="duplicate")
    rows = [photo("a1", "ann"), copied, photo("b1", "bob"), photo("b2", "bob", "s/b2")]
    assert split(rows, PUBLISHED, rules) == {"a1": "train", "b1": "test", "b2": "bridges_splits"}


def test_a_larger_copy_by_somebody_new_takes_its_owner_along() -> None:
    """A new owner who posts a published picture anew belongs, with all photos, where the picture was."""
    copied = photo("b1", "bob", "s/c1", dedup_reason="duplicate")
    rows = [*ANN_AND_BOB[:2], copied, photo("c1", "cid", "s/c1"), *(photo(f"c{at}", "cid") for at in range(2, 9))]
    assert {side for name, side in split(rows, PUBLISHED).items() if name[0] == "c"} == {"test"}


def test_a_newcomer_that_would_join_two_splits_is_rejected_alone() -> None:
    """A new photo of Ann that a person keeps beside Bob's equal one is rejected; nothing else changes."""
    rows = [*ANN_AND_BOB[:2], photo("b1", "bob", "s/b1"), photo("a3", "ann", "s/b1")]
    assert split(rows, PUBLISHED) == PUBLISHED | {"a3": "bridges_splits"}


def test_a_newcomer_that_replaces_pictures_of_two_splits_is_rejected() -> None:
    """One that is like two published pictures, which are not like each other, brings neither to the other's side."""
    replaced = {"duplicate_group": "s/c", "dedup_reason": "duplicate"}
    rows = [ANN_AND_BOB[0], ANN_AND_BOB[1] | replaced, ANN_AND_BOB[2] | replaced, photo("c", "cid", "s/c")]
    assert split([*rows, photo("d")], PUBLISHED | {"d": "test"}) == {"a1": "train", "c": "bridges_splits", "d": "test"}


def test_newcomers_that_only_come_together_go_where_more_of_them_belong() -> None:
    """An unknown owner with copies from both splits keeps those of the side that has more, and the new photos too."""
    rows = [*ANN_AND_BOB, photo("b2", "bob")]
    rows = [row | {"duplicate_group": f"s/c-{row['photo_id']}", "dedup_reason": "duplicate"} for row in rows]
    rows += [photo(f"c-{row['photo_id']}", "cid", f"s/c-{row['photo_id']}") for row in rows]
    rows += [photo("d", "dan"), photo("c", "cid")]
    got = split(rows, {"a1": "train", "a2": "test", "b1": "test", "d": "train"})
    assert got == {
        "c-a1": "bridges_splits", "c-a2": "test", "c-b1": "test", "c-b2": "test", "c": "test", "d": "train",
    }  # fmt: skip


def test_owners_that_turn_out_to_be_one_keep_the_side_with_more_photos() -> None:
    """What was published moves nowhere: of one owner's photos in two splits the fewer are rejected."""
    rows = [photo("1", "ann"), photo("2", "ann"), photo("3", "ann"), photo("4", "ann"), photo("5", "bob")]
    got = split(rows, {"1": "test", "2": "train", "3": "test", "5": "train"})
    assert got == {"1": "test", "2": "bridges_splits", "3": "test", "4": "test", "5": "train"}


@pytest.mark.parametrize("sides", [("train", "test"), ("test", "train")])
def test_what_vanished_still_holds_its_place(sides: tuple[str, str]) -> None:
    """An owner whose published photos are all gone, and a photo that comes back, have the side that they had."""
    published = {f"{owner}{at}": side for owner, side in zip(("ann", "bob"), sides, strict=True) for at in range(3)}
    old = [photo(name, name[:3]) for name in published]
    new = [photo(f"{owner}{at}", owner) for owner in ("ann", "bob") for at in range(5, 9)]
    for gone in ({"is_filtered": True}, {"dedup_reason": "owner_limit"}):
        got = split([*(row | gone for row in old), *new], published)
        assert got == {row["photo_id"]: published[f"{row['owner_id']}0"] for row in new}
    assert split(old, published) == published


def test_what_vanished_throws_nothing_out_that_is_still_there() -> None:
    """One published photo that takes part outweighs any number that do not, should they have been in another split."""
    gone = [photo(f"g{at}", "ann", is_filtered=True) for at in range(3)]
    got = split([*gone, photo("a", "ann"), photo("b", "bob")], {"g0": "test", "g1": "test", "g2": "test", "a": "train"})
    assert got["a"] == "train"


def test_a_photo_without_a_label_that_the_rules_keep_takes_no_part() -> None:
    """Rows that labels rejects get no row, and join no groups."""
    rows = [*ANN_AND_BOB, photo("c", "ann", labels_reason="unlabelled")]
    assert set(split(rows)) == {"a1", "a2", "b1"}


@pytest.mark.parametrize("several", [1, 3])
def test_balanced_splits_share_out_every_label(several: int) -> None:
    """The whole is within half a point of its shares, each label within two, also if photos have several."""
    rng = np.random.default_rng(0)
    rows = [
        photo(
            f"{at:05d}", f"o{rng.exponential(60):.0f}", labels=[f"l{place}" for place in {*rng.zipf(1.6, several) % 9}]
        )
        for at in range(3000)
    ]
    rules = SplitRules(mode="balanced")
    got = split(rows, rules=rules)
    assert shares_of(got) == pytest.approx([0.75, 0.1, 0.15], abs=0.005)
    for label in range(9):
        mine = {row["photo_id"]: got[row["photo_id"]] for row in rows if f"l{label}" in row["labels"]}
        assert shares_of(mine) == pytest.approx([0.75, 0.1, 0.15], abs=0.02)


def shares_of(got: dict[str, str]) -> list[float]:
    return [list(got.values()).count(side) / len(got) for side in SPLITS]


def test_newcomers_make_up_for_what_was_given() -> None:
    """A balanced split that began lopsided is evened out by new groups alone."""
    rows = [photo(f"{at:03d}", f"o{at // 2}", labels=["p"]) for at in range(200)]
    given = {f"{at:03d}": "train" for at in range(60)}
    got = split(rows, given, HALVES.model_copy(update={"mode": "balanced"}))
    assert shares_of(got) == [0.5, 0, 0.5]
    assert {got[name] for name in given} == {"train"}


def test_a_label_with_one_photo_is_trained_on() -> None:
    """It can lie in one split only, and that is train; the account names the splits that lack it."""
    rows = [photo(f"{at:03d}", labels=["common"]) for at in range(60)]
    rows += [photo(f"r{at}", labels=["common", f"rare {at}"]) for at in range(8)]
    got = split(rows, rules=SplitRules(mode="balanced"))
    assert {got[f"r{at}"] for at in range(8)} == {"train"}


def test_an_owner_with_half_of_the_set_is_accounted_for() -> None:
    """No crash: shares, the largest group's, and the best that is possible or a bound on it stand in one sentence."""
    rules = SplitRules(train=0.4, val=0.3, test=0.3, mode="balanced")
    got = split([photo(f"{at:03d}", "ann" if at < 50 else f"o{at}") for at in range(100)], rules=rules)
    assert shares_of(got) == [0.5, 0.25, 0.25]
    groups = np.where(np.arange(100) < 50, 0, np.arange(100))
    found = account(np.array([SPLITS.index(got[name]) for name in sorted(got)]), groups, [0.4, 0.3, 0.3])
    assert found["off_points"] == found["best_off_points"] == 10
    assert found["largest_group_share"] == 0.5
    assert missed(found) == (
        "train has 50.0 % of 40.0 %, val has 25.0 % of 30.0 %, test has 25.0 % of 30.0 %: 10.0 points "
        "off where no split of 51 undivided groups, the largest with 50.0 % of the photos, can come nearer than 10.0"
    )
    assert missed(found | {"groups": 8, "is_best_exact": True}).endswith(
        "10.0 is the best that 8 undivided groups allow, the largest with 50.0 % of the photos"
    )


def test_a_group_goes_where_chi_square_grows_least() -> None:
    """Of three groups the one with the rarest label is placed first, and a later pass corrects what came of it."""
    _, photos, strata = strata_of(pa.chunked_array([[["p"], ["p"], ["p"], ["p", "q"]]]))
    groups = np.array([0, 0, 1, 2])[photos]
    shared = balance(count(groups, strata, 3, 3), np.zeros((3, 2)), np.array([0.5, 0.5]), np.arange(3, dtype=np.uint64))
    assert shared[0] != shared[1] == shared[2]


def test_later_passes_correct_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was placed while nothing was known of the rest is taken up once more: chi-square falls."""
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 60, 400), rng.zipf(1.5, 400) % 12
    counts = count(np.tile(groups, 2), np.append(np.zeros(400, np.int64), labels + 1), 60, 13)
    found = []
    for number in (1, 5):
        monkeypatch.setattr(stratify, "passes", lambda groups, number=number: number)
        sides = balance(counts, np.zeros((13, 2)), np.array([0.8, 0.2]), np.arange(60, dtype=np.uint64))
        table = np.bincount(labels * 2 + sides[groups], minlength=24).reshape(12, 2).tolist()
        found.append(sum(chi_square(row, [0.8, 0.2])[0] for row in table))
    assert found[1] < 0.8 * found[0]


def test_small_sets_are_gone_over_more_often() -> None:
    """Five passes as long as they take next to no time, never fewer than two."""
    assert [stratify.passes(groups) for groups in (0, 60, 40_000, 60_000, 100_000, 1_000_000)] == [5, 5, 5, 3, 2, 2]


def test_the_best_shares_of_known_sets() -> None:
    """A large group drags its split along, and what is left is poured where it lacks most."""
    assert best([1] * 1000, (0.75, 0.1, 0.15)).tolist() == pytest.approx([0.75, 0.1, 0.15])
    assert best([60] + [1] * 40, (0.34, 0.33, 0.33)).tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert best([98, 1, 1], (0.75, 0.1, 0.15)).tolist() == pytest.approx([0.98, 0, 0.02])
    assert best([], (0.75, 0.1, 0.15)).tolist() == [0, 0, 0]


def test_chi_square_of_known_counts() -> None:
    """By hand: (60 - 50)^2 / 50 twice; and the 5 % points of one and two degrees of freedom."""
    assert chi_square([60, 40], [0.5, 0.5])[0] == pytest.approx(4.0)
    assert chi_square([100, 0], [1, 0]) == (0, 1)
    off = np.sqrt(3.8415 * 25)
    assert chi_square([50 + off, 0, 50 - off], [0.5, 0, 0.5])[1] == pytest.approx(0.05, abs=1e-4)
    off = np.sqrt(5.9915 * 100 / 2)
    assert chi_square([100 + off, 100 - off, 100], [1 / 3] * 3)[1] == pytest.approx(0.05, abs=1e-4)
