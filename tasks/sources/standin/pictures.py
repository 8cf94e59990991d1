"""The bytes behind a photo: rendered, altered, encoded, spoilt or read from a folder, and its smaller sizes.

A ``Picture`` holds everything that determines the bytes, so equal pictures are equal files (an exact repost is one
picture with two owners), and any photo can be made on its own, in any order, by any process.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from tasks.sources.standin.camera import CameraFacts, Lens, Pixels, encode_jpeg, exif_block, render
from tasks.sources.standin.defects import spoil

JPEG_QUALITY = 88
REENCODED_QUALITY = 55
RENDITION_QUALITY = 85
TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}


@dataclass(frozen=True)
class Scene:
    """What stood before the camera: a seed and the size of the photo that was first taken of it."""

    seed: int
    width: int
    height: int
    lens: Lens = field(default_factory=Lens)


@dataclass(frozen=True)
class Picture:
    """One original file. ``width`` and ``height`` are those of the stored pixels, before ``camera.orientation``.

    ``alteration`` names what was done to the scene's first photo (a key of ``ALTERATIONS``); ``defect`` what is wrong
    with the bytes (a key of ``defects.DEFECTS``); ``path`` a file that is served as it is.
    """

    width: int
    height: int
    format: str = "jpg"
    scene: Scene | None = None
    alteration: str | None = None
    defect: str | None = None
    camera: CameraFacts = field(default_factory=CameraFacts)
    path: Path | None = None

    @property
    def shown_size(self) -> tuple[int, int]:
        """(width, height) once upright."""
        return (self.height, self.width) if self.camera.orientation >= 5 else (self.width, self.height)


def _resize(image: Pixels, picture: Picture) -> Pixels:
    """``image`` at the picture's size."""
    size = (picture.width, picture.height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _watermark(image: Pixels, picture: Picture) -> Pixels:
    """A light plate with dark bars in the lower right corner, 1/5 of each side."""
    marked = image.copy()
    plate = marked[-(picture.height // 5) :, -(picture.width // 5) :]
    plate[:] = plate // 3 + 170
    plate[:, :: max(picture.width // 60, 2)] = 20
    return marked


def _brighten(image: Pixels, picture: Picture) -> Pixels:
    """A gain of 1.2 and a lift of 12 grey levels."""
    return np.asarray(np.clip(image * np.float32(1.2) + 12, 0, 255), np.uint8)


def _grey(image: Pixels, picture: Picture) -> Pixels:
    """(H, W, 1) luminance."""
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


ALTERATIONS: dict[str, Callable[[Pixels, Picture], Pixels]] = {
    "reencoded": lambda image, picture: image,
    "resized": _resize,
    "turned": lambda image, picture: np.rot90(image),
    "mirrored": lambda image, picture: image[:, ::-1],
    "watermarked": _watermark,
    "brighter": _brighten,
    "grey": _grey,
}


@lru_cache(maxsize=96)
def original_bytes(picture: Picture) -> bytes:
    """The original file, spoilt if the picture has a defect."""
    if picture.path is not None:
        return picture.path.read_bytes()
    return spoil(picture.defect, _encode(picture, _pixels(picture)))


def _pixels(picture: Picture) -> Pixels:
    """(height, width, 3 or 1) as stored in the original."""
    scene = picture.scene
    if scene is None:
        raise ValueError(f"picture has neither a scene nor a path: {picture!r}")
    image = render(scene.seed, scene.width, scene.height, scene.lens)
    alter = ALTERATIONS.get(picture.alteration or "")
    return image if alter is None else alter(image, picture)


def _encode(picture: Picture, image: Pixels) -> bytes:
    """``image`` in the picture's format; every format carries the EXIF block."""
    if picture.format == "jpg":
        quality = REENCODED_QUALITY if picture.alteration == "reencoded" else JPEG_QUALITY
        return encode_jpeg(image, picture.camera, quality)
    exif, stream = exif_block(picture.camera), io.BytesIO()
    if picture.format == "png":
        Image.fromarray(image).save(stream, "PNG", compress_level=1, exif=exif)
    else:
        Image.fromarray(image).save(stream, "WEBP", quality=80, method=0, exif=exif)
    return stream.getvalue()


@lru_cache(maxsize=192)
def rendition_bytes(picture: Picture, width: int, height: int, is_square: bool) -> bytes:
    """An upright JPEG of (width, height) without EXIF; ``is_square`` cuts the middle. Defects show in every size.

    Undecodable files of a folder have no renditions: raises OSError.
    """
    sound = original_bytes(replace(picture, defect=None))
    image = ImageOps.exif_transpose(_decode(sound, width, height))
    if is_square:
        image = ImageOps.fit(image, (width, height))
    else:
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    body = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=RENDITION_QUALITY, colorsubsampling="420")
    return spoil(picture.defect, bytes(body))


def _decode(data: bytes, width: int, height: int) -> Image.Image:
    """RGB with its EXIF orientation still to apply; a JPEG is decoded at a scale that just holds the wanted size."""
    image = Image.open(io.BytesIO(data))
    long_px = max(width, height)
    image.draft("RGB", (long_px, long_px))
    return image.convert("RGB")
