"""A folder of everything that can be wrong with a file, through search, download, measure and rotate."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage import blobs, catalog, manifest
from storage.layout import Layout
from storage.records import MEASURE
from tasks.dataset import Dataset
from tasks.measure import measure
from tasks.pictures import imaging, lossless
from tasks.rotate import rotate
from tasks.sources.imports import files

Rows = dict[str, dict[str, Any]]
NAME = "bad-files"
MEASURED = {name for name, _ in MEASURE} - {"measure_reason"}


def picture(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """Clouds that are like no others."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def jpeg(seed: int, **options: Any) -> bytes:
    return saved(picture(seed), "JPEG", quality=90, **options)


def noting(orientation: Any) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def frames(seed: int, image_format: str, **options: Any) -> bytes:
    """Two pictures, one after the other."""
    return saved(picture(seed), image_format, save_all=True, append_images=[picture(seed + 1)], **options)


def png(width: int, height: int, *parts: tuple[bytes, bytes]) -> bytes:
    """A grey PNG that may lie about its size."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(lossless.png_chunk(*part) for part in [header, *parts, (b"IEND", b"")])


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header lies about its size."""
    data = jpeg(40)
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def with_exif(block: bytes) -> bytes:
    data = jpeg(zlib.crc32(block))
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + data[2:]


DEEP = np.arange(96 * 64, dtype=np.uint16).reshape(64, 96) * 10
ZEROS = zlib.compress(bytes(50_000_000), 9)
ENDLESS_IFD = b"II*\0\x08\0\0\0" + b"\1\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<I", 8)
# What each file ends as: a reason of the download, or None for a photo that is measured and turned.
FILES: dict[str, tuple[bytes, str | None]] = {
    "sound.jpg": (jpeg(1), None),
    "no bytes.jpg": (b"", "empty"),
    "cut in its data.jpg": (jpeg(2)[:-200], "truncated"),
    "cut in its header.jpg": (jpeg(3)[:100], "truncated"),
    "three bytes.jpg": (b"\xff\xd8\xff", "truncated"),
    "cut.png": (saved(picture(4), "PNG")[:-400], "truncated"),
    "cut.webp": (saved(picture(5), "WEBP")[:-60], "truncated"),
    "cut.gif": (saved(picture(6), "GIF")[:-400], "truncated"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "html"),
    "page.png": (b"\n\n<html>sign in</html>", "html"),
    "text.jpg": (b'{"stat": "fail", "code": 105}', "not_an_image"),
    "document.jpeg": (b"%PDF-1.7\n" + bytes(300), "not_an_image"),
    "archive.png": (b"PK\x03\x04" + bytes(300), "not_an_image"),
    "bitmap.bmp": (saved(picture(7), "BMP"), "not_an_image"),
    "really a png.jpg": (saved(picture(8), "PNG"), None),
    "really a jpeg.png": (jpeg(9), None),
    "without a suffix": (jpeg(10), None),
    "cmyk.jpg": (saved(picture(11).convert("CMYK"), "JPEG"), None),
    "grey.jpg": (saved(picture(12).convert("L"), "JPEG"), None),
    "progressive.jpg": (jpeg(13, progressive=True), None),
    "16 bits.png": (saved(Image.fromarray(DEEP), "PNG"), None),
    "one bit.png": (saved(picture(14).convert("1"), "PNG"), None),
    "palette.png": (saved(picture(15).quantize(16), "PNG", transparency=3), None),
    "alpha.webp": (saved(picture(16).convert("RGBA"), "WEBP", lossless=True), None),
    "moving.gif": (frames(17, "GIF"), None),
    "moving.webp": (frames(19, "WEBP", lossless=True), None),
    "moving.png": (frames(21, "PNG"), None),
    "two pictures.jpg": (frames(23, "MPO"), None),
    "bomb.png": (png(60_000, 60_000, (b"IDAT", ZEROS)), "too_many_pixels"),
    "bomb.jpg": (jpeg_of(65_000, 65_000), "too_many_pixels"),
    "bomb.gif": (b"GIF89a\xff\xff\xff\xff" + saved(picture(25), "GIF")[10:], "too_many_pixels"),
    "more rows than it says.png": (png(30, 20, (b"IDAT", ZEROS)), None),
    "text that unpacks to 50 MB.png": (png(30, 21, (b"zTXt", b"a\0\0" + ZEROS), (b"IDAT", ZEROS)), "corrupt"),
    "profile that unpacks to 50 MB.png": (png(30, 22, (b"iCCP", b"a\0\0" + ZEROS), (b"IDAT", ZEROS)), "corrupt"),
    "exif without an end.jpg": (with_exif(ENDLESS_IFD), None),
    "exif of noise.jpg": (with_exif(np.random.default_rng(0).bytes(900)), None),
    "exif that counts too far.jpg": (with_exif(b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 90), None),
    "orientation 77.jpg": (jpeg(26, exif=noting(77)), None),
    "lying.jpg": (jpeg(27, exif=noting(6)), None),
    "line\nbreak\r\n.jpg": (jpeg(28), None),
    "it's a \"quote\"; --.jpg": (jpeg(29), None),
    "😀 été 日本 %41 #7 ?x=1&y.jpg": (jpeg(30), None),
    "\u202egpj.exe.jpg": (jpeg(31), None),
    " leading, trailing .JPG": (jpeg(32), None),
    "x.jpg/inside a folder named like a photo.jpg": (jpeg(33), None),
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """All of FILES, and what is no file at all."""
    folder = tmp_path / "bad"
    for name, (body, _) in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    Path(os.fsdecode(os.fsencode(folder) + b"/latin \xe9.jpg")).write_bytes(jpeg(34))
    (folder / "empty.jpg").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "one.jpg").symlink_to(folder / "other.jpg")
    (folder / "other.jpg").symlink_to(folder / "one.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "nothing.jpg")
    (folder / "outside.jpg").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "locked.jpg").write_bytes(jpeg(35))
    return folder


