"""The invented world and the folder: what stands in them, and what a test may change."""

import csv
import io
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import simplejpeg
from PIL import Image

from tasks.sources.standin import Catalogue, Lens, Photo
from tasks.sources.standin.defects import DEFECTS
from tasks.sources.standin.folder import LICENCES
from tasks.sources.standin.pictures import rendition_bytes
from tasks.sources.standin.sizes import BY_SUFFIX, ORIGINAL, public_sizes, sized
from tasks.sources.standin.words import TOPICS
from tasks.sources.standin.world import DUPLICATES


@pytest.fixture(scope="module")
def world() -> Catalogue:
    """Small photos, for their bytes are looked at."""
    return Catalogue.synthetic(120, seed=3, min_long_px=360, max_long_px=360)


def _one(catalogue: Catalogue, **facts: object) -> Photo:
    """The first photo with these facts."""
    return next(p for p in catalogue.photos() if all(getattr(p, name) == value for name, value in facts.items()))


def test_same_seed_same_world() -> None:
    """Facts follow from the seed; another seed gives other owners and other scenes."""
    first, again, other = (Catalogue.synthetic(80, seed).photos() for seed in (1, 1, 2))
    assert first == again
    assert {p.owner.nsid for p in first} != {p.owner.nsid for p in other}
    assert not {p.picture.scene for p in first} & {p.picture.scene for p in other}


def test_sixty_photos_show_every_trouble() -> None:
    """From 60 photos on there is at least one of every defect, duplicate, format and orientation."""
    photos = Catalogue.synthetic(60).photos()
    assert {p.defect for p in photos} == {None, *DEFECTS}
    assert {p.duplicate_kind for p in photos} == {None, *DUPLICATES}
    assert {p.original_format for p in photos} == {"jpg", "png", "webp"}
    assert {p.orientation for p in photos} >= {1, 6, 8}
    assert any(not p.is_original_public for p in photos)
    assert any(p.picture.alteration == "grey" for p in photos)


def test_most_photos_are_usable() -> None:
    """Between 70 % and 90 % are sound, 3:2 once upright and at least 1440x720."""
    photos = Catalogue.synthetic(1000).photos()
    sizes = [(max(p.picture.shown_size), min(p.picture.shown_size)) for p in photos if p.defect is None]
    usable = sum(long >= 1440 and short >= 720 and abs(long / short - 1.5) < 0.02 for long, short in sizes)
    assert 700 <= usable <= 900


