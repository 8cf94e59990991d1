"""A synthetic camera: a scene that tells nothing, photographed through a lens that tells where its centre is.

A scene is a sum of octaves of translucent leaves: every octave has the law of the one below, twice as large, and all
are shifted together by a random part of an octave. So a crop and the whole have the same law, whatever the size of the
crop: no horizon, no gravity, no composition, no smallest or largest thing that could be seen. Only the lens
(vignetting, lateral chromatic aberration) tells which part of the frame a crop shows; at strength 0 nothing does.
Opaque leaves, or a tone curve, would not do: the more octaves lie inside a pixel, the greyer they would make it, and
there is one more of them in a pixel of the whole than in one of its half.

Source: Mumford and Gidas, "Stochastic models for generic images", Quarterly of Applied Mathematics 59 (2001);
vignetting polynomial and colour scaling: the perturbations of Van Hoorick and Vondrick, "Dissecting Image Crops",
ICCV 2021.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageChops, ImageDraw

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Places = npt.NDArray[np.float64]

TILE_PX = 512
NOISE_SIGMA = 32.0  # of the stored tile, in grey levels; photos scale it down
MARGIN = 0.012  # scene beyond each border: a channel that is scaled inwards still finds pixels there
CHROMATIC_MAX = 0.0035  # a red and a blue frame differ by up to 0.7 % in size: 3 px each way in a 1620 px corner
COVERAGE = 0.3  # leaves over each point of the scene, per octave of their radius
CONTRAST = (20.0, 45.0)  # grey levels by which a leaf changes what lies under it, where it lets through e times less
LEAF_MAX = 8.0  # heights of the scene: radius of the largest leaves
LEAF_MIN_PX = 1.0  # of the scene, half an octave less or more: below what a packed frame resolves
DRAWN_MIN_PX = 12.0  # smaller leaves are too many to be drawn one by one: they are cut from a tile
SUPERSAMPLING = 4  # of that tile: a disc of one pixel has its exact area on average
STEP_BITS = 4  # of fixed point: a grey level has 2^4 steps
ZERO = 1 << 14  # in steps: half of what 15 bits hold
SHRINK = (1.8, 2.6)  # the scene is drawn smaller than the photo by this factor


@dataclass(frozen=True)
class Lens:
    """Strength of every cue, 0 (absent) to 1 (full). ``noise`` has no position: it only hides the others."""

    vignetting: float = 1.0
    chromatic: float = 1.0
    noise: float = 1.0

    @classmethod
    def of_strength(cls, strength: float) -> "Lens":
        """Both positional cues at ``strength``, noise as usual."""
        return cls(vignetting=strength, chromatic=strength)


@dataclass(frozen=True)
class CameraFacts:
    """What the EXIF block says; ``taken_at`` None leaves the date out."""

    make: str = ""
    model: str = ""
    taken_at: datetime | None = None
    orientation: int = 1
    software: str = ""


def render(seed: int, width: int, height: int, lens: Lens) -> Pixels:
    """The photo of scene ``seed``, (height, width, 3) RGB. Same arguments, same pixels."""
    rng = np.random.default_rng(seed)
    scene_width, scene_height = _scene_size(rng, width, height)
    leaves = _pile_leaves(rng, scene_width, scene_height)
    gain = _texture(rng, leaves[..., 3]) * _light(rng, scene_width, scene_height)
    gain *= vignetting_gain(scene_width, scene_height, float(lens.vignetting * rng.uniform(0.6, 1.0)))
    scene = np.clip(leaves[..., :3] * gain[..., None], 0, 255).astype(np.uint8)
    return _add_noise(rng, _refract(rng, scene, width, height, lens.chromatic), lens.noise)


def _scene_size(rng: np.random.Generator, width: int, height: int) -> tuple[int, int]:
    """Scenes are drawn smaller than the photo: fast, and no packed frame resolves the difference."""
    shrink = rng.uniform(*SHRINK)
    return math.ceil(width * (1 + 2 * MARGIN) / shrink), math.ceil(height * (1 + 2 * MARGIN) / shrink)


def _pile_leaves(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """(height, width, 4) RGB and roughness: every leaf adds numbers of its own to what lies under it.

    The four sums are fields of one integer, so that an octave costs one look-up and one addition a pixel.
    """
    palette, least_px = _palette(rng), LEAF_MIN_PX * 2 ** rng.uniform(-0.5, 0.5)
    mood = rng.uniform(85, 165) + np.append(rng.normal(0, 15, 3), 0)
    total = np.full((height, width), _pack(mood) + _pack(np.full(4, ZERO >> STEP_BITS)), "<i8")
    for octave in range(math.ceil(math.log2(LEAF_MAX * height / least_px))):
        leaf = _octave(rng, octave, least_px, width, height)
        tints = palette[rng.integers(0, len(palette), 256)] * rng.uniform(0.6, 1.25, (256, 1))
        tints[0] = 0  # where there is no leaf
        total += _pack(tints)[leaf]
    levels = total.view("<i2").reshape(height, width, 4)
    return np.asarray(np.clip((levels - ZERO) >> STEP_BITS, 0, 255), np.uint8)


def _pack(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(..., 4) grey levels as one integer each, 16 bits for each of the four; a sum of integers is a sum of each."""
    steps = np.rint(levels * (1 << STEP_BITS)).astype(np.int64)
    return np.asarray((steps << np.array([0, 16, 32, 48])).sum(-1))


