"""What the dedup stage finds again of changed copies, and what it takes for the same that is not.

    python tests/bench/duplicates.py DIR                # a folder of different photographs; ten minutes for 200
    python tests/bench/duplicates.py DIR --half tuned   # the half on which the thresholds were set; tries others

A hash of their names puts photographs into two halves: thresholds are set on the one, figures are published of the
other. Every photograph, shrunk to a long side of 1,280 px, meets a changed copy of itself; then pairs that look alike
and are not the same. Marks are also laid on invented scenes of low contrast. What counts as the same: the same
exposure, whatever was done to the file, as long as one picture lies within the other. Not the same: another moment,
that is a framing that moved by 8 % of a side or more, a subject of at least 12 % of the width that moved by its own
width or more, or one of at least 16 % that came, went or changed into another, if it stands out by 50 grey levels.

Prints Markdown: found of each change with a Wilson 95 % interval, near-misses, and what other thresholds would do.
"""

import argparse
import hashlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
from acquire.table import markdown
from altered_pictures import CHANGES, MARKS, Change, jpeg, near_misses
from PIL import Image, ImageOps

from tasks.dedup import DedupRules
from tasks.duplicates.copies import Looks, Matches, Photos, agreements, matches, photos_of
from tasks.duplicates.registering import SAME, Agreement, Bar
from tasks.measure import measure_photo
from tasks.pictures import imaging
from tasks.sources.standin.camera import Lens, render

NO_MATCH = Matches(*(np.empty(0, np.intp) for _ in range(3)), np.empty(0, np.uint16))


def measured(images: list[Image.Image]) -> list[dict[str, object]]:
    """What dedup wants to know of ``images``."""
    files = [jpeg(image) for image in images]
    return [measure_photo(data) | {"picture": imaging.to_grey(imaging.decode_measured(data, 1))} for data in files]


@dataclass(frozen=True)
class Tried:
    """All matches among originals 0 .. size - 1 and their copies size .. 2 size - 1, and how well each agrees."""

    size: int
    photos: Photos
    found: Matches
    agreement: Agreement
    looks: Looks

    def counts(self, bar: Bar = SAME, bits: int = DedupRules().max_distance_bits) -> tuple[int, int]:
        """Copies that are linked to their originals, and links between others."""
        holds = self.looks.holding(self.found, self.agreement, bar)
        return self.links(holds & (self.found.distances <= bits))

    def links(self, holds: np.ndarray | slice = slice(None)) -> tuple[int, int]:
        """The same of the matches that hold; of all of them: what the search offers."""
        both = np.stack([self.photos.owners[self.found.views], self.photos.owners[self.found.anchors]])[:, holds]
        low, high = both.min(axis=0), both.max(axis=0)
        linked = set(zip(low.tolist(), high.tolist(), strict=True))
        own = sum(second - first == self.size for first, second in linked)
        return own, len(linked) - own


