"""Finding the same picture again."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tasks import imaging, measure
from tasks.dedup import DedupRules, Photos, dedup_rows, duplicate_groups, equal_pictures, near_pairs
from tasks.groups import components


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
    return measure.measure_photo(out.getvalue())


def photos(rows: list[dict[str, Any]], **columns: list[Any]) -> Photos:
    """``rows`` of measure as photos a, b, c ... of one source, all of different bytes unless told otherwise."""
    size = len(rows)
    defaults: dict[str, Any] = {
        "keys": [("s", chr(97 + at)) for at in range(size)],
        "owners": [""] * size,
        "sha256": [str(at) for at in range(size)],
        "areas": [row["long_px"] * row["short_px"] for row in rows],
    }
    hashes = np.frombuffer(b"".join(row["phash_orientations"] for row in rows), np.uint64)
    thumbnails = np.frombuffer(b"".join(row["thumbnail"] for row in rows), np.uint8)
    return Photos(**defaults | columns, hashes=hashes.reshape(-1, 8, 4), thumbnails=thumbnails.reshape(-1, 32, 32))


def turned(image: Image.Image, orientation: int) -> Image.Image:
    return Image.fromarray(imaging.make_upright(np.asarray(image), orientation))


CHANGES = {
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.2))),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cropped": lambda image: image.crop((4, 3, image.width - 3, image.height - 2)),
    **{f"orientation {value}": lambda image, value=value: turned(image, value) for value in range(2, 9)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found_again(change: str) -> None:
    """Each change is linked to its original, and to no other picture."""
    rows = [facts(clouds(0)), facts(clouds(1)), facts(CHANGES[change](clouds(0)), quality=60), facts(clouds(2))]
    assert set(equal_pictures(photos(rows), 64)) == {(0, 2)}


def test_real_photographs_are_found_again_and_never_mixed_up(shared: Path) -> None:
    """30 photographs and a smaller, turned, re-encoded copy of each make 30 pairs."""
    rows = []
    for path in sorted((shared / "photos").glob("*/*.webp"))[:60:2]:
        image = Image.fromarray(imaging.decode_upright(path.read_bytes(), 1))
        rows += [facts(image), facts(turned(image.resize((image.width * 2 // 3, image.height * 2 // 3)), 6), 60)]
    keys = [("s", f"{at:03d}") for at in range(len(rows))]
    assert set(equal_pictures(photos(rows, keys=keys), 64)) == {(at, at + 1) for at in range(0, 60, 2)}


def test_flat_pictures_match_by_their_bytes_alone() -> None:
    """Two black or two foggy pictures are not the same photograph, unless they are the same file."""
    ramp = np.linspace(0, 3, 300).round().astype(np.uint8)
    fogs = [Image.fromarray(np.broadcast_to(value + ramp[None, :, None], (200, 300, 3)).copy()) for value in (9, 90)]
    rows = [facts(image) for image in (Image.new("RGB", (300, 200)), Image.new("RGB", (300, 200)), *fogs)]
    assert duplicate_groups(photos(rows), DedupRules()) == []
    assert duplicate_groups(photos(rows, sha256=["x", "x", "y", "z"]), DedupRules()) == [[0, 1]]


def test_near_hashes_are_not_enough() -> None:
    """A pair whose hashes agree but whose thumbnails do not is no duplicate."""
    rows = [facts(clouds(0)), facts(clouds(1))]
    rows[1]["phash_orientations"] = rows[0]["phash_orientations"]
    assert list(near_pairs(photos(rows).hashes, 0))
    assert list(equal_pictures(photos(rows), 64)) == []


def test_every_near_pair_is_found_whatever_the_tile() -> None:
    """The tiled search finds what comparing all with all finds, with the right orientation, to the very bit."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (1100, 8, 4), dtype=np.uint64)
    for first, second, orientation, bits in (
        (3, 1090, 5, 20),
        (500, 501, 1, 64),
        (15, 16, 8, 65),
        (0, 1099, 3, 0),
        (7, 9, 2, 256),
    ):
        flips = np.zeros(256, np.uint8)
        flips[rng.choice(256, bits, replace=False)] = 1
        hashes[second, orientation - 1] = hashes[first, 0] ^ np.packbits(flips).view(np.uint64)
    found = {
        tuple(map(int, triple)) for batch in near_pairs(hashes, 64) for triple in zip(*batch, strict=True)
    }  # fmt: skip
    assert found == {(3, 1090, 5), (500, 501, 1), (0, 1099, 3)}


def test_the_largest_stands_for_its_group() -> None:
    """The largest area, then the earliest key, is kept; the others say of whom they are copies, and how near."""
    small, large = facts(clouds(0, 200, 300)), facts(clouds(0, 200, 300).resize((600, 400)))
    rows = dedup_rows(photos([small, large, facts(clouds(5)), large]), DedupRules())
    assert rows[0]["duplicate_of"] == rows[3]["duplicate_of"] == "s/b"
    assert [row.get("dedup_reason") for row in rows] == ["duplicate", None, None, "duplicate"]
    assert [row.get("duplicate_group") for row in rows] == ["s/b", "s/b", None, "s/b"]
    assert 0 <= rows[0]["distance_bits"] <= 64
    assert rows[3]["distance_bits"] == 0


def test_the_distance_of_a_turned_copy_is_that_of_its_best_orientation() -> None:
    """A quarter turn costs no distance."""
    rows = dedup_rows(photos([facts(clouds(0)), facts(turned(clouds(0), 6))]), DedupRules())
    assert rows[1]["distance_bits"] <= 8


def test_one_owner_gives_no_more_than_the_limit() -> None:
    """Above the limit photos go, the same ones whatever their order; duplicates and unknown owners do not count."""
    rows = [facts(clouds(seed)) for seed in range(7)]
    everything = photos([*rows, rows[0]], owners=["ann"] * 4 + ["", "", ""] + ["ann"], sha256=[*"0123456", "0"])
    reasons = [row.get("dedup_reason") for row in dedup_rows(everything, DedupRules(max_per_owner=2))]
    assert reasons[7] == "duplicate"
    assert reasons[4:7] == [None, None, None]
    assert sorted(map(str, reasons[:4])) == ["None", "None", "owner_limit", "owner_limit"]
    again = photos(rows[3::-1], owners=["ann"] * 4, keys=[("s", letter) for letter in "dcba"])
    assert [row.get("dedup_reason") for row in dedup_rows(again, DedupRules(max_per_owner=2))] == reasons[3::-1]


def test_nothing_takes_part() -> None:
    """No photo at all gives no row."""
    assert dedup_rows(photos([]), DedupRules()) == []


@pytest.mark.parametrize("values", [{"max_distance_bits": 257}, {"max_distance_bits": -1}, {"max_per_owner": 0}])
def test_impossible_rules_are_refused_by_name(values: dict[str, int]) -> None:
    """The message names the key that is at fault."""
    with pytest.raises(ValidationError, match=next(iter(values))):
        DedupRules.model_validate(values)


def test_components_follow_chains() -> None:
    """Members hang together through others; each component is named by its smallest member."""
    assert components(7, [(5, 3), (1, 2), (3, 1), (6, 6)]) == [0, 1, 1, 1, 4, 1, 6]
