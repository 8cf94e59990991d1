"""Exports of a published snapshot, read with the libraries that they are made for, and what must not leave in them."""

import csv
import errno
import hashlib
import io
import json
import shutil
import struct
import tarfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.export import export_dataset, is_located
from storage import blobs, manifest, removals
from storage.layout import Layout
from storage.purge import delete_exports, remains
from storage.records import SCHEMAS
from tasks import export, purge
from tasks.errors import BlobCorrupt, ConfigError, DiskFull, EmptyResult, RemovedPhoto, SnapshotMissing
from tasks.export import check_allowed, destination, write_export
from tasks.exports import export_huggingface, export_photos, export_webdataset
from tasks.exports.export_folder import drafting
from tasks.exports.export_photos import ExportRules, Format, placeless
from tasks.pictures import imaging
from tasks.publish import publish_snapshot

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
FORMATS: tuple[Format, ...] = ("imagefolder", "huggingface", "webdataset")
PIXELS = np.random.default_rng(7).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(kind: str, shift: int = 0, **options: Any) -> bytes:
    """A picture of noise."""
    out = io.BytesIO()
    Image.fromarray(np.roll(PIXELS, shift)).save(out, kind, **options)
    return out.getvalue()


def placed_exif(orientation: int = 1) -> bytes:
    """EXIF with a camera and a place."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera", orientation
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.123), 3: "E", 4: (2.0, 17.0, 40.0)})
    return exif.tobytes()


GPS_REFERENCE = struct.pack(">IIII", 48, 1, 51, 1)  # degrees and minutes as EXIF has them
assert GPS_REFERENCE in placed_exif()
PHOTOS: dict[str, tuple[str, bytes, int, str | None]] = {  # split, file, net_op, label
    "plain": ("train", encoded("JPEG"), 1, "bee"),
    "placed": ("train", encoded("JPEG", 1, exif=placed_exif()), 1, "bee"),
    "lying": ("train", encoded("JPEG", 2, exif=placed_exif(6)), 6, "ant/red"),
    "png": ("train", encoded("PNG", 3), 8, None),
    "webp": ("train", encoded("WEBP", 4, lossless=True), 3, "Bee"),
    "lossy": ("val", encoded("WEBP", 5), 5, "bee"),
    "gif": ("test", encoded("GIF", 6), 1, "bee"),
    'a\nb"😀/../c': ("test", encoded("JPEG", 7), 1, '=1+"\n'),
    "asis": ("test", encoded("JPEG", 8, exif=placed_exif(3)), 1, "unlabelled"),  # left lying: rotate none
}  # fmt: skip


def publish(
    where: Layout, name: str = "crops", photos: Any = None, locations: bool = False, tags: Any = ("a", "b")
) -> None:
    """Publish PHOTOS as a dataset."""
    rows: list[dict[str, Any]] = [{"photo_id": "none", "verdict": False, "reason": "gone", "reason_stage": "download"}]
    for photo_id, (split, data, net_op, label) in (PHOTOS if photos is None else photos).items():
        image_format = imaging.identify(data)
        width, height = imaging.stored_size(data)
        sha256 = blobs.put(where, data, image_format)
        rows.append({
            "photo_id": photo_id, "owner_id": f"o{photo_id}", "owner_name": f"Owner of {photo_id}", "label": label,
            "labels": [label, "insect"] if label else None, "title": f"Title of {photo_id}", "tags": list(tags),
            "sha256": sha256, "blob": sha256, "format": image_format, "net_op": net_op, "width": width,
            "height": height, "long_px": 60, "short_px": 40, "licence": "CC BY 2.0", "split": split, "verdict": True,
            "landscape_turns": 0, "latitude": 48.85 if locations else None, "longitude": 2.29 if locations else None,
            "uploaded_at": NOW, "bytes": len(data), "page_url": f"http://x/{sha256}",
        })  # fmt: skip
    joined = manifest.write_rows(where, "publish", ({"source": "flickr", **row} for row in rows))
    publish_snapshot(where, name, {"locations": locations}, joined, {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A root with one snapshot and its three exports."""
    where = Layout(tmp_path_factory.mktemp("root"))
    publish(where)
    for kind in FORMATS:
        exported(where, kind)
    return where


