"""What the dedup stage finds again of changed copies, and what it takes for the same that is not.

    python tests/bench/duplicates.py DIR          # a folder of different photographs; ten minutes for 200

Every photograph, shrunk to a long side of 1,280 px, meets a changed copy of itself; then pairs that look alike and are
not the same. What counts as the same: the same exposure, whatever was done to the file, as long as one picture lies
within the other. Not the same: another moment, that is a framing that moved by 8 % of a side or more, or a subject of
at least 12 % of the width that moved by its own width or more and stands out from what it covers by 50 grey levels.

Prints Markdown: found of each change with a Wilson 95 % interval, near-misses, and what other thresholds would do.
"""

import argparse
import io
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
from acquire.table import markdown
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tasks.dedup import DedupRules
from tasks.duplicates.copies import Matches, agreements, matches, photos_of
from tasks.duplicates.registering import SAME, Agreement, Bar
from tasks.measure import measure_photo
from tasks.pictures.hashing import frames
from tasks.sources.standin.camera import Lens, render

Change = Callable[[Image.Image], Image.Image]
Pair = tuple[Image.Image, Image.Image]
QUALITY = 90
NO_MATCH = Matches(*(np.empty(0, np.intp) for _ in range(3)), np.empty(0, np.uint16))


def cut(left: float, right: float, top: float, bottom: float) -> Change:
    """Cuts these shares of the sides away."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop((
            round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height),
        ))  # fmt: skip

    return change


def cut_anywhere(share: float) -> Change:
    """Keeps all but ``share`` of each side, at a place that depends on the picture."""

    def change(image: Image.Image) -> Image.Image:
        x, y = np.random.default_rng(np.asarray(image)[::40, ::40].ravel()).uniform(0, share, 2)
        return cut(x, share - x, y, share - y)(image)

    return change


def framed(share: float, colour: str) -> Change:
    """A frame of ``share`` of the short side."""
    return lambda image: ImageOps.expand(image, border=max(1, round(min(image.size) * share)), fill=colour)


def signed(image: Image.Image) -> Image.Image:
    """White words across the lower right corner."""
    marked = image.copy()
    place = (image.width * 0.6, image.height * 0.9)
    ImageDraw.Draw(marked).text(place, "(c) Ann Example", fill="white", font_size=max(12, image.height / 20))
    return marked


def stamped(image: Image.Image) -> Image.Image:
    """Large translucent words across the middle."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    place, colour = (image.width * 0.1, image.height * 0.4), (255, 255, 255, 110)
    ImageDraw.Draw(layer).text(place, "SAMPLE PHOTO", fill=colour, font_size=image.width / 9)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def curve(gamma: float) -> Change:
    """A tone curve."""
    return lambda image: image.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)


CHANGES: dict[str, Change] = {
    "re-encoded, quality 50": lambda image: reopened(image, 50),
    "re-encoded, quality 30": lambda image: reopened(image, 30),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "quarter size": lambda image: image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS),
    "tone: gamma 1.6": curve(1.6),
    "tone: gamma 0.6": curve(0.6),
    "tone: brightness x 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "tone: contrast x 1.4": lambda image: ImageEnhance.Contrast(image).enhance(1.4),
    "tone: without colour": lambda image: image.convert("L").convert("RGB"),
    "watermark in a corner": signed,
    "watermark across": stamped,
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "crop of 2 %": cut(0.01, 0.01, 0.01, 0.01),
    "crop of 2 %, anywhere": cut_anywhere(0.02),
    "crop of 5 %": cut(0.025, 0.025, 0.025, 0.025),
    "crop of 5 %, anywhere": cut_anywhere(0.05),
    "crop of 5 % at one side": cut(0.05, 0, 0, 0),
    "crop of 5 % at each side": cut(0.05, 0.05, 0.05, 0.05),
    "border of 2 %, white": framed(0.02, "white"),
    "border of 4 %, white": framed(0.04, "white"),
    "border of 8 %, white": framed(0.08, "white"),
    "border of 2 %, black": framed(0.02, "black"),
    "border of 4 %, black": framed(0.04, "black"),
    "border of 8 %, black": framed(0.08, "black"),
    "border of 4 %, grey": framed(0.04, "grey"),
    "mirrored, crop of 5 %, half size": lambda image: ImageOps.mirror(CHANGES["half size"](cut(*[0.025] * 4)(image))),
    "no claim: crop of 10 %, anywhere": cut_anywhere(0.1),
    "no claim: turned by 1 degree": lambda image: image.rotate(1, Image.Resampling.BICUBIC),
    "no claim: turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
}