OTHERS = {
    "latin \\xe9.jpg": None, "itself.jpg": "denied", "one.jpg": "denied", "other.jpg": "denied",
    "dangling.jpg": "gone", "outside.jpg": "denied", "locked.jpg": "denied",
}  # fmt: skip


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read, also for who may read everything."""
    opened = files.open_plain

    def refusing(path: str) -> Any:
        if path.endswith("locked.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path)

    monkeypatch.setattr(files, "open_plain", refusing)


def by_id(root: Layout, ref: Any) -> Rows:
    return {row["photo_id"]: row for row in manifest.read(root, ref).to_pylist()}


@pytest.mark.usefixtures("locked", "prefect_server")  # downloads look there for keys
def test_every_bad_file_is_a_row_with_a_reason_or_a_photo(
    own_root: Layout, refresh: Callable[[Dataset], None], tree: Path
) -> None:
    """None is lost, none stops the others; what is kept is measured whole, decodes, and stands upright."""
    query = {"path": str(tree), "label": "bad"}
    refresh(Dataset.model_validate({"name": NAME, "source": "folder", "queries": [query]}))
    found = {row["photo_id"]: row["download_reason"] for row in catalog.facts(own_root, NAME).to_pylist()}
    assert found == {name: reason for name, (_, reason) in FILES.items()} | OTHERS
    held = manifest.write(own_root, "held", catalog.held(own_root, NAME))
    kept = {name for name, reason in found.items() if reason is None}
    measured = measure.fn(held)
    rows = by_id(own_root, measured)
    assert set(rows) == kept
    assert {row["measure_reason"] for row in rows.values()} == {None}
    may_be_null = {"exif_make", "exif_model", "exif_software", "exif_taken", "quantisation", "ijg_quality",
                   "is_progressive"}  # fmt: skip
    assert all(row[name] is not None for row in rows.values() for name in MEASURED - may_be_null)
    turned = by_id(own_root, rotate.fn(measured, "landscape"))
    assert set(turned) == kept
    for name, row in turned.items():
        assert row["rotate_reason"] is None
        data = blobs.get(own_root, row["blob"], rows[name]["format"])
        shown = imaging.decode_upright(data, row["net_op"])
        assert shown.shape[0] <= shown.shape[1]
        upright = imaging.decode_upright(
            blobs.get(own_root, rows[name]["sha256"], rows[name]["format"]), rows[name]["exif_orientation"]
        )
        assert np.abs(shown.astype(int) - np.rot90(upright, row["landscape_turns"])).mean() < 1


def test_what_was_kept_and_breaks_later_is_a_row_with_a_reason(own_root: Layout) -> None:
    """A held file that an older rule let in is refused by measure, and passes rotate as a row without a blob."""
    bodies = {name: body for name, (body, reason) in FILES.items() if reason not in {None, "denied"}}
    held = [
        {"source": "folder", "photo_id": name, "sha256": blobs.put(own_root, body, "JPEG"), "format": "JPEG"}
        for name, body in bodies.items()
    ]
    measured = measure.fn(manifest.write_rows(own_root, "held", held))
    reasons = {name: row["measure_reason"] for name, row in by_id(own_root, measured).items()}
    assert reasons == {name: FILES[name][1] for name in bodies}
    turned = by_id(own_root, rotate.fn(measured, "landscape"))
    assert set(turned) == set(bodies)
    assert {row["blob"] for row in turned.values()} == {None}