def tried(originals: list[dict[str, object]], copies: list[dict[str, object]]) -> Tried:
    """What the search finds among both, each match with its agreement."""
    rows = [
        {"source": "b", "photo_id": f"{at:06}", "sha256": str(at), **row} for at, row in enumerate(originals + copies)
    ]
    pictures = [row.pop("picture") for row in rows]
    names = ["source", "photo_id", "sha256", "phash_probes", "thumbnail"]
    photos = photos_of(
        pa.Table.from_pylist([{name: row[name] for name in names} for row in rows]), pictures.__getitem__
    )
    found = Matches.together([NO_MATCH, *matches(photos, DedupRules().max_distance_bits)])
    parts = [
        agreements(photos, found.part(places))
        for places in np.array_split(np.arange(len(found)), len(found) // 1024 + 1)
    ]
    agreement = Agreement(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return Tried(len(originals), photos, found, agreement, Looks(photos))


def wilson(hits: int, trials: int) -> str:
    """The 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / trials
    middle, scale = share + z * z / (2 * trials), 1 + z * z / trials
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return f"{100 * abs(middle - reach) / scale:.1f} - {100 * (middle + reach) / scale:.1f}"


def thresholds(same: dict[str, Tried], different: dict[str, Tried]) -> list[list[str]]:
    """What each threshold, the others as they are, finds again of the claimed changes, and what it confuses."""
    bars = [
        *(("correlation", value, SAME._replace(min_correlation=value), None) for value in (0, 0.4, 0.5, 0.55, 0.6)),
        *(("moved", value, SAME._replace(max_moved=value), None) for value in (0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 99)),
        *(("plain", value, SAME._replace(plain=value), None) for value in (0, 0.3, 0.5, 0.8, 1.0, 1.5, math.inf)),
        *(("clear: moved", value, SAME._replace(clear_moved=value), None) for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.8)),
        *(("outside", value, SAME._replace(max_outside=value), None) for value in (0.01, 0.02, 0.035, 0.05, 0.08, 9)),
        *(("bits of sketches", bits, SAME, bits) for bits in (1, 3, 5, 6, 7)),
    ]  # fmt: skip
    lines = []
    for name, value, bar, bits in bars:
        limit = DedupRules().max_distance_bits if bits is None else bits
        found = {change: each.counts(bar, limit)[0] / each.size for change, each in same.items()}
        least = min(found, key=lambda change: found[change])
        false = sum(each.counts(bar, limit)[1] for each in same.values())
        confused = sum(sum(each.counts(bar, limit)) for each in different.values())
        mean = sum(found.values()) / len(found)
        lines.append([name, f"{value:g}", f"{mean:.2%}", f"{found[least]:.1%} ({least})", str(false), str(confused)])
    return lines


def is_tuned(name: str) -> bool:
    """Whether a photograph of this file name is one of those on which thresholds are set."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0


def photographs(folder: Path, half: str, every: int, long_px: int) -> list[Image.Image]:
    """Those of ``folder`` that belong to ``half``, shrunk."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in {".jpg", ".png", ".webp"}]
    images = []
    for file in [file for file in files if half == "all" or is_tuned(file.name) == (half == "tuned")][::every]:
        with Image.open(file) as image:
            images.append(ImageOps.contain(image.convert("RGB"), (long_px, long_px)))
    return images


def found_again(images: list[Image.Image], changes: dict[str, Change]) -> dict[str, Tried]:
    """Each change tried on all of ``images``; prints a table."""
    originals, same, lines = measured(images), {}, []
    for name, change in changes.items():
        same[name] = tried(originals, measured([change(image) for image in images]))
        own, others = same[name].counts()
        shares = [f"{own / len(images):.1%}", wilson(own, len(images))]
        lines.append([name, str(same[name].links()[0]), f"{own} of {len(images)}", *shares, str(others)])
        print(lines[-1], file=sys.stderr, flush=True)
    print(markdown(["change", "candidates", "found", "share", "95 %", "false pairs"], lines) + "\n", flush=True)
    return same


def kept_apart(images: list[Image.Image]) -> dict[str, Tried]:
    """All near-misses made of ``images``; prints a table."""
    different, lines = {}, []
    for name, pairs in near_misses(images).items():
        different[name] = tried(measured([first for first, _ in pairs]), measured([second for _, second in pairs]))
        confused, offered = sum(different[name].counts()), sum(different[name].links())
        interval = wilson(min(confused, len(pairs)), len(pairs))
        lines.append([name, str(len(pairs)), str(offered), str(confused), interval])
        print(lines[-1], file=sys.stderr, flush=True)
    print(markdown(["near-miss", "pairs", "candidates", "taken for the same", "95 %"], lines) + "\n", flush=True)
    return different


def main() -> None:
    """Print what is found again, what is confused, and the thresholds."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--half", choices=["published", "tuned", "all"], default="published")
    options.add_argument("--every", type=int, default=1, help="photograph of these: 2 takes each second one")
    options.add_argument("--long-px", type=int, default=1280, help="of the photographs before they are changed")
    options.add_argument("--scenes", type=int, default=150, help="invented, that get marks")
    asked = options.parse_args()
    images = photographs(asked.folder, asked.half, asked.every, asked.long_px)
    print(f"{len(images)} photographs, {asked.half}\n")
    same, different = found_again(images, CHANGES), kept_apart(images)
    first = 0 if asked.half == "tuned" else 10_000
    print(f"{asked.scenes} invented scenes\n")
    found_again([Image.fromarray(render(first + at, 600, 400, Lens())) for at in range(asked.scenes)], MARKS)
    if asked.half != "published":
        claimed = [
            {name: each for name, each in of.items() if not name.startswith("no claim")} for of in (same, different)
        ]
        head = ["threshold", "value", "found, mean", "found, least", "false pairs", "near-misses confused"]
        print(markdown(head, thresholds(*claimed)))


if __name__ == "__main__":
    main()