def moved_subject(images: list[Image.Image], at: int, share: float) -> Pair:
    """Two frames between which a disc of ``share`` of the width went aside by its width or more; both have noise.

    The disc is a piece of another photograph, 50 grey levels darker (or lighter) than what it covers at both places.
    """
    image, other, rng = images[at], images[(at + len(images) // 4) % len(images)], np.random.default_rng(at)
    scene, size = np.asarray(image, np.float64), round(share * image.width)
    size = min(size, image.height)
    step = max(size, round(0.12 * image.width))
    left, top = rng.integers(0, image.width - size - step + 1), rng.integers(0, image.height - size + 1)
    covered = [scene[top : top + size, x : x + size].mean() for x in (left, left + step)]
    piece = np.asarray(ImageOps.fit(other, (size, size)), np.float64)
    level = min(covered) - 50 if min(covered) > 100 else max(covered) + 50
    piece = (piece - piece.mean()) * 0.5 + level
    disc = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) <= size / 2
    frames = []
    for x in (left, left + step):
        frame = scene.copy()
        frame[top : top + size, x : x + size][disc] = piece[disc]
        noisy = frame + rng.normal(0, 3, frame.shape[:2])[..., None]
        frames.append(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))
    return frames[0], frames[1]


def fractal(rng: np.random.Generator, slope: float, height: int = 400, width: int = 600) -> np.ndarray:
    """A texture whose amplitude falls with frequency to the power of ``slope``; standard deviation 1."""
    waves = np.fft.rfft2(rng.normal(size=(height, width)))
    frequency = np.hypot(np.fft.rfftfreq(width)[None] * width / height, np.fft.fftfreq(height)[:, None]) + 1e-3
    texture = np.fft.irfft2(waves / frequency**slope, (height, width))
    return texture / texture.std()


def sky(seed: int, clouds: float) -> Image.Image:
    """One gradient for all, other clouds for each seed; ``clouds``: grey levels."""
    down = np.linspace(0, 1, 400)[:, None, None]
    texture = fractal(np.random.default_rng(seed), 1.6)[..., None]
    return Image.fromarray(np.clip([90, 140, 210] + [90, 70, 30] * down + clouds * texture, 0, 255).astype(np.uint8))


def meadow(seed: int, slope: float) -> Image.Image:
    """One horizon and one light for all, other grass for each seed."""
    down = np.linspace(0, 1, 400)[:, None, None]
    grass = np.array([70, 120, 50]) * (0.7 + 0.6 * down) + 25 * fractal(np.random.default_rng(seed), slope)[..., None]
    above = np.clip(1 - 3 * down, 0, 1)
    return Image.fromarray(np.clip(above * [120, 170, 230] + (1 - above) * grass, 0, 255).astype(np.uint8))


def flat(seed: int) -> Image.Image:
    """Black, white, grey, fog: nothing to see, but for a light fall-off and noise of half a grey level."""
    rng = np.random.default_rng(seed)
    light = rng.choice([0, 255, 128, 40, 220]) + rng.uniform(-3, 3) * np.linspace(-1, 1, 600)[None, :, None]
    return Image.fromarray(np.clip(light + rng.normal(0, 0.5, (400, 600, 3)), 0, 255).astype(np.uint8))


def near_misses(images: list[Image.Image]) -> dict[str, list[Pair]]:
    """Pairs that are not the same, by what they are.

    Where the edges of a picture are of one colour, another framing is another border: such pairs are counted apart.
    """
    edged = [image for image in images if not frames(np.asarray(image.convert("L")))]
    plain = [image for image in images if frames(np.asarray(image.convert("L")))]
    pans = {
        share: [(cut(0, share, 0, 0)(each), cut(share, 0, 0, 0)(each)) for each in edged]
        for share in (0.05, 0.08, 0.12)
    }
    places, lens = range(len(images)), Lens()
    scenes = [Image.fromarray(render(seed, 600, 400, lens)) for seed in range(100)]
    return {
        "burst: framing moved by 8 %": pans[0.08],
        "burst: framing moved by 12 %": pans[0.12],
        "burst: framing moved by 5 %, both ways": [
            (cut(0, 0.05, 0, 0.05)(x), cut(0.05, 0, 0.05, 0)(x)) for x in edged
        ],
        "burst: subject of 12 % moved": [moved_subject(images, at, 0.12) for at in places],
        "burst: subject of 16 % moved": [moved_subject(images, at, 0.16) for at in places],
        "burst: subject of 20 % moved": [moved_subject(images, at, 0.20) for at in places],
        "panorama: halves that overlap by 40 %": [(cut(0, 0.3, 0, 0)(x), cut(0.3, 0, 0, 0)(x)) for x in edged],
        "same sky, other clouds": [
            (sky(2 * at, (2, 8)[at % 2]), sky(2 * at + 1, (2, 8)[at % 2])) for at in range(120)
        ],
        "same meadow, other grass": [
            (meadow(2 * at, (0.8, 1.3)[at % 2]), meadow(2 * at + 1, (0.8, 1.3)[at % 2])) for at in range(120)
        ],
        "same lens, other scene": list(zip(scenes[::2], scenes[1::2], strict=True)),
        "flat pictures": [(flat(2 * at), flat(2 * at + 1)) for at in range(100)],
        "no claim: framing moved by 5 %": pans[0.05],
        "no claim: framing moved by 8 %, plain edges": [(cut(0, 0.08, 0, 0)(x), cut(0.08, 0, 0, 0)(x)) for x in plain],
        "no claim: subject of 8 % moved": [moved_subject(images, at, 0.08) for at in places],
    }  # fmt: skip


