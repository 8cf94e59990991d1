"""What lies on a disk, read as rows: each layout by a tiny made-up one, and files that are out to harm."""

import errno
import gzip
import io
import json
import os
import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from storage.settings import Settings, settings
from storage.signatures import unsigned
from tasks import web
from tasks.errors import ConfigError
from tasks.pictures import imaging
from tasks.sources import named
from tasks.sources.base import Found, Query, degrees
from tasks.sources.imports import answers, cells, idx, instagram, png

SETTINGS = Settings.model_validate({})
Rows = dict[str, dict[str, Any]]


def jpeg(grey: int = 128) -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.new("L", (8, 8), grey).save(stream, "JPEG")
    return stream.getvalue()


def put(folder: Path, *names: str) -> None:
    """A picture at each path below ``folder``."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg())


def found(source: str, path: Path, **more: Any) -> Found:
    """What a search of ``path`` brings."""
    return named(source).search(Query(path=str(path), **more), None, frozenset(), settings())


def rows(source: str, path: Path, **more: Any) -> Rows:
    """Its listings by photo_id."""
    return {row["photo_id"]: row for row in found(source, path, **more).listings}


def asked(row: dict[str, Any], source: str = "folder") -> web.Answer:
    """What the file of a row answers."""
    return named(source).ask(SETTINGS)(row["image_url"])


# Trees


def test_folders_are_classes(tmp_path: Path) -> None:
    """A photo is labelled by the folders that it lies in, one at the top by nothing; its id is its path."""
    put(tmp_path, "animal/bee/1.jpg", "animal/ant.jpeg", "plain.PNG")
    assert {key: row["label"] for key, row in rows("folder", tmp_path).items()} == {
        "animal/bee/1.jpg": "animal/bee", "animal/ant.jpeg": "animal", "plain.PNG": None,
    }  # fmt: skip


def test_a_row_of_a_folder_makes_nothing_up(tmp_path: Path) -> None:
    """No owner, an unstated licence, a window that was listed whole at no cost."""
    put(tmp_path, "a/1.jpg", "a/2.jpg")
    search = found("folder", tmp_path)
    row = search.listings[0]
    assert (row["source"], row["licence"], row.get("owner_id"), row["size_label"]) == (
        "folder", "unstated", None, "original",
    )  # fmt: skip
    assert row["observed_at"].tzinfo is UTC
    (window,) = search.windows
    assert {name: window[name] for name in ("state", "total", "unique", "lost", "calls")} == {
        "state": "listed", "total": 2, "unique": 2, "lost": 0, "calls": 0,
    }  # fmt: skip


def test_the_label_of_a_query_stands_above_the_folders(tmp_path: Path) -> None:
    """Who names a label means it for all photos."""
    put(tmp_path, "a/1.jpg")
    assert rows("folder", tmp_path, label="insect")["a/1.jpg"]["label"] == "insect"


@pytest.mark.parametrize(("folder", "split"), [("train", "train"), ("Validation", "val"), ("testing", "test")])
def test_folders_of_a_split_are_tags(tmp_path: Path, folder: str, split: str) -> None:
    """A data set's own split is kept as a tag, and is no class."""
    put(tmp_path, f"{folder}/bee/1.jpg", "train/2.jpg")
    row = rows("folder", tmp_path)[f"{folder}/bee/1.jpg"]
    assert (row["label"], row["tags"]) == ("bee", [f"split:{split}"])


def test_a_class_called_train_among_others_is_a_class(tmp_path: Path) -> None:
    """Where not all folders are splits, none is."""
    put(tmp_path, "train/1.jpg", "bus/2.jpg")
    row = rows("folder", tmp_path)["train/1.jpg"]
    assert (row["label"], row["tags"]) == ("train", [])


def test_a_limit_draws_from_all_classes(tmp_path: Path) -> None:
    """Some of a tree are the same ones each time, of several classes, and the window says that they are a sample."""
    put(tmp_path, *(f"{label}/{number}.jpg" for label in "abcd" for number in range(10)))
    search = found("folder", tmp_path, limit=12)
    assert [row["photo_id"] for row in search.listings] == list(rows("folder", tmp_path, limit=12))
    assert len({row["label"] for row in search.listings}) > 2
    assert (search.windows[0]["state"], search.windows[0]["total"], len(search.listings)) == ("sampled", 40, 12)


# Hostile trees


