"""Laws of splits and of groups."""

import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from storage.records import SPLITS
from tasks.errors import TooFewPhotos
from tasks.groups import components
from tasks.split import SplitRules, group_ids, split_of, split_rows

RULES = st.builds(
    lambda salt, group_by: SplitRules(train=1, val=0, test=0, salt=salt, group_by=group_by),
    st.text(min_size=1, max_size=3),
    st.sampled_from([("owner", "duplicates"), ("owner",), ("duplicates",), ()]),
).map(lambda rules: rules.model_copy(update={"train": 0.5, "val": 0.25, "test": 0.25}))


def row(photo: int, owner: str, duplicates: str | None = None, source: str = "s") -> dict[str, Any]:
    return {"source": source, "photo_id": f"{photo:04d}", "owner_id": owner, "duplicate_group": duplicates}


@st.composite
def many_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of few owners and few groups, some with neither; at least three that hang together with nothing."""
    bonds = st.tuples(st.sampled_from(["", "ann", "bob", "cid"]), st.none() | st.sampled_from("xyz"))
    drawn = draw(st.lists(bonds, max_size=25))
    alone = [row(1000 + at, "") for at in range(3)]
    return alone + [row(at, owner, group, draw(st.sampled_from("st"))) for at, (owner, group) in enumerate(drawn)]


def by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    return {(item["source"], item["photo_id"]): (item["group_id"], item["split"]) for item in rows}


@given(many_rows(), RULES, st.randoms(use_true_random=False))
def test_row_order_does_not_matter(rows: list[dict[str, Any]], rules: SplitRules, order: random.Random) -> None:
    """Shuffled rows get the same groups and the same splits."""
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert by_key(split_rows(shuffled, rules)) == by_key(split_rows(rows, rules))


@given(many_rows(), RULES)
def test_nothing_that_belongs_together_is_divided(rows: list[dict[str, Any]], rules: SplitRules) -> None:
    """No owner and no duplicate group lies in two splits, if the rules name it; every row has one split."""
    split = by_key(split_rows(rows, rules))
    assert len(split) == len(rows)
    sides: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for item in rows:
        side = split[item["source"], item["photo_id"]][1]
        assert side in SPLITS
        if item["owner_id"] and "owner" in rules.group_by:
            sides["owner", item["source"], item["owner_id"]].add(side)
        if item["duplicate_group"] and "duplicates" in rules.group_by:
            sides["duplicates", item["duplicate_group"]].add(side)
    assert all(len(side) == 1 for side in sides.values())


@given(many_rows(), RULES, st.integers(1, 30))
def test_new_photos_move_no_old_one(rows: list[dict[str, Any]], rules: SplitRules, newcomers: int) -> None:
    """Photos of new owners leave every earlier photo where it was."""
    before = by_key(split_rows(rows, rules))
    grown = rows + [row(5000 + at, f"new {at % 7}" if at % 3 else "") for at in range(newcomers)]
    after = by_key(split_rows(grown, rules))
    assert {key: after[key] for key in before} == before


@given(st.integers(1, 40), st.data())
def test_components_are_a_partition_that_respects_every_link(size: int, draw: st.DataObject) -> None:
    """Linked members share a component, whose name is one of its members; unlinked members are alone."""
    member = st.integers(0, size - 1)
    links = draw.draw(st.lists(st.tuples(member, member), max_size=40))
    roots = components(size, links)
    assert all(roots[first] == roots[second] for first, second in links)
    assert all(roots[root] == root <= at for at, root in enumerate(roots))
    touched = {end for link in links for end in link}
    assert all(roots[at] == at for at in range(size) if at not in touched)


def test_shares_converge() -> None:
    """Over 20,000 groups each split is within one percent of its share."""
    rules = SplitRules()
    got = [split_of(f"owner:s/{at}", rules) for at in range(20_000)]
    for name, share in (("train", 0.75), ("val", 0.10), ("test", 0.15)):
        assert got.count(name) / len(got) == pytest.approx(share, abs=0.01)


def test_splits_never_change() -> None:
    """These splits were given once; a published dataset relies on them for ever."""
    given_once = [split_of(f"owner:flickr/{at}", SplitRules()) for at in range(24)]
    assert "".join(name[1] for name in given_once) == "rrarrraarrerrrarrrrrrrre"


def test_a_group_is_named_by_its_owner_and_without_one_by_its_photo() -> None:
    """Owners of two sources are two; an owner in a group with strangers names it."""
    rows = [
        row(1, "bob"),
        row(2, "ann", "x"),
        row(3, "", "x"),
        row(4, ""),
        row(5, "ann", source="t"),
        row(6, "bob", "x"),
    ]
    ann = "owner:s/ann"
    assert group_ids(rows, SplitRules()) == [ann, ann, ann, "photo:s/0004", "owner:t/ann", ann]
    assert group_ids(rows[:3], SplitRules(group_by=("duplicates",))) == ["photo:s/0001", "photo:s/0002", "photo:s/0002"]


def test_another_salt_gives_another_split() -> None:
    """The salt matters."""
    keys = [f"owner:s/{at}" for at in range(100)]
    assert [split_of(key, SplitRules(salt="a")) for key in keys] != [
        split_of(key, SplitRules(salt="b")) for key in keys
    ]


def test_too_few_groups_are_refused_in_one_sentence() -> None:
    """Two owners cannot fill three splits; they can fill two, and no photo can fill none."""
    rows = [row(at, "ann" if at % 2 else "bob") for at in range(13)]
    with pytest.raises(TooFewPhotos, match=r"13 photos in 2 groups .* 3 splits: search for more"):
        split_rows(rows, SplitRules())
    assert len(split_rows(rows, SplitRules(train=0.9, val=0, test=0.1))) == 13
    with pytest.raises(TooFewPhotos):
        split_rows([], SplitRules(train=1, val=0, test=0))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"train": 0.8}, "sum to 1"),
        ({"train": 0, "val": 0.5, "test": 0.5}, "train is 0"),
        ({"val": -0.1}, "val"),
        ({"salt": ""}, "salt"),
        ({"group_by": ["camera"]}, "group_by"),
        ({"mode": "random"}, "mode"),
    ],
)
def test_impossible_rules_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    """The message names the key that is at fault."""
    with pytest.raises(ValidationError, match=named):
        SplitRules.model_validate(values)
