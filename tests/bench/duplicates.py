"""How many changed copies of real photographs the dedup stage finds, and how many different photographs it confuses.

Run: ``python tests/bench/duplicates.py DIR`` with a folder of different pictures. Prints a Markdown table.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tasks.dedup import DedupRules, duplicate_groups, photos_of
from tasks.measure import measure_photo

Change = Callable[[Image.Image], Image.Image]
QUALITY = 90


def crop(share: float) -> Change:
    """Cuts ``share`` of the picture away, half of it on each side."""
    return lambda image: ImageOps.crop(image, border=round(min(image.size) * share / 2))


def watermark(image: Image.Image) -> Image.Image:
    """White words across the lower right corner."""
    marked = image.copy()
    place = (image.width * 0.6, image.height * 0.9)
    ImageDraw.Draw(marked).text(place, "(c) Ann Example", fill="white", font_size=max(12, image.height / 20))
    return marked


CHANGES: dict[str, Change] = {
    "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "quarter size": lambda image: image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS),
    "gamma 1.6": lambda image: image.point([round(255 * (v / 255) ** 1.6) for v in range(256)] * 3),
    "brightness x 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "without colour": lambda image: image.convert("L").convert("RGB"),
    "watermark": watermark,
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "cropped by 2 %": crop(0.02),
    "cropped by 5 %": crop(0.05),
    "cropped by 10 %": crop(0.10),
    "framed": lambda image: ImageOps.expand(image, border=round(min(image.size) * 0.04), fill="white"),
}


def jpeg(image: Image.Image, quality: int = QUALITY) -> bytes:
    """``image`` as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def measured(pictures: list[bytes], first: int = 0) -> list[dict[str, Any]]:
    """What dedup wants to know of ``pictures``; the photo ids count from ``first``."""
    return [
        {"source": "bench", "photo_id": f"{number:06d}", "owner_id": "", "sha256": str(number), **measure_photo(data)}
        for number, data in enumerate(pictures, start=first)
    ]


def recall(originals: list[dict[str, Any]], changed: list[bytes]) -> tuple[float, int]:
    """Share of ``changed`` found in one group with its original, and groups that join different photographs."""
    size = len(originals)
    photos = photos_of(pa.Table.from_pylist([*originals, *measured(changed, size)]))
    groups = duplicate_groups(photos, DedupRules())
    found = sum({number, number + size} <= set(group) for group in groups for number in range(size))
    mixed = sum(len({number % size for number in group}) > 1 for group in groups)
    return found / size, mixed


def main() -> None:
    """Print recall and confusions for every change."""
    files = sorted(file for file in Path(sys.argv[1]).rglob("*") if file.suffix.lower() in {".jpg", ".png", ".webp"})
    images = [Image.open(file).convert("RGB") for file in files]
    originals = measured([file.read_bytes() for file in files])
    print(f"{len(files)} photographs\n\n| change | found | groups that join different photographs |\n|---|---|---|")
    for name, changed in [("JPEG quality 50", [jpeg(image, 50) for image in images])] + [
        (name, [jpeg(change(image)) for image in images]) for name, change in CHANGES.items()
    ]:
        share, mixed = recall(originals, changed)
        print(f"| {name} | {share:.1%} | {mixed} |", flush=True)


if __name__ == "__main__":
    main()