NAMES = ["new\nline.jpg", 'it\'s "quoted".jpg', "bee🐝.jpg", "hash#100%?.jpg", "-rf.jpg", "a b.jpg", "..jpg.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_listed_and_read(tmp_path: Path, name: str) -> None:
    """A photo's id is its name as it is, and its URL leads back to its bytes."""
    put(tmp_path, f"class/{name}")
    found_rows = rows("folder", tmp_path)
    if name.startswith("."):
        assert found_rows == {}
    else:
        assert asked(found_rows[f"class/{name}"]).body == jpeg()


def test_a_name_that_is_no_utf8_is_a_photo(tmp_path: Path) -> None:
    """Its id is text that Parquet takes, its file is still found."""
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg())
    (row,) = rows("folder", tmp_path).values()
    assert row["photo_id"] == "caf\\xe9.jpg"
    assert asked(row).outcome == "ok"
    pa.array([row["photo_id"], row["image_url"]], pa.string()).validate(full=True)


def test_links_are_read_within_the_folder_only(tmp_path: Path) -> None:
    """A link to another photo of the folder is that photo; one out of it, to itself or to nothing has its reason."""
    put(tmp_path, "secret.jpg", "photos/a/1.jpg")
    photos = tmp_path / "photos"
    links = {"in.jpg": "a/1.jpg", "out.jpg": "../secret.jpg", "self.jpg": "self.jpg", "lost.jpg": "a/none.jpg"}
    for name, target in links.items():
        (photos / name).symlink_to(target)
    (photos / "loop").symlink_to(photos)
    (photos / "folder.jpg").symlink_to(photos / "a")
    listed = rows("folder", photos)
    assert {key: asked(row).outcome for key, row in listed.items()} == {
        "a/1.jpg": "ok", "in.jpg": "ok", "out.jpg": "denied", "self.jpg": "denied", "lost.jpg": "gone",
    }  # fmt: skip
    assert asked(listed["out.jpg"]).body == b""


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    """What was listed as a file and now lies behind a link is refused."""
    put(tmp_path, "photos/a/1.jpg", "elsewhere/1.jpg")
    (row,) = rows("folder", tmp_path / "photos").values()
    (tmp_path / "photos/a/1.jpg").unlink()
    (tmp_path / "photos/a").rmdir()
    (tmp_path / "photos/a").symlink_to(tmp_path / "elsewhere")
    assert asked(row).outcome == "denied"


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    """A folder named like a photo is a folder, a pipe is not waited for, hidden files are none of ours."""
    put(tmp_path, "holiday.jpg/1.jpg", ".hidden.jpg", ".trash/2.jpg", "._1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    assert set(rows("folder", tmp_path)) == {"holiday.jpg/1.jpg"}


PIPES = {
    "content/posts_1.json": "list", "media/stories.json": "list", "media.json": "other", "train.csv": "other",
    "data_batch_1.bin": "batch", "batches.meta.txt": "other", "train-images-idx3-ubyte": "refused",
    "train-images-idx3-ubyte.gz": "refused", "classes.txt": "other", "a/pipe.jpg": "other", "a/pipe": "other",
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nothing_waits_for_a_pipe(
    tmp_path: Path, name: str, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a layout takes it for: it is left out, as the log says, or one sentence refuses it."""
    caplog.set_level("INFO")
    put(tmp_path, "a/1.jpg", "photos/2.jpg")
    (tmp_path / "labels.csv").write_text("attribute_id,attribute_name\n1,x\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        with socket.socket(socket.AF_UNIX) as nobody:
            monkeypatch.chdir(tmp_path)  # its whole path may be longer than an address
            nobody.bind(name)
    match PIPES[name]:
        case "refused":
            with pytest.raises(ConfigError, match=f"the file '.*{name}' cannot be read") as refusal:
                rows("folder", tmp_path)
            assert "\n" not in str(refusal.value)
        case "batch":
            assert rows("folder", tmp_path) == {}
            assert "cannot be read, and its pictures are left out" in caplog.text
        case what:
            assert set(rows("folder", tmp_path)) == {"a/1.jpg", "photos/2.jpg"}
            assert "no_plain_file=1" in caplog.text
            assert what != "list" or f"{name}' cannot be read, its captions are missing" in caplog.text


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.json", "x.txt", "x.csv.gz"])
def test_a_table_that_is_a_pipe_is_refused(tmp_path: Path, name: str) -> None:
    """It is read twice, which no pipe can be; nor does anybody wait for it."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match="is a pipe, a socket or a device: save it as a file"):
        rows("table", tmp_path / name)
    with pytest.raises(ConfigError, match="is a file"):
        rows("folder", tmp_path / name)


@pytest.mark.timeout(20)
def test_a_table_that_names_a_pipe_says_so(tmp_path: Path) -> None:
    """Its row is denied, for its file is none."""
    os.mkfifo(tmp_path / "1.jpg")
    (tmp_path / "photos.csv").write_text("file\n1.jpg\n")
    (row,) = rows("table", tmp_path / "photos.csv").values()
    answer = asked(row, "table")
    assert (answer.outcome, answer.detail) == ("denied", "not a plain file")


def test_a_photo_without_a_picture_s_name_is_found(tmp_path: Path) -> None:
    """The bytes decide."""
    put(tmp_path, "a/photo", "a/photo.dat")
    (tmp_path / "a/text").write_text("words")
    assert set(rows("folder", tmp_path)) == {"a/photo", "a/photo.dat"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_what_may_not_be_read_has_a_reason(tmp_path: Path) -> None:
    """An unreadable file is a row that is denied; an unreadable folder leaves the others alone."""
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/1.jpg").chmod(0)
    (tmp_path / "b").chmod(0)
    try:
        (row,) = rows("folder", tmp_path).values()
        assert asked(row).outcome == "denied"
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_file_that_is_gone_or_too_large_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its own name."""
    put(tmp_path, "1.jpg", "2.jpg")
    listed = rows("folder", tmp_path)
    (tmp_path / "1.jpg").unlink()
    assert asked(listed["1.jpg"]).outcome == "gone"
    size = len(jpeg())
    monkeypatch.setattr(web, "LIMITS", web.Limits(body_bytes=size - 1))
    assert asked(listed["2.jpg"]).outcome == "too_large"
    monkeypatch.setattr(web, "LIMITS", web.Limits(body_bytes=size))
    assert asked(listed["2.jpg"]).outcome == "ok"


def test_a_file_that_is_the_same_still_is_not_read_again(tmp_path: Path) -> None:
    """Its ETag changes with its bytes."""
    put(tmp_path, "1.jpg")
    row, ask = rows("folder", tmp_path)["1.jpg"], named("folder").ask(SETTINGS)
    etag = ask(row["image_url"]).headers["ETag"]
    assert ask(row["image_url"], etag).outcome == "not_modified"
    (tmp_path / "1.jpg").write_bytes(jpeg(7) + b"longer")
    assert ask(row["image_url"], etag).outcome == "ok"


@pytest.mark.parametrize(
    ("url", "outcome"),
    [("file:///dev/zero", "denied"), ("file:///nul%00.jpg", "denied"), ("file:///etc/passwd#1", "denied"),
     ("file:///none/x.jpg", "gone"), ("file:///etc", "denied"), ("file:///etc/../etc/passwd", "denied"),
     ("file:///a.bin#x", "denied"), ("file:///" + "a" * 300, "gone")],
)  # fmt: skip
def test_no_url_of_a_file_raises(url: str, outcome: web.Outcome) -> None:
    """Devices, zero bytes, dots and numbers of nothing are answered."""
    assert answers.answer(url, None, 100).outcome == outcome


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(errno.EACCES, "denied"), (errno.ELOOP, "denied"), (errno.ENOENT, "gone"), (errno.EIO, "unavailable"),
     (errno.ESTALE, "unavailable"), (errno.ENAMETOOLONG, "gone")],
)  # fmt: skip
def test_what_the_disk_says_has_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, outcome: web.Outcome
) -> None:
    """What will not pass is denied or gone; a disk that fails for a moment is asked again."""
    put(tmp_path, "1.jpg")

    def fails(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    (row,) = rows("folder", tmp_path).values()
    monkeypatch.setattr(os, "open", fails)
    assert asked(row).outcome == outcome


def test_a_forecast_counts_bytes(tmp_path: Path) -> None:
    """Of files as they lie, of URLs by the sizes that the table gives."""
    put(tmp_path, "a/1.jpg", "a/2.jpg")
    (tmp_path / "t.csv").write_text("url,width,height\nhttps://a.example/1.jpg,1000,1000\na/1.jpg,,\n")
    folder = named("folder").forecast(Query(path=str(tmp_path)), None, SETTINGS)
    table = named("table").forecast(Query(path=str(tmp_path / "t.csv")), None, SETTINGS)
    assert (folder.photos, folder.windows, folder.calls, folder.bytes) == (2, 1, 0, 2 * len(jpeg()))
    assert (table.photos, table.bytes) == (2, 360_000 + len(jpeg()))


@pytest.mark.parametrize("path", ["none", "~nobody-of-this-name/x", "nul\0", "../../../../../../none"])
def test_a_folder_that_is_not_there_is_named(path: str) -> None:
    """One sentence, with the path as it was given."""
    with pytest.raises(ConfigError, match="DARKROOM_ROOT") as refusal:
        named("folder").search(Query(path=path), None, frozenset(), SETTINGS)
    assert repr(path) in str(refusal.value)


def test_a_relative_path_begins_beside_the_data_root(tmp_path: Path, environment: Callable[..., None]) -> None:
    """Wherever a worker runs."""
    put(tmp_path, "photos/1.jpg")
    environment(DARKROOM_ROOT=str(tmp_path / "data"))
    search = named("folder").search(Query(path="photos"), None, frozenset(), settings())
    assert [row["photo_id"] for row in search.listings] == ["1.jpg"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """An archive is to be unpacked, and a table has a source of its own."""
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="unpack it"):
        found("folder", tmp_path / "photos.zip")


# Instagram


POSTS = [
    {"media": [{"uri": "media/posts/202001/1.jpg", "creation_timestamp": 1577880000,
                "title": "CafÃ© #Vegan #food ð\x9f\x8d\xb0",
                "media_metadata": {"photo_metadata": {"exif_data": [{"iso": 9}, {"latitude": 1.5, "longitude": 2}]}}}]},
    {"title": "two of one #day", "creation_timestamp": 1577970000,
     "media": [{"uri": "media/posts/202001/2.jpg", "title": ""}, {"uri": "media/posts/202001/3.mp4", "title": ""},
               {"uri": "media/posts/202001/lost.jpg", "title": ""}, {"uri": "../../secret.jpg", "title": ""}]},
]  # fmt: skip


@pytest.mark.parametrize("place", ["content", "your_instagram_activity/media", "your_instagram_activity/content"])
def test_an_instagram_export(tmp_path: Path, place: str) -> None:
    """Captions are put right, hashtags are tags; a post gives its words to its pictures; no picture is lost."""
    put(tmp_path, "media/posts/202001/1.jpg", "media/posts/202001/2.jpg", "media/other/4.jpg")
    (tmp_path / "media/posts/202001/3.mp4").write_bytes(b"film")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "posts_1.json").write_text(json.dumps(POSTS))
    listed = rows("folder", tmp_path)
    first = listed["media/posts/202001/1.jpg"]
    assert (first["title"], first["tags"]) == ("Café #Vegan #food 🍰", ["Vegan", "food"])
    assert (first["latitude"], first["longitude"]) == (1.5, 2.0)
    assert first["uploaded_at"] == datetime(2020, 1, 1, 12, tzinfo=UTC)
    assert listed["media/posts/202001/2.jpg"]["title"] == "two of one #day"
    assert listed["media/posts/202001/2.jpg"]["uploaded_at"] == datetime(2020, 1, 2, 13, tzinfo=UTC)
    assert asked(listed["media/posts/202001/lost.jpg"]).outcome == "gone"
    assert set(listed) == {
        f"media/{name}.jpg" for name in ("posts/202001/1", "posts/202001/2", "posts/202001/lost", "other/4")
    }


def test_the_instagram_export_of_2018(tmp_path: Path) -> None:
    """``media.json`` names paths and captions."""
    put(tmp_path, "photos/201801/a.jpg")
    photo = {"caption": "old #days", "taken_at": "2018-01-02T03:04:05", "path": "photos/201801/a.jpg"}
    (tmp_path / "media.json").write_text(json.dumps({"photos": [photo]}))
    row = rows("folder", tmp_path)["photos/201801/a.jpg"]
    assert (row["tags"], row["uploaded_at"]) == (["days"], datetime(2018, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.mark.parametrize("text", ["{", '{"media": 3}', "[" * 100_000, "\x80"])
def test_a_broken_list_costs_captions_only(tmp_path: Path, text: str) -> None:
    """The pictures are there all the same."""
    put(tmp_path, "media/1.jpg", "content/none.jpg")
    (tmp_path / "content/posts_1.json").write_bytes(text.encode("latin-1"))
    assert set(rows("folder", tmp_path)) == {"media/1.jpg", "content/none.jpg"}


@pytest.mark.parametrize("name", ["content/posts_1.json", "posts_1.json"])
def test_a_broken_list_without_pictures_is_named(tmp_path: Path, name: str) -> None:
    """In one sentence; a list that can be read, and a folder without any, have nothing to say."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"a":' * 50_000)
    with pytest.raises(ConfigError, match=r"posts_1\.json.*cannot be read.*Instagram") as refusal:
        found("folder", tmp_path)
    assert "\n" not in str(refusal.value)
    (tmp_path / name).write_text("[]")
    assert rows("folder", tmp_path) == {}


def test_an_export_for_the_eye_is_refused(tmp_path: Path) -> None:
    """It says what to ask Instagram for."""
    put(tmp_path, "content/posts_1.html")
    with pytest.raises(ConfigError, match="as JSON"):
        found("folder", tmp_path)


@pytest.mark.parametrize(
    ("caption", "tags"),
    [("#a#b", ["a", "b"]), ("#a, #b. (#c)", ["a", "b", "c"]), ("# no", []), ("#हिन्दी #日本", ["हिन्दी", "日本"]),
     ("#a #a", ["a"]), ("#don't", ["don"]), ("mail@x #1st_place", ["1st_place"]), ("#🍰", ["🍰"])],
)  # fmt: skip
def test_hashtags(caption: str, tags: list[str]) -> None:
    """They end at spaces and marks, keep letters of all scripts, and stand once."""
    assert instagram.hashtags(caption) == tags


# Kaggle iMet


def test_an_imet_collection(tmp_path: Path) -> None:
    """Attributes are tags by name, the test pictures are there without any, an id without a picture is a row."""
    put(tmp_path, "train/aa.png", "train/bb.png", "test/cc.png")
    (tmp_path / "labels.csv").write_text("attribute_id,attribute_name\n0,culture::japan\n13,tag::ships\n")
    (tmp_path / "train.csv").write_text("id,attribute_ids\naa,0 13\nbb,13 99\nlost,0\n../../x,0\n")
    listed = rows("folder", tmp_path)
    assert {key: row["tags"] for key, row in listed.items()} == {
        "train/aa.png": ["culture::japan", "tag::ships", "split:train"],
        "train/bb.png": ["tag::ships", "attribute::99", "split:train"],
        "test/cc.png": ["split:test"],
        "train/lost": ["culture::japan", "split:train"], "train/../../x": ["culture::japan", "split:train"],
    }  # fmt: skip
    assert all(row.get("label") is None for row in listed.values())
    assert [listed[key].get("image_url") for key in ("train/lost", "train/../../x")] == [None, None]


# Records in files


def write_cifar(folder: Path, name: str, labels: list[int]) -> np.ndarray[Any, Any]:
    """A batch with random pixels; [N, 32, 32, 3]."""
    pixels = np.random.default_rng(3).integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    (folder / name).write_bytes(np.hstack([np.array(labels, np.uint8)[:, None], planes]).tobytes())
    return pixels


def test_cifar(tmp_path: Path) -> None:
    """Each picture of each batch has its class by name and its split, and comes out with the very pixels."""
    pixels = write_cifar(tmp_path, "data_batch_1.bin", [1, 0, 7])
    write_cifar(tmp_path, "test_batch.bin", [0])
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\n\n")
    listed = rows("folder", tmp_path)
    assert {key: (row["label"], row["tags"]) for key, row in listed.items()} == {
        "data_batch_1.bin#00000": ("automobile", ["split:train"]),
        "data_batch_1.bin#00001": ("airplane", ["split:train"]),
        "data_batch_1.bin#00002": ("7", ["split:train"]),
        "test_batch.bin#00000": ("airplane", ["split:test"]),
    }  # fmt: skip
    decoded = imaging.decode_upright(asked(listed["data_batch_1.bin#00001"]).body, 1)
    assert np.array_equal(decoded, pixels[1])


def test_a_batch_that_is_cut_keeps_its_whole_pictures(tmp_path: Path) -> None:
    """The part of a picture behind them is none; one that vanished since is gone."""
    write_cifar(tmp_path, "data_batch_1.bin", [1, 2])
    batch = tmp_path / "data_batch_1.bin"
    listed = rows("folder", tmp_path)
    batch.write_bytes(batch.read_bytes()[:-1])
    assert set(rows("folder", tmp_path)) == {"data_batch_1.bin#00000"}
    assert asked(listed["data_batch_1.bin#00001"]).outcome == "gone"


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """An idx file of unsigned bytes."""
    return struct.pack(f">I{array.ndim}I", 0x800 | array.ndim, *array.shape) + array.tobytes()


def pack(data: bytes, suffix: str) -> bytes:
    return gzip.compress(data) if suffix else data


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path: Path, suffix: str) -> None:
    """Pictures and labels are joined by their order; names of classes come from classes.txt, where there is one."""
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(pixels), suffix))
        labels = idx_bytes(np.array([0, 1, 9], np.uint8))
        (tmp_path / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels, suffix))
    listed = rows("folder", tmp_path)
    first = f"t10k-images-idx3-ubyte{suffix}#00000"
    assert [row["label"] for row in listed.values()] == ["0", "1", "9"] * 2
    assert (listed[first]["tags"], listed[first]["listed_width"], listed[first]["listed_height"]) == (
        ["split:test"],
        5,
        4,
    )
    for number in range(3):
        body = asked(listed[f"train-images-idx3-ubyte{suffix}#{number:05d}"]).body
        assert np.array_equal(imaging.decode_grey(body, 1), pixels[number])
    (tmp_path / "classes.txt").write_text("T-shirt/top\nTrouser\n")
    assert rows("folder", tmp_path)[first]["label"] == "T-shirt/top"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_that_is_cut_keeps_its_whole_pictures(tmp_path: Path, suffix: str) -> None:
    """Whatever its head promises; without labels they have none."""
    data = pack(idx_bytes(np.random.default_rng(0).integers(0, 256, (9, 20, 20), np.uint8)), suffix)
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(data[: len(data) // 2])
    listed = rows("folder", tmp_path)
    assert 2 <= len(listed) <= 5
    assert {row["label"] for row in listed.values()} == {None}
    assert all(asked(row).outcome == "ok" for row in listed.values())


@pytest.mark.parametrize("data", [b"", b"\0\0\x08\x01" + bytes(20), struct.pack(">4I", 0x803, 5, 0, 5)])
def test_a_file_that_is_no_idx_is_named(tmp_path: Path, data: bytes) -> None:
    """Before a photo of it is listed."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(ConfigError, match="train-images-idx3-ubyte"):
        found("folder", tmp_path)


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that unpacks to more than the limit is not held in memory."""
    monkeypatch.setattr(idx, "UNPACKED_BYTES", 1 << 21)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(1 << 23)))
    with pytest.raises(ConfigError, match="unpack it"):
        found("folder", tmp_path)