def _octave(rng: np.random.Generator, octave: int, least_px: float, width: int, height: int) -> Pixels:
    """(height, width): number of the leaf on top, among those whose radius is 1 to 2 times 2^octave least_px, or 0."""
    if least_px * 2**octave >= DRAWN_MIN_PX:
        window = Image.new("L", (width, height))
        _draw(rng, window, *_scatter(rng, width, height, least_px * 2**octave))
        return np.asarray(window)
    top, left = rng.uniform(0, TILE_PX, 2)
    rows = (top + np.arange(height) * (LEAF_MIN_PX / least_px)).astype(np.intp) % TILE_PX
    columns = (left + np.arange(width) * (LEAF_MIN_PX / least_px)).astype(np.intp) % TILE_PX
    return np.asarray(_leaf_tile(octave)[rows][:, columns])


@lru_cache(maxsize=8)
def _leaf_tile(octave: int) -> Pixels:
    """(TILE_PX, TILE_PX) of the leaves of one octave for least_px = LEAF_MIN_PX, that repeats without a seam."""
    rng = np.random.default_rng([3, octave])
    least_px = LEAF_MIN_PX * 2**octave
    count = round(COVERAGE * TILE_PX**2 / _mean_area(least_px))
    place, radius = rng.uniform(0, TILE_PX, (2, count, 1)), _radii(rng, count, least_px)
    shift = TILE_PX * np.array([[-1, 0, 1]])
    tile = Image.new("L", (TILE_PX * SUPERSAMPLING, TILE_PX * SUPERSAMPLING))
    _draw(rng, tile, SUPERSAMPLING * radius, SUPERSAMPLING * (place[0] + shift), SUPERSAMPLING * (place[1] + shift))
    return np.asarray(tile)[::SUPERSAMPLING, ::SUPERSAMPLING].copy()


def _mean_area(least_px: float) -> float:
    """Of discs with the radii that ``_radii`` draws."""
    return 2 * math.pi * math.log(2) / 0.75 * least_px**2


def _radii(rng: np.random.Generator, count: int, least_px: float) -> npt.NDArray[np.float64]:
    """``count`` radii of density r^-3 from ``least_px`` to twice that: all parts of the octave cover the same area."""
    return np.asarray(least_px * (1 - 0.75 * rng.random(count)) ** -0.5)


def _scatter(rng: np.random.Generator, width: int, height: int, least_px: float) -> tuple[Places, Places, Places]:
    """Radius, x and y of the leaves of one octave that may touch the window: as many at its borders as inside."""
    margin_px = 2 * least_px
    area = (width + 2 * margin_px) * (height + 2 * margin_px)
    count = int(rng.poisson(COVERAGE * area / _mean_area(least_px)))
    x = rng.uniform(-margin_px, width + margin_px, count)
    y = rng.uniform(-margin_px, height + margin_px, count)
    return _radii(rng, count, least_px), x, y


