"""Laws of splits and of groups, also over a history of refreshes."""

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from storage.records import SCHEMAS, SPLITS
from tasks.duplicates.groups import components
from tasks.errors import TooFewPhotos
from tasks.split import SplitRules, drawn, shares, split_photos, ticket
from tasks.splitting.shares import best

Rows = dict[str, dict[str, Any]]
DATABASE = duckdb.connect(config={"threads": 1})  # opening one takes longer than a split
GIVEN = SCHEMAS["given"].names
MODES = st.sampled_from(["stable", "balanced"])
BONDS = st.sampled_from([("owner", "duplicates"), ("owner",), ("duplicates",), ()])
RULES = st.builds(
    lambda salt, group_by, mode: SplitRules(train=0.5, val=0.25, test=0.25, salt=salt, group_by=group_by, mode=mode),
    st.text(min_size=1, max_size=2), BONDS, MODES,
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photo of the source ``s``: equal ``picture``s are duplicates, of which the largest is kept."""

    photo_id: str
    owner: str = ""
    picture: str = ""
    size: int = 1
    labels: tuple[str, ...] = ()
    is_kept_by_hand: bool = False

    @property
    def key(self) -> dict[str, str]:
        return {"source": "s", "photo_id": self.photo_id}


@dataclass
class History:
    """Refreshes one after the other: what was published in which split is given to the next."""

    rules: SplitRules
    given: Rows = field(default_factory=dict)

    def refresh(self, photos: list[Photo]) -> Rows:
        """The rows of the split stage; what it publishes is given from now on."""
        rows = split(photos, self.rules, list(self.given.values()))
        published = {name: row for name, row in rows.items() if row["split"]}
        self.given |= {name: {column: row[column] for column in GIVEN} for name, row in published.items()}
        return rows


def dedup(photos: list[Photo]) -> list[dict[str, Any]]:
    """What dedup would say: the largest photo of a picture is kept, and what a person keeps."""
    of_picture: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        of_picture[photo.picture or photo.photo_id].append(photo)
    rows = []
    for members in of_picture.values():
        first, *others = sorted(members, key=lambda photo: (-photo.size, photo.photo_id))
        name = f"s/{first.photo_id}" if others else None
        rows.append({**first.key, "duplicate_group": name})
        for photo in others:
            reason = None if photo.is_kept_by_hand else "duplicate"
            rows.append({**photo.key, "duplicate_group": name, "duplicate_of": name, "dedup_reason": reason})
    return rows


def split(photos: list[Photo], rules: SplitRules, published: list[dict[str, Any]] | None = None) -> Rows:
    """The rows of the split stage by photo_id, computed from tables in the order of ``photos``."""
    tables = {
        "deduped": ("dedup", dedup(photos)),
        "owners": ("owners", [{**photo.key, "owner_id": photo.owner} for photo in photos]),
        "labels": ("labels", [{**photo.key, "labels": list(photo.labels)} for photo in photos]),
        "given": ("given", published or []),
    }
    for view, (schema, rows) in tables.items():
        DATABASE.register(view, pa.Table.from_pylist(rows, schema=SCHEMAS[schema]))
    return {row["photo_id"]: row for row in split_photos(DATABASE, rules).to_pylist()}


def sides(rows: Rows, photos: list[Photo], of: str) -> dict[str, set[str]]:
    """The splits of each owner, or of each picture."""
    found: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        row = rows.get(photo.photo_id)
        if getattr(photo, of) and row and row["split"]:
            found[getattr(photo, of)].add(row["split"])
    return found


@st.composite
def many_photos(draw: st.DrawFn, start: int = 0) -> list[Photo]:
    """Photos of few owners and few pictures, some of neither."""
    owner, picture = st.sampled_from(["", "ann", "bob", "cid", "dan"]), st.sampled_from(["", "", "x", "y", "z"])
    labels, by_hand = st.lists(st.sampled_from("pq"), max_size=2).map(tuple), st.sampled_from([False, False, True])
    one = st.builds(Photo, st.just(""), owner, picture, st.integers(1, 3), labels, by_hand)
    found = draw(st.lists(one, max_size=12))
    order = draw(st.permutations(range(len(found))))
    return [replace(photo, photo_id=f"{start + at:04d}") for photo, at in zip(found, order, strict=True)]


ALONE = [Photo(f"alone {at}") for at in range(3)]


@settings(max_examples=20, deadline=None)
@given(many_photos(), RULES, st.randoms(use_true_random=False))
def test_row_order_does_not_matter(photos: list[Photo], rules: SplitRules, order: random.Random) -> None:
    """Shuffled rows get the same groups and the same splits, in both modes."""
    shuffled = ALONE + photos
    order.shuffle(shuffled)
    assert split(shuffled, rules) == split(ALONE + photos, rules)


@settings(max_examples=30, deadline=None)
@given(MODES, st.data())
def test_no_history_of_arrivals_leaks_or_moves_a_photo(mode: str, data: st.DataObject) -> None:
    """Whatever arrives, vanishes, comes back, is posted again or turns out to be whose: nothing that belongs together
    is divided, and no photo is ever published in another split than before."""
    history = History(SplitRules(train=0.5, val=0.25, test=0.25, mode=mode))
    known: list[Photo] = list(ALONE)
    for refresh in range(data.draw(st.integers(1, 4))):
        known += data.draw(many_photos(start=100 * refresh))
        named = data.draw(st.sampled_from(["", "ann", "bob"]))  # an owner who becomes known
        known = [
            replace(photo, owner=photo.owner or named) if photo.photo_id.endswith("01") else photo for photo in known
        ]
        gone = data.draw(st.sets(st.sampled_from([photo.photo_id for photo in known]), max_size=4))
        present = [photo for photo in known if photo.photo_id not in gone or photo in ALONE]
        before = dict(history.given)
        rows = history.refresh(present)
        check(rows, present, before)
        assert split(present, history.rules, list(history.given.values())) == rows, "a fixed point"


def check(rows: Rows, photos: list[Photo], before: Rows) -> None:
    """Nothing is divided, nothing has moved, and what was published is rejected only for what was published."""
    assert {name for name in rows if rows[name]["split"] is None} == {
        name for name in rows if rows[name]["split_reason"] == "bridges_splits"
    }
    for of in ("owner", "picture"):
        assert all(len(found) == 1 for found in sides(rows, photos, of).values())
        was = sides(before, photos, of)
        for member, found in sides(rows, photos, of).items():
            assert found <= was.get(member, found), f"{member} was published in {was[member]} only"
    for photo in photos:
        if photo.photo_id in rows and photo.photo_id in before:
            now, then = rows[photo.photo_id]["split"], before[photo.photo_id]["split"]
            conflicts = [
                sides(before, photos, of).get(getattr(photo, of), set()) - {then} for of in ("owner", "picture")
            ]
            assert now == then or (now is None and any(conflicts))


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


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([(0.5, 0.25, 0.25), (0.8, 0, 0.2), (1, 0, 0)])
)
def test_no_split_of_few_groups_comes_closer_than_the_best(sizes: list[int], wanted: tuple[float, ...]) -> None:
    """Trying every way to place the groups finds none that is closer, and one that is as close."""
    ways = np.indices((3,) * len(sizes)).reshape(len(sizes), -1)
    got = np.stack([(np.array(sizes)[:, None] * (ways == split)).sum(axis=0) for split in range(3)]) / sum(sizes)
    got = got[:, (got[np.array(wanted) == 0] == 0).all(axis=0)]
    closest = np.abs(got - np.array(wanted)[:, None]).max(axis=0).min()
    assert np.abs(best(sizes, wanted) - wanted).max() == pytest.approx(closest)


def test_shares_converge() -> None:
    """Over 20,000 groups each split is within one percent of its share."""
    got = drawn([ticket(f"owner:s/{at}", "darkroom") for at in range(20_000)], SplitRules())
    for side, share in enumerate((0.75, 0.10, 0.15)):
        assert got.count(side) / len(got) == pytest.approx(share, abs=0.01)


def test_splits_never_change() -> None:
    """These splits were given once; a published dataset relies on them for ever."""
    given_once = drawn([ticket(f"owner:flickr/{at}", "darkroom") for at in range(24)], SplitRules())
    assert "".join(SPLITS[side][1] for side in given_once) == "rrarrraarrerrrarrrrrrrre"


def test_a_group_is_named_by_its_owner_and_without_one_by_its_photo() -> None:
    """An owner in a group with strangers names it; a photo that nobody is known to own names its own."""
    photos = [
        Photo("1", "bob"), Photo("2", "ann", "x", 2), Photo("3", "", "x", is_kept_by_hand=True), Photo("4"),
        Photo("6", "bob", "x", is_kept_by_hand=True), Photo("7", "cid"),
    ]  # fmt: skip
    ann = "owner:s/ann"
    names = {name: row["group_id"] for name, row in split(photos, SplitRules()).items()}
    assert names == {"1": ann, "2": ann, "3": ann, "4": "photo:s/4", "6": ann, "7": "owner:s/cid"}
    names = {name: row["group_id"] for name, row in split(photos, SplitRules(group_by=("duplicates",))).items()}
    assert names == {name: f"photo:s/{'2' if name in '236' else name}" for name in "123467"}


def test_another_salt_gives_another_split() -> None:
    """The salt matters, in both modes."""
    photos = [Photo(f"{at:03d}") for at in range(100)]
    for mode in ("stable", "balanced"):
        got = [
            [row["split"] for row in split(photos, SplitRules.model_validate({"mode": mode, "salt": salt})).values()]
            for salt in "ab"
        ]
        assert got[0] != got[1]


def test_too_few_groups_are_refused_in_one_sentence() -> None:
    """Two owners cannot fill three splits; they can fill two, and no photo can fill none."""
    photos = [Photo(f"{at}", "ann" if at % 2 else "bob") for at in range(13)]
    with pytest.raises(TooFewPhotos, match=r"13 photos in 2 groups .* 3 splits: search for more"):
        split(photos, SplitRules())
    assert len(split(photos, SplitRules(train=0.9, val=0, test=0.1))) == 13
    with pytest.raises(TooFewPhotos):
        split([], SplitRules(train=1, val=0, test=0))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (
            {"train": 0.8},
            r"train \(0.8\), val \(0.1\) and test \(0.15\) make 1.05: they must sum to 1, and are 0.05 above",
        ),
        ({"train": 0.749998}, "they must sum to 1, and are 2e-06 below"),
        ({"train": float("nan")}, "train\n  Input should be a finite number"),
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


@pytest.mark.parametrize("third", [1 / 3, 0.333333, 0.3333333])
def test_thirds_are_shares(third: float) -> None:
    """Shares that rounding put off their sum are taken in proportion; those that sum to 1 are taken as written."""
    assert shares(SplitRules(train=third, val=third, test=third)) == (Fraction(1, 3),) * 3
    assert shares(SplitRules()) == (Fraction(3, 4), Fraction(1, 10), Fraction(3, 20))