def test_png_is_the_same_for_ever() -> None:
    """The bytes name the photo, so that they hang on no library."""
    assert png.encode(np.array([[0, 255]], np.uint8)).hex() == (
        "89504e470d0a1a0a0000000d4948445200000002000000010800000000d14920560000000e"
        "494441547801010300fcff0000ff01020100b7012ef70000000049454e44ae426082"
    )


# Tables


TABLE = (
    "id,URL,Label,caption,license,author,tags,split,lat\n7,https://a.example/1.jpg,bee,A bee,CC BY,Ann,x|y,test,48.5\n"
)


def test_the_columns_of_a_table_are_known_by_name(tmp_path: Path) -> None:
    """Whatever their case; an author is an owner; the split is a tag."""
    (tmp_path / "t.csv").write_text(TABLE)
    row = rows("table", tmp_path / "t.csv")["7"]
    expected = {
        "image_url": "https://a.example/1.jpg", "label": "bee", "title": "A bee", "licence": "CC BY", "owner_id": "Ann",
        "owner_name": "Ann", "tags": ["x", "y", "split:test"], "latitude": 48.5,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


RECORDS = [{"url": f"https://a.example/{n}.jpg", "label": n, "tags": ["a", "b"] if n else None} for n in range(3)]


def write_table(path: Path) -> None:
    """RECORDS in the format that the name of ``path`` says."""
    if path.suffix == ".parquet":
        return pq.write_table(pa.Table.from_pylist(RECORDS), path)
    if path.suffix == ".json":
        text = json.dumps(RECORDS)
    elif path.suffix == ".jsonl":
        text = "\n".join(map(json.dumps, RECORDS)) + "\nnot json\n[1]\n\n"
    elif path.suffix == ".txt":
        text = "\n".join(record["url"] for record in RECORDS)
    else:
        mark = {".tsv": "\t", ".csv": ";", ".gz": ","}[path.suffix]
        lines = [["url", "label", "tags"]] + [
            [str(record["url"]), str(record["label"]), "|".join(record["tags"] or [])] for record in RECORDS
        ]
        text = "\ufeff" + "\r\n".join(mark.join(line) for line in lines)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.csv.gz", "t.txt"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    """By their URLs, where there is no id; a plain list has URLs only."""
    write_table(tmp_path / name)
    listed = rows("table", tmp_path / name)
    assert list(listed) == [record["url"] for record in RECORDS]
    if name != "t.txt":
        assert [row["label"] for row in listed.values()] == ["0", "1", "2"]
        assert [row["tags"] for row in listed.values()] == [[], ["a", "b"], ["a", "b"]]


def test_of_a_repeated_id_the_first_counts(tmp_path: Path) -> None:
    """And the window says how many different ones there are."""
    (tmp_path / "t.csv").write_text("id,url\n1,https://a.example/1\n1,https://a.example/2\n2,https://a.example/3\n")
    listed = rows("table", tmp_path / "t.csv")
    assert {key: row["image_url"] for key, row in listed.items()} == {
        "1": "https://a.example/1", "2": "https://a.example/3",
    }  # fmt: skip


def test_a_signature_is_no_part_of_an_id(tmp_path: Path) -> None:
    """An export with new signatures has the same ids, and no address that is published has one; what fetches has it."""
    listed = []
    for signature in "ab":
        url = f"https://a.example/1.jpg?id=5&X-Amz-Signature={signature}&X-Amz-Expires=60"
        cells_of_row = [url, f"https://a.example/page?token={signature}&n=1", f"//a.example/rights?sig={signature}"]
        (tmp_path / "t.csv").write_text("url,page_url,licence_url\n" + ",".join(cells_of_row))
        ((photo_id, row),) = rows("table", tmp_path / "t.csv").items()
        listed.append((photo_id, row["page_url"], row["licence_url"]))
        assert row["image_url"] == url
    assert listed == [("https://a.example/1.jpg?id=5", "https://a.example/page?n=1", "//a.example/rights")] * 2
    (tmp_path / "t.csv").write_text("id,url\nhttps://a.example/1.jpg?sig=a,https://a.example/1.jpg?sig=a\n")
    assert list(rows("table", tmp_path / "t.csv")) == ["https://a.example/1.jpg"]


def test_a_password_is_no_part_of_an_id(tmp_path: Path) -> None:
    """Nor of any address that is kept, for nobody is asked with it; an ``@`` behind the host is none's, and a signature
    stays where it is needed.
    """
    secret = "https://ann:hunter2@a.example/@ann/1.jpg?auth=hunter2"
    (tmp_path / "t.csv").write_text(f"url,page_url,owner\n{secret},//ann:hunter2@a.example/1,{secret}\n")
    ((photo_id, row),) = rows("table", tmp_path / "t.csv").items()
    assert photo_id == row["owner_id"] == unsigned(row["image_url"]) == "https://a.example/@ann/1.jpg"
    kept = "https://***@a.example/@ann/1.jpg?auth=hunter2"
    assert (row["page_url"], row["image_url"]) == ("//a.example/1", kept)


SIGNED = [
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2Fs3&X-Amz-Signature=ab",
    "AWSAccessKeyId=k&Signature=a%3D&Expires=9",
    "Expires=9&Policy=e_&Signature=a~&Key-Pair-Id=K", "GoogleAccessId=a%40b&Expires=9&Signature=c",
    "X-Goog-Algorithm=GOOG4-RSA-SHA256&x-goog-signature=ab", "sv=2024-05-04&se=2026&sr=b&sp=r&skoid=1&sktid=2&sig=a%3D",
    "access_token=a", "token=a&expires=9", "amp;X-Amz-Signature=a", "X%2DAmz%2DSignature=a", "oh=00_a&oe=6&_nc_ohc=b",
    "auth=a1", "key=AIza_b-c", "access_key=a", "jwt=a.b.c", "Pass=a",
    "PHPSESSID=a&session=a1", "sid=1a&session_id=9", "pwd=a;token=b",
]  # fmt: skip


@pytest.mark.parametrize("query", SIGNED)
def test_signatures_of_all_kinds_are_known(query: str) -> None:
    """Before, behind and between what names a picture, which stays as it is."""
    address = "https://h/1.jpg"
    assert unsigned(f"{address}?{query}") == unsigned(f"{address}?{query}#hosts=b.example") == address
    assert (
        unsigned(f"{address}?id=5&{query}&w=1%20")
        == unsigned(f"{address}?{query}&id=5&w=1%20")
        == (f"{address}?id=5&w=1%20")
    )


@pytest.mark.parametrize(
    "query",
    [
        "id=5",
        "sp=12&se=3",
        "s=1&si=2",
        "signed=1&tokens=2",
        "a&&b=",
        "design=x",
        "q=sig%3Da",
        "key=1.jpg",
        "key=a%2Fb",
        "key=5",
        "sid=5",
        "a=1;b=2&amp;c=3",
    ],
)
def test_what_is_no_signature_stays(query: str) -> None:
    """It may be what tells two pictures apart."""
    assert unsigned(f"https://h/p?{query}") == f"https://h/p?{query}"


def test_columns_can_be_named(tmp_path: Path) -> None:
    """A query's word stands above the usual names."""
    (tmp_path / "t.csv").write_text("url,link2,key\nhttps://a.example/1,https://b.example/1,k\n")
    listed = rows("table", tmp_path / "t.csv", columns={"image_url": "link2", "photo_id": "key"})
    assert listed["k"]["image_url"] == "https://b.example/1"


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"picture": "a"}, "none of ours"), ({"image_url": "b"}, r"no column \['b'\]"), ({}, "known to name photos")],
)
def test_wrong_columns_are_named(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    """With those that there are."""
    (tmp_path / "t.csv").write_text("a\nx\n")
    with pytest.raises(ConfigError, match=message):
        found("table", tmp_path / "t.csv", columns=columns)


@pytest.mark.parametrize(
    "cell",
    ["/etc/passwd", "../secret.jpg", "a/../../secret.jpg", "file:///etc/passwd", "ftp://a/b", "javascript:alert(1)",
     "data:image/png;base64,AA", "http://", "http://[::1", "C:\\x.jpg", "http://a.example:99999/x"],
)  # fmt: skip
def test_a_cell_that_leads_astray_is_a_row_without_a_file(tmp_path: Path, cell: str) -> None:
    """No local file beyond the table's folder, no other scheme; the row is there and will have its reason."""
    (tmp_path / "t").mkdir()
    put(tmp_path, "secret.jpg")
    (tmp_path / "t" / "t.jsonl").write_text(json.dumps({"url": cell}))
    (row,) = rows("table", tmp_path / "t" / "t.jsonl").values()
    assert (row["photo_id"], row["image_url"]) == (cell, None)


@pytest.mark.parametrize(
    "cell",
    ["http://ann:hunt/er2@a.example/x.jpg", "ann:hunter2@a.example/x.jpg", "http://ann:hunt#er2@a.example/x.jpg",
     "http://ann:hunt?er2@a.example/x.jpg", "https:/ann:hunter2@a.example/x.jpg", "https:ann:hunter2@a.example/x.jpg",
     "http://ann:hunter2@a.example:99999/x.jpg", "http:\\\\ann:hunter2@a.example/x.jpg", "//ann:hunter2@[a/x.jpg#1",
     "https://a.example/x.jpg?pwd=hunter2", "https://a.example/x.jpg;token=hunter2", "http:/a.example/x?auth=hunter2",
     "https://a.example/x;v=1.jpg?X-Amz-Signature=hunter2;a=1", "https://a.example/x.jpg?sessionid=hunter2&st=1",
     "https://a.example/x;jsessionid=hunter2/1.jpg?sid=hunter2"],
)  # fmt: skip
@pytest.mark.parametrize("column", ["url", "id", "page_url"])
def test_a_password_in_no_shape_at_all_is_told_by_no_row(tmp_path: Path, column: str, cell: str) -> None:
    """Malformed addresses have ids of their own, which stay the same; what fetches a picture is published without."""
    record = {"url": "https://a.example/1", column: cell}
    (tmp_path / "t.jsonl").write_text("\n".join([json.dumps(record)] * 2))
    (row,) = rows("table", tmp_path / "t.jsonl").values()
    told = [row["photo_id"], row["page_url"] or "", unsigned(row["image_url"] or "")]
    assert not [each for each in told if "hunt" in each]
    other = {"url": "https://a.example/1", column: cell.replace("x", "y").replace("a.ey", "a.ex")}
    if column != "page_url" and other != record:
        (tmp_path / "t.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(other))
        assert len(rows("table", tmp_path / "t.jsonl")) == 2


def test_files_of_a_table_lie_beside_it(tmp_path: Path) -> None:
    """A path is relative to the table, or below its folder; a link out of it is denied."""
    put(tmp_path, "secret.jpg", "t/photos/1.jpg", "t/2.jpg")
    (tmp_path / "t/out.jpg").symlink_to(tmp_path / "secret.jpg")
    table = tmp_path / "t/t.csv"
    table.write_text(f"file\nphotos/1.jpg\n{tmp_path}/t/2.jpg\nout.jpg\nnone.jpg\n./photos//1.jpg\n")
    listed = rows("table", table)
    assert {key: asked(row, "table").outcome for key, row in listed.items()} == {
        "photos/1.jpg": "ok", "2.jpg": "ok", "out.jpg": "denied", "none.jpg": "gone",
    }  # fmt: skip


def test_a_table_of_nonsense_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Short rows, long rows, open quotes, bytes of no text and empty lines cost themselves only."""
    lines = [b"url,label", b"https://a.example/1", b"https://a.example/2,x,y,z", b"", b"\xff\xfe,\xff", b",",
             b'"' + b"x" * 200_000, b"https://a.example/3,z"]  # fmt: skip
    (tmp_path / "t.csv").write_bytes(b"\n".join(lines))
    listed = rows("table", tmp_path / "t.csv")
    assert {"https://a.example/1", "https://a.example/2"} <= set(listed)


@pytest.mark.parametrize(("name", "data"), [("t.xls", b""), ("t.parquet", b"no"), ("t.json", b"{"), ("t.csv.gz", b"no"),
                                            ("t.csv", b""), ("folder", None)])  # fmt: skip
def test_what_is_no_table_is_named(tmp_path: Path, name: str, data: bytes | None) -> None:
    """In one sentence."""
    if data is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=name):
        found("table", tmp_path / name)


@pytest.mark.parametrize("host", ["a.example:8080", "http://a.example", "a/b", "a,b", "a#b", "127.0.0.1:80", "[::1]"])
def test_a_query_names_hosts_without_ports(tmp_path: Path, host: str) -> None:
    """A port, and with it a private network, is for the settings to open."""
    (tmp_path / "t.csv").write_text(TABLE)
    with pytest.raises(ConfigError, match="DARKROOM_IMAGE_HOSTS"):
        found("table", tmp_path / "t.csv", hosts=(host,))


@pytest.mark.parametrize(
    "value", [float("nan"), {}, [], (), 10**400, "9" * 400, "0000-00-00", b"\xff", "\ud800", True, -1, "1e999"]
)
def test_no_cell_can_raise(value: Any) -> None:
    """What cannot be read is nothing; all text can be stored."""
    for read in (cells.integer, cells.moment, cells.split_tag):
        read(value)
    degrees(value, 90)
    pa.array([cells.text(value), *cells.tags(value)], pa.string()).validate(full=True)