def jpeg(image: Image.Image, quality: int = QUALITY) -> bytes:
    """``image`` as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def reopened(image: Image.Image, quality: int) -> Image.Image:
    """``image`` as it looks as a JPEG."""
    return Image.open(io.BytesIO(jpeg(image, quality))).convert("RGB")


def measured(images: list[Image.Image]) -> list[dict[str, object]]:
    """What dedup wants to know of ``images``."""
    found = [measure_photo(jpeg(image)) for image in images]
    return [{"phash_probes": each["phash_probes"], "thumbnail": each["thumbnail"]} for each in found]


@dataclass(frozen=True)
class Tried:
    """All matches among originals 0 .. size - 1 and their copies size .. 2 size - 1, and how well each agrees."""

    size: int
    first: np.ndarray
    second: np.ndarray
    bits: np.ndarray
    agreement: Agreement

    def counts(self, bar: Bar = SAME, bits: int = DedupRules().max_distance_bits) -> tuple[int, int]:
        """Copies that are linked to their originals, and links between others."""
        return self.links((self.bits <= bits) & self.agreement.reaches(bar))

    def links(self, holds: np.ndarray | slice = slice(None)) -> tuple[int, int]:
        """The same of the matches that hold; of all of them: what the search offers."""
        low, high = np.minimum(self.first[holds], self.second[holds]), np.maximum(self.first[holds], self.second[holds])
        linked = set(zip(low.tolist(), high.tolist(), strict=True))
        own = sum(second - first == self.size for first, second in linked)
        return own, len(linked) - own


def tried(originals: list[dict[str, object]], copies: list[dict[str, object]]) -> Tried:
    """What the search finds among both, each match with its agreement."""
    rows = [
        {"source": "b", "photo_id": f"{at:06}", "sha256": str(at), **row} for at, row in enumerate(originals + copies)
    ]
    photos = photos_of(pa.Table.from_pylist(rows))
    found = Matches.together([NO_MATCH, *matches(photos, DedupRules().max_distance_bits)])
    parts = [
        agreements(photos, found.part(places))
        for places in np.array_split(np.arange(len(found)), len(found) // 1024 + 1)
    ]
    agreement = Agreement(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return Tried(len(originals), photos.owners[found.views], photos.owners[found.anchors], found.distances, agreement)


def wilson(hits: int, trials: int) -> str:
    """The 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / trials
    middle, scale = share + z * z / (2 * trials), 1 + z * z / trials
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return f"{100 * abs(middle - reach) / scale:.1f} - {100 * (middle + reach) / scale:.1f}"


def thresholds(same: dict[str, Tried], different: dict[str, Tried]) -> list[list[str]]:
    """What each threshold, the others as they are, finds again of the claimed changes, and what it confuses."""
    bars = [
        *(("correlation", value, SAME._replace(min_correlation=value), None) for value in (0, 0.3, 0.5, 0.6, 0.7)),
        *(("moved", value, SAME._replace(max_moved=value), None) for value in (0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 99)),
        *(("clear: moved", value, SAME._replace(clear_moved=value), None) for value in (0.3, 0.4, 0.5, 0.6, 0.8)),
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


def main() -> None:
    """Print what is found again, what is confused, and the thresholds."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--every", type=int, default=1, help="photograph of the folder: 2 takes each second one")
    options.add_argument("--long-px", type=int, default=1280, help="of the photographs before they are changed")
    asked = options.parse_args()
    files = sorted(file for file in asked.folder.rglob("*") if file.suffix in {".jpg", ".png", ".webp"})[:: asked.every]
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(ImageOps.contain(image.convert("RGB"), (asked.long_px, asked.long_px)))
    originals, same, lines = measured(images), {}, []
    for name, change in CHANGES.items():
        same[name] = tried(originals, measured([change(image) for image in images]))
        own, others = same[name].counts()
        shares = [f"{own / len(images):.1%}", wilson(own, len(images))]
        lines.append([name, str(same[name].links()[0]), f"{own} of {len(images)}", *shares, str(others)])
        print(lines[-1], file=sys.stderr, flush=True)
    print(f"{len(images)} photographs\n")
    print(markdown(["change", "candidates", "found", "share", "95 %", "false pairs"], lines))
    different, lines = {}, []
    for name, pairs in near_misses(images).items():
        different[name] = tried(measured([first for first, _ in pairs]), measured([second for _, second in pairs]))
        confused, offered = sum(different[name].counts()), sum(different[name].links())
        lines.append(
            [name, str(len(pairs)), str(offered), str(confused), wilson(min(confused, len(pairs)), len(pairs))]
        )
        print(lines[-1], file=sys.stderr, flush=True)
    print()
    print(markdown(["near-miss", "pairs", "candidates", "taken for the same", "95 %"], lines))
    claimed = [{name: each for name, each in of.items() if not name.startswith("no claim")} for of in (same, different)]
    print()
    head = ["threshold", "value", "found, mean", "found, least", "false pairs", "near-misses confused"]
    print(markdown(head, thresholds(*claimed)))


if __name__ == "__main__":
    main()
