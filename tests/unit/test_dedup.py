"""Finding the same picture again, and only that."""

import io
import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from pydantic import ValidationError

from tasks import measure
from tasks.dedup import DedupRules, dedup_rows
from tasks.duplicates import copies
from tasks.duplicates.copies import Photos, equal_pictures, photos_of
from tasks.duplicates.groups import Forest, components
from tasks.duplicates.registering import SAME, outside
from tasks.pictures import imaging


@cache
def clouds(seed: int, height: int = 240, width: int = 360) -> Image.Image:
    """A picture with structure at every scale, another for each seed."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((width, height), 3)
        for cells in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8))


def facts(image: Image.Image, quality: int = 90) -> dict[str, Any]:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    small = imaging.decode_measured(out.getvalue(), 1)
    return measure.measure_photo(out.getvalue()) | {"grey": imaging.to_grey(small)}


COLUMNS = {
    "source": pa.string(), "photo_id": pa.string(), "sha256": pa.string(), "long_px": pa.int32(),
    "short_px": pa.int32(), "edit_tier": pa.string(), "phash_orientations": pa.binary(), "phash_probes": pa.binary(),
    "owner_id": pa.string(), "decision": pa.string(), "thumbnail": pa.binary(), "was_published": pa.bool_(),
    "is_filtered": pa.bool_(),
}  # fmt: skip


def table(rows: list[dict[str, Any]], **columns: list[Any]) -> pa.Table:
    """``rows`` of measure as photos a, b, c ... of one source, all of different bytes unless told otherwise."""
    defaults = {"source": "s", "owner_id": "", "decision": None, "was_published": False, "is_filtered": False}
    named = [
        defaults | {"photo_id": chr(97 + at), "sha256": str(at)} | row | {name: of[at] for name, of in columns.items()}
        for at, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(named, schema=pa.schema(list(COLUMNS.items())))


def photos(rows: list[dict[str, Any]], **columns: list[Any]) -> Photos:
    return photos_of(table(rows, **columns), look=lambda at: rows[at]["grey"])


def links(rows: list[dict[str, Any]], **columns: list[Any]) -> set[tuple[int, int]]:
    return set(equal_pictures(photos(rows, **columns), 7))


def deduped(rows: list[dict[str, Any]], rules: DedupRules | None = None, **columns: list[Any]) -> list[dict[str, Any]]:
    """The dedup columns of each row."""
    whole = table(rows, **columns)
    return list(dedup_rows(whole, photos(rows, **columns), rules or DedupRules()).to_pylist())


def turned(image: Image.Image, orientation: int) -> Image.Image:
    return Image.fromarray(imaging.make_upright(np.asarray(image), orientation))


def cut(image: Image.Image, left: float, right: float, top: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))


def with_disc(image: Image.Image, x: int, y: int) -> Image.Image:
    """A grey disc of an eighth of the width, in strong light."""
    mask = Image.new("L", image.size)
    mask.paste(255, (x, y, x + image.width // 8, y + image.width // 8))
    grey = Image.new("RGB", image.size, (90, 90, 90))
    return Image.composite(grey, ImageOps.autocontrast(image), mask.filter(ImageFilter.GaussianBlur(1)))


def with_somebody(image: Image.Image, seed: int, brightness: float = 0.6) -> Image.Image:
    """An ellipse of a fifth of the width, a piece of another picture."""
    width, height = image.size
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((width * 0.4, height * 0.35, width * 0.6, height * 0.75), fill=255)
    return Image.composite(ImageEnhance.Brightness(clouds(seed)).enhance(brightness), image, mask)


def plated(image: Image.Image, value: int = 240) -> Image.Image:
    """A light plate with dark bars over a fifth of each side, in a corner."""
    marked = np.asarray(image).copy()
    marked[-image.height // 5 :, -image.width // 5 :] = value
    marked[-image.height // 5 :, -image.width // 5 :: 12] = 20
    return Image.fromarray(marked)


def written(image: Image.Image) -> Image.Image:
    """Translucent words across the whole, from corner to corner."""
    words = Image.new("L", (image.width, image.width))
    ImageDraw.Draw(words).text((10, image.width / 2.3), "SAMPLE PHOTO", 110, font_size=image.width / 8)
    top = (image.width - image.height) // 2
    words = words.rotate(33, Image.Resampling.BICUBIC).crop((0, top, image.width, top + image.height))
    return Image.composite(Image.new("RGB", image.size, "white"), image, words)


def faint(image: Image.Image) -> Image.Image:
    """A third of the contrast."""
    return ImageEnhance.Contrast(image).enhance(0.33)


CHANGES = {
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker curve": lambda image: image.point([round(255 * (value / 255) ** 1.6) for value in range(256)] * 3),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "crop of 2 %": lambda image: cut(image, 0.01, 0.01, 0.01, 0.01),
    "crop of 5 % at each side": lambda image: cut(image, 0.05, 0.05, 0.05, 0.05),
    "crop of 5 % at one side": lambda image: cut(image, 0.05, 0, 0, 0),
    "plate in a corner": plated,
    "words across": written,
    "white border": lambda image: ImageOps.expand(image, 12, "white"),
    "black border": lambda image: ImageOps.expand(image, 5, "black"),
    "two borders": lambda image: ImageOps.expand(ImageOps.expand(image, 12, "white"), 4, "black"),
    "letterbox": lambda image: ImageOps.pad(image, (360, 300)),
    "mirrored, cropped, small": lambda image: ImageOps.mirror(cut(image, 0.03, 0.02, 0.03, 0.02)).resize((180, 120)),
    **{f"orientation {value}": lambda image, value=value: turned(image, value) for value in range(2, 9)},
}
NEAR_MISSES = {
    "framing moved by 8 %": lambda image: (cut(image, 0, 0.08, 0, 0), cut(image, 0.08, 0, 0, 0)),
    "framing moved by 15 %": lambda image: (cut(image, 0, 0.15, 0, 0), cut(image, 0.15, 0, 0, 0)),
    "subject moved": lambda image: (with_disc(image, 60, 100), with_disc(image, 160, 100)),
    "somebody came": lambda image: (image, with_somebody(image, 40)),
    "somebody went": lambda image: (with_somebody(image, 41), image),
    "somebody else, mirrored": lambda image: (with_somebody(image, 40), ImageOps.mirror(with_somebody(image, 41))),
    "another scene": lambda image: (image, clouds(17)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_changed_picture_is_found_again(change: str, is_first: bool) -> None:
    """Each change is linked to its original, whichever of the two comes first, and to no other picture."""
    both = [facts(clouds(0)), facts(CHANGES[change](clouds(0)), quality=60)]
    rows = [both[not is_first], facts(clouds(1)), both[is_first], facts(clouds(2))]
    assert links(rows) == {(0, 2)}


@pytest.mark.parametrize("kind", NEAR_MISSES)
def test_what_is_only_alike_is_not_the_same(kind: str) -> None:
    """Neighbours in a burst and other scenes stay apart."""
    for seed in (2, 5, 6, 7):
        assert links([facts(picture) for picture in NEAR_MISSES[kind](clouds(seed))]) == set()


def test_marks_on_faint_pictures_are_seen_through() -> None:
    """A mark much stronger than the picture hides no copy, and the same mark on two pictures makes them no copies."""
    pictures = [faint(clouds(seed)) for seed in range(6)]
    for mark in (plated, written):
        rows = [facts(each) for picture in pictures for each in (picture, mark(picture))]
        assert links(rows) == {(at, at + 1) for at in range(0, 12, 2)}


def test_a_crop_lies_within_and_a_moved_framing_does_not() -> None:
    """How far both pictures show what the other does not: the lesser of the two; a frame shows nothing."""
    whole, boxes = (
        np.array([[0.0, 1.0, 0.0, 1.0]] * 3),
        np.array([[0.1, 0.9, 0.1, 0.9], [0.08, 1.08, 0, 1], [0, 1, 0, 1]]),
    )
    assert outside(boxes, whole, whole, whole).tolist() == pytest.approx([-0.1, 0.08, 0], abs=1e-9)
    framed = np.array([[0.1, 0.9, 0.1, 0.9]])
    assert outside(whole[:1], framed, whole[:1], framed)[0] == pytest.approx(0)


def discs(seed: int, height: int = 96, width: int = 144) -> Image.Image:
    """Ten plain discs on a slope."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = rng.uniform(0, 255, 3) + (x[..., None] * rng.normal(0, 1, 3) + y[..., None] * rng.normal(0, 1, 3))
    for _ in range(10):
        at_x, at_y, radius_px = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(4, 40)
        picture[np.hypot(x - at_x, y - at_y) < radius_px] = rng.uniform(0, 255, 3)
    return Image.fromarray((picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("seeds", [(74, 10784), (4162, 13788), (886, 6391), (15336, 16437)])
def test_a_few_plain_shapes_in_like_places_are_not_the_same(seeds: tuple[int, int]) -> None:
    """Of 20,000 such pictures these pairs came nearest."""
    assert links([facts(discs(seed), quality=85) for seed in seeds]) == set()


def test_what_is_alike_can_be_asked_for() -> None:
    """A lower bar links a pair whose subject moved, for a person to look at."""
    rows = [facts(picture) for picture in NEAR_MISSES["subject moved"](clouds(6))]
    lower = SAME._replace(max_moved=99, clear_correlation=0, plain=math.inf)
    assert set(equal_pictures(photos(rows), 7, lower)) == {(0, 1)}


def test_real_photographs_are_found_again_and_never_mixed_up(shared: Path) -> None:
    """20 photographs and a smaller, turned, re-encoded copy of each make 20 pairs."""
    rows = []
    for path in sorted((shared / "photos").glob("*/*.webp"))[:60:3]:
        image = Image.fromarray(imaging.decode_upright(path.read_bytes(), 1))
        rows += [facts(image), facts(turned(image.resize((image.width * 2 // 3, image.height * 2 // 3)), 6), 60)]
    assert links(rows, photo_id=[f"{at:03d}" for at in range(40)]) == {(at, at + 1) for at in range(0, 40, 2)}


def test_flat_pictures_match_by_their_bytes_alone() -> None:
    """Two black or two foggy pictures are not the same photograph, unless they are the same file."""
    ramp = np.linspace(0, 3, 300).round().astype(np.uint8)
    fogs = [Image.fromarray(np.broadcast_to(value + ramp[None, :, None], (200, 300, 3)).copy()) for value in (9, 90)]
    rows = [facts(image) for image in (Image.new("RGB", (300, 200)), Image.new("RGB", (300, 200)), *fogs)]
    assert links(rows) == set()
    assert [row["duplicate_of"] for row in deduped(rows, sha256=["x", "x", "y", "z"])] == [None, "s/a", None, None]


def test_near_sketches_are_not_enough() -> None:
    """A pair whose sketches agree but whose thumbnails do not is no duplicate."""
    rows = [facts(clouds(0)), facts(clouds(1))]
    rows[1]["phash_probes"] = rows[0]["phash_probes"]
    assert sum(map(len, copies.matches(photos(rows), 0)))
    assert links(rows) == set()


def test_a_crowd_of_copies_is_joined_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the matches are cut into batches, all copies hang together, by few links."""
    rows = [facts(clouds(0), quality) for quality in range(60, 90)]
    monkeypatch.setattr(copies, "SEARCHED", 50)
    monkeypatch.setattr(copies, "_TRIED", 8)
    assert {row["duplicate_group"] for row in deduped(rows)} == {"s/a"}
    assert len(links(rows)) < 200


def test_pictures_are_looked_at_again_only_where_something_stands_out() -> None:
    """A smaller copy is known by its thumbnail; for a marked one both files are read, once for each pair."""
    rows, seen = [facts(clouds(0)), facts(clouds(0).resize((180, 120))), facts(plated(clouds(0)))], Counter[int]()

    def look(at: int) -> imaging.Pixels:
        seen[at] += 1
        return np.asarray(rows[at]["grey"])

    assert Forest(3).join(equal_pictures(photos_of(table(rows[:2]), look), 7)) is None
    assert not seen
    assert len(set(equal_pictures(photos_of(table(rows[::2]), look), 7))) == 1
    assert seen == {0: 1, 1: 1}


def test_a_copy_is_found_beside_a_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine frames from a tripod with somebody else in each the empty one's marked copy is found, and each pair is
    registered and looked at once or twice, not by all of its views."""
    pictures = [clouds(0), *(with_somebody(clouds(0), seed, 0.2 + 0.15 * (seed % 2)) for seed in range(40, 48))]
    rows = [facts(picture) for picture in pictures]
    rows.append(facts(written(clouds(0)), quality=80))
    registered, agreement = Counter[str](), copies.agreement

    def counted(*pairs: Any) -> Any:
        registered["pairs"] += len(pairs[0])
        return agreement(*pairs)

    monkeypatch.setattr(copies, "agreement", counted)
    assert (0, 9) in links(rows)
    assert registered["pairs"] < 3 * 45


def test_the_largest_stands_for_its_group() -> None:
    """The largest area, then the earliest key, is kept; the others say of whom they are copies, and how near."""
    small, large = facts(clouds(0, 200, 300)), facts(clouds(0, 200, 300).resize((600, 400)))
    rows = deduped([small, large, facts(clouds(5)), large])
    assert rows[0]["duplicate_of"] == rows[3]["duplicate_of"] == "s/b"
    assert [row["dedup_reason"] for row in rows] == ["duplicate", None, None, "duplicate"]
    assert [row["duplicate_group"] for row in rows] == ["s/b", "s/b", None, "s/b"]
    assert 0 <= rows[0]["distance_bits"] <= 64
    assert rows[3]["distance_bits"] == 0


def test_of_equal_sizes_the_camera_s_own_file_is_kept() -> None:
    """Before a developed one, one of which nothing is known, and an edited one."""
    rows = [facts(clouds(0), quality) for quality in (70, 80, 90, 95)]
    tiers = ["edited", "unknown", "camera_original", "developed"]
    assert [row["duplicate_of"] for row in deduped(rows, edit_tier=tiers)] == ["s/c", "s/c", None, "s/c"]


def test_what_a_person_keeps_stays() -> None:
    """It stands for its group though it is smaller, a second one stays beside it, and no limit takes it away."""
    small, large = facts(clouds(0, 200, 300)), facts(clouds(0, 200, 300).resize((600, 400)))
    decisions = [None, "keep", "keep", None]
    rows = deduped(
        [large, small, small, facts(clouds(1))], DedupRules(max_per_owner=1), decision=decisions, owner_id=["ann"] * 4
    )
    assert [row["duplicate_of"] for row in rows] == ["s/b", None, "s/b", None]
    assert [row["dedup_reason"] for row in rows] == ["duplicate", None, None, "owner_limit"]


def test_what_was_published_stays_before_a_larger_newcomer() -> None:
    """A repost, however large, is a duplicate of what was published; only what a person keeps takes its place."""
    small, large = facts(clouds(0, 200, 300)), facts(clouds(0, 200, 300).resize((600, 400)))
    published = [False, True, False]
    rows = deduped([large, small, small], was_published=published)
    assert [row["duplicate_of"] for row in rows] == ["s/b", None, "s/b"]
    rows = deduped([large, small, small], was_published=published, decision=["keep", None, None])
    assert [row["duplicate_of"] for row in rows] == [None, "s/a", "s/a"]


def test_what_is_filtered_out_stands_for_nothing_and_holds_its_picture() -> None:
    """A published photo that the rules reject since has a row only as the copy of one that they keep."""
    old, new, other = facts(clouds(0)), facts(clouds(0).resize((150, 100))), facts(clouds(1))
    rows = deduped([old, new, other], was_published=[True, False, True], is_filtered=[True, False, True])
    assert [(row["photo_id"], row["duplicate_group"], row["dedup_reason"]) for row in rows] == [
        ("a", "s/b", "duplicate"), ("b", "s/b", None),
    ]  # fmt: skip
    rows = deduped(
        [old, new, other], DedupRules(max_per_owner=1), owner_id=["ann"] * 3, decision=[None, None, "keep"],
        is_filtered=[True, False, False],
    )  # fmt: skip
    assert [row["dedup_reason"] for row in rows] == ["duplicate", "owner_limit", None]
    assert [row["duplicate_of"] for row in rows] == ["s/b", None, None]


def same(groups: str) -> dict[str, list[Any]]:
    """Columns of photos that are copies where they have the same letter, the earlier the larger."""
    return {"sha256": list(groups), "long_px": list(range(9_999, 9_999 - len(groups), -1))}


def test_a_copy_stands_in_for_one_that_is_beyond_its_owner_s_limit() -> None:
    """The picture stays by its next copy whose owner has room; without any it goes, and says why."""
    flat = facts(Image.new("RGB", (300, 200)))
    owners = ["ann", "bob", "ann", "ann", "", "cy"]
    rows = deduped(
        [flat] * 6, DedupRules(max_per_owner=1), **same("xxyzzz"), owner_id=owners,
        was_published=[False, False, True, False, False, False],
    )  # fmt: skip
    assert [row["duplicate_of"] for row in rows] == ["s/b", None, None, "s/e", None, "s/e"]
    assert [row["dedup_reason"] for row in rows] == ["duplicate", None, None, "duplicate", None, "duplicate"]
    rows = deduped(
        [flat] * 4, DedupRules(max_per_owner=1), **same("xyyy"), owner_id=["ann"] * 3 + ["bob"],
        decision=["keep", None, None, "reject"],
    )  # fmt: skip
    assert [row["duplicate_of"] for row in rows] == [None, "s/d", "s/d", None]
    rows = deduped(
        [flat] * 3, DedupRules(max_per_owner=1), **same("xyy"), owner_id=["ann"] * 3, decision=["keep"] + [None] * 2
    )
    assert [row["dedup_reason"] for row in rows] == [None, "owner_limit", "duplicate"]
    assert [row["duplicate_of"] for row in rows] == [None, None, "s/b"]


def test_who_stands_in_hangs_on_no_order() -> None:
    """However keys lie, each group has one photo or none, no owner has too many, and none has room for what went."""
    rng, flat = np.random.default_rng(1), facts(Image.new("RGB", (300, 200)))
    for _ in range(20):
        groups, owners = (rng.choice(list(letters), 24).tolist() for letters in ("uvwxyz", "abcd"))
        ids = [f"{at:02d}" for at in range(24)]
        columns = {"sha256": groups, "owner_id": owners, "photo_id": ids, "long_px": rng.permutation(24).tolist()}
        rows = deduped([flat] * 24, DedupRules(max_per_owner=1), **columns)
        kept = [at for at, row in enumerate(rows) if row["dedup_reason"] is None]
        assert len({groups[at] for at in kept}) == len({owners[at] for at in kept}) == len(kept)
        taken, shown = {owners[at] for at in kept}, {groups[at] for at in kept}
        assert all(owner in taken for group, owner in zip(groups, owners, strict=True) if group not in shown)


def test_the_distance_of_a_turned_copy_is_that_of_its_best_orientation() -> None:
    """A quarter turn costs no distance."""
    assert deduped([facts(clouds(0)), facts(turned(clouds(0), 6))])[1]["distance_bits"] <= 8


def test_one_owner_gives_no_more_than_the_limit() -> None:
    """Above the limit photos go, the same ones whatever their order; duplicates and unknown owners do not count."""
    rows = [facts(clouds(seed)) for seed in range(7)]
    rules = DedupRules(max_per_owner=2)
    everything = deduped(
        [*rows, rows[0]], rules, owner_id=["ann"] * 4 + ["", "", ""] + ["ann"], sha256=[*"0123456", "0"]
    )
    reasons = [row["dedup_reason"] for row in everything]
    assert reasons[7] == "duplicate"
    assert reasons[4:7] == [None, None, None]
    assert sorted(map(str, reasons[:4])) == ["None", "None", "owner_limit", "owner_limit"]
    again = deduped(rows[3::-1], rules, owner_id=["ann"] * 4, photo_id=list("dcba"))
    assert [row["dedup_reason"] for row in again] == reasons[3::-1]


def test_nothing_takes_part() -> None:
    """No photo at all gives no row."""
    assert deduped([], DedupRules(max_per_owner=1)) == []


@pytest.mark.parametrize("values", [{"max_distance_bits": 8}, {"max_distance_bits": -1}, {"max_per_owner": 0}])
def test_impossible_rules_are_refused_by_name(values: dict[str, int]) -> None:
    """The message names the key that is at fault."""
    with pytest.raises(ValidationError, match=next(iter(values))):
        DedupRules.model_validate(values)


def test_components_follow_chains() -> None:
    """Members hang together through others; each component is named by its smallest member."""
    assert components(7, [(5, 3), (1, 2), (3, 1), (6, 6)]) == [0, 1, 1, 1, 4, 1, 6]


def test_a_forest_tells_at_any_time_who_hangs_together() -> None:
    """The same components as all links at once give."""
    forest = Forest(7)
    forest.join([(5, 3), (1, 2)])
    assert forest.roots(np.arange(7)).tolist() == [0, 1, 1, 3, 4, 3, 6]
    forest.join([(3, 1), (6, 6)])
    assert forest.roots(np.arange(7)).tolist() == [0, 1, 1, 1, 4, 1, 6]