def _draw(rng: np.random.Generator, image: Image.Image, radius: Places, x: Places, y: Places) -> None:
    """Discs and regular polygons with numbers from 1 to 255, the last one on top.

    ``x`` and ``y`` hold one place for each, or several side by side, (leaves, places): then at all pairs of them.
    """
    pen = ImageDraw.Draw(image)
    corners = rng.integers(2, 7, len(radius)).tolist()  # 2 stands for a disc
    turn = rng.uniform(0, 2 * math.pi, len(radius)).tolist()
    number = rng.integers(1, 256, len(radius)).tolist()
    for index, r in enumerate((radius - 0.5).tolist()):  # Pillow draws the pixels on the outline, too
        for left in np.atleast_1d(x[index]).tolist():
            for top in np.atleast_1d(y[index]).tolist():
                if not (-r < left < image.width + r and -r < top < image.height + r):
                    continue
                if corners[index] == 2:
                    pen.ellipse((left - r, top - r, left + r, top + r), fill=number[index])
                else:
                    pen.polygon(_corners(left, top, r, max(corners[index], 3), turn[index]), fill=number[index])


def _corners(x: float, y: float, r: float, count: int, turn: float) -> list[float]:
    """A regular polygon as a flat list x0, y0, x1, y1, ..."""
    step = 2 * math.pi / count
    angles = [turn + step * k for k in range(count)]
    return [v for a in angles for v in (x + r * math.cos(a), y + r * math.sin(a))]


def _palette(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(8, 4) grey levels that a leaf adds to red, green, blue and roughness: a few hues around one; their mean is 0."""
    hue = (rng.random() + rng.uniform(0.05, 0.5) * rng.standard_normal(8)) % 1.0
    saturation, value = rng.beta(2, 3, 8), rng.uniform(0.15, 1.0, 8)
    wheel = np.clip(np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    colour = np.log(value[:, None] * (1 - saturation[:, None] * (1 - wheel)))
    tints = np.column_stack([colour, rng.normal(0, 1, 8)])
    return np.asarray((tints - tints.mean(0)) * rng.uniform(*CONTRAST))


@lru_cache(maxsize=1)
def _fractal_tile() -> Floats:
    """(TILE_PX, TILE_PX) of 1/f noise that repeats without a seam, mean 0, deviation 1."""
    white = np.random.default_rng(1).standard_normal((TILE_PX, TILE_PX))
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None, :])
    frequency[0, 0] = np.inf
    tile = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(TILE_PX, TILE_PX))
    return np.asarray((tile - tile.mean()) / tile.std(), np.float32)


def _cut(tile: Floats, rng: np.random.Generator, width: int, height: int) -> Floats:
    """A window of the endless repetition of ``tile`` at a random place."""
    top, left = (int(v) for v in rng.integers(0, TILE_PX, 2))
    rows, columns = -(-(top + height) // TILE_PX), -(-(left + width) // TILE_PX)
    return np.tile(tile, (rows, columns))[top : top + height, left : left + width]


def _texture(rng: np.random.Generator, roughness: npt.NDArray[np.uint8]) -> Floats:
    """Gain of the fine structure: each leaf modulates the same 1/f field by its own roughness."""
    height, width = roughness.shape
    field = _cut(_fractal_tile(), rng, width, height)
    depth = np.float32(rng.uniform(0.1, 0.3) / 255)
    return np.asarray(np.float32(1) + roughness * depth * field, np.float32)


def _light(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Gain of uneven light: the same kind of field, larger, about exposure 1."""
    zoom = rng.uniform(2.0, 5.0)
    small = _cut(_fractal_tile(), rng, math.ceil(width / zoom), math.ceil(height / zoom))
    field = Image.fromarray(np.ascontiguousarray(small)).resize((width, height), Image.Resampling.BILINEAR)
    exposure, depth = rng.uniform(0.9, 1.5), rng.uniform(0.03, 0.12)
    return np.clip(exposure * (1 + depth * np.asarray(field)), 0, None).astype(np.float32)


def vignetting_gain(width: int, height: int, strength: float) -> Floats:
    """(height, width) gain 1 - strength + strength / (1 + 2.0625 r^2 + 8.75 r^4 + 0.0313 r^6).

    r = radius / half diagonal of the photo; the scene's margin lies beyond r = 1.
    """
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2)[:, None]
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None, :]
    half_diagonal = math.hypot(width, height) / 2 / (1 + 2 * MARGIN)
    r2 = (x * x + y * y) / np.float32(half_diagonal**2)
    gain = 1 / (1 + r2 * (2.0625 + r2 * (8.75 + r2 * 0.0313)))
    return np.asarray(1 - strength + strength * gain, np.float32)


