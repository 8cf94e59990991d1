"""How long white padding, plain grounds and contours take, and what they make of a folder of photos.

Run: ``python tests/bench/odd_pictures.py FOLDER [--sheet sheet.jpg] [--size 256]``. The sheet shows every photo whose
ground was found: as it is, without its ground (magenta here, so that white objects show), and its contours.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image

from tasks.pictures import imaging, odd_pictures
from tasks.pictures.imaging import Pixels

MAGENTA = (255, 0, 255)
COLUMNS = 4
ROUNDS = 3
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def framed(file: Path, size: int) -> Pixels:
    """The photo in ``file``, whole, no larger than size x size."""
    data = file.read_bytes()
    height, width = odd_pictures.inner_size(*imaging.stored_size(data), size, size, 1.0)
    return imaging.resize_area(imaging.decode_upright(data, 1, min_height=height, min_width=width), height, width)


def best_ms(work: Callable[[Pixels], object], pixels: Pixels) -> float:
    """The least time of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work(pixels)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def row(pixels: Pixels, size: int) -> Pixels | None:
    """A photo beside what becomes of it, size x 3 size; None if its ground was not found."""
    ground = odd_pictures.background(pixels)
    if ground is None:
        return None
    cut = np.where(ground[:, :, None], np.uint8(MAGENTA), pixels)
    shown = (pixels, cut, odd_pictures.contours(pixels))
    return np.hstack([odd_pictures.pad(picture, size, size) for picture in shown])


def main() -> None:
    """Measure, print a table, and draw the sheet if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    files = sorted(
        file for file in given.folder.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}
    )
    photos = [framed(file, given.size) for file in files]
    rows = [found for pixels in photos if (found := row(pixels, given.size)) is not None]
    print(f"{len(files)} photos of at most {given.size} px, a plain ground in {len(rows)} of them")
    for name, work in {
        "without_background": odd_pictures.without_background,
        "contours": odd_pictures.contours,
        "pad": lambda pixels: odd_pictures.pad(pixels, given.size, given.size),
    }.items():
        times = [best_ms(work, pixels) for pixels in photos]
        print(f"{name:<20} median {statistics.median(times):6.2f} ms, most {max(times):6.2f} ms")
    if given.sheet and rows:
        rows += [np.full_like(rows[0], 128)] * (-len(rows) % COLUMNS)
        lines = [np.hstack(rows[start : start + COLUMNS]) for start in range(0, len(rows), COLUMNS)]
        Image.fromarray(np.vstack(lines)).save(given.sheet)


if __name__ == "__main__":
    main()