def exported(where: Layout, kind: Format, **rules: Any) -> Path:
    """The folder of a new export."""
    asked = ExportRules(format=kind, **rules)
    return Path(write_export(where, "crops", 1, asked, destination(where, "crops", 1, asked, None)).uri)


def folder_of(where: Layout, kind: Format) -> Path:
    return destination(where, "crops", 1, ExportRules(format=kind), None)


def files_of(folder: Path) -> dict[str, str]:
    """The digest of every file."""
    return {str(path.relative_to(folder)): manifest.sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def upright(photo_id: str) -> Any:
    """The pixels that a reader must see."""
    _, data, net_op, _ = PHOTOS[photo_id]
    return imaging.decode_upright(data, 3 if photo_id == "asis" else net_op)


def check_pixels(photo_id: str, image: Image.Image) -> None:
    """Equal, but where a JPEG had to be turned, which is close."""
    seen, true = np.asarray(image.convert("RGB")).astype(int), upright(photo_id).astype(int)
    assert seen.shape == true.shape
    assert image.getexif().get(0x0112, 1) == 1
    assert np.abs(seen - true).mean() < (3 if photo_id in {"lying", "asis"} else 0.001)
    assert not image.getexif().get_ifd(0x8825)


def rows_of(folder: Path, split: str) -> list[dict[str, Any]]:
    """The rows of the metadata of an ImageFolder."""
    return [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text("utf-8").splitlines()]


def test_a_tree_of_classes_opens_with_torchvision(made: Layout) -> None:
    """A folder is a class; every photo is there once, upright; labels that no folder can bear are told apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision.datasets import ImageFolder
    folder = folder_of(made, "imagefolder")
    seen = {}
    for split in ("train", "val", "test"):
        tree = ImageFolder(str(folder / split))
        told = {row["file_name"]: row for row in rows_of(folder, split)}
        for path, place in tree.samples:
            row = told.pop(str(Path(path).relative_to(folder / split)))
            with Image.open(path) as image:
                check_pixels(row["photo_id"], image)
            seen[row["photo_id"]] = (split, tree.classes[place], row["label"])
        assert not told, "a photo that torchvision does not see"
    assert seen.keys() == PHOTOS.keys()
    assert all(seen[photo][0] == PHOTOS[photo][0] and seen[photo][2] == PHOTOS[photo][3] for photo in PHOTOS)
    assert seen["png"][1] == "unlabelled"
    assert seen["asis"][1].startswith("unlabelled--"), "a label of that name is another class"
    assert len({seen["plain"][1].casefold(), seen["webp"][1].casefold()}) == 2, "bee and Bee"
    assert seen["plain"][1] == seen["lossy"][1], "the same in all splits"


def test_what_needs_nothing_is_copied_byte_for_byte(made: Layout) -> None:
    """The bytes of an upright photo without a place are those of its blob, and nothing is said to have changed."""
    folder = folder_of(made, "imagefolder")
    rows = {row["photo_id"]: row for split in ("train", "val", "test") for row in rows_of(folder, split)}
    plain = rows["plain"]
    assert (folder / "train" / plain["file_name"]).read_bytes() == PHOTOS["plain"][1]
    said = {photo: row["changes"] for photo, row in rows.items()}
    assert said["plain"] == "none"
    assert said["placed"] == "location left out of the file"
    assert said["lying"] == "turned upright; encoded anew as JPEG, quality 95"
    assert said["lossy"] == "turned upright; encoded anew as WEBP, without loss"
    assert said["asis"] == "turned upright; encoded anew as JPEG, quality 95"
    assert said["png"] == "turned upright"
    for row in rows.values():
        [path] = folder.glob(f"*/{row['file_name']}")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert imaging.stored_size(path.read_bytes()) == (row["width"], row["height"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library ``datasets``, offline, with a cache of the test's own."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
        datasets.disable_progress_bars()
        yield datasets


@pytest.mark.parametrize("kind", ["huggingface", "imagefolder"])
def test_the_hub_reads_it_by_its_card(made: Layout, hub: Any, kind: Format) -> None:
    """``load_dataset(folder)`` gives all splits, with upright pictures, labels and their names."""
    loaded = hub.load_dataset(str(folder_of(made, kind)))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 5, "validation": 1, "test": 3}
    for rows in loaded.values():
        for row in rows:
            check_pixels(row["photo_id"], row["image"])
            assert row["title"] == f"Title of {row['photo_id']}"
            label = PHOTOS[row["photo_id"]][3]
            assert row["labels"] == ([label, "insect"] if label else None)
            names = rows.features["label"]
            told = row["label"] if kind == "imagefolder" or row["label"] is None else names.int2str(row["label"])
            assert told == label
            assert "latitude" not in row


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_webdataset_reads_its_shards(made: Layout) -> None:
    """Samples have a picture, the facts and the place of the label, and each key is there once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset
    folder = folder_of(made, "webdataset")
    labels = json.loads((folder / "export.json").read_text("utf-8"))["labels"]
    seen = []
    for shard in sorted(folder.glob("*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil"):
            facts = sample["json"]
            [image] = [sample[kind] for kind in ("jpg", "png", "webp") if kind in sample]
            assert np.abs(np.asarray(image).astype(int) - upright(facts["photo_id"]).astype(int)).mean() < 3
            assert (labels[sample["cls"]] if "cls" in sample else None) == facts["label"]
            assert shard.name.startswith(PHOTOS[facts["photo_id"]][0])
            seen.append(facts["photo_id"])
    assert sorted(seen) == sorted(PHOTOS)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_snapshot_gives_the_same_bytes(made: Layout, tmp_path: Path, kind: Format) -> None:
    """Made again elsewhere, every file is equal; asked for again, nothing is made."""
    folder = folder_of(made, kind)
    again = write_export(made, "crops", 1, ExportRules(format=kind), tmp_path / "again")
    assert files_of(Path(again.uri)) == files_of(folder)
    assert again.is_new
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not write_export(made, "crops", 1, ExportRules(format=kind), folder).is_new
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("kind", FORMATS)
def test_no_place_leaves(made: Layout, kind: Format) -> None:
    """No file of an export has a GPS directory, and no row a latitude; attribution, licences and card travel along."""
    folder = folder_of(made, kind)
    assert {"README.md", "ATTRIBUTION.csv", "LICENCES.csv", "export.json", "photos.parquet"} <= set(files_of(folder))
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert b"latitude" not in data
        assert GPS_REFERENCE not in data
    assert "Title of plain" in (folder / "ATTRIBUTION.csv").read_text("utf-8")


def test_places_are_told_where_the_dataset_says_so(where: Layout) -> None:
    """A dataset that publishes locations keeps them in rows and files."""
    publish(where, photos={"placed": PHOTOS["placed"]}, locations=True)
    assert is_located({"rules": {"locations": True}})
    assert not is_located({"rules": {}})
    folder = exported(where, "imagefolder", locations=True)
    [row] = rows_of(folder, "train")
    assert row["latitude"] == 48.85
    assert (folder / "train" / row["file_name"]).read_bytes() == PHOTOS["placed"][1]


def test_larger_photos_are_reduced(where: Layout) -> None:
    """No side is longer than asked, the shape stays, and the change is told."""
    publish(where)
    folder = exported(where, "imagefolder", max_side_px=30, quality=80)
    rows = [row for split in ("train", "val", "test") for row in rows_of(folder, split)]
    assert {max(row["width"], row["height"]) for row in rows} == {30}
    assert {min(row["width"], row["height"]) for row in rows} == {20}
    by_id = {row["photo_id"]: row for row in rows}
    assert by_id["plain"]["changes"] == "reduced to 30 x 20; encoded anew as JPEG, quality 80"
    assert imaging.stored_size((folder / "train" / by_id["lying"]["file_name"]).read_bytes()) == (20, 30)


def test_shards_are_cut_by_size(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small shards: their names count them, and together they have all photos in order."""
    publish(where)
    for module in (export_huggingface, export_webdataset):
        monkeypatch.setattr(module.write_split, "__defaults__", (1,))
    folder = exported(where, "huggingface")
    names = sorted(path.name for path in (folder / "data").iterdir())
    assert names[:1] == ["test-00000-of-00003.parquet"]
    assert len(names) == len(PHOTOS)
    found = [pq.read_table(folder / "data" / name)["photo_id"][0].as_py() for name in names if name.startswith("train")]
    assert found == sorted(photo for photo, row in PHOTOS.items() if row[0] == "train")
    tars = sorted(exported(where, "webdataset").glob("*.tar"))
    assert len(tars) == len(PHOTOS)
    with tarfile.open(tars[0]) as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_photo_whose_file_is_no_good_is_named(where: Layout, harm: str) -> None:
    """The export ends in a sentence with the photo's key, and nothing is left of it."""
    publish(where)
    path = where.blob(hashlib.sha256(PHOTOS["plain"][1]).hexdigest(), "JPEG")
    path.unlink() if harm == "lost" else path.write_bytes(b"\xff\xd8\xff other")
    with pytest.raises(BlobCorrupt, match="the photo flickr/plain cannot be exported"):
        exported(where, "webdataset")
    assert not list(where.exports.glob("*"))


def test_a_full_disk_ends_in_a_sentence(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trace of the export is left, and an earlier one stays."""
    publish(where)
    folder = exported(where, "imagefolder")
    before = files_of(folder)

    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(DiskFull, match="no space left"):
            exported(where, "imagefolder", quality=90)
    assert files_of(folder) == before
    assert [path.name for path in where.exports.iterdir()] == [folder.name]


def test_a_killed_export_is_none(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process leaves lies beside the place, without export.json; the next export clears it away."""
    publish(where)

    class KilledError(Exception):
        """Nobody tidies up after it."""

    def killed(*args: Any) -> dict[str, bytes]:
        power.setattr(shutil, "rmtree", lambda *args, **options: None)
        raise KilledError

    with monkeypatch.context() as power, pytest.raises(KilledError):
        power.setattr(export, "companions", killed)
        exported(where, "imagefolder")
    [left] = where.exports.iterdir()
    assert left.name == "crops-00001-imagefolder.darkroom-draft"
    assert (left / "photos.parquet").is_file()
    assert not (left / "export.json").exists()
    folder = exported(where, "imagefolder")
    assert [path.name for path in where.exports.iterdir()] == [folder.name]


def test_only_an_export_of_the_same_is_written_over(where: Layout) -> None:
    """A folder with anything else is refused by name; one of an earlier export, an empty or a new one is taken."""
    publish(where)
    rules, other = ExportRules(), where.root / "other"
    other.mkdir()
    assert destination(where, "crops", 1, rules, str(other)) == other
    assert destination(where, "crops", 1, rules, "near") == where.root.parent / "near"
    write_export(where, "crops", 1, rules, other)
    assert write_export(
        where, "crops", 1, ExportRules(quality=80), destination(where, "crops", 2, rules, str(other))
    ).is_new
    for dataset, asked in (("towns", rules), ("crops", ExportRules(format="webdataset"))):
        with pytest.raises(ConfigError, match="is not empty"):
            destination(where, dataset, 1, asked, str(other))
    (where.root / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        destination(where, "crops", 1, rules, str(where.root / "file"))


def test_files_of_others_are_never_deleted(where: Layout) -> None:
    """Neither a neighbour with the name of a draft, nor what somebody put into an earlier export, nor what came into
    the folder meanwhile; and what is refused stays whole."""
    publish(where)
    target, rules = where.root / "other", ExportRules()
    mine = [where.root / "other.part" / "thesis", where.root / "other.darkroom-draft" / "thesis"]
    for path in mine:
        path.parent.mkdir()
        path.write_text("mine")
    with pytest.raises(ConfigError, match="no draft of an export"):
        write_export(where, "crops", 1, rules, target)
    mine.pop().rename(where.root / "thesis")
    (where.root / "other.darkroom-draft").rmdir()
    write_export(where, "crops", 1, rules, target)
    before = files_of(target)
    for name in ("notes.txt", ".git", "train/unlabelled/mine.jpg"):
        (target / name).write_text("mine")
        with pytest.raises(ConfigError, match=f"holds '{name}', which is no part"):
            write_export(where, "crops", 1, ExportRules(quality=80), target)
        assert (target / name).read_text() == "mine"
        (target / name).unlink()
    assert files_of(target) == before
    assert write_export(where, "crops", 1, ExportRules(quality=80), target).is_new
    assert mine[0].read_text() == "mine"
    assert sorted(path.name for path in where.root.glob("other*")) == ["other", "other.part"]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_knows_its_own_files(where: Layout, kind: Format) -> None:
    """An earlier export in any format gives way to the next, also where a link leads to it; what comes into the folder
    while the next is made does not."""
    publish(where)
    folder, link = exported(where, kind), where.root / "link"
    link.symlink_to(folder)
    assert write_export(where, "crops", 1, ExportRules(format=kind, quality=90), link).is_new
    assert link.is_symlink()
    with pytest.raises(ConfigError, match="'late'"), drafting(folder):
        (folder / "late").write_text("mine")
    assert (folder / "late").read_text() == "mine"
    assert [path.name for path in where.exports.iterdir()] == [folder.name]


def test_attribution_says_what_was_done(where: Layout) -> None:
    """The changes of ATTRIBUTION.csv are those of the rows, for each photo by its exact id."""
    publish(where)
    folder = exported(where, "imagefolder", max_side_px=30)
    with (folder / "ATTRIBUTION.csv").open(encoding="utf-8", newline="") as stream:
        credited = {row["photo_id"]: row["changes"] for row in csv.DictReader(stream)}
    rows = [row for split in ("train", "val", "test") for row in rows_of(folder, split)]
    assert credited == {row["photo_id"]: row["changes"] for row in rows}
    assert credited["plain"] == "reduced to 30 x 20; encoded anew as JPEG, quality 95"


def test_tags_that_name_a_place_stay_here(where: Layout) -> None:
    """Machine tags with coordinates or venues leave only where places may; words do not go."""
    tags = ["geo:lat=48.858", "GEO:lon=2", "exif:gps=1", "upcoming:venue=7", "foursquare:venue=x", "lat=1", "geotagged",
            "placemat", "time:lat", "geology", "camera:make=x"]  # fmt: skip
    assert placeless(tags) == ["geotagged", "placemat", "time:lat", "geology", "camera:make=x"]
    assert placeless(None) is None
    publish(where, photos={"plain": PHOTOS["plain"]}, tags=tags)
    for kind in FORMATS:
        assert not [
            path for path in exported(where, kind).rglob("*") if path.is_file() and b"48.858" in path.read_bytes()
        ]
    [row] = rows_of(exported(where, "imagefolder", locations=True), "train")
    assert row["tags"] == tags


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


DEEP = Image.fromarray(np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 20)
NOISE = Image.fromarray(PIXELS)


@pytest.mark.parametrize(
    ("data", "image_format", "said"),
    [
        (written(DEEP, "PNG"), "PNG", "encoded anew as PNG, 8 bits"),
        (written(NOISE, "WEBP", save_all=True, append_images=[DEEP.convert("RGB")], lossless=True), "WEBP",
         "encoded anew as WEBP, first picture only"),
        (written(NOISE.convert("RGBA"), "WEBP", quality=80), "WEBP", "encoded anew as WEBP, without loss"),
        (written(NOISE.quantize(16), "GIF", transparency=3), "GIF", "encoded anew as PNG, without transparency"),
        (written(NOISE.convert("CMYK"), "JPEG"), "JPEG",
         "reduced to 16 x 24; encoded anew as JPEG, quality 95, as RGB"),
    ],
)  # fmt: skip
def test_what_is_lost_is_said(data: bytes, image_format: str, said: str) -> None:
    """Depth, transparency, pictures behind the first and colours: whatever a new file lacks is named."""
    rules = ExportRules(max_side_px=24 if "reduced" in said else None)
    assert "; ".join(export_photos.picture(data, image_format, 6, rules).changes) == said


@pytest.mark.parametrize("mode", ["LA", "P", "RGBA", "1"])
def test_a_png_is_turned_in_its_own_mode(mode: str) -> None:
    """Transparency and palettes come along when nothing but a turn is asked."""
    image = NOISE.convert(mode)
    made = export_photos.picture(written(image, "PNG"), "PNG", 6, ExportRules())
    turned = Image.open(io.BytesIO(made.data))
    assert made.changes == ()
    assert (made.width, made.height) == turned.size == (40, 60)
    wanted = image.convert("RGBA").transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(turned.convert("RGBA")), np.asarray(wanted))


def test_a_removed_photo_leaves_with_no_export(where: Layout) -> None:
    """None is made of a snapshot that holds one; those below the root are deleted, half made ones too; one that comes
    back from a backup does not open; others stay; and a new one is made of what is left."""
    publish(where)
    folder = exported(where, "imagefolder")
    publish(where, "towns", photos={"other": ("train", encoded("PNG", 9), 1, None)})
    towns = Path(write_export(where, "towns", 1, ExportRules(), where.exports / "towns").uri)
    shutil.copytree(folder, where.exports / "half.darkroom-draft", ignore=shutil.ignore_patterns("export.json"))
    shutil.copytree(folder, where.exports / "cut.removed")  # by a purge that was interrupted
    backup = where.root.parent / f"{where.root.name}-backup"
    shutil.copytree(folder, backup)
    check_allowed(where, backup)
    removals.add(where, [{"source": "flickr", "owner_id": "oplain", "removed_at": NOW}])
    with pytest.raises(RemovedPhoto, match="flickr/plain"):
        exported(where, "webdataset")
    assert purge.purge_removed(where).exports == 3
    assert [path.name for path in where.exports.iterdir()] == [towns.name]
    with pytest.raises(RemovedPhoto, match="flickr/plain"):
        check_allowed(where, backup)
    again = exported(where, "imagefolder")
    assert "plain" not in [row["photo_id"] for row in rows_of(again, "train")]
    assert b"Title of plain" not in b"".join(path.read_bytes() for path in again.rglob("*") if path.is_file())
    for name in ("README.md", "ATTRIBUTION.csv", "LICENCES.csv", "croissant.json"):
        assert "Title of plain" not in (where.snapshot("crops", 1) / name).read_text("utf-8")


def test_a_photo_removed_meanwhile_stops_the_export(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal while the export is written, its draft deleted by a purge: the sentence names the photo."""
    publish(where)
    whole = export_photos.picture

    def removing(data: bytes, image_format: str, net_op: int, rules: ExportRules) -> export_photos.Picture:
        if data == PHOTOS["lying"][1]:  # the first of all, while others are written
            removals.add(where, [{"source": "flickr", "photo_id": "png", "removed_at": NOW}])
            left = remains(where)
            assert delete_exports(where, left) == 1
            purge.delete_blobs(where, left)
        return whole(data, image_format, net_op, rules)

    monkeypatch.setattr(export_photos, "picture", removing)
    with pytest.raises(RemovedPhoto, match="flickr/png"):
        exported(where, "imagefolder")
    assert not list(where.exports.glob("*"))


def test_a_snapshot_without_photos_is_told(where: Layout) -> None:
    """There is nothing to export, and a sentence says so."""
    publish(where, photos={})
    with pytest.raises(EmptyResult, match="no photos to export"):
        exported(where, "imagefolder")


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_exports_a_snapshot(root: Layout) -> None:
    """``name@version`` is exported below exports/, once; an unknown one ends in a sentence."""
    publish(root, "exported", photos={"plain": PHOTOS["plain"]})
    made = export_dataset("exported@1", "huggingface")
    assert made.is_new
    assert made.photos == {"train": 1, "val": 0, "test": 0}
    assert Path(made.uri) == root.exports / "exported-00001-huggingface"
    assert made.size_bytes == sum(path.stat().st_size for path in Path(made.uri).rglob("*") if path.is_file())
    again = export_dataset("exported", "huggingface")
    assert again == made.model_copy(update={"is_new": False})
    with pytest.raises(SnapshotMissing, match="no version '7'"):
        export_dataset("exported@7")


def test_exported_columns_are_known() -> None:
    """What an export asks of a snapshot is published."""
    assert set(export_photos.USED) <= set(SCHEMAS["publish"].names)