def _refract(rng: np.random.Generator, scene: Pixels, width: int, height: int, chromatic: float) -> Image.Image:
    """The scene at the photo's size, red a little larger and blue a little smaller about the common centre."""
    shift = rng.uniform(0.5, 1.0, 2) * CHROMATIC_MAX * chromatic
    scales = (1 + shift[0], 1.0, 1 - shift[1])
    scene_height, scene_width = scene.shape[:2]
    planes = []
    for plane, scale in zip(Image.fromarray(scene).split(), scales, strict=True):
        half_width = scene_width / 2 / (1 + 2 * MARGIN) / scale
        half_height = scene_height / 2 / (1 + 2 * MARGIN) / scale
        box = (
            scene_width / 2 - half_width,
            scene_height / 2 - half_height,
            scene_width / 2 + half_width,
            scene_height / 2 + half_height,
        )
        planes.append(plane.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return Image.merge("RGB", planes)


@lru_cache(maxsize=1)
def _noise_tile() -> Image.Image:
    """RGB of white noise about 128, TILE_PX wide and high."""
    noise = np.random.default_rng(2).normal(128, NOISE_SIGMA, (TILE_PX, TILE_PX, 3))
    return Image.fromarray(np.clip(np.rint(noise), 0, 255).astype(np.uint8))


def _add_noise(rng: np.random.Generator, image: Image.Image, strength: float) -> Pixels:
    """Sensor noise of 1 to 6 grey levels; so wide a range that its level after resizing says little about the scale."""
    sigma = strength * float(np.exp(rng.uniform(0, math.log(6))))
    scaled = [min(max(round(128 + (v - 128) * sigma / NOISE_SIGMA), 0), 255) for v in range(256)]
    tile, noise = _noise_tile().point(scaled * 3), Image.new("RGB", image.size)
    top, left = (int(v) for v in rng.integers(0, TILE_PX, 2))
    for y in range(-top, image.height, TILE_PX):
        for x in range(-left, image.width, TILE_PX):
            noise.paste(tile, (x, y))
    return np.asarray(ImageChops.add(image, noise, offset=-128))


def encode_jpeg(image: Pixels, facts: CameraFacts, quality: int = 88) -> bytes:
    """JPEG (4:2:0, 16 px blocks) with the EXIF block of ``facts``; grey if ``image`` has one channel."""
    is_grey = image.shape[2] == 1
    body = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image),
        quality=quality,
        colorspace="GRAY" if is_grey else "RGB",
        colorsubsampling="GRAY" if is_grey else "420",
    )
    exif = exif_block(facts)
    return bytes(body[:2]) + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + bytes(body[2:])


def exif_block(facts: CameraFacts) -> bytes:
    """``Exif\\0\\0`` and the TIFF structure, as it stands in an APP1 segment."""
    exif = Image.Exif()
    exif[0x0112] = facts.orientation
    for tag, text in ((0x010F, facts.make), (0x0110, facts.model), (0x0131, facts.software)):
        if text:
            exif[tag] = text
    if facts.taken_at is not None:
        stamp = facts.taken_at.strftime("%Y:%m:%d %H:%M:%S")
        exif[0x0132] = stamp
        exif.get_ifd(0x8769)[0x9003] = stamp
    return exif.tobytes()