def test_owners_are_few_and_uneven() -> None:
    """About one owner per six photos; the busiest has many times the median, and none has a quarter of everything."""
    counts = Counter(p.owner.nsid for p in Catalogue.synthetic(1200).photos())
    assert 120 <= len(counts) <= 260
    assert 5 * sorted(counts.values())[len(counts) // 2] < max(counts.values()) < 300
    assert all(re.fullmatch(r"\d+@N\d\d", nsid) for nsid in counts)


def test_dates_licences_and_topics_cover_their_range() -> None:
    """Uploads of 2024 and 2025, licences 0 to 16, every search term, some unknown dates and places."""
    photos = Catalogue.synthetic(1000).photos()
    assert {p.uploaded_at.year for p in photos} >= {2024, 2025}
    assert all(p.uploaded_at.tzinfo is UTC for p in photos)
    assert {p.licence for p in photos} == set(range(17))
    tags = Counter(tag for p in photos for tag in p.tags)
    assert all(tags[topic.lower()] >= 40 for topic in TOPICS)
    assert any(p.taken_at is None for p in photos)
    assert any(p.location for p in photos)
    titles = {p.title for p in photos}
    assert {"../../etc/passwd", "<script>alert('photo')</script>", ""} <= titles


def test_sound_photos_decode_to_their_stated_size(world: Catalogue) -> None:
    """Width, height and EXIF orientation are those of the file; grey photos have one channel."""
    for photo in world.photos():
        if photo.defect in (None, "missing", "noimageai"):
            with Image.open(io.BytesIO(world.original(photo.id))) as image:
                image.load()
                assert image.size == (photo.width, photo.height)
                assert image.getexif().get(0x0112, 1) == photo.orientation
                assert (image.mode == "L") == (photo.picture.alteration == "grey")


@pytest.mark.parametrize("defect", ["truncated", "zero_bytes", "html", "png_named_jpg", "corrupt", "bomb"])
def test_broken_photos_are_no_jpegs(world: Catalogue, defect: str) -> None:
    """No broken photo decodes as the JPEG that its address promises, in any size."""
    photo = _one(world, defect=defect)
    small = sized(photo, BY_SUFFIX["m"])
    assert small is not None
    for data in (world.original(photo.id), rendition_bytes(photo.picture, small.width, small.height, False)):
        with pytest.raises(ValueError, match=r"tjDecompress|Premature end|JPEG|small"):
            simplejpeg.decode_jpeg(data)


def test_a_bomb_is_small_and_huge(world: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 200 KB, more pixels than Pillow agrees to open by default."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    data = world.original(_one(world, defect="bomb").id)
    assert len(data) < 200_000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_exact_reposts_are_the_same_bytes(world: Catalogue) -> None:
    """By another owner, later, byte for byte; near-duplicates are other bytes."""
    for photo in world.photos():
        if photo.duplicate_of:
            of = world.photo(photo.duplicate_of)
            assert of is not None
            assert of.owner != photo.owner
            assert of.uploaded_at < photo.uploaded_at
            is_equal = world.original(of.id) == world.original(photo.id)
            assert is_equal == (photo.duplicate_kind == "exact")


def test_near_duplicates_still_show_the_scene(world: Catalogue) -> None:
    """Turned back, mirrored back and made small, a near-duplicate is its original."""
    undo = {"turned": Image.Transpose.ROTATE_270, "mirrored": Image.Transpose.FLIP_LEFT_RIGHT}
    for kind in ("reencoded", "turned", "mirrored"):
        photo = _one(world, duplicate_kind=kind)
        image = Image.open(io.BytesIO(world.original(photo.id)))
        original = Image.open(io.BytesIO(world.original(photo.duplicate_of or "")))
        image = image.transpose(undo[kind]) if kind in undo else image
        pairs = zip(image.resize((24, 16)).tobytes(), original.resize((24, 16)).tobytes(), strict=True)
        assert max(abs(a - b) for a, b in pairs) < 30


def test_portraits_come_aligned_and_not() -> None:
    """Both sides multiples of 16 px in some portraits, and not in others."""
    portraits = [p for p in Catalogue.synthetic(200).photos() if p.height > p.width and p.duplicate_of is None]
    aligned = {p.width % 16 == 0 and p.height % 16 == 0 for p in portraits}
    assert aligned == {True, False}
    assert all(abs(p.height / p.width - 1.5) < 0.01 for p in portraits)


def test_sizes_are_smaller_than_the_original_and_hidden_originals_stay_hidden(world: Catalogue) -> None:
    """The ladder ends below the original's long edge; a turned photo's sizes are upright."""
    photo = _one(world, orientation=6)
    labels = [each.size.label for each in public_sizes(photo)]
    assert labels == ["Square", "Thumbnail", "Large Square", "Small", "Small 320", "Original"]
    small = sized(photo, BY_SUFFIX["n"])
    assert small is not None
    assert (small.width, small.height) == (213, 320)
    shown = Image.open(io.BytesIO(rendition_bytes(photo.picture, small.width, small.height, False)))
    upright = Image.open(io.BytesIO(world.original(photo.id))).transpose(Image.Transpose.ROTATE_270)
    pairs = zip(shown.resize((16, 24)).tobytes(), upright.resize((16, 24)).tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) < 30
    hidden = _one(world, is_original_public=False)
    assert ORIGINAL not in [each.size for each in public_sizes(hidden)]


def test_facts_change_one_photo_at_a_time(world: Catalogue) -> None:
    """Title, licence, privacy, deletion and file change one photo and its update time; additions have new ids."""
    catalogue = Catalogue.synthetic(5)
    photo = catalogue.photos()[0]
    assert catalogue.retitle(photo.id, "New").title == "New"
    changed = catalogue.relicense(photo.id, 16)
    assert (changed.licence, changed.licence_history[0].old) == (16, photo.licence)
    assert changed.updated_at > photo.updated_at
    assert catalogue.replace_file(photo.id).secret != photo.secret
    catalogue.make_private(photo.id)
    catalogue.delete(catalogue.photos()[1].id)
    assert len(catalogue.listed()) == 3
    new = catalogue.add(3, title="Later")
    assert [p.title for p in new] == ["Later"] * 3
    assert len({p.id for p in catalogue.photos()}) == 8
    assert catalogue.photos()[2:5] == Catalogue.synthetic(5).photos()[2:]


def _folder(path: Path) -> Path:
    """Three small files: an upright JPEG, a turned one, and one that is no picture."""
    (path / "animal").mkdir(parents=True)
    Image.new("RGB", (30, 20), "red").save(path / "animal" / "bee.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2012:03:04 05:06:07"
    Image.new("RGB", (36, 24), "blue").save(path / "side.jpeg", exif=exif)
    (path / "broken.png").write_bytes(b"no picture")
    return path


def test_a_folder_without_a_table_is_read_from_its_headers(tmp_path: Path) -> None:
    """Size, orientation and date come from the files, an owner for each, and the bytes are the file's."""
    catalogue = Catalogue.folder(_folder(tmp_path / "pets"))
    by_title = {p.title: p for p in catalogue.photos()}
    side = by_title["side"]
    assert (side.width, side.height, side.orientation) == (36, 24, 6)
    assert side.uploaded_at == datetime(2012, 3, 5, 5, 6, 7, tzinfo=UTC)
    assert catalogue.original(side.id) == (tmp_path / "pets" / "side.jpeg").read_bytes()
    assert len({p.owner.nsid for p in catalogue.photos()}) == 3
    assert all("pets" in p.tags for p in catalogue.photos())
    assert catalogue.original(by_title["broken"].id) == b"no picture"


def test_a_table_says_who_and_under_which_licence(tmp_path: Path) -> None:
    """Author, label and licence come from photos.csv; a licence that the site does not have is all rights reserved."""
    folder = _folder(tmp_path)
    row = {
        "path": "animal/bee.jpg",
        "width": 30,
        "height": 20,
        "format": "JPEG",
        "label": "animal/bee",
        "author": "Ann",
    }
    rows = [row | {"licence": "CC-BY-SA-3.0"}, row | {"path": "side.jpeg", "licence": "CC-BY-SA-4.0", "label": ""}]
    with (folder / "photos.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, [*row, "licence"])
        writer.writeheader()
        writer.writerows(rows)
    bee, side = Catalogue.folder(folder).photos()
    assert (bee.licence, side.licence) == (0, 12)
    assert "CC-BY-SA-3.0" in bee.description
    assert bee.owner == side.owner
    assert bee.title == "bee: bee"
    assert {"animal", "bee"} <= set(bee.tags)
    assert set(LICENCES.values()) <= set(range(17))


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    """A folder that is missing or holds no picture is refused by name."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
            Catalogue.folder(path)


def test_lens_strength_zero_is_bare() -> None:
    """``Lens.of_strength`` scales both positional cues and leaves the noise."""
    assert Lens.of_strength(0.0) == Lens(vignetting=0.0, chromatic=0.0, noise=1.0)
